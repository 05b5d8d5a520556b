"""The fold: reads the log in order, judges every record, and keeps the number index.

Accepted means folded. A record whose rows do not directly succeed what the index holds at its place is void as a whole,
on every node alike, and so is a repeat; both are remembered as skipped and no reader ever sees them. What cannot be
read at all is void too. Judged are repetition and succession, never policy (see `hub.flow.succession`).
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

from hub.domain.errors import LogReplaced, PositionExpired, Unavailable
from hub.domain.numbers import BLOCK_SIZE
from hub.flow.succession import judge, next_states
from hub.ports.codec import Chunk, Codec
from hub.ports.log import EventLog, Header, Position, Record
from hub.ports.metrics import Metrics
from hub.ports.number_index import NumberIndex

log = logging.getLogger(__name__)

_T = TypeVar("_T")

Callback = Callable[[int, list[Record]], None]

_BIG_BODY, _BIG_DIGITS = 4_096, 3  # bytes, digits of the count; less is folded on the event loop in some 100 us
_STEP = 32  # small records folded before others get their turn
_READ_RECORDS, _READ_BYTES = 128, 2_000_000
_IDLE_SECONDS = 5.0
_RETRY_SECONDS = 0.5
_COUNT_EVERY_SECONDS = 10.0


class Fold:
    """Follows ``log`` into ``index``. One event loop; `run` must be running for anything to move."""

    def __init__(self, log: EventLog, index: NumberIndex, codec: Codec, metrics: Metrics) -> None:
        self._log, self._index, self._codec, self._metrics = log, index, codec, metrics
        self._positions = [index.position_of(partition) for partition in range(log.partitions)]
        self._ends = list(self._positions)
        self._grown = [asyncio.Event() for _ in range(log.partitions)]
        self._waiting: list[list[tuple[int, int, asyncio.Future[None]]]] = [[] for _ in range(log.partitions)]
        self._taken = 0
        self._watching: set[asyncio.Future[None]] = set()
        self._callbacks: dict[int, Callback] = {}

    # -- what others ask

    def position(self, partition: int) -> int:
        """The next offset to fold."""
        return self._positions[partition]

    def positions(self) -> list[int]:
        return list(self._positions)

    def is_visible(self, position: Position) -> bool:
        """Folded, and neither void nor a repeat."""
        return position.offset < self._positions[position.partition] and not self._index.is_skipped(position)

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Call ``callback(partition, newly folded visible records)`` on the event loop; returns how to stop it."""
        self._taken += 1
        name = self._taken
        self._callbacks[name] = callback

        def unsubscribe() -> None:
            self._callbacks.pop(name, None)

        return unsubscribe

    async def catch_up(self, *, proven: Collection[int] | bool = False) -> list[int]:
        """A barrier: every record appended before this call is folded on return. Gives the positions reached.

        ``proven``: against every append that was answered anywhere, even if the log's leader was cut off (see
        `EventLog.proven_ends`); of all partitions, or of those named: the others are not waited for."""
        if proven is False:
            ends = await self._log.ends()
        else:
            ends = await self._log.proven_ends(None if proven is True else proven)
        for partition, end in enumerate(ends):
            await self._until(partition, end)
        return self.positions()

    async def verdict(self, record_id: str, position: Position) -> bool:
        """Wait until ``position`` is folded. True = the record was accepted there, or the same id earlier."""
        await self._until(position.partition, position.offset + 1)
        if not self._index.is_skipped(position):
            return True
        earlier = self._index.find(record_id)
        if earlier is None:
            return False
        try:
            found = await self._log.read(earlier.partition, earlier.offset, max_records=1)
        except PositionExpired:  # too old to look; two ids with one 64-bit hash are the less likely story
            return True
        return bool(found) and found[0].record_id == record_id

    async def wait_beyond(self, positions: Sequence[int], within: float) -> None:
        """Return as soon as some partition is folded beyond ``positions``, at the latest after ``within`` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while all(now <= known for now, known in zip(self._positions, positions, strict=True)):
            if (left := deadline - loop.time()) <= 0:
                return
            woken: asyncio.Future[None] = loop.create_future()
            timer = loop.call_later(left, _wake, woken)
            self._watching.add(woken)
            try:
                await woken
            finally:
                timer.cancel()
                self._watching.discard(woken)

    # -- following the log

    async def run(self) -> None:
        """Follow the log for ever; cancel to stop. Ends by itself only with an error nobody can wait out."""
        await self._check_index()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch())
            group.create_task(self._count())
            for partition in range(self._log.partitions):
                group.create_task(self._follow(partition))

    async def _check_index(self) -> None:
        """An index that does not fit this log (ahead of it, or of one that was rewritten) is dropped and rebuilt."""
        ends = await _retried(self._log.ends)
        for partition, end in enumerate(ends):
            position = self._index.position_of(partition)
            if position > end or not await self._last_is_ours(partition, position):
                log.error("fold.index_does_not_fit_log", extra={"partition": partition})
                self._metrics.count("numhub_index_dropped_total")
                self._index.clear()
                self._positions = [0] * len(ends)
                return

    async def _last_is_ours(self, partition: int, position: int) -> bool:
        last = Position(partition, position - 1)
        if position == 0 or self._index.is_skipped(last):
            return True
        try:
            records = await _retried(lambda: self._log.read(partition, last.offset, max_records=1))
        except PositionExpired:
            return True
        return bool(records) and self._index.find(records[0].record_id) == last

    async def _watch(self) -> None:
        """One pair of eyes on the log's end wakes the partitions that grew."""
        while True:
            ends = await _retried(lambda: self._log.wait_for_more(self._ends, _IDLE_SECONDS))
            for partition, end in enumerate(ends):
                if end > self._ends[partition]:
                    self._ends[partition] = end
                    self._grown[partition].set()
                    self._metrics.set("numhub_log_end", end, partition=str(partition))

    async def _count(self) -> None:
        while True:
            self._metrics.set("numhub_index_numbers", await asyncio.to_thread(self._index.count))
            await asyncio.sleep(_COUNT_EVERY_SECONDS)

    async def _follow(self, partition: int) -> None:
        while True:
            if self._positions[partition] >= self._ends[partition]:
                self._grown[partition].clear()
                await self._grown[partition].wait()
            records = await _retried(
                lambda: self._log.read(
                    partition, self._positions[partition], max_records=_READ_RECORDS, max_bytes=_READ_BYTES
                )
            )
            await self._fold(partition, records)

    async def _fold(self, partition: int, records: Sequence[Record]) -> None:
        """A big chunk is folded in a thread and published by itself, small ones together, so that none waits long."""
        visible: list[Record] = []
        folded = 0
        for record in records:
            if _is_big(record):
                self._publish(partition, folded, visible)
                visible, folded = [], 0
                verdict = await asyncio.to_thread(self._take, record)
            else:
                verdict = self._take(record)
            folded += 1
            if verdict == "accepted":
                visible.append(record)
            else:
                self._metrics.count("numhub_records_void_total", verdict=verdict)
            if folded >= _STEP:
                self._publish(partition, folded, visible)
                visible, folded = [], 0
                await asyncio.sleep(0)
        self._publish(partition, folded, visible)

    def _take(self, record: Record) -> str:
        """Judge one record and move the index behind it: accepted, void, repeated, unreadable or barrier."""
        position = record.position
        if record.headers.get(Header.kind) != "chunk":
            self._index.skip(position)
            return "barrier"
        try:
            chunk = self._codec.decode(record.body)
            carrier_no = self._checked(record, chunk)
        except ValueError as error:
            log.error(
                "fold.record_unreadable",
                extra={"partition": record.partition, "offset": record.offset, "cause": str(error)},
            )
            self._index.skip(position)
            return "unreadable"
        states = self._index.lookup(record.partition, chunk.numbers)
        if not judge(states, chunk):
            repeated = self._index.find(record.record_id) is not None
            self._index.skip(position)
            return "repeated" if repeated else "void"
        new = next_states(states, chunk, carrier_no, record.offset)
        self._index.apply(position, record.record_id, chunk.numbers, new)
        return "accepted"

    def _checked(self, record: Record, chunk: Chunk) -> int:
        """Do headers and body speak of one thing? Readers judge by headers. Returns the carrier's number."""
        headers = record.headers
        said = (record.record_id, headers.get(Header.type), headers.get(Header.lane), headers.get(Header.count))
        if said != (chunk.record_id, chunk.event_type.value, chunk.lane.value, str(len(chunk))):
            raise ValueError("headers and body differ")
        if (chunk.numbers // BLOCK_SIZE % self._log.partitions != record.partition).any():
            raise ValueError("a number of another partition")
        carrier_no = int(headers.get(Header.carrier_no, ""))
        if not 0 <= carrier_no <= 0xFFFF:
            raise ValueError("no such carrier number")
        return carrier_no

    def _publish(self, partition: int, folded: int, visible: list[Record]) -> None:
        if not folded:
            return
        self._positions[partition] += folded
        position = self._positions[partition]
        self._metrics.set("numhub_fold_position", position, partition=str(partition))
        if visible:
            for callback in list(self._callbacks.values()):
                try:
                    callback(partition, visible)
                except Exception:
                    log.exception("fold.callback_failed")
        waiting = self._waiting[partition]
        while waiting and waiting[0][0] <= position:
            _wake(heapq.heappop(waiting)[2])
        for watcher in self._watching:
            _wake(watcher)

    async def _until(self, partition: int, position: int) -> None:
        if self._positions[partition] >= position:
            return
        self._taken += 1
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting[partition], (position, self._taken, woken))
        await woken


async def _retried(act: Callable[[], Awaitable[_T]]) -> _T:
    """While the log cannot be reached, wait and try again: the fold stands still and nothing is lost.

    Another log in its place is nothing to wait out: that ends the fold, and with it the process, visibly."""
    while True:
        try:
            return await act()
        except LogReplaced:
            raise
        except Unavailable as error:
            log.warning("fold.log_unavailable", extra={"cause": error.message})
            await asyncio.sleep(_RETRY_SECONDS)


def _is_big(record: Record) -> bool:
    return len(record.body) > _BIG_BODY or len(record.headers.get(Header.count, "")) >= _BIG_DIGITS


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
