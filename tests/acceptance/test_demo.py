"""The installed command plays the mission with a hub that is killed on the way, and its words can be relied on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


COMMAND = [sys.executable, "-m", "hub.app.cli"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "clients/python/src")])}


def numhub(*arguments: str, within: float = 110) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=within, env=ENVIRONMENT, check=False
    )


@pytest.fixture(scope="module")
def played() -> tuple[dict[str, Any], str]:
    done = numhub("demo", "--numbers", "1500", "--subscribers", "8", "--kills", "1", "--seed", "7", "--json")
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_a_killed_hub_loses_nothing_and_agrees_with_the_ground_truth(played: tuple[dict[str, Any], str]) -> None:
    """Every pair of (number, app) came, was answered, and is in the ledger as the ground truth says."""
    result, _ = played
    assert result["matches_ground_truth"] is True
    assert result["differences"] == []
    assert (result["lost"], result["kills"]) == (0, 1)
    assert result["pairs"] == result["numbers"]["accepted"] * result["subscribers"]
    assert sum(result["answers"].values()) == result["pairs"]
    assert result["renewals"] == {"requested": 20, "completed": 20}


def test_what_was_refused_adds_up(played: tuple[dict[str, Any], str]) -> None:
    """Accepted and refused rows are the published ones, and clearance judged each accepted number."""
    result, _ = played
    numbers = result["numbers"]
    assert numbers["published"] == numbers["accepted"] + numbers["refused"]
    assert sum(result["refused_by_reason"].values()) == numbers["refused"]
    assert sum(result["clearance"].values()) == numbers["accepted"]


def test_people_read_a_summary_without_any_full_number(played: tuple[dict[str, Any], str]) -> None:
    """The page for people stands on standard error with --json, with masked numbers only."""
    _, told = played
    assert "agrees with the ground truth" in told
    assert "****" in told
    assert re.search(r"(?<!\d)1[3-9]\d{9}(?!\d)", told) is None


def test_an_unknown_file_ends_with_one_clear_line() -> None:
    """A mistake of the user is one line and exit code 1, no trace."""
    done = numhub("demo", "--file", "/no/such/file.csv")
    assert done.returncode == 1
    assert done.stderr.strip() == "numhub: there is no file /no/such/file.csv"


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT, signal.SIGINT]], ids=["kill", "ctrl-c twice"])
def test_a_demo_that_is_interrupted_leaves_neither_a_process_nor_a_file(
    signals: list[signal.Signals], tmp_path: Path
) -> None:
    """Whoever loses patience, and loses it twice, gets one line back; the hub it had started is gone with its data."""
    demo = subprocess.Popen(
        [*COMMAND, "demo", "--numbers", "200", "--subscribers", "5", "--kills", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**ENVIRONMENT, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert demo.stdout is not None
    hub = 0
    for line in demo.stdout:
        if found := re.search(r"a hub runs at .* \(pid (\d+)\)", line):
            hub = int(found[1])
        if "subscribe" in line:
            break
    assert hub and _runs(hub)
    for each in signals:
        demo.send_signal(each)
        time.sleep(0.05)
    told, _ = demo.communicate(timeout=30)
    assert demo.returncode == 1
    assert told.splitlines()[-1] == "numhub: interrupted; everything the demo started was stopped"
    assert "Traceback" not in told
    assert not _runs(hub)
    assert not list(tmp_path.glob("numhub-demo-*"))


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
