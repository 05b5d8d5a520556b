"""`numhub dev`: three real services in one command, found again, restarted where one died, ended and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import redis

from hub.app.local import LocalUnavailable
from hub.app.local.dev import Dev, Running, State
from hub.app.local.jars import java, kafka_jars
from hub.app.local.postgres import LocalPostgres
from tests.conftest import missing

pytestmark = pytest.mark.timeout(400)


def numhub(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "hub.app.cli", *arguments],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "COLUMNS": "200"},
    )


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    try:
        java()
        kafka_jars()
        LocalPostgres(tmp_path / "unused")
    except LocalUnavailable as error:
        missing("kafka", str(error))
    yield tmp_path / "dev"
    Dev(tmp_path / "dev", lambda line: None).down()


def ended_already(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.slow
def test_services_come_up_are_found_mended_and_go_down(folder: Path) -> None:
    """`up` prints settings a shell can take over and leaves what runs alone; what died is started again on its port;
    `down` ends all of it and `--erase` removes the data."""
    at = ("--folder", str(folder))
    first = numhub("dev", "up", *at)
    assert first.returncode == 0, first.stderr
    names = [line.split("=")[0] for line in first.stdout.splitlines()]
    assert names == [f"export NUMHUB_{name}" for name in ("KAFKA_BOOTSTRAP", "LEDGER_URL", "REDIS_URL")]
    script = f'{first.stdout}\nprintf "%s" "$NUMHUB_REDIS_URL"'
    url = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True).stdout
    with redis.Redis.from_url(url) as client:
        assert client.ping()
    assert "Kafka broker 1 started" in first.stderr
    shown = numhub("dev", "status", *at)
    assert shown.returncode == 0
    assert shown.stdout.count("running") == 3
    assert "redis://" not in shown.stdout  # no password

    state = Dev(folder, print).state()
    assert state is not None
    assert (folder / "dev.json").stat().st_mode & 0o077 == 0
    pids = {one.name: one.pid for one in state.processes}
    psutil.Process(pids["Redis"]).kill()
    shown = numhub("dev", "status", *at)
    assert shown.returncode == 1
    assert "ended by itself" in shown.stdout
    again = numhub("dev", "up", *at)
    assert again.stdout == first.stdout
    assert "PostgreSQL runs already" in again.stderr
    mended = Dev(folder, print).state()
    assert mended is not None
    after = {one.name: one.pid for one in mended.processes}
    assert after.pop("Redis") != pids.pop("Redis")
    assert after == pids

    assert numhub("dev", "up", *at, "--brokers", "3").returncode == 1
    ended = numhub("dev", "down", *at, "--erase")
    assert ended.returncode == 0
    assert ended.stderr.count("stopped") == 3
    assert all(map(ended_already, after.values()))
    assert list(folder.iterdir()) == []
    assert numhub("dev", "status", *at).returncode == 1


def test_down_never_touches_a_pid_that_is_somebody_elses(tmp_path: Path) -> None:
    """A recorded pid with another beginning is another process."""
    stranger = subprocess.Popen(["sleep", "60"])
    try:
        one = Running("Redis", stranger.pid, "1", 15, "")
        dev = Dev(tmp_path, lambda line: None)
        dev._keep(State(1, {"redis": [1], "postgresql": [2], "kafka": [3, 4]}, [one], {}))
        assert dev.down() == []
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_damaged_state_file_is_said_in_one_line(tmp_path: Path) -> None:
    """Not with a trace."""
    (tmp_path / "dev.json").write_text(json.dumps({"brokers": 1}))
    for command in ("status", "down"):
        said = numhub("dev", command, "--folder", str(tmp_path))
        assert said.returncode == 1
        assert "dev.json cannot be read" in said.stderr
        assert "Traceback" not in said.stderr


def test_two_brokers_are_refused(tmp_path: Path) -> None:
    """Two cannot agree when one is gone."""
    said = numhub("dev", "up", "--folder", str(tmp_path), "--brokers", "2")
    assert said.returncode == 1
    assert "1 or 3" in said.stderr
