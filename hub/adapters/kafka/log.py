"""The log as one Kafka topic.

A record is a Kafka record: key = its id, headers = its headers, value = its body, all in the partition the hub chose.
Positions are Kafka's offsets; the log's id is the topic's id, so a topic that was deleted and made again is another
log. Nothing here uses consumer groups, stored offsets or a reset policy: who reads says from where, and is told when
that is not kept any more. The topic itself is made by `numhub topics apply`, never by this adapter.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Collection, Sequence

from aiokafka import errors as kafka

from hub.adapters.kafka.append import Appender
from hub.adapters.kafka.cluster import Cluster, Security
from hub.adapters.kafka.configs import topic_settings
from hub.adapters.kafka.ends import EARLIEST, LATEST, Shared, offsets, with_leaders
from hub.adapters.kafka.messages import FetchById
from hub.adapters.kafka.records import size_of, unpacked
from hub.adapters.kafka.tail import RECENT_BYTES, Recent, Tail, answers
from hub.adapters.kafka.topics import Found, unsafe
from hub.domain.errors import AppendInDoubt, LogReplaced, LogUnavailable, NumhubError, PayloadTooLarge, PositionExpired
from hub.ports.clock import Clock
from hub.ports.log import NewRecord, Position, Record

__all__ = ["KafkaLog", "Security"]

log = logging.getLogger(__name__)

APPEND_SECONDS = 10.0
CLOSE_SECONDS = 5.0
_READ_AHEAD_BYTES = 16 << 20
_USUAL_RECORD = 64 << 10  # bytes: how much is fetched for a reader who wants one record
_STARTS_EVERY_SECONDS = 60.0


class KafkaLog:
    """`hub.ports.log.EventLog` in the topic ``topic``. Make it with `open`; one event loop per instance.

    An append has ``append_within`` seconds. Beyond that it is in doubt if it was sent, and LogUnavailable if it was
    not. A record larger than the topic takes is PayloadTooLarge before anything is sent. A topic deleted and made
    anew is LogReplaced on every call from then on, until the process opens the log again.
    """

    log_id: str
    partitions: int

    def __init__(self, cluster: Cluster, ends: Sequence[int], limit: int, clock: Clock | None, within: float) -> None:
        """For `open` only."""
        self.log_id = str(cluster.topology.topic_id)
        self.partitions = len(ends)
        self.max_record_bytes = limit
        self._cluster, self._within, self.topic = cluster, within, cluster.topic
        self._recent = Recent(len(ends), RECENT_BYTES)
        self._ahead = Recent(len(ends), _READ_AHEAD_BYTES)
        self._tail = Tail(cluster, ends, self._recent)
        self._appender = Appender(cluster, ends, limit, _stamp(clock))
        self._latest = Shared(lambda: offsets(cluster, LATEST))
        self._earliest = Shared(lambda: offsets(cluster, EARLIEST))
        self._highest = list(ends)
        self._closed = False
        self.reads = 0  # fetches beyond what the tail brought
        cluster.on_replaced = self._tail.wake
        self._watching = asyncio.create_task(self._watch_starts(), name="kafka log starts")

    @classmethod
    async def open(
        cls,
        bootstrap: str,
        topic: str,
        *,
        security: Security | None = None,
        clock: Clock | None = None,
        append_within: float = APPEND_SECONDS,
    ) -> KafkaLog:
        """Connect. Raises LogUnavailable with one clear line: no broker, no topic, wrong credentials or certificate."""
        cluster = Cluster(bootstrap, topic, security or Security())
        try:
            await cluster.refresh()
            limit = int((await topic_settings(cluster)).get("max.message.bytes", 1_000_000))
            return cls(cluster, await offsets(cluster, LATEST), limit, clock, append_within)
        except BaseException:
            await cluster.close()
            raise

    async def append(self, records: Sequence[NewRecord]) -> list[Position]:
        self._check_open()
        sizes = [self._checked(record) for record in records]
        if len(records) == 1:  # most of the live lane
            partition = records[0].partition
            return [Position(partition, await self._appender.append(partition, records, sizes[0], self._within))]
        by_partition: dict[int, list[int]] = {}
        for place, record in enumerate(records):
            by_partition.setdefault(record.partition, []).append(place)
        pieces = [piece for places in by_partition.values() for piece in self._pieces(sizes, places)]
        outcomes = await asyncio.gather(
            *(
                self._appender.append(
                    records[piece[0]].partition,
                    [records[place] for place in piece],
                    sum(sizes[place] for place in piece),
                    self._within,
                )
                for piece in pieces
            ),
            return_exceptions=True,
        )
        positions: list[Position | None] = [None] * len(records)
        failures: list[BaseException] = []
        for piece, outcome in zip(pieces, outcomes, strict=True):
            if isinstance(outcome, BaseException):
                failures.append(outcome)
                continue
            for number, place in enumerate(piece):
                positions[place] = Position(records[place].partition, outcome + number)
        if failures:
            raise _worst(failures, some_taken=len(failures) < len(pieces))
        return [position for position in positions if position is not None]

    async def read(
        self, partition: int, offset: int, *, max_records: int = 256, max_bytes: int = 4_000_000
    ) -> list[Record]:
        self._check_open()
        for memory in (self._recent, self._ahead):
            if found := memory.take(partition, offset, max_records, max_bytes):
                return found
        fetched = await self._fetch(partition, offset, max_records, max_bytes)
        if not fetched:
            return []
        if offset < self._tail.ends[partition]:  # what the tail will bring by itself is not kept twice
            self._ahead.put(fetched)
        return _bounded(fetched, max_records, max_bytes)

    async def ends(self) -> list[int]:
        self._check_open()
        ends = await self._latest()
        for partition, end in enumerate(ends):
            if end < self._highest[partition]:
                await self._cluster.refresh()  # raises LogReplaced if that is why
                raise LogUnavailable(
                    f"The log ends at {end} in partition {partition} and reached {self._highest[partition]} before: "
                    "the topic lost records, or was restored to an older state. Restart the hub to fold it anew."
                )
            self._highest[partition] = end
        return ends

    async def proven_ends(self, partitions: Collection[int] | None = None) -> list[int]:
        self._check_open()
        wanted = sorted(range(self.partitions) if partitions is None else partitions)
        proved = await asyncio.gather(
            *(self._appender.prove(partition, self._within) for partition in wanted), return_exceptions=True
        )
        ends = [0] * self.partitions
        for partition, end in zip(wanted, proved, strict=True):
            if isinstance(end, BaseException):
                raise end
            ends[partition] = self._highest[partition] = max(end, self._highest[partition])
        return ends

    async def starts(self) -> list[int]:
        """Per partition the first offset still kept."""
        self._check_open()
        firsts = await self._earliest()
        for partition, first in enumerate(firsts):
            self._recent.forget_below(partition, first)
            self._ahead.forget_below(partition, first)
        return firsts

    async def unsafe(self) -> list[str]:
        """Why the topic could lose what was accepted, one line per reason; empty when it is safe."""
        self._check_open()
        topology = await self._cluster.refresh()
        return unsafe(Found(self.partitions, min(topology.copies), await topic_settings(self._cluster)))

    async def wait_for_more(self, ends: Sequence[int], within: float) -> list[int]:
        if self._closed:
            return list(self._tail.ends)
        self._check_open()
        await self._tail.beyond(ends, within)
        self._check_open()
        return list(self._tail.ends)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._watching.cancel()
        self._latest.cancel()
        self._earliest.cancel()
        await self._appender.close(CLOSE_SECONDS)
        await self._tail.stop()
        self._tail.wake()
        with contextlib.suppress(Exception):
            await self._cluster.close()

    def _check_open(self) -> None:
        if self._cluster.replaced is not None:
            raise self._cluster.replaced
        if self._closed:
            raise LogUnavailable("the log is closed")

    def _checked(self, record: NewRecord) -> int:
        """The record's size at most."""
        if not 0 <= record.partition < self.partitions:
            raise ValueError("no such partition")
        size = size_of(record)
        if size > self.max_record_bytes:
            raise PayloadTooLarge(
                f"A record of {size:,} bytes: the topic {self._cluster.topic} takes {self.max_record_bytes:,} at most "
                "(max.message.bytes)."
            )
        return size

    def _pieces(self, sizes: Sequence[int], places: Sequence[int]) -> list[list[int]]:
        """Cut into what fits one batch each."""
        pieces: list[list[int]] = [[]]
        size = 0
        for place in places:
            need = sizes[place]
            if pieces[-1] and size + need > self._appender.limit:
                pieces.append([])
                size = 0
            pieces[-1].append(place)
            size += need
        return pieces

    async def _fetch(self, partition: int, offset: int, max_records: int, max_bytes: int) -> list[Record]:
        """Ask the leader. It gives one whole batch at least, so a large record comes whatever the bounds say."""
        size = min(max_bytes, max_records * _USUAL_RECORD)

        async def once() -> list[Record]:
            self.reads += 1
            node, topic_id = self._cluster.leader(partition), self._cluster.topology.topic_id
            request = FetchById(topic_id, {partition: offset}, wait_ms=0, partition_bytes=size, total_bytes=size)
            response = await self._cluster.ask(node, request, "read")
            ((_, _, _, first, data),) = answers(response)
            self._recent.forget_below(partition, first)
            self._ahead.forget_below(partition, first)
            return unpacked(partition, offset, data)

        try:
            return await with_leaders(self._cluster, once)
        except PositionExpired:
            firsts = await self.starts()
            if offset < firsts[partition]:
                raise PositionExpired(first_offset=firsts[partition]) from None
            return []  # beyond the end

    async def _watch_starts(self) -> None:
        """Memory lets go of what retention took; a log replaced while nobody writes is noticed."""
        while True:
            await asyncio.sleep(_STARTS_EVERY_SECONDS)
            try:
                await self._cluster.refresh()
                await self.starts()
            except LogReplaced:
                return
            except (NumhubError, kafka.KafkaError) as error:
                log.info("kafka.unavailable", extra={"cause": str(error)})


def _bounded(records: Sequence[Record], max_records: int, max_bytes: int) -> list[Record]:
    size = 0
    for count, record in enumerate(records[:max_records]):
        size += len(record.body)
        if count and size > max_bytes:
            return list(records[:count])
    return list(records[:max_records])


def _worst(failures: Sequence[BaseException], *, some_taken: bool) -> BaseException:
    """Of several partitions' failures the one that tells the caller what to do."""
    for failure in failures:
        if not isinstance(failure, NumhubError):
            return failure
    replaced = next((failure for failure in failures if isinstance(failure, LogReplaced)), None)
    if replaced is not None:
        return replaced
    doubt = next((failure for failure in failures if isinstance(failure, AppendInDoubt)), None)
    if doubt is not None:
        return doubt
    return AppendInDoubt("Kafka took some of the records and not the others.") if some_taken else failures[0]


def _stamp(clock: Clock | None) -> Callable[[], int]:
    if clock is None:
        return lambda: time.time_ns() // 1_000_000
    return lambda: int(clock.now().timestamp() * 1000)
