"""The end of the log, followed: one waiting fetch per broker brings what is new into memory within a millisecond.

What the fold takes from memory was read back from Kafka, by the topic's id: never what this process believes to have
written. Memory is bounded; who reads further back asks the brokers.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from aiokafka import errors as kafka

from hub.adapters.kafka.cluster import Cluster
from hub.adapters.kafka.ends import EARLIEST, LATEST, offsets
from hub.adapters.kafka.errors import told
from hub.adapters.kafka.messages import FetchById
from hub.adapters.kafka.records import unpacked
from hub.domain.errors import LogReplaced, NumhubError
from hub.ports.log import Record

log = logging.getLogger(__name__)

WAIT_SECONDS = 2.0
_PARTITION_BYTES, _TOTAL_BYTES = 1 << 20, 4 << 20
_RETRY_SECONDS, _MAX_RETRY_SECONDS = 0.05, 1.0
INCONSISTENT_TOPIC_ID, UNKNOWN_TOPIC_ID = 103, 100
RECENT_BYTES = 32 << 20


class Recent:
    """The newest records, per partition without a hole, bounded in bytes; the oldest go first."""

    def __init__(self, partitions: int, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._order: OrderedDict[tuple[int, int], int] = OrderedDict()
        self._records: list[dict[int, Record]] = [{} for _ in range(partitions)]
        self._floors = [0] * partitions

    def put(self, records: Sequence[Record]) -> None:
        for record in records:
            mine = self._records[record.partition]
            if record.offset not in mine:
                mine[record.offset] = record
                self._order[record.partition, record.offset] = size = len(record.body) + 1_000
                self._size += size
        while self._size > self._limit:
            (partition, offset), size = self._order.popitem(last=False)
            del self._records[partition][offset]
            self._size -= size

    def take(self, partition: int, offset: int, max_records: int, max_bytes: int) -> list[Record]:
        """What is here from ``offset`` on, as far as the bounds allow; nothing if ``offset`` itself is not."""
        mine = self._records[partition]
        found: list[Record] = []
        size = 0
        while len(found) < max_records and (record := mine.get(offset)) is not None:
            size += len(record.body)
            if found and size > max_bytes:
                break
            found.append(record)
            offset += 1
        return found

    def forget_below(self, partition: int, offset: int) -> None:
        if offset <= self._floors[partition]:
            return
        self._floors[partition] = offset
        mine = self._records[partition]
        for old in [place for place in mine if place < offset]:
            del mine[old]
            self._size -= self._order.pop((partition, old))


class Tail:
    """``ends`` grows as records arrive in ``recent``; begins at ``ends``."""

    def __init__(self, cluster: Cluster, ends: Sequence[int], recent: Recent) -> None:
        self._cluster, self._recent = cluster, recent
        self.ends = list(ends)
        self._waiters: set[asyncio.Future[None]] = set()
        self.fetches = 0
        self._task = asyncio.create_task(self._run(), name="kafka tail")
        self._task.add_done_callback(lambda _: self.wake())

    async def beyond(self, ends: Sequence[int], within: float) -> None:
        """Return when some end is beyond ``ends``, or after ``within`` seconds. Raises what ended the tail."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + within
        while not any(now > known for now, known in zip(self.ends, ends, strict=True)):
            if self._task.done():
                if not self._task.cancelled():
                    self._task.result()
                return
            left = deadline - loop.time()
            if left <= 0:
                return
            woken: asyncio.Future[None] = loop.create_future()
            timer = loop.call_later(left, _wake, woken)
            self._waiters.add(woken)
            try:
                await woken
            finally:
                timer.cancel()
                self._waiters.discard(woken)

    def wake(self) -> None:
        for waiter in self._waiters:
            _wake(waiter)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task], timeout=1.0)
        if self._task.done() and not self._task.cancelled():
            self._task.exception()

    async def _run(self) -> None:
        """Follow for ever. A broker lost, a leader moved: learn the leaders anew and go on. Ends with LogReplaced."""
        pause = _RETRY_SECONDS
        while True:
            began = asyncio.get_running_loop().time()
            try:
                async with asyncio.TaskGroup() as group:
                    for node, partitions in self._cluster.topology.by_leader().items():
                        group.create_task(self._follow(node, partitions))
            except* LogReplaced:
                raise self._cluster.replaced or LogReplaced() from None
            except* (NumhubError, kafka.KafkaError, OSError, EOFError) as group_:
                cause = group_.exceptions[0]
                log.info("kafka.tail_interrupted", extra={"cause": told(cause)})
            if asyncio.get_running_loop().time() - began > 5.0:
                pause = _RETRY_SECONDS
            await asyncio.sleep(pause)
            pause = min(pause * 2, _MAX_RETRY_SECONDS)
            try:
                await self._cluster.refresh()
                await self._check_ends()
            except LogReplaced:
                raise
            except NumhubError as error:
                log.warning("kafka.unavailable", extra={"cause": error.message})

    async def _check_ends(self) -> None:
        """Where retention took what was not read yet, go on behind it: readers will be told so by their own reads."""
        firsts = await offsets(self._cluster, EARLIEST)
        for partition, first in enumerate(firsts):
            if first > self.ends[partition]:
                self.ends[partition] = first
                self.wake()

    async def _follow(self, node: int, partitions: Sequence[int]) -> None:
        while True:
            asked = {partition: self.ends[partition] for partition in partitions}
            request = FetchById(
                self._cluster.topology.topic_id, asked, wait_ms=int(WAIT_SECONDS * 1000),
                partition_bytes=_PARTITION_BYTES, total_bytes=_TOTAL_BYTES,
            )  # fmt: skip
            self.fetches += 1
            response = await self._cluster.ask(node, request, "tail", WAIT_SECONDS + 5.0)
            grown = False
            for answer in answers(response):
                partition, _, _, first, data = answer
                self._recent.forget_below(partition, first)
                records = unpacked(partition, asked[partition], data) if data else []
                if records:
                    self._recent.put(records)
                    self.ends[partition] = records[-1].offset + 1
                    grown = True
            if grown:
                self.wake()


def answers(response: Any) -> list[tuple[int, int, int, int, bytes]]:
    """(partition, code, end, first kept, data) of a fetch's answer. Raises the first error in it."""
    _raise(response.error_code, "fetch")
    found = []
    for _, partitions, _ in response.topics:
        for partition, code, end, _, first, _, _, data, _ in partitions:
            _raise(code, f"partition {partition}")
            found.append((partition, code, end, first, data or b""))
    return found


def _raise(code: int, where: str) -> None:
    if code in (INCONSISTENT_TOPIC_ID, UNKNOWN_TOPIC_ID):  # aiokafka does not know them
        raise kafka.UnknownTopicOrPartitionError(where)
    if code:
        raise kafka.for_code(code)(where)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


__all__ = ["EARLIEST", "LATEST", "Recent", "Tail", "answers"]
