"""The topics of carriers and regulators: read by the topic's id from positions of our own, written with acks=all.

No consumer groups, no stored offsets, no reset policy. Of a producer's transactions only the committed ones are read.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.errors import CorruptRecordException
from aiokafka.record.control_record import ABORT_MARKER, ControlRecord
from aiokafka.record.memory_records import MemoryRecords

from hub.adapters.kafka.cluster import Cluster, Security
from hub.adapters.kafka.ends import EARLIEST, LATEST, offsets, with_leaders
from hub.adapters.kafka.errors import TopicMissing, told, translated
from hub.adapters.kafka.messages import FetchById
from hub.adapters.kafka.tail import answers
from hub.domain.errors import AppendInDoubt, LogReplaced, LogUnavailable, PositionExpired
from hub.ports.topics import Publication, SentRecord, Stretch, TopicState

log = logging.getLogger(__name__)

PARTITION_BYTES, TOTAL_BYTES = 1 << 20, 4 << 20
PUBLISH_SECONDS = 15.0
STOP_SECONDS = 3.0
MAX_PUBLICATION = 4 << 20
_KNOWN_FOR_SECONDS = 30.0
_BETWEEN_BROKERS = 0.05


class KafkaTopics:
    """`hub.ports.topics.Topics`. One per process and event loop."""

    def __init__(self, bootstrap: str, security: Security | None = None) -> None:
        self._bootstrap, self._security = bootstrap, security or Security()
        self._producer: AIOKafkaProducer | None = None
        self._known: dict[str, float] = {}  # topic -> until when it is taken to be there
        self._publishing = asyncio.Lock()
        self._stopping: set[asyncio.Task[None]] = set()
        self._closed = False

    async def reader(self, topic: str) -> KafkaTopicReader:
        return KafkaTopicReader(self._bootstrap, topic, self._security)

    async def publish(self, messages: Sequence[Publication]) -> None:
        if not messages:
            return
        for topic in dict.fromkeys(message.topic for message in messages):
            await self._check(topic)
        async with self._publishing:
            producer = await self._started()
            try:
                async with asyncio.timeout(PUBLISH_SECONDS):
                    waiting = [await self._send(producer, message) for message in messages]
                    await asyncio.gather(*waiting)
            except asyncio.CancelledError:
                self._drop(producer)
                raise
            except (kafka.KafkaError, OSError, TimeoutError) as error:
                # an idempotent producer may have a hole in its sequence now: never go on with it
                self._drop(producer)
                self._known.clear()
                raise AppendInDoubt(f"Kafka did not confirm what was published: {told(error)}.") from error

    async def close(self) -> None:
        self._closed = True
        if self._producer is not None:
            self._drop(self._producer)
        if self._stopping:
            await asyncio.wait(self._stopping)

    async def _send(self, producer: AIOKafkaProducer, message: Publication) -> Any:
        headers = [(name, value.encode()) for name, value in message.headers.items()]
        return await producer.send(message.topic, message.value, message.key.encode(), headers=headers)

    async def _check(self, topic: str) -> None:
        """A producer that does not know a topic would wait for it, or make it. Raises LogUnavailable."""
        now = asyncio.get_running_loop().time()
        if self._known.get(topic, 0.0) > now:
            return
        cluster = Cluster(self._bootstrap, topic, self._security)
        try:
            await cluster.refresh()
        finally:
            await cluster.close()
        self._known[topic] = now + _KNOWN_FOR_SECONDS

    async def _started(self) -> AIOKafkaProducer:
        if self._closed:
            raise LogUnavailable("closed")
        if self._producer is None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._bootstrap,
                client_id="numhub",
                acks="all",
                enable_idempotence=True,
                max_request_size=MAX_PUBLICATION,
                request_timeout_ms=int(PUBLISH_SECONDS * 1000),
                **self._security.options(),
            )
            try:
                async with asyncio.timeout(PUBLISH_SECONDS):
                    await producer.start()
            except BaseException as error:
                self._drop(producer)
                known = translated(error)
                if known is None:
                    raise
                raise known from error
            self._producer = producer
        return self._producer

    def _drop(self, producer: AIOKafkaProducer) -> None:
        self._producer = None
        task = asyncio.get_running_loop().create_task(_stop(producer), name="kafka producer stop")
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)


async def _stop(producer: AIOKafkaProducer) -> None:
    """aiokafka waits for what it can never send (#659). Then it is cut off: a producer that was given up must not send
    it one day after all, when the broker is back, nor keep its connections."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(STOP_SECONDS):
            await producer.stop()
            return
    with contextlib.suppress(Exception):
        async with asyncio.timeout(STOP_SECONDS):
            sender, waiting = producer._sender.sender_task, producer._message_accumulator
            for batch in [batch for batches in waiting._batches.values() for batch in batches]:
                batch._drain_waiter.cancel()  # nobody waits for it, so nobody would take its exception
            waiting.fail_all(kafka.ProducerClosed())  # ends the flush that `stop` began
            while sender is not None and not sender.done():  # the first cancellation lets it wait for its requests
                sender.cancel()
                await asyncio.wait([sender], timeout=0.1)
    with contextlib.suppress(Exception):
        async with asyncio.timeout(PUBLISH_SECONDS), producer.client._get_conn_lock:  # who is connecting ends first
            await producer.client.close()


class KafkaTopicReader:
    """`hub.ports.topics.TopicReader`. One request is under way per broker; nothing is fetched ahead of it."""

    def __init__(self, bootstrap: str, topic: str, security: Security) -> None:
        self._bootstrap, self._topic, self._security = bootstrap, topic, security
        self._cluster = Cluster(bootstrap, topic, security)
        self._under_way: dict[int, tuple[dict[int, int], asyncio.Task[list[Stretch]]]] = {}

    async def state(self) -> TopicState | None:
        for _ in range(2):
            try:
                topology = await self._cluster.refresh()
                first = await offsets(self._cluster, EARLIEST)
                ends = await offsets(self._cluster, LATEST)
            except TopicMissing:
                return None
            except LogReplaced:
                await self._renew()
                continue
            return TopicState(str(topology.topic_id), dict(enumerate(first)), dict(enumerate(ends)))
        raise LogUnavailable(f"The topic {self._topic} is being made again.")

    async def read(self, topic_id: str, positions: Mapping[int, int], *, within: float) -> list[Stretch]:
        try:
            topology = self._cluster.topology if self._cluster.known else await self._cluster.refresh()
        except LogReplaced as error:
            raise PositionExpired(error.message) from error
        if str(topology.topic_id) != topic_id:
            raise PositionExpired(f"{self._topic} is another topic now.")
        try:
            return await with_leaders(self._cluster, lambda: self._read(positions, within), within + 10.0)
        except LogReplaced as error:
            raise PositionExpired(error.message) from error

    async def close(self) -> None:
        await self._forget()
        await self._cluster.close()

    async def _renew(self) -> None:
        await self.close()
        self._cluster = Cluster(self._bootstrap, self._topic, self._security)

    async def _read(self, positions: Mapping[int, int], within: float) -> list[Stretch]:
        """Ask every leader that is not being asked, and take what the first of them brings."""
        for node, partitions in self._cluster.topology.by_leader().items():
            asked = {partition: positions[partition] for partition in partitions if partition in positions}
            if not asked:
                continue
            earlier = self._under_way.get(node)
            if earlier is not None and earlier[0] != asked:
                earlier[1].cancel()
                earlier = None
            if earlier is None:
                task = asyncio.create_task(self._fetch(node, asked, within), name=f"fetch {self._topic}")
                self._under_way[node] = (asked, task)
        if not self._under_way:
            return []
        await asyncio.wait([task for _, task in self._under_way.values()], return_when=asyncio.FIRST_COMPLETED)
        if len(self._under_way) > 1:
            await asyncio.sleep(_BETWEEN_BROKERS)  # what others have ready comes along
        found: list[Stretch] = []
        failure: BaseException | None = None
        for node, (_, task) in list(self._under_way.items()):
            if task.done():
                del self._under_way[node]
                failure = failure or task.exception()
                if task.exception() is None:
                    found += task.result()
        if failure is not None and not found:
            await self._forget()
            raise failure
        return found

    async def _forget(self) -> None:
        tasks = [task for _, task in self._under_way.values()]
        self._under_way.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _fetch(self, node: int, asked: dict[int, int], within: float) -> list[Stretch]:
        request = FetchById(
            self._cluster.topology.topic_id, asked, wait_ms=int(within * 1000), partition_bytes=PARTITION_BYTES,
            total_bytes=TOTAL_BYTES, committed=True,
        )  # fmt: skip
        response = await self._cluster.ask(node, request, "read", within + 10.0)
        aborted = _aborted(response)
        found = []
        for partition, _, _, _, data in answers(response):
            stretch = await asyncio.to_thread(_unpacked, partition, asked[partition], data, aborted.get(partition, []))
            if stretch is not None:
                found.append(stretch)
        return found


def _aborted(response: Any) -> dict[int, list[tuple[int, int]]]:
    found: dict[int, list[tuple[int, int]]] = {}
    for _, partitions, _ in response.topics:
        for partition, _, _, _, _, aborted, _, _, _ in partitions:
            found[partition] = sorted((first, producer) for producer, first, _ in aborted or ())
    return found


def _unpacked(partition: int, offset: int, data: bytes, aborted: list[tuple[int, int]]) -> Stretch | None:
    """None if nothing is there. ``aborted``: (first offset, producer id) of transactions, ascending."""
    records: list[SentRecord] = []
    batches, next_offset = MemoryRecords(data), offset
    waiting, inside = list(aborted), set[int]()
    while batches.has_next():
        batch = batches.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"partition {partition}, after offset {next_offset}: wrong checksum")
        while waiting and waiting[0][0] <= batch.base_offset:
            inside.add(waiting.pop(0)[1])
        if batch.is_control_batch:
            if ControlRecord.parse(next(batch).key) == ABORT_MARKER:
                inside.discard(batch.producer_id)
        elif not (batch.is_transactional and batch.producer_id in inside):
            records += _records(partition, max(offset, batch.base_offset), batch)
        next_offset = max(next_offset, batch.next_offset)
    return None if next_offset == offset else Stretch(partition, tuple(records), next_offset)


def _records(partition: int, offset: int, batch: Any) -> list[SentRecord]:
    """Where one cannot be read, neither can what follows it in its batch."""
    found: list[SentRecord] = []
    try:
        found.extend(_record(partition, raw) for raw in batch if raw.offset >= offset)
    except (ValueError, CorruptRecordException, OverflowError, MemoryError):
        done = found[-1].offset + 1 if found else offset
        found += [SentRecord(partition, at, 0, None, damaged=True) for at in range(done, batch.next_offset)]
    return found


def _record(partition: int, raw: Any) -> SentRecord:
    headers = tuple((name, value or b"") for name, value in raw.headers)
    size = sum(len(name) + len(value) for name, value in headers) + len(raw.key or b"") + len(raw.value or b"")
    return SentRecord(partition, raw.offset, size, raw.value, headers)
