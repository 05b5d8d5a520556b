"""The installed command plays the mission with a hub that is killed on the way, and its words can be relied on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


def numhub(*arguments: str, within: float = 110) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(ROOT), str(ROOT / "clients/python/src")])
    return subprocess.run(
        [sys.executable, "-m", "hub.app.cli", *arguments],
        capture_output=True, text=True, timeout=within, env={**os.environ, "PYTHONPATH": path}, check=False,
    )  # fmt: skip


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
    import re

    _, told = played
    assert "agrees with the ground truth" in told
    assert "****" in told
    assert re.search(r"(?<!\d)1[3-9]\d{9}(?!\d)", told) is None


def test_an_unknown_file_ends_with_one_clear_line() -> None:
    """A mistake of the user is one line and exit code 1, no trace."""
    done = numhub("demo", "--file", "/no/such/file.csv")
    assert done.returncode == 1
    assert done.stderr.strip() == "numhub: there is no file /no/such/file.csv"
