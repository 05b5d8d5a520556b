"""deploy/Dockerfile, as far as it can be judged without an engine: linted, and held against the tree it copies."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hub.app.settings import Settings

ROOT = Path(__file__).parents[2]
FILE = ROOT / "deploy" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", FILE.read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [(line.split()[0], line.partition(" ")[2].strip()) for line in lines if line.strip()]


def of(word: str) -> list[str]:
    return [rest for first, rest in instructions() if first == word]


def test_the_linter_has_nothing_to_say() -> None:
    """hadolint, all rules; and it does speak up about a file that deserves it."""
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("hadolint has no binary for this machine")
    done = subprocess.run([hadolint, str(FILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    done = subprocess.run(
        [hadolint, "-"], input="FROM debian\nRUN cd /x\n", capture_output=True, text=True, check=False
    )
    assert done.returncode == 1


def test_it_runs_as_nobody_in_particular() -> None:
    """A numeric user, so that an orchestrator can tell that it is not root; /data is that user's."""
    assert of("USER") == ["10001:10001"]
    words = [word for word, _ in instructions()]
    assert words.index("USER") > len(words) - 1 - words[::-1].index("COPY")
    assert "--chown=10001:10001 /empty/data /data" in " ".join(of("COPY"))


def test_what_is_copied_exists_and_enters_the_build() -> None:
    """Each source of a COPY is there and is not kept out by the ignore file; nothing else is let in."""
    taken = [name for line in of("COPY") if "--from" not in line for name in line.split()[:-1]]
    assert taken and all((ROOT / name).exists() for name in taken)
    lines = (ROOT / "deploy" / "Dockerfile.dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(taken)


def test_the_package_is_installed_as_its_files_say() -> None:
    """Everything pyproject.toml refers to is in the build; the Python is one it allows; the base is named by a tag."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    taken = {name for line in of("COPY") if "--from" not in line for name in line.split()[:-1]}
    assert {project["readme"], *project["license-files"], "pyproject.toml", "hub"} <= taken
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*wheel["packages"], *wheel["force-include"]} <= taken
    assert "otel" in project["optional-dependencies"] and '".[otel]"' in of("RUN")[0]
    (python,) = of("ARG")
    version = python.removeprefix("PYTHON=")
    assert project["requires-python"] == ">=3.11" and tuple(map(int, version.split("."))) >= (3, 11)
    assert [line.split()[0] for line in of("FROM")] == ["python:${PYTHON}-slim-bookworm"] * 2
    assert of("ENTRYPOINT") == ['["numhub"]'] and "numhub" in project["scripts"]


def test_its_environment_is_made_of_settings() -> None:
    """No variable that the hub would refuse; it keeps its data where the volume is."""
    given = dict(re.findall(r"(NUMHUB_\w+)=(\S+)", of("ENV")[0]))
    assert set(given) <= {f"NUMHUB_{name.upper()}" for name in Settings.model_fields}
    assert of("VOLUME") == [f'["{given["NUMHUB_DATA_DIR"]}"]']
    assert str(Settings.model_fields["port"].default) in of("EXPOSE")[0]
