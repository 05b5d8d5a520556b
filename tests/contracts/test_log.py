"""The log contract on SQLite, and what only that adapter promises."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from log_contract import PARTITIONS, LogContract, new

from hub.adapters.sqlite.log import LogMismatch, SqliteLog
from hub.adapters.system.clock import ManualClock
from hub.domain.errors import AppendInDoubt, LogUnavailable
from hub.ports.log import EventLog, Position


class TestSqliteLog(LogContract):
    async def make_log(self, where: Path) -> EventLog:
        return SqliteLog(where / "log.db", PARTITIONS)

    async def drop_before(self, log: EventLog, partition: int, offset: int) -> None:
        assert isinstance(log, SqliteLog)
        await log.truncate(partition, offset)


async def test_another_number_of_partitions_is_refused(tmp_path: Path) -> None:
    """The number is fixed at creation; the message names both."""
    await SqliteLog(tmp_path / "log.db", 8).close()
    with pytest.raises(LogMismatch, match="of 8 partitions, not 16"):
        SqliteLog(tmp_path / "log.db", 16)


async def test_the_clock_stamps_the_records(tmp_path: Path) -> None:
    """With a clock handed in, the time of the append is that clock's."""
    log = SqliteLog(tmp_path / "log.db", clock=ManualClock(datetime(2026, 5, 1, tzinfo=UTC)))
    await log.append([new(0, "a")])
    (record,) = await log.read(0, 0)
    assert record.appended_at_ms == int(datetime(2026, 5, 1, tzinfo=UTC).timestamp() * 1000)
    await log.close()


async def test_concurrent_appends_share_commits(tmp_path: Path) -> None:
    """Appends that wait together are committed together: far fewer transactions than appends."""
    log = SqliteLog(tmp_path / "log.db")
    statements: list[str] = []
    log._writer.connection.set_trace_callback(statements.append)
    await asyncio.gather(*(log.append([new(i % 8, f"r{i}")]) for i in range(500)))
    assert 1 <= statements.count("COMMIT") < 100
    assert sum(await log.ends()) == 500
    await log.close()


async def test_a_locked_file_is_unavailable_and_heals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process holds the write lock: LogUnavailable, nothing taken; afterwards appends work again."""
    monkeypatch.setattr("hub.adapters.sqlite.log_file.BUSY_SECONDS", 0.05)
    log = SqliteLog(tmp_path / "log.db")
    other = sqlite3.connect(tmp_path / "log.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(LogUnavailable):
        await log.append([new(0, "a")])
    other.execute("ROLLBACK")
    other.close()
    assert await log.append([new(0, "a")]) == [Position(0, 0)]
    await log.close()


async def test_a_full_disk_is_unavailable_and_heals(tmp_path: Path) -> None:
    """No room: LogUnavailable and no trace of the append; with room again the next append works."""
    log = SqliteLog(tmp_path / "log.db")
    await log.append([new(0, "a")])
    pages = log._writer.connection.execute("PRAGMA page_count").fetchone()[0]
    log._writer.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(LogUnavailable):
        await log.append([new(0, "b", b"x" * 200_000)])
    assert await log.ends() == [1, 0, 0, 0, 0, 0, 0, 0]
    log._writer.connection.execute(f"PRAGMA max_page_count = {pages + 1000}")
    assert await log.append([new(0, "b", b"x" * 200_000)]) == [Position(0, 1)]
    await log.close()


class _FailingCommit:
    """A connection whose COMMIT reports a failed write."""

    def __init__(self, real: sqlite3.Connection) -> None:
        self._real = real

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    def execute(self, statement: str, *parameters: object) -> sqlite3.Cursor:
        if statement == "COMMIT":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_FSYNC
            raise error
        return self._real.execute(statement, *parameters)


async def test_a_failed_fsync_leaves_doubt_and_is_never_tried_again(tmp_path: Path) -> None:
    """The first append is in doubt; from then on nothing is written until the process starts anew."""
    log = SqliteLog(tmp_path / "log.db")
    log._writer.connection = _FailingCommit(log._writer.connection)  # type: ignore[assignment]
    with pytest.raises(AppendInDoubt):
        await log.append([new(0, "a")])
    with pytest.raises(LogUnavailable):
        await log.append([new(0, "a")])
    await log.close()


async def test_a_caller_that_gives_up_does_not_disturb_the_others(tmp_path: Path) -> None:
    """A cancelled append may or may not stand in the log; the next one is answered all the same."""
    log = SqliteLog(tmp_path / "log.db")
    task = asyncio.create_task(log.append([new(0, "a")]))
    await asyncio.sleep(0)
    task.cancel()
    (position,) = await log.append([new(0, "b")])
    assert [r.record_id for r in await log.read(0, position.offset)] == ["b"]
    await log.close()


async def test_reads_do_not_depend_on_what_is_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same records come from memory and from the file."""
    monkeypatch.setattr("hub.adapters.sqlite.log._RECENT_BYTES", 5_000)
    log = SqliteLog(tmp_path / "log.db")
    await log.append([new(0, f"r{i}", bytes([i]) * 1000) for i in range(20)])
    seen = []
    while records := await log.read(0, len(seen)):
        seen += records
    assert [(r.offset, r.record_id, r.body) for r in seen] == [(i, f"r{i}", bytes([i]) * 1000) for i in range(20)]
    await log.close()


_APPENDER = """
import asyncio, sys
from hub.adapters.sqlite.log import SqliteLog
from hub.ports.log import NewRecord
async def main():
    log = SqliteLog(sys.argv[1])
    number = 0
    while True:
        await log.append([NewRecord(number % 8, f"r{number}", {}, b"x" * 500)])
        print(number, flush=True)
        number += 1
asyncio.run(main())
"""


async def test_what_was_confirmed_survives_a_kill(tmp_path: Path) -> None:
    """kill -9 in the middle of appending: every confirmed record is there afterwards, in order, without a gap."""
    appender = subprocess.Popen([sys.executable, "-c", _APPENDER, str(tmp_path / "log.db")], stdout=subprocess.PIPE)
    assert appender.stdout is not None
    confirmed = -1
    for _ in range(150):
        confirmed = int(appender.stdout.readline())
    appender.kill()
    appender.wait()
    for line in appender.stdout.read().splitlines():
        confirmed = int(line) if line.isdigit() else confirmed
    appender.stdout.close()
    log = SqliteLog(tmp_path / "log.db")
    names = {r.record_id for partition in range(8) for r in await log.read(partition, 0, max_records=10_000)}
    assert names >= {f"r{number}" for number in range(confirmed + 1)}
    assert sum(await log.ends()) == len(names) <= confirmed + 2
    await log.close()
