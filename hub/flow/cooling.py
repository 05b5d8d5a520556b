"""Which numbers a renewal was asked for lately: folded from the log, so every process and every restart agrees."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import datetime, timedelta

from hub.domain.events import EventType
from hub.domain.lifecycle import from_epoch
from hub.flow.fold import Fold
from hub.ports.clock import Clock
from hub.ports.codec import Codec
from hub.ports.log import EventLog, Header, Record

_SWEEP_EVERY = 4096


class RecentRenewals:
    """Keeps one entry per number asked for within ``span`` (at the observed 16,000 a day: some megabytes)."""

    def __init__(self, log: EventLog, fold: Fold, codec: Codec, clock: Clock, span: timedelta) -> None:
        self._log, self._fold, self._codec, self._clock, self._span = log, fold, codec, clock, span
        self._asked: dict[int, datetime] = {}
        self._notes = 0
        self._backfill: asyncio.Task[None] | None = None
        fold.subscribe(lambda _, records: self._take(records))

    async def ready(self) -> None:
        """On first use, read the last ``span`` of the log; later at once. A failed read is tried again next time."""
        done = self._backfill
        if done is None or (done.done() and (done.cancelled() or done.exception())):
            done = self._backfill = asyncio.create_task(self._read_back())
        await asyncio.shield(done)

    def within(self, number: int, now: datetime) -> bool:
        """Was a renewal of ``number`` asked for less than the span ago?"""
        asked_at = self._asked.get(number)
        return asked_at is not None and now - asked_at < self._span

    def note(self, number: int, asked_at: datetime) -> None:
        self._asked[number] = max(asked_at, self._asked.get(number, asked_at))
        self._notes += 1
        if self._notes % _SWEEP_EVERY == 0:
            oldest = self._clock.now() - self._span
            self._asked = {n: at for n, at in self._asked.items() if at > oldest}

    def _take(self, records: Iterable[Record]) -> None:
        oldest = int((self._clock.now() - self._span).timestamp())
        for record in records:
            headers = record.headers
            if headers.get(Header.type) == EventType.renewal_requested and int(headers[Header.reported_at]) > oldest:
                chunk = self._codec.decode(record.body)
                self.note(int(chunk.numbers[0]), from_epoch(chunk.reported_at))

    async def _read_back(self) -> None:
        oldest_ms = int((self._clock.now() - self._span).timestamp() * 1000)
        for partition in range(self._log.partitions):
            offset = await self._first_since(partition, oldest_ms)
            while offset < self._fold.position(partition):
                records = await self._log.read(partition, offset)
                if not records:
                    break
                self._take(record for record in records if self._fold.is_visible(record.position))
                offset = records[-1].offset + 1

    async def _first_since(self, partition: int, oldest_ms: int) -> int:
        """The offset of the first record appended since ``oldest_ms``: append times only grow, more or less."""
        low, high = 0, self._fold.position(partition)
        while low < high:
            middle = (low + high) // 2
            found = await self._log.read(partition, middle, max_records=1)
            if not found or found[0].appended_at_ms >= oldest_ms:
                high = middle
            else:
                low = middle + 1
        return low
