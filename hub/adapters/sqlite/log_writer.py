"""One thread that commits all waiting appends in one transaction and one fsync (group commit)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import orjson

from hub.adapters.sqlite.log_file import SHIFT
from hub.domain.errors import AppendInDoubt, LogUnavailable, NumhubError
from hub.ports.clock import Clock
from hub.ports.log import NewRecord, Position, Record

log = logging.getLogger(__name__)

_GROUP_RECORDS, _GROUP_BYTES = 4_096, 32 << 20
_MACHINE_TIME = "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)"


@dataclass(slots=True)
class _Waiting:
    records: Sequence[NewRecord]
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[list[Position]]


@dataclass(slots=True)
class _Group:
    appends: list[_Waiting]
    positions: list[list[Position]] = field(default_factory=list)  # per append
    records: list[Record] = field(default_factory=list)
    error: Exception | None = None


class GroupWriter:
    """Owns ``connection``. ``committed`` is called on the event loop with what was appended, before the answers."""

    def __init__(
        self, connection: sqlite3.Connection, clock: Clock | None, committed: Callable[[list[Record]], None]
    ) -> None:
        self.connection = connection
        self._clock, self._committed = clock, committed
        self._broken = False
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    async def append(self, records: Sequence[NewRecord]) -> list[Position]:
        loop = asyncio.get_running_loop()
        waiting = _Waiting(records, loop, loop.create_future())
        self._queue.put(waiting)
        return await waiting.done

    def close(self) -> None:
        """Blocks until everything that waits is committed."""
        self._queue.put(None)
        self._thread.join()
        self.connection.close()

    # -- in the thread

    def _run(self) -> None:
        ending = False
        while not ending:
            appends, ending = self._next()
            if not appends:
                continue
            group = _Group(appends)
            try:
                self._commit(group)
            except Exception as error:  # whatever it is, those who wait must hear of it
                group.error = error
            for loop in {waiting.loop for waiting in appends}:
                with contextlib.suppress(RuntimeError):  # that loop is closed: nobody waits any more
                    loop.call_soon_threadsafe(self._settle, group, loop)

    def _next(self) -> tuple[list[_Waiting], bool]:
        """What waits now, at least one append; the flag says that it is the last."""
        appends: list[_Waiting] = []
        records = size = 0
        waiting = self._queue.get()
        while waiting is not None:
            appends.append(waiting)
            records += len(waiting.records)
            size += sum(len(record.body) for record in waiting.records)
            if records >= _GROUP_RECORDS or size >= _GROUP_BYTES:
                return appends, False
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                return appends, False
        return appends, True

    def _commit(self, group: _Group) -> None:
        if self._broken:
            raise LogUnavailable("the log failed; restart the process")
        try:
            self.connection.execute("BEGIN IMMEDIATE")
            self._insert(group)
        except BaseException as error:
            self._roll_back()
            if not isinstance(error, sqlite3.Error):
                raise
            log.error("log.append_failed", extra={"cause": str(error)})
            raise LogUnavailable from error
        try:
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            self._roll_back()
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL):
                raise LogUnavailable from error
            # A failed write or fsync: the commit may or may not be on the disk, and trying again proves nothing.
            self._broken = True
            log.critical("log.commit_in_doubt", extra={"cause": str(error)})
            raise AppendInDoubt from error

    def _insert(self, group: _Group) -> None:
        bounds = self.connection.execute("SELECT partition, next_offset FROM bounds").fetchall()
        next_offset = dict(bounds)
        at_ms = self._now_ms()
        rows = []
        for waiting in group.appends:
            positions = []
            for new in waiting.records:
                offset = next_offset[new.partition]
                next_offset[new.partition] = offset + 1
                positions.append(Position(new.partition, offset))
                headers = dict(new.headers)
                rows.append((new.partition << SHIFT | offset, new.record_id, orjson.dumps(headers), at_ms, new.body))
                group.records.append(Record(new.partition, offset, new.record_id, headers, new.body, at_ms))
            group.positions.append(positions)
        self.connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?)", rows)
        changed = [(next_offset[partition], partition) for partition, end in bounds if next_offset[partition] != end]
        self.connection.executemany("UPDATE bounds SET next_offset = ? WHERE partition = ?", changed)

    def _now_ms(self) -> int:
        if self._clock is not None:
            return int(self._clock.now().timestamp() * 1000)
        return int(self.connection.execute(_MACHINE_TIME).fetchone()[0])

    def _roll_back(self) -> None:
        if self.connection.in_transaction:
            with contextlib.suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")

    # -- on the event loop

    def _settle(self, group: _Group, loop: asyncio.AbstractEventLoop) -> None:
        if group.error is None:
            self._committed(group.records)
        for place, waiting in enumerate(group.appends):
            if waiting.loop is not loop or waiting.done.done():
                continue
            if group.error is None:
                waiting.done.set_result(group.positions[place])
            else:
                waiting.done.set_exception(_copy(group.error))


def _copy(error: Exception) -> Exception:
    """One error for each who waits: a shared one would gather everybody's traceback."""
    if not isinstance(error, NumhubError):
        return LogUnavailable(f"unexpected: {type(error).__name__}")
    copy = type(error)(error.message)
    copy.__cause__ = error.__cause__
    return copy
