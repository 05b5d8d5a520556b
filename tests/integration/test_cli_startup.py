"""Commands that cannot do their work say why in one line: wrong settings, wrong directory, damaged files."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from hub.adapters.sqlite.log_file import connect, prepare
from hub.app.cli.main import app

ROOT = Path(__file__).parents[2]


def in_process(*words: str, env: dict[str, str]) -> tuple[int, str]:
    """For what ends before anything is opened."""
    done = CliRunner().invoke(app, list(words), env=env)
    return done.exit_code, done.stderr


def alone(*words: str, env: dict[str, str]) -> tuple[int, str]:
    """As a process: what it had opened goes with it."""
    paths = os.pathsep.join([str(ROOT), str(ROOT / "clients/python/src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", "hub.app.cli", *words],
        env={**os.environ, "PYTHONPATH": paths, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stderr


WRONG: dict[str, tuple[list[str], dict[str, str], str]] = {
    "no number": (["serve"], {"NUMHUB_PORT": "abc"}, "port"),
    "misspelt": (["serve"], {"NUMHUB_PORRT": "1"}, "there is no setting NUMHUB_PORRT"),
    "misspelt in the file": (["serve", "--config", "odd.toml"], {}, "porrt: there is no such setting"),
    "no toml": (["serve", "--config", "no.toml"], {}, "no.toml is not a TOML file"),
    "no file": (["serve", "--config", "gone.toml"], {}, "gone.toml"),
    "open to the world": (["serve", "--host", "0.0.0.0"], {}, "public_url"),
    "other partitions": (["serve", "--data", "made", "--port", "0"], {"NUMHUB_PARTITIONS": "4"}, "8 partitions"),
    "rebuild with others": (["rebuild", "--data", "made"], {"NUMHUB_PARTITIONS": "4"}, "8 partitions"),
    "damaged ledger": (["serve", "--data", "junk", "--port", "0"], {}, "the ledger cannot be read"),
    "no directory": (
        ["party", "add", "x1", "--role", "operator", "--name", "X", "--sandbox", "--data", "no.toml"],
        {},
        "no.toml",
    ),
    "nothing there": (["party", "list", "--data", "elsewhere"], {}, "no ledger below elsewhere"),
    "nothing to rebuild": (["rebuild", "--data", "elsewhere"], {}, "no log below elsewhere"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("startup")
    (folder / "odd.toml").write_text("porrt = 1\n")
    (folder / "no.toml").write_text("port =\n")
    for name in ("made", "junk"):
        (folder / name).mkdir()
    connection = connect(folder / "made" / "log.db")
    prepare(connection, folder / "made" / "log.db", 8)
    connection.close()
    (folder / "junk" / "ledger.db").write_bytes(b"no database " * 500)
    return folder


OPENS_FILES = {"other partitions", "rebuild with others", "damaged ledger"}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_start_is_one_clear_line(place: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1 and one line that names the mistake; no trace, and no directory made where there was none."""
    words, env, hint = WRONG[name]
    monkeypatch.chdir(place)
    code, said = (alone if name in OPENS_FILES else in_process)(*words, env=env)
    assert code == 1, said
    assert said.startswith("numhub: ") and len(said.strip().splitlines()) == 1, said
    assert hint in said
    assert not (place / "elsewhere").exists()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    """The line says which address and what to do."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = alone("serve", "--data", str(tmp_path / "data"), "--port", str(port), env={})
    assert code == 1
    assert said.startswith(f"numhub: cannot listen on 127.0.0.1:{port}: ")
    assert len(said.strip().splitlines()) == 1
