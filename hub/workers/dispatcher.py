"""Delivers what stands in the log to every push subscription.

A subscription is a cursor per partition and lane; this worker holds a lane for each, idle until the tail of its
partition has a record it wants (`workers.runner`, `workers.tail`). Nothing polls: records arrive through the fold,
changes of parties and subscriptions through the members, retries through the gates' timers.

Promises: per subscription, partition and lane one request at a time, in log order; receipt and cursor are committed
together before the next one leaves; a receiver that hangs, fails or is gone holds up its own lanes and nobody else's.
Killed at any moment, what was sent but not committed is sent again under the same id with the same bytes.

Several dispatchers share the work by shards of subscriptions (`flow.holding.Shards`): each serves what it owns, opened
from the ledger's cursors under the shard's present epoch, and records nothing under another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from random import Random
from typing import TYPE_CHECKING

from hub.domain.errors import Unavailable
from hub.domain.events import Lane as LaneName
from hub.domain.parties import Subscription
from hub.domain.shards import shard_of
from hub.flow.fanout import Fanout
from hub.flow.holding import AllShards, Shards
from hub.flow.members import Members
from hub.flow.push import Push
from hub.flow.withdrawals import Withdrawals
from hub.ports.clock import Clock
from hub.ports.ledger import Cursor, Ledger, ParkedChunk, RedriveOrder
from hub.ports.log import Record
from hub.ports.metrics import Metrics
from hub.workers.gauges import Undelivered
from hub.workers.live_lag import LiveLag
from hub.workers.recorder import LeaseLost, Recorder
from hub.workers.runner import Fence, Kit, Redrive, Runner
from hub.workers.slots import Slots
from hub.workers.tail import Tail

if TYPE_CHECKING:
    from hub.flow.fold import Fold
    from hub.flow.reader import Reader

log = logging.getLogger("numhub.dispatcher")

HOUSEKEEPING_EVERY = 5.0
SAVE_SKIPPED_AFTER = 256
"""Records an idle lane may have passed over before its cursor is saved; after a kill so many are looked at again."""
ORDERS_EVERY = 2.0
PARTING = 1.0
"""Seconds that requests out have to end when a subscription's cursors are to be moved."""


class Dispatcher:
    def __init__(
        self,
        ledger: Ledger,
        fold: Fold,
        reader: Reader,
        members: Members,
        push: Push,
        withdrawals: Withdrawals,
        suspend: Callable[[str, str], Awaitable[None]],
        clock: Clock,
        random: Random,
        metrics: Metrics,
        partitions: int,
        bulk_slots: int = 64,
        shards: Shards | None = None,
    ) -> None:
        """Without ``shards`` it is alone by construction and serves everybody."""
        self._ledger = ledger
        self._fold = fold
        self._members = members
        self._withdrawals = withdrawals
        self._clock = clock
        self._metrics = metrics
        self._fanout = Fanout(members, clock)
        self._shards: Shards | AllShards = shards or AllShards()
        self._recorder = Recorder(ledger, clock, shards.lost if shards else None, fenced=shards is not None)
        if shards is not None:
            shards.changed, shards.parted = self._changed_hands, self._part_from
        self._partitions = partitions
        self._kit = Kit(
            ledger=ledger,
            reader=reader,
            fanout=self._fanout,
            push=push,
            recorder=self._recorder,
            slots=Slots(bulk_slots),
            clock=clock,
            random=random,
            metrics=metrics,
            tails=[],
            suspend=suspend,
            ended=self._ended,
            shards=self._shards,
        )
        self._undelivered = Undelivered(reader, clock, metrics)
        self._runners: dict[str, Runner] = {}
        self._parked: dict[str, dict[str, ParkedChunk]] = {}  # waiting to be redriven
        self._redriving: set[str] = set()
        self._orders: dict[str, set[str]] = {}  # subscription -> orders under way
        self._ordered = asyncio.Event()
        self._changed = asyncio.Event()
        self._stopping = False
        self._lag = LiveLag(clock)
        self._failure: asyncio.Future[None] | None = None

    # -- life

    async def run(self) -> None:
        """Deliver for ever; raises what stopped it. Needs members that were refreshed once."""
        loop = asyncio.get_running_loop()
        self._failure = loop.create_future()
        for partition in range(self._partitions):
            position = self._fold.position(partition)
            self._kit.tails.append(Tail(partition, position, self._kit.reader))
            self._withdrawals.begin(partition, position)
        forget = [self._fold.subscribe(self._folded), self._members.on_change(self._on_change)]
        self._changed.set()
        self._ordered.set()
        work = [
            self._follow_members(),
            self._keep_house(),
            self._follow_orders(),
            *(tail.run() for tail in self._kit.tails),
        ]
        tasks: list[asyncio.Future[None]] = [asyncio.ensure_future(one) for one in work]
        try:
            for tail in self._kit.tails:
                tail.wake()
            done, _ = await asyncio.wait([*tasks, self._failure], return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for stop in forget:
                stop()
            self._stopping = True
            for runner in self._runners.values():
                runner.close()
            for task in tasks:
                task.cancel()
            self._failure.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def stop(self, within: float) -> int:
        """Let nothing new leave, finish and record what is out; returns how many requests were given up."""
        self._stopping = True
        skipped = self._skipped(0)
        for runner in self._runners.values():
            runner.close()
        out = {task for runner in self._runners.values() for task in runner.tasks}
        if out:
            log.info("dispatcher_draining", extra={"requests": len(out)})
            _, out = await asyncio.wait(out, timeout=within)
        for task in out:
            task.cancel()
        if out:
            log.warning("dispatcher_gave_up", extra={"requests": len(out)})
        for fence, cursors in skipped:
            with suppress(LeaseLost):
                await self._recorder.add_cursors(fence, cursors)
        await self._recorder.flush()
        return len(out)

    # -- shards that come and go

    def _changed_hands(self) -> None:
        """Close at once what may no longer be served; what came is opened by the next reconciliation."""
        for runner in self._runners.values():
            if runner.open and not runner.owns:
                runner.close()
        self._changed.set()
        self._ordered.set()

    async def _part_from(self, shards: set[int]) -> None:
        """Return once nothing of ``shards`` is out any more and what was is recorded."""
        runners = [runner for name, runner in self._runners.items() if shard_of(name) in shards]
        for runner in runners:
            runner.close()
        tasks = {task for runner in runners for task in runner.tasks}
        if tasks:
            _, out = await asyncio.wait(tasks, timeout=PARTING)
            for task in out:
                task.cancel()
            if out:
                await asyncio.wait(out)
        await self._recorder.flush()

    def live_lag(self) -> float | None:
        """Seconds by which a live event accepted now would reach its receivers late because of the hub, if known."""
        return self._lag.seconds(self._runners.values())

    # -- moving cursors and reviving parked chunks (see flow.redrive)

    def look_for_orders(self) -> None:
        """There may be orders to deliver again in the ledger; without this they are found a little later."""
        self._ordered.set()

    async def _follow_orders(self) -> None:
        while True:
            self._ordered.clear()
            try:
                for order in await self._ledger.redrive_orders():
                    await self._carry_out(order)
            except Unavailable:
                log.warning("orders_delayed")
            with suppress(TimeoutError):
                async with asyncio.timeout(ORDERS_EVERY):
                    await self._ordered.wait()

    async def _carry_out(self, order: RedriveOrder) -> None:
        name = order.subscription_id
        if self._shards.epoch(name) is None or order.order_id in self._orders.get(name, ()):
            return
        if name not in self._members.snapshot.subscriptions:
            await self._ledger.redrive_done([order.order_id])
            return
        if order.cursors:
            await self.rewind(name, order.cursors)
            await self._ledger.redrive_done([order.order_id])
            return
        wanted = set(order.chunk_ids)
        parked = [one for one in await self._ledger.parked_of(name, limit=10_000) if one.chunk_id in wanted]
        if not parked:
            await self._ledger.redrive_done([order.order_id])
            return
        self._orders.setdefault(name, set()).add(order.order_id)
        self.redrive(name, parked)

    async def rewind(self, subscription_id: str, cursors: Sequence[Cursor]) -> None:
        """Move a subscription's cursors while none of its lanes is at work."""
        runner = self._runners.get(subscription_id)
        if runner is None:
            await self._ledger.rewind(subscription_id, cursors)
            return
        runner.held += 1
        try:
            runner.close()
            if runner.tasks:
                _, out = await asyncio.wait(set(runner.tasks), timeout=PARTING)
                for task in out:
                    task.cancel()
                if out:
                    await asyncio.wait(out)
            await self._recorder.flush()
            await self._ledger.rewind(subscription_id, cursors)
        finally:
            runner.held -= 1
            self._changed.set()

    def redrive(self, subscription_id: str, chunks: Sequence[ParkedChunk]) -> None:
        """Bring these parked chunks once more, as soon as the subscription may be served."""
        waiting = self._parked.setdefault(subscription_id, {})
        waiting.update((chunk.chunk_id, chunk) for chunk in chunks)
        self._start_redrive(subscription_id)

    def _start_redrive(self, subscription_id: str) -> None:
        runner = self._runners.get(subscription_id)
        busy = subscription_id in self._redriving
        if runner is not None and runner.open and not busy and self._parked.get(subscription_id):
            self._redriving.add(subscription_id)
            runner.spawn(self._redrive(runner, subscription_id))

    async def _redrive(self, runner: Runner, subscription_id: str) -> None:
        chunks = list(self._parked.pop(subscription_id).values())
        orders = self._orders.get(subscription_id, set())
        left: list[ParkedChunk] = chunks
        try:
            left = await Redrive(runner).run(chunks)
        finally:
            self._redriving.discard(subscription_id)
            if left:
                again = self._parked.setdefault(subscription_id, {})
                again.update((chunk.chunk_id, chunk) for chunk in left)
        if orders and not self._parked.get(subscription_id):
            self._orders.pop(subscription_id, None)
            await self._ledger.redrive_done(sorted(orders))

    # -- what wakes it

    def _folded(self, partition: int, records: list[Record]) -> None:
        for record in records:
            self._withdrawals.note(record)
        self._lag.folded(records)
        self._kit.tails[partition].wake()

    def _on_change(self) -> None:
        self._changed.set()

    def _ended(self, runner: Runner, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("lane_failed", extra={"subscription_id": runner.subscription.subscription_id})
            if self._failure is not None and not self._failure.done():
                self._failure.set_exception(error)
        if not runner.open and not runner.tasks:
            self._changed.set()
        elif runner.open and self._parked:
            self._start_redrive(runner.subscription.subscription_id)

    async def _follow_members(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if self._stopping:
                continue
            try:
                await self._reconcile()
            except Unavailable:
                log.warning("dispatcher_waits_for_ledger")
                await self._clock.sleep(1.0)
                self._changed.set()

    async def _reconcile(self) -> None:
        """Open what may be served and is not, close what may not; lanes of one that changed keep their places."""
        present = self._members.snapshot.subscriptions
        for subscription_id in [one for one in self._runners if one not in present]:
            runner = self._runners[subscription_id]
            runner.close()
            if not runner.tasks and not runner.held:
                del self._runners[subscription_id]
                self._parked.pop(subscription_id, None)
        to_open: list[Runner] = []
        for subscription in present.values():
            known = self._runners.get(subscription.subscription_id)
            if not subscription.mode.pushes:
                continue
            if known is None:
                known = self._runners[subscription.subscription_id] = Runner(subscription, self._kit)
            self._adopt(known, subscription)
            if not self._fanout.serves(subscription) or (known.open and not known.owns):
                known.close()
            if not self._fanout.serves(subscription) or self._shards.epoch(subscription.subscription_id) is None:
                self._forget_orders(subscription.subscription_id)
                continue
            if not known.open and not known.tasks and not known.held:
                to_open.append(known)
        if to_open:
            await self._open(to_open)

    def _forget_orders(self, subscription_id: str) -> None:
        """They stay in the ledger, for whoever serves the subscription next."""
        self._orders.pop(subscription_id, None)
        if subscription_id not in self._redriving:
            self._parked.pop(subscription_id, None)

    def _adopt(self, runner: Runner, subscription: Subscription) -> None:
        if runner.open and runner.subscription.lanes != subscription.lanes:
            runner.close()  # opens anew with the lanes it has now
        runner.subscription = subscription

    async def _open(self, runners: list[Runner]) -> None:
        names = [runner.subscription.subscription_id for runner in runners]
        fences = {name: self._shards.epoch(name) for name in names}
        cursors: dict[str, list[Cursor]] = {}
        for cursor in await self._ledger.cursors(names[0] if len(names) == 1 else None):
            cursors.setdefault(cursor.subscription_id, []).append(cursor)
        for count, runner in enumerate(runners):
            subscription_id = runner.subscription.subscription_id
            fence = fences[subscription_id]
            if runner.open or runner.tasks or runner.held or self._stopping:
                continue
            if fence is None or self._shards.epoch(subscription_id) != fence:
                self._changed.set()  # the cursors read may be those of another's time
                continue
            runner.start(cursors.get(subscription_id, []), fence)
            self._start_redrive(subscription_id)
            if count % 20 == 19:
                await asyncio.sleep(0)

    # -- housekeeping

    async def _keep_house(self) -> None:
        while True:
            await self._clock.sleep(HOUSEKEEPING_EVERY)
            self._changed.set()  # agreements begin and end without anybody's doing
            self._count_lanes()
            idle = {lane for tail in self._kit.tails for lane in tail.idle()}
            await self._undelivered.measure(list(self._runners.values()), idle)
            for fence, cursors in self._skipped(SAVE_SKIPPED_AFTER):
                with suppress(LeaseLost):
                    await self._recorder.add_cursors(fence, cursors)

    def _skipped(self, more_than: int) -> list[tuple[Fence, list[Cursor]]]:
        """Cursors of idle lanes that passed over more than so many records since they were last saved, by fence."""
        cursors: dict[Fence, list[Cursor]] = {}
        for tail in self._kit.tails:
            for lane in tail.idle():
                if lane.offset - lane.saved > more_than:
                    cursors.setdefault(lane.runner.fence, []).append(lane.cursor(lane.offset))
                    lane.saved = lane.offset
        return list(cursors.items())

    def _count_lanes(self) -> None:
        idle = dict.fromkeys(LaneName, 0)
        for tail in self._kit.tails:
            for lane in tail.idle():
                idle[lane.name] += 1
        for kind in LaneName:
            lanes = sum(lane.name is kind for runner in self._runners.values() for lane in runner.lanes)
            self._metrics.set("numhub_lanes_behind", lanes - idle[kind], lane=kind.value)
