"""Two hubs on one data directory would fold into one index: the second is refused in one line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hub.adapters.columns.index import ColumnIndex
from hub.adapters.sqlite.log import SqliteLog

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["rebuild"]], ids=lambda words: words[0])
async def test_a_directory_in_use_is_left_alone(tmp_path: Path, command: list[str]) -> None:
    """Exit code 1 and a sentence that names what is held; no trace, and the index is still there."""
    log = SqliteLog(tmp_path / "log.db", 8)
    index = ColumnIndex(tmp_path / "index", 8, log.log_id)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "hub.app.cli", *command, "--data", str(tmp_path)],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    finally:
        index.close()
        await log.close()
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path) in done.stderr.replace("\n", "")
    assert (tmp_path / "index").is_dir()
