"""`.ci/install`: asks nobody when everything is there, installs exactly what is missing, and starts no servers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "install"


def stub(folder: Path, name: str, text: str = "exit 0") -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


class Machine:
    """A PATH on which only what a test puts there exists, besides the shell's own tools."""

    def __init__(self, folder: Path) -> None:
        self.bin, self.etc, self.asked = folder / "bin", folder / "etc", folder / "asked"
        self.bin.mkdir()
        self.policy = folder / "policy-rc.d"
        for tool in ("bash", "sed", "grep", "head", "mkdir", "rm", "chmod", "cat"):
            found = next(Path(place, tool) for place in ("/bin", "/usr/bin") if Path(place, tool).exists())
            (self.bin / tool).symlink_to(found)
        stub(self.bin, "id", "echo ${FAKE_UID:-0}")
        stub(
            self.bin,
            "apt-get",
            f'echo "$@" >> {self.asked}; [ -e {self.policy} ] && echo kept-quiet >> {self.asked}; :',
        )
        stub(self.bin, "apt-cache", "exit 0")

    def everything(self) -> None:
        for name in ("chromium", "redis-server", "mvn", "initdb", "python3"):
            stub(self.bin, name)
        stub(self.bin, "fc-list", "echo 'Noto Sans CJK SC'")
        stub(self.bin, "java", "echo 'openjdk version \"17.0.15\"' >&2")

    def install(self, **more: str) -> tuple[str, list[str]]:
        env = {"PATH": str(self.bin), "POLICY_RC_D": str(self.policy), "CREATECLUSTER_D": str(self.etc), **more}
        done = subprocess.run(
            ["/bin/bash", str(SCRIPT)], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=True
        )
        asked = self.asked.read_text().splitlines() if self.asked.exists() else []
        return done.stdout + done.stderr, asked


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    if not os.access("/bin/bash", os.X_OK):
        pytest.skip("no bash")
    return Machine(tmp_path)


def test_nothing_is_asked_when_all_is_there(machine: Machine) -> None:
    """Not even an update of the package lists."""
    machine.everything()
    said, asked = machine.install()
    assert asked == []
    assert "all installed" in said


def test_what_is_missing_is_installed_quietly(machine: Machine) -> None:
    """Only that; an old Java counts as none; no package starts a server, and the guard against it is removed again."""
    machine.everything()
    (machine.bin / "redis-server").unlink()
    stub(machine.bin, "java", "echo 'openjdk version \"11.0.2\"' >&2")
    said, asked = machine.install()
    assert asked[0] == "update -qq"
    assert asked[1].endswith("--no-install-recommends redis-server openjdk-17-jre-headless")
    assert asked[2] == "kept-quiet"
    assert "redis-server java" in said
    assert not machine.policy.exists()
    assert "create_main_cluster = false" in (machine.etc / "numhub-tests.conf").read_text()


def test_without_root_it_says_what_is_missing(machine: Machine) -> None:
    """And installs nothing: the tests themselves then say what they lack."""
    machine.everything()
    (machine.bin / "mvn").unlink()
    said, asked = machine.install(FAKE_UID="1000")
    assert asked == []
    assert "not mine to install" in said
    assert "maven" in said
