"""A ledger beside another log, or beside an older state of its own, is noticed before anything moves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.adapters.sql.ledger import SqlLedger, open_ledger
from hub.adapters.sqlite.log import SqliteLog
from hub.adapters.system.clock import SystemClock
from hub.domain.errors import LogReplaced
from hub.domain.events import Lane
from hub.flow import matching
from hub.ports.ledger import Cursor
from tests.contracts.log_contract import new


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[SqlLedger]:
    _, ledger = open_ledger(tmp_path / "ledger.db", SystemClock())
    yield ledger
    await ledger.close()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteLog]:
    log = SqliteLog(tmp_path / "log.db", 2)
    await log.append([new(0, f"r{i}") for i in range(5)])
    yield log
    await log.close()


async def test_positions_within_the_log_are_its_own(ledger: SqlLedger, log: SqliteLog) -> None:
    """At the end is within."""
    await matching.check(ledger, log)
    await ledger.catalogue([], {0: 5, 1: 0})
    await ledger.open_cursors([Cursor("sub_a", 0, Lane.bulk, 0, 5)])
    await matching.check(ledger, log)


async def test_a_cursor_beyond_the_end_is_named(ledger: SqlLedger, log: SqliteLog) -> None:
    """With whose it is, and the way out."""
    await ledger.open_cursors([Cursor("sub_a", 1, Lane.live, 0, 1)])
    with pytest.raises(LogReplaced, match=r"sub_a stands at 1, .*\(1 such positions\).*--log-replaced"):
        await matching.check(ledger, log)


async def test_a_catalogue_beyond_the_end_is_named(ledger: SqlLedger, log: SqliteLog) -> None:
    """Even without any subscription."""
    await ledger.catalogue([], {0: 6})
    with pytest.raises(LogReplaced, match="the catalogue of chunks is at 6"):
        await matching.check(ledger, log)


async def test_a_log_of_fewer_partitions_is_noticed(ledger: SqlLedger, log: SqliteLog) -> None:
    """A position in a partition that is not there is beyond its end."""
    await ledger.open_cursors([Cursor("sub_a", 7, Lane.live, 0, 1)])
    with pytest.raises(LogReplaced):
        await matching.check(ledger, log)


async def test_another_log_can_be_accepted(ledger: SqlLedger, log: SqliteLog) -> None:
    """Every cursor goes to the first record kept: repeats, never a gap."""
    await log.truncate(0, 2)
    await ledger.catalogue([], {0: 90})
    await ledger.open_cursors([Cursor("sub_a", p, Lane.live, 7, 70) for p in (0, 1)])
    await ledger.open_cursors([Cursor("sub_b", 0, Lane.bulk, 0, 80)])
    assert await matching.start_over(ledger, log) == 3
    await matching.check(ledger, log)
    places = {(c.subscription_id, c.partition): (c.start, c.offset) for c in await ledger.cursors()}
    assert places == {("sub_a", 0): (2, 2), ("sub_a", 1): (0, 0), ("sub_b", 0): (2, 2)}


async def test_the_ledger_remembers_its_log(ledger: SqlLedger, log: SqliteLog, tmp_path: Path) -> None:
    """Another log is refused however far it has grown, until somebody accepts it; then the old one is the stranger."""
    await ledger.open_cursors([Cursor("sub_a", 0, Lane.bulk, 0, 5)])
    await matching.check(ledger, log)
    other = SqliteLog(tmp_path / "other.db", 2)
    await other.append([new(part, f"o{i}") for i in range(50) for part in (0, 1)])
    with pytest.raises(LogReplaced, match=f"belongs to the log {log.log_id}, .*{other.log_id}.*--log-replaced"):
        await matching.check(ledger, other)
    await matching.check(ledger, log)  # to be refused changed nothing
    await matching.start_over(ledger, other)
    await matching.check(ledger, other)
    with pytest.raises(LogReplaced, match=f"belongs to the log {other.log_id}"):
        await matching.check(ledger, log)
    await other.close()


async def test_a_log_that_ends_too_early_does_not_become_the_ledgers_own(ledger: SqlLedger, log: SqliteLog) -> None:
    """A ledger from before it kept the id: the first log that fits its positions is taken, not the first that comes."""
    await ledger.open_cursors([Cursor("sub_a", 0, Lane.bulk, 0, 6)])
    with pytest.raises(LogReplaced, match="beyond the log's end"):
        await matching.check(ledger, log)
    assert await ledger.belongs_to("another") == "another"
