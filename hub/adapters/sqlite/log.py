"""The log in one SQLite file: the embedded default.

Appends wait for one writer thread and are committed together; offsets are handed out inside that transaction, so
several processes may append to one file. What this process appended last stays in memory, so that its own fold reads
it back without touching the disk. One event loop per instance.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import OrderedDict
from collections.abc import Collection, Sequence
from pathlib import Path

from hub.adapters.sqlite.log_file import LogMismatch, LogReaders, connect, prepare, truncate
from hub.adapters.sqlite.log_writer import GroupWriter
from hub.domain.errors import LogUnavailable, PositionExpired
from hub.ports.clock import Clock
from hub.ports.log import NewRecord, Position, Record

__all__ = ["LogMismatch", "SqliteLog"]

_RECENT_BYTES = 16 << 20
_POLL_SECONDS = 0.05  # how soon appends of another process are seen


class SqliteLog:
    """`hub.ports.log.EventLog` in the file ``path`` (made if missing; its directory must exist).

    ``partitions`` is fixed at creation: opening with another number raises LogMismatch. Without a ``clock`` SQLite's
    own stamps the records. Opening is synchronous and takes milliseconds. Disk full or file locked is LogUnavailable;
    a failed fsync is AppendInDoubt once and LogUnavailable from then on, until the file is opened anew.
    """

    log_id: str
    partitions: int

    def __init__(self, path: Path | str, partitions: int = 8, *, clock: Clock | None = None) -> None:
        if not 1 <= partitions <= 1024:
            raise ValueError("partitions must be 1 to 1024")
        self._path = Path(path)
        writing = connect(self._path)
        try:
            self.log_id = prepare(writing, self._path, partitions)
            self._ends_reader = connect(self._path, read_only=True)
        except BaseException:
            writing.close()
            raise
        self.partitions = partitions
        self._readers = LogReaders(self._path)
        self._recent: OrderedDict[Position, Record] = OrderedDict()
        self._recent_bytes = 0
        self._waiters: set[asyncio.Future[None]] = set()
        self._closed = False
        self._writer = GroupWriter(writing, clock, self._appended)

    async def append(self, records: Sequence[NewRecord]) -> list[Position]:
        if self._closed:
            raise LogUnavailable("the log is closed")
        if any(not 0 <= record.partition < self.partitions for record in records):
            raise ValueError("no such partition")
        return await self._writer.append(records) if records else []

    async def read(
        self, partition: int, offset: int, *, max_records: int = 256, max_bytes: int = 4_000_000
    ) -> list[Record]:
        first, end = self._bounds()[partition]
        if offset < first:
            raise PositionExpired(first_offset=first)
        if offset >= end:
            return []
        found = self._from_memory(partition, offset, min(max_records, end - offset), max_bytes)
        if found:
            return found
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(
            self._readers.executor, self._readers.read, partition, offset, max_records, max_bytes
        )
        if not found or found[0].offset != offset:  # truncated meanwhile
            raise PositionExpired(first_offset=self._bounds()[partition][0])
        return found

    async def ends(self) -> list[int]:
        return [end for _, end in self._bounds()]

    async def proven_ends(self, partitions: Collection[int] | None = None) -> list[int]:
        """One file has one truth: what a transaction reads now holds every append committed before."""
        ends = await self.ends()
        return ends if partitions is None else [end if p in partitions else 0 for p, end in enumerate(ends)]

    async def starts(self) -> list[int]:
        """Per partition the first offset still kept."""
        return [first for first, _ in self._bounds()]

    async def wait_for_more(self, ends: Sequence[int], within: float) -> list[int]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while True:
            if self._closed:
                return list(ends)
            now = [end for _, end in self._bounds()]
            left = deadline - loop.time()
            if left <= 0 or any(new > known for new, known in zip(now, ends, strict=True)):
                return now
            woken: asyncio.Future[None] = loop.create_future()
            timer = loop.call_later(min(left, _POLL_SECONDS), _wake, woken)
            self._waiters.add(woken)
            try:
                await woken
            finally:
                timer.cancel()
                self._waiters.discard(woken)

    async def truncate(self, partition: int, before: int) -> None:
        """Retention: drop every record of ``partition`` below offset ``before`` (at most up to the log's end)."""
        await asyncio.to_thread(truncate, self._path, partition, before)
        for stale in [place for place in self._recent if place.partition == partition and place.offset < before]:
            self._recent_bytes -= _weight(self._recent.pop(stale))

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.to_thread(self._writer.close)
        for waiter in self._waiters:
            _wake(waiter)
        await asyncio.to_thread(self._readers.close)
        self._ends_reader.close()

    def _bounds(self) -> list[tuple[int, int]]:
        """(first kept, next) offset per partition; always asked of the file (10 us): other processes append too."""
        if self._closed:
            raise LogUnavailable("the log is closed")
        try:
            rows = self._ends_reader.execute("SELECT first_offset, next_offset FROM bounds ORDER BY partition")
            return rows.fetchall()
        except sqlite3.Error as error:
            raise LogUnavailable from error

    def _from_memory(self, partition: int, offset: int, records: int, max_bytes: int) -> list[Record]:
        """The next ``records`` records if memory holds them all (or as many as ``max_bytes`` allow), else none."""
        found: list[Record] = []
        size = 0
        for place in range(offset, offset + records):
            record = self._recent.get(Position(partition, place))
            if record is None:
                return []
            size += len(record.body)
            if found and size > max_bytes:
                break
            found.append(record)
        return found

    def _appended(self, records: Sequence[Record]) -> None:
        for record in records:
            self._recent[record.position] = record
            self._recent_bytes += _weight(record)
        while self._recent_bytes > _RECENT_BYTES:
            _, gone = self._recent.popitem(last=False)
            self._recent_bytes -= _weight(gone)
        for waiter in self._waiters:
            _wake(waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _weight(record: Record) -> int:
    return len(record.body) + 1_000
