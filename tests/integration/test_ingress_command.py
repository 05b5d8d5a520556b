"""`numhub ingress`: what an operator sees of carriers' topics, and how one begins anew."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from hub.adapters.sql.ledger import open_ledger
from hub.adapters.system.clock import SystemClock
from hub.domain.parties import Party, Role
from hub.ports.ledger import IngressPositions
from tests.conftest import ROOT


def numhub(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hub.app.cli", "ingress", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


async def prepare(home: Path) -> None:
    directory, ledger = open_ledger(home / "ledger.db", SystemClock())
    for name in ("cmcc", "cucc"):
        await directory.put_party(Party(name, Role.carrier, name, datetime.now(UTC)))
    await ledger.move_ingress("cmcc", IngressPositions("topic-one", {0: 17, 1: 4}))
    await ledger.close()


def test_positions_are_shown_and_forgotten_on_order(tmp_path: Path) -> None:
    """Status names topic and offsets; restart forgets them once, and says so when there was nothing to forget."""
    home = tmp_path / "data"
    home.mkdir(mode=0o700)
    asyncio.run(prepare(home))
    shown = numhub("status", "--data", str(home))
    assert shown.returncode == 0, shown.stderr
    assert "topic-one" in shown.stdout and "0:17 1:4" in shown.stdout
    assert "answers not told yet: 0" in shown.stdout
    done = numhub("restart", "cmcc", "--data", str(home))
    assert done.returncode == 0 and "begins anew" in done.stdout
    assert "topic-one" not in numhub("status", "--data", str(home)).stdout
    again = numhub("restart", "cmcc", "--data", str(home))
    assert again.returncode == 1
    assert again.stderr.splitlines() == ["numhub: nothing of cmcc was ever taken in"]


def test_the_wrong_directory_is_told(tmp_path: Path) -> None:
    """One line, no new ledger."""
    told = numhub("status", "--data", str(tmp_path / "nowhere"))
    assert told.returncode == 1
    assert "there is no ledger" in told.stderr
    assert not (tmp_path / "nowhere").exists()
