"""Appending: acks=all, one batch in flight per partition, under a producer id of its own that doubt throws away.

aiokafka's producer repeats an idempotent batch without end, cannot be told to give one up, leaves a hole in the
sequence when a batch fails, hangs when its sender task is cancelled, and reports a duplicate whose place nobody knows
as a success at offset -1. So the hub sends by itself, on aiokafka's connections and record batches: a batch keeps its
bytes over all tries, a try has a deadline, and whatever leaves doubt ends the partition's producer id. No task of this
module waits for anything without a deadline.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import errors as kafka
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest

from hub.adapters.kafka import errors
from hub.adapters.kafka.cluster import Cluster
from hub.adapters.kafka.records import BARRIER, Batch
from hub.domain.errors import AppendInDoubt, LogReplaced, LogUnavailable, NumhubError
from hub.ports.log import Header, NewRecord

log = logging.getLogger(__name__)

TRY_SECONDS = 10.0
"""One request. The broker waits a little less for its replicas and then says so."""
_BACKOFF_SECONDS, _MAX_BACKOFF_SECONDS = 0.05, 0.5
_REQUEST_BYTES = 4 << 20
_BATCH_BYTES = 1 << 20


@dataclass(eq=False, slots=True)
class _Item:
    """What one caller wants appended to one partition: answered with the offset of its first record."""

    records: Sequence[NewRecord]
    size: int
    done: asyncio.Future[int]
    sent: bool = False


@dataclass(eq=False, slots=True)
class _InFlight:
    batch: Batch
    items: list[_Item]
    provers: list[asyncio.Future[int]]
    producer: tuple[int, int, int] | None = None  # id, epoch, sequence
    data: bytes = b""
    doubt: BaseException | None = None  # a try that may have been taken
    tries: int = 0
    size: int = 0  # bytes, at most

    def awaited(self) -> bool:
        return any(not item.done.done() for item in self.items) or any(not each.done() for each in self.provers)


@dataclass(eq=False, slots=True)
class _Line:
    """One partition. ``producer`` is its id, epoch and next sequence number, None until one is needed."""

    partition: int
    queue: deque[_Item] = field(default_factory=deque)
    provers: list[asyncio.Future[int]] = field(default_factory=list)
    flight: _InFlight | None = None
    busy: bool = False
    not_before: float = 0.0
    failures: int = 0  # since the last success
    producer: tuple[int, int, int] | None = None
    end: int = 0  # the log reached at least this far


class Appender:
    """``limit`` is what the topic takes in one batch. ``ends`` as known when opened."""

    def __init__(self, cluster: Cluster, ends: Sequence[int], limit: int, clock_ms: Callable[[], int]) -> None:
        self._cluster, self._clock_ms = cluster, clock_ms
        self.limit = min(limit, _BATCH_BYTES)
        self._lines = [_Line(partition, end=end) for partition, end in enumerate(ends)]
        self._due = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._nodes: set[int] = set()
        self._closed = False
        self._trouble = ""  # what went wrong last
        self.requests = self.barriers = 0

    async def append(self, partition: int, records: Sequence[NewRecord], size: int, within: float) -> int:
        """The offset of the first record; the others follow it directly. ``size`` is at least what they take.

        Raises AppendInDoubt, LogUnavailable."""
        loop = asyncio.get_running_loop()
        item = _Item(records, size, loop.create_future())
        self._lines[partition].queue.append(item)
        self._soon()
        deadline = loop.call_later(within, self._overdue, item, within)  # cheaper than a timeout's cancellation
        try:
            return await item.done
        finally:
            deadline.cancel()

    def _overdue(self, item: _Item, within: float) -> None:
        if item.sent:
            _fail(item.done, AppendInDoubt(f"Kafka did not confirm the record within {within:g} s."))
        else:
            _fail(item.done, LogUnavailable(f"Kafka took nothing for {within:g} s{self._trouble}."))

    async def prove(self, partition: int, within: float) -> int:
        """An end of the partition that covers every append answered before this call: it follows a record that was
        sent afterwards and that all replicas in sync hold. A waiting append serves, else a barrier record is sent."""
        proved: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._lines[partition].provers.append(proved)
        self._soon()
        try:
            async with asyncio.timeout(within):
                return await proved
        except TimeoutError:
            raise LogUnavailable(
                f"Kafka did not confirm the end of the log within {within:g} s{self._trouble}."
            ) from None
        except AppendInDoubt as error:
            raise LogUnavailable("Kafka did not confirm the end of the log.") from error

    async def close(self, within: float) -> None:
        """Wait for what is on its way; what is still not answered then is in doubt, and what waits is not taken."""
        self._closed = True
        for line in self._lines:
            for item in line.queue:
                _fail(item.done, LogUnavailable("the log is closed"))
            line.queue.clear()
        deadline = time.monotonic() + within
        while self._tasks and (left := deadline - time.monotonic()) > 0:
            await asyncio.wait(list(self._tasks), timeout=left)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(list(self._tasks), timeout=1.0)
        for line in self._lines:
            if line.flight is not None:
                self._finish(line, AppendInDoubt("the log was closed before Kafka answered"))
            for proved in line.provers:
                _fail(proved, LogUnavailable("the log is closed"))

    # -- forming batches

    def _soon(self) -> None:
        """Send in the next round of the event loop, so that callers of this one travel together."""
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._send_what_waits)

    def _send_what_waits(self) -> None:
        self._due = False
        if self._cluster.replaced is not None:
            self._fail_all(self._cluster.replaced)
            return
        now = time.monotonic()
        by_node: dict[int, list[_Line]] = {}
        sizes: dict[int, int] = {}
        for line in self._lines:
            if line.busy or line.not_before > now:  # a timer of its own brings it back
                continue
            if line.flight is not None and not line.flight.awaited():
                self._finish(line, _given_up(line.flight, TimeoutError()))
            if line.flight is None and not self._form(line):
                continue
            flight = line.flight
            assert flight is not None
            try:
                node = self._cluster.leader(line.partition)
            except (kafka.KafkaError, NumhubError) as error:
                self._again(line, error)
                self._start(self._refreshed(), "kafka leaders")
                continue
            if node in self._nodes or sizes.get(node, 0) >= _REQUEST_BYTES:
                continue  # sent when the request under way is answered
            by_node.setdefault(node, []).append(line)
            sizes[node] = sizes.get(node, 0) + flight.size
        for node, lines in by_node.items():
            self._nodes.add(node)
            for line in lines:
                line.busy = True
            self._start(self._send(node, lines), f"kafka append to broker {node}")

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = asyncio.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _form(self, line: _Line) -> bool:
        """Make the next batch of what waits: whole items, as many as fit, in their order."""
        while line.queue and line.queue[0].done.done():
            line.queue.popleft()
        line.provers = [proved for proved in line.provers if not proved.done()]
        if self._closed or not (line.queue or line.provers):
            return False
        flight = _InFlight(Batch(self.limit), [], line.provers)
        line.provers = []
        now = self._clock_ms()
        size = 0
        while line.queue:
            item = line.queue[0]
            if flight.items and size + item.size > self.limit:
                break
            line.queue.popleft()
            if item.done.done():
                continue
            for record in item.records:
                if not flight.batch.add(record, now):
                    raise AssertionError("an item was let in that does not fit one batch")
            size += item.size
            flight.items.append(item)
        flight.size = size
        if not flight.items:
            self.barriers += 1
            flight.batch.add(NewRecord(line.partition, BARRIER, {Header.kind: BARRIER}, b""), now)
        line.flight = flight
        return True

    # -- sending

    async def _send(self, node: int, lines: list[_Line]) -> None:
        try:
            await self._try(node, lines)
        except asyncio.CancelledError as error:
            for line in lines:
                if line.flight is not None and line.flight.data:
                    line.flight.doubt = line.flight.doubt or error
            raise
        except Exception:  # a mistake of the program must not leave callers waiting, nor stop the other appends
            log.exception("kafka.append_failed")
            for line in lines:
                if line.flight is not None:
                    self._finish(line, AppendInDoubt())
        finally:
            self._nodes.discard(node)
            for line in lines:
                line.busy = False
            self._soon()

    async def _try(self, node: int, lines: list[_Line]) -> None:
        ready: list[tuple[_Line, _InFlight]] = []
        for line in lines:
            flight = line.flight
            assert flight is not None
            try:
                await self._number(node, line, flight)
            except (kafka.KafkaError, OSError, EOFError) as error:
                self._again(line, error)  # nothing was sent yet
            else:
                ready.append((line, flight))
        if not ready:
            await self._refreshed()
            return
        data = [(line.partition, flight.data) for line, flight in ready]
        request = ProduceRequest(None, -1, int(TRY_SECONDS * 900), [(self._cluster.topic, data)])
        for _, flight in ready:
            flight.tries += 1
            for item in flight.items:
                item.sent = True
        self.requests += 1
        try:
            response = await self._cluster.ask(node, request, "append", TRY_SECONDS)
        except (kafka.KafkaError, OSError, EOFError) as error:
            for line, _ in ready:
                self._outcome(line, error, -1)
            await self._refreshed()
            return
        said: dict[int, tuple[BaseException | None, int]] = {}
        for _, answers in response.topics:
            for partition, code, offset, *_ in answers:
                said[partition] = (kafka.for_code(code)(f"partition {partition}") if code else None, offset)
        for line, _ in ready:
            self._outcome(line, *said.get(line.partition, (kafka.UnknownError("no answer for the partition"), -1)))
        if any(line.producer is None or line.flight is not None for line, _ in ready):  # something was not in order
            await self._refreshed()

    async def _number(self, node: int, line: _Line, flight: _InFlight) -> None:
        """Give the batch its producer id and sequence: once, and the same bytes for every later try."""
        if flight.producer is not None:
            return
        if line.producer is None:
            answer = await self._cluster.ask(node, InitProducerIdRequest(None, 0), "append", TRY_SECONDS)
            if answer.error_code:
                raise kafka.for_code(answer.error_code)("producer id")
            line.producer = (answer.producer_id, answer.producer_epoch, 0)
        flight.producer = line.producer
        flight.data = flight.batch.bytes(*line.producer)

    async def _refreshed(self) -> None:
        try:
            async with asyncio.timeout(TRY_SECONDS):
                await self._cluster.refresh()
        except (NumhubError, TimeoutError) as error:
            log.info("kafka.unavailable", extra={"cause": str(error)})

    # -- what came of it

    def _outcome(self, line: _Line, error: BaseException | None, offset: int) -> None:
        flight = line.flight
        assert flight is not None and flight.producer is not None
        if error is None and line.end <= offset:
            producer_id, epoch, sequence = flight.producer
            line.producer = (producer_id, epoch, (sequence + flight.batch.count) & 0x7FFFFFFF)
            line.end = offset + flight.batch.count
            self._answer(line, offset)
        elif error is None:  # no offset, or one that was given out before: another log, or an older state of this one
            self._finish(line, AppendInDoubt("Kafka confirmed the record at a place where another one stands."))
        elif isinstance(error, kafka.NodeNotReadyError):
            self._again(line, error)  # not sent
        elif isinstance(error, errors.SEQUENCE):
            if flight.doubt is not None:  # an earlier try may be the reason
                self._finish(line, _doubt(flight.doubt))
            else:
                line.producer = flight.producer = None
                self._again(line, error)
        elif isinstance(error, errors.NOT_TAKEN):
            self._again(line, error)
        elif isinstance(error, (*errors.REFUSED, *errors.TOO_LARGE)):
            refused = errors.translated(error) or LogUnavailable()
            log.error("kafka.append_refused", extra={"partition": line.partition, "cause": errors.told(error)})
            self._finish(line, refused if flight.doubt is None else _doubt(flight.doubt))
        elif isinstance(error, kafka.DuplicateSequenceNumber):
            self._finish(line, _doubt(error))  # asking again would bring the same answer
        else:
            flight.doubt = error
            self._again(line, error)

    def _again(self, line: _Line, error: BaseException) -> None:
        """Once more in a moment. What may have been taken goes out as the same bytes, unless nobody waits for it any
        longer; what was surely not taken is batched anew, without those who have been told so meanwhile."""
        flight = line.flight
        assert flight is not None
        if isinstance(error, LogReplaced) or self._closed or (flight.doubt is not None and not flight.awaited()):
            self._finish(line, error if isinstance(error, LogReplaced) else _given_up(flight, error))
            return
        line.failures += 1
        self._trouble = f" ({errors.told(error)})"
        if flight.doubt is None:
            line.flight = None
            for item in reversed(flight.items):
                item.sent = False
                line.queue.appendleft(item)
            line.provers = flight.provers + line.provers
        pause = min(_BACKOFF_SECONDS * 2 ** min(line.failures, 6), _MAX_BACKOFF_SECONDS)
        line.not_before = time.monotonic() + pause
        asyncio.get_running_loop().call_later(pause + 0.001, self._soon)

    def _answer(self, line: _Line, offset: int) -> None:
        flight, line.flight = line.flight, None
        line.not_before, line.failures, self._trouble = 0.0, 0, ""
        assert flight is not None
        place = offset
        for item in flight.items:
            if not item.done.done():
                item.done.set_result(place)
            place += len(item.records)
        for proved in flight.provers:
            if not proved.done():
                proved.set_result(line.end)

    def _finish(self, line: _Line, error: Exception) -> None:
        """Give the batch up. Its producer id goes with it if it may have been taken: the next batch begins anew."""
        flight, line.flight = line.flight, None
        line.not_before = 0.0
        assert flight is not None
        if isinstance(error, AppendInDoubt) or flight.tries:
            line.producer = None
        for item in flight.items:
            _fail(item.done, error)
        for proved in flight.provers:
            _fail(proved, error)

    def _fail_all(self, error: Exception) -> None:
        for line in self._lines:
            if line.flight is not None and not line.busy:
                self._finish(line, error if not line.flight.tries else AppendInDoubt(str(error)))
            for item in line.queue:
                _fail(item.done, error)
            line.queue.clear()
            for proved in line.provers:
                _fail(proved, error)
            line.provers = []


def _doubt(error: BaseException) -> AppendInDoubt:
    return AppendInDoubt(f"It is not known whether Kafka took the record: {errors.told(error)}.")


def _given_up(flight: _InFlight, error: BaseException) -> Exception:
    if flight.doubt is not None:
        return _doubt(flight.doubt)
    return LogUnavailable(f"Kafka took nothing: {errors.told(error)}.")


def _fail(future: asyncio.Future[int], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # taken note of, also when the caller has left
