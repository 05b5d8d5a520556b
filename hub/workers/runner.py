"""One subscription's lanes: a cursor per partition and lane, one request out on each, nothing buffered beyond it.

A lane is *idle* when it has looked at everything up to the tail of its partition; then it has no task at all and the
tail hands it the next record it wants. Otherwise a task reads on from its cursor, delivers, commits receipt and cursor
together, and only then looks further. While it waits for a permit, a slot or a retry it holds no record in memory.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import datetime
from random import Random
from typing import TYPE_CHECKING, Any, Protocol

from hub.domain.delivery import Delivered, Outcome, Parked, Refused, RetryAt
from hub.domain.errors import PositionExpired, Unavailable
from hub.domain.events import Lane as LaneName
from hub.domain.parties import Subscription
from hub.flow.fanout import Fanout, Verdict
from hub.flow.push import Push, Trail
from hub.ports.clock import Clock
from hub.ports.ledger import AttemptRecord, Cursor, Ledger, ParkedChunk, Receipt
from hub.ports.log import Header, Record
from hub.ports.metrics import Metrics
from hub.workers.gate import Gate
from hub.workers.recorder import LeaseLost, Recorder
from hub.workers.slots import Lease, Slots

if TYPE_CHECKING:
    from hub.flow.reader import Readable, Reader
    from hub.workers.tail import Tail

log = logging.getLogger("numhub.dispatcher")

FEW, PAGE = 4, 32
"""Records looked at first (mostly the very next one is wanted), then per read."""
AGAIN_AFTER = 1.0
"""Seconds until a log or ledger that cannot be reached is asked again."""


@dataclass
class Kit:
    """What all lanes share."""

    ledger: Ledger
    reader: Reader
    fanout: Fanout
    push: Push
    recorder: Recorder
    slots: Slots
    clock: Clock
    random: Random
    metrics: Metrics
    tails: list[Tail]
    suspend: Callable[[str, str], Awaitable[None]]
    ended: Callable[[Runner, asyncio.Task[None]], None]
    shards: Ownership


class Ownership(Protocol):
    """For which shards of subscriptions this process may deliver now; see `flow.holding`."""

    def owned(self) -> set[int]: ...

    def epoch(self, subscription_id: str) -> tuple[int, int] | None: ...


Fence = tuple[int, int]
"""(shard, epoch) under which a runner was opened: its results are recorded under no other."""


class Runner:
    """The lanes and the gate of one push subscription. Closed ones keep nothing but their unfinished tasks."""

    def __init__(self, subscription: Subscription, kit: Kit) -> None:
        self.subscription = subscription
        self.kit = kit
        self.gate = self._new_gate()
        self.lanes: list[Lane] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self.open = False
        self.fence: Fence = (0, 0)
        self.held = 0  # > 0: somebody moves its cursors; it stays closed
        self.live_appended, self.live_at = 0, float("-inf")  # of the live record delivered last, see `workers.live_lag`

    def _new_gate(self) -> Gate:
        longest = max((wait.total_seconds() for wait in self.kit.push.schedule), default=0.0)
        return Gate(self.kit.clock, self.kit.random, pause_max=longest)  # no probe is rarer than the schedule's own

    def start(self, cursors: list[Cursor], fence: Fence) -> None:
        """Open a lane per cursor, live ones first. Only when no task of an earlier opening is left."""
        self.open = True
        self.fence = fence
        self.gate = self._new_gate()
        wanted = [cursor for cursor in cursors if cursor.lane in self.subscription.lanes]
        self.lanes = [Lane(self, cursor) for cursor in sorted(wanted, key=lambda c: c.lane is not LaneName.live)]
        for lane in self.lanes:
            if not self.kit.tails[lane.partition].join(lane):
                lane.begin(None)

    def close(self) -> None:
        """Nothing new leaves; what is out is finished and recorded."""
        if self.open:
            self.open = False
            for lane in self.lanes:
                self.kit.tails[lane.partition].drop(lane)
            self.lanes = []
            self.gate.close()

    @property
    def owns(self) -> bool:
        """May this process still deliver for it, under the epoch it was opened with?"""
        return self.kit.shards.epoch(self.subscription.subscription_id) == self.fence

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task: asyncio.Task[None] = asyncio.create_task(self._until_lost(work))
        self.tasks.add(task)
        task.add_done_callback(self._done)

    async def _until_lost(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except LeaseLost:  # somebody else delivers, from the cursors of the ledger
            self.close()

    def _done(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.kit.ended(self, task)

    async def send(self, turn: Lane | Redrive, readable: Readable) -> Outcome | None:
        """One attempt under a permit that ``turn`` holds; gives the permit back. None: nothing may be sent now."""
        subscription = self.subscription
        if not self.open or not self.owns or not self.kit.fanout.serves(subscription):
            self.gate.leave(turn, None)
            return None
        outcome: Outcome | None = None
        until = 0.0
        try:
            outcome = await self.kit.push.attempt(subscription, readable, turn.trail)
            if isinstance(outcome, RetryAt):
                clock = self.kit.clock
                wait = (outcome.at - clock.now()).total_seconds()
                turn.not_before = clock.monotonic() + wait
                if turn.trail.told_when:  # it spoke for the whole endpoint
                    until = turn.not_before
        finally:
            succeeded = None if outcome is None else isinstance(outcome, Delivered)
            self.gate.leave(turn, succeeded, until=until)
        return outcome

    async def refused(self, record: Record, status: int, turn: Lane | Redrive) -> None:
        """The endpoint is gone for good: stop at once, then say so in the directory. The cursor stays."""
        subscription_id = self.subscription.subscription_id
        self.close()
        log.warning("subscription_refused", extra={"subscription_id": subscription_id, "status": status})
        now = self.kit.clock.now()
        await self.kit.recorder.add(
            self.fence,
            attempt=AttemptRecord(
                subscription_id, record.record_id, now, turn.trail.attempts, status, f"http_{status}", None
            ),
        )
        await self._suspend(f"endpoint_gone: the endpoint answered {status}")

    async def expired(self, lane: Lane) -> None:
        """The log no longer keeps what this lane is owed. Never jump over it unseen: stop, and say so."""
        self.close()
        self.kit.metrics.count("numhub_positions_expired_total")
        log.critical(
            "lane_position_expired",
            extra={
                "subscription_id": self.subscription.subscription_id,
                "partition": lane.partition,
                "offset": lane.offset,
            },
        )
        await self._suspend("position_expired: the log no longer keeps the records this subscription is owed")

    async def _suspend(self, reason: str) -> None:
        while True:
            try:
                await self.kit.suspend(self.subscription.subscription_id, reason)
                return
            except Unavailable:
                await self.kit.clock.sleep(AGAIN_AFTER)


class _Turn:
    """Standing at the gate; see `workers.gate.Turn`."""

    live = False

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.kit = runner.kit
        self.trail = Trail()
        self.not_before = 0.0
        self.calls = 0
        self.called_at = float("-inf")

    def fresh(self) -> None:
        """A new record: nothing was tried yet."""
        self.trail = Trail()
        self.not_before = 0.0
        self.calls = 0

    def failed_attempt(self, record: Record, outcome: RetryAt) -> AttemptRecord:
        return AttemptRecord(
            self.runner.subscription.subscription_id,
            record.record_id,
            self.kit.clock.now(),
            self.trail.attempts,
            outcome.status,
            outcome.reason,
            outcome.at,
        )

    def receipt(self, record: Record, now: datetime) -> Receipt:
        subscription = self.runner.subscription
        return Receipt(
            subscription.subscription_id,
            record.record_id,
            record.position,
            now,
            self.trail.attempts,
            subscription.mode.value,
        )


class Lane(_Turn):
    """``offset`` is the next record to look at; ``saved`` the one the ledger knows."""

    def __init__(self, runner: Runner, cursor: Cursor) -> None:
        super().__init__(runner)
        self.partition = cursor.partition
        self.name = cursor.lane
        self.live = cursor.lane is LaneName.live
        self.start = cursor.start
        self.offset = self.saved = cursor.offset
        self._recall = True  # the first record may have been tried before this process began
        self._tail = runner.kit.tails[cursor.partition]

    def cursor(self, offset: int) -> Cursor:
        return Cursor(self.runner.subscription.subscription_id, self.partition, self.name, self.start, offset)

    def begin(self, readable: Readable | None) -> None:
        self.runner.spawn(self._run(readable))

    async def _run(self, readable: Readable | None) -> None:
        runner = self.runner
        lease: Lease | None = None
        while runner.open:
            if readable is None:
                readable = await self._next()
                if readable is None:
                    return
            ready = runner.gate.try_enter(self)
            if ready and not self.live:
                lease = self.kit.slots.try_take()
                if lease is None:
                    runner.gate.leave(self, None)
                    ready = False
            if not ready:
                readable = None  # may be hours: nothing is held meanwhile
                if not await runner.gate.enter(self):
                    return
                try:
                    lease = None if self.live else await self.kit.slots.take()
                    readable = await self._next()
                finally:
                    if readable is None:
                        runner.gate.leave(self, None)
                        if lease is not None:
                            lease.release()
                if readable is None:
                    return
            try:
                outcome = await runner.send(self, readable)
            finally:
                if lease is not None:
                    lease.release()
                    lease = None
            if outcome is None:
                runner.close()
                return
            await self._settle(readable.record, outcome)
            readable = None

    async def _next(self) -> Readable | None:
        """The next record this lane wants, at or after ``offset``; None once it has joined the idle, or must halt."""
        runner, kit = self.runner, self.kit
        ahead = FEW
        while runner.open:
            if self._tail.join(self):
                return None
            near = kit.reader.at(self.partition, self.offset)  # mostly it is the very next one
            if near is not None and self._wants(near.record.headers) is Verdict.send:
                return near
            try:
                page, after = await kit.reader.read(self.partition, self.offset, ahead)
            except Unavailable:
                log.warning("lane_read_delayed", extra={"partition": self.partition})
                await kit.clock.sleep(AGAIN_AFTER)
                continue
            except PositionExpired:
                await runner.expired(self)
                return None
            ahead = PAGE
            for readable in page:
                record = readable.record
                if record.offset < self.offset:
                    continue
                match self._wants(record.headers):
                    case Verdict.send:
                        self.offset = record.offset
                        return readable
                    case Verdict.halt:
                        runner.close()
                        return None
                    case Verdict.skip:
                        self.offset = record.offset + 1
            self.offset = max(self.offset, after)
            await asyncio.sleep(0)
        return None

    def _wants(self, headers: Mapping[str, str]) -> Verdict:
        if headers[Header.lane] != self.name:
            return Verdict.skip
        return self.kit.fanout.judge(self.runner.subscription, headers)

    async def _settle(self, record: Record, outcome: Outcome) -> None:
        """Record what came of the attempt; the lane looks further only after the commit."""
        runner, kit = self.runner, self.kit
        now = kit.clock.now()
        match outcome:
            case Delivered():
                after = record.offset + 1
                await kit.recorder.add(runner.fence, receipt=self.receipt(record, now), cursor=self.cursor(after))
                self._moved(after)
                mode = runner.subscription.mode.value
                kit.metrics.count("numhub_delivered_numbers_total", int(record.headers[Header.count]), mode=mode)
                if self.live:
                    seconds = now.timestamp() - record.appended_at_ms / 1000
                    kit.metrics.observe("numhub_delivery_seconds", max(seconds, 0.0))
                    runner.live_appended, runner.live_at = record.appended_at_ms, kit.clock.monotonic()
            case RetryAt(reason=reason, status=status):
                if self._recall:
                    await self._remember(record)
                log.info(
                    "delivery_retry_scheduled",
                    extra={
                        "subscription_id": runner.subscription.subscription_id,
                        "chunk_id": record.record_id,
                        "attempt": self.trail.attempts,
                        "reason": reason,
                        "status": status,
                    },
                )
                await kit.recorder.add(runner.fence, attempt=self.failed_attempt(record, outcome))
            case Refused(status=status):
                await runner.refused(record, status, self)
            case Parked(reason=reason):
                after = record.offset + 1
                parked = ParkedChunk(
                    runner.subscription.subscription_id,
                    record.record_id,
                    record.position,
                    now,
                    self.trail.attempts,
                    reason,
                )
                await kit.recorder.add(runner.fence, parked=parked, cursor=self.cursor(after))
                kit.metrics.count("numhub_parked_total")
                log.error(
                    "chunk_parked",
                    extra={
                        "subscription_id": runner.subscription.subscription_id,
                        "chunk_id": record.record_id,
                        "attempts": self.trail.attempts,
                        "reason": reason,
                    },
                )
                self._moved(after)

    def _moved(self, offset: int) -> None:
        self.offset = self.saved = offset
        self._recall = False
        self.fresh()

    async def _remember(self, record: Record) -> None:
        """After a restart the attempts made before count too; only the wait that was running starts anew."""
        self._recall = False
        try:
            rows = await self.kit.ledger.deliveries_of(self.runner.subscription.subscription_id, limit=100)
        except Unavailable:
            return  # then it is tried a little longer
        for row in rows:
            if row.chunk_id == record.record_id and row.state == "retrying":
                self.trail.attempts += row.attempts
                self.trail.steps += row.attempts
                return


class Redrive(_Turn):
    """Brings parked chunks once more, one after the other, at the pace of the bulk lanes.

    A chunk leaves the parking place with its receipt and not before: a crash in between loses nothing.
    """

    async def run(self, chunks: list[ParkedChunk]) -> list[ParkedChunk]:
        """Returns those that could not be tried because the subscription was closed meanwhile."""
        runner = self.runner
        while chunks:
            self.fresh()
            if not await runner.gate.enter(self):
                break
            try:
                outcome, record = await self._bring(chunks[0])
            except (Unavailable, PositionExpired) as error:
                log.warning("redrive_not_read", extra={"chunk_id": chunks[0].chunk_id, "reason": error.reason_code})
                chunks = chunks[1:]  # it stays parked
                continue
            if outcome is None:
                runner.close()
                break
            now = self.kit.clock.now()
            match outcome:
                case Delivered():
                    await self.kit.recorder.add(runner.fence, receipt=self.receipt(record, now))
                case RetryAt():
                    attempt = self.failed_attempt(record, outcome)
                    await self.kit.recorder.add(runner.fence, attempt=attempt)
                case Refused(status=status):
                    await runner.refused(record, status, self)
                    break
                case Parked():
                    pass
            chunks = chunks[1:]
        return chunks

    async def _bring(self, parked: ParkedChunk) -> tuple[Outcome | None, Record]:
        held = True
        try:
            page, _ = await self.kit.reader.read(parked.position.partition, parked.position.offset, 1)
            if not page or page[0].record.record_id != parked.chunk_id:
                raise PositionExpired
            readable = page[0]
            lease = await self.kit.slots.take()
            held = False
            try:
                return await self.runner.send(self, readable), readable.record
            finally:
                lease.release()
        finally:
            if held:
                self.runner.gate.leave(self, None)
