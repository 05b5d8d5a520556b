"""A small hub for dispatcher tests: real log, index, ledger and fold; receivers in memory, answering as told."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from hub.adapters.codec.json_codec import JsonCodec
from hub.adapters.columns.index import ColumnIndex
from hub.adapters.sql.ledger import open_ledger
from hub.adapters.sqlite.log import SqliteLog
from hub.adapters.system.clock import ManualClock, SystemClock
from hub.domain.events import EventType, Lane, Purpose
from hub.domain.numbers import partition_of
from hub.domain.parties import (
    Agreement,
    App,
    AppClass,
    DeliveryMode,
    Party,
    Role,
    SigningSecret,
    Subscription,
    SubscriptionState,
)
from hub.flow.fold import Fold
from hub.flow.members import Members
from hub.flow.push import Push
from hub.flow.reader import Reader
from hub.flow.redrive import Redrive
from hub.flow.subscriptions import Subscriptions
from hub.flow.withdrawals import Withdrawals
from hub.ports.codec import Chunk
from hub.ports.ledger import Cursor
from hub.ports.log import Header, NewRecord, Position
from hub.ports.sender import Response
from hub.wire.delivery import WebhookEnvelope, make_secret
from hub.workers.dispatcher import Dispatcher

NOW = datetime(2026, 1, 5, 4, tzinfo=UTC)
P = 2
SCHEDULE = (timedelta(seconds=5), timedelta(minutes=5))


class NoMetrics:
    def __init__(self) -> None:
        self.counts: dict[str, float] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + amount

    def set(self, name: str, value: float, **labels: str) -> None:
        self.counts[name] = value

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1


@dataclass(frozen=True)
class Got:
    url: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)

    @property
    def chunk_id(self) -> str:
        return self.headers["numhub-chunk-id"]


Answering = Callable[[Got], Response | Awaitable[Response]]


class Net:
    """Receivers by URL. Unknown ones answer 204."""

    def __init__(self) -> None:
        self.got: list[Got] = []
        self.answer: dict[str, Answering] = {}
        self.out: dict[str, int] = {}
        self.most_out: dict[str, int] = {}

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        got = Got(url, dict(headers), body)
        self.out[url] = self.out.get(url, 0) + 1
        self.most_out[url] = max(self.most_out.get(url, 0), self.out[url])
        try:
            await asyncio.sleep(0)
            self.got.append(got)
            answer = self.answer.get(url, lambda _: Response(204))(got)
            return answer if isinstance(answer, Response) else await answer
        finally:
            self.out[url] -= 1

    async def close(self) -> None:
        return None

    def at(self, url: str) -> list[str]:
        return [got.chunk_id for got in self.got if got.url == url]


def make_record(
    numbers: list[int],
    event: EventType = EventType.release_scheduled,
    lane: Lane = Lane.bulk,
    *,
    seq: int = 1,
    generation: int = 0,
    apps: str | None = None,
    salt: str = "",
    partitions: int = P,
) -> NewRecord:
    """A chunk of these numbers (of one partition); its id follows from what is in it."""
    column = np.array(sorted(numbers), np.int64)
    rows = len(column)
    name = f"{column.tolist()}|{event}|{seq}|{generation}|{salt}"
    record_id = "evt_" + hashlib.sha256(name.encode()).hexdigest()[:32]
    moments = np.full(rows, int(NOW.timestamp()) - 100 * 86_400, np.int64)
    chunk = Chunk(
        record_id=record_id,
        event_type=event,
        lane=lane,
        reported_at=int(NOW.timestamp()),
        numbers=column,
        generation=np.full(rows, generation, np.uint8),
        seq=np.full(rows, seq, np.uint16),
        occurred_at=moments,
        binding_cutoff_at=moments,
    )
    headers = {
        Header.kind: "chunk",
        Header.type: event.value,
        Header.lane: lane.value,
        Header.carrier: "cmcc",
        Header.carrier_no: "1",
        Header.count: str(rows),
        Header.reported_at: str(int(NOW.timestamp())),
    }
    if apps:
        headers[Header.apps] = apps
    return NewRecord(partition_of(int(column[0]), partitions), record_id, headers, JsonCodec().encode(chunk))


def number(place: int, partition: int = 0) -> int:
    """The ``place``-th number of a block that stands in ``partition``."""
    return (1_380_000 + partition) * 10_000 + place


class World:
    def __init__(self, path: Path, clock: ManualClock | SystemClock, schedule: tuple[timedelta, ...]) -> None:
        self.clock, self.schedule = clock, schedule
        self.codec, self.metrics, self.net = JsonCodec(), NoMetrics(), Net()
        self.log = SqliteLog(path / "log.db", P, clock=clock)
        self.index = ColumnIndex(path / "index", P, self.log.log_id)
        self.directory, self.ledger = open_ledger(path / "ledger.db", clock)
        self.fold = Fold(self.log, self.index, self.codec, self.metrics)
        self.reader = Reader(self.log, self.fold, self.codec)
        self.members = Members(self.directory, clock)
        self.redrive = Redrive(self.ledger, self.log, clock, Random(4))
        self.subscriptions = Subscriptions(
            self.directory,
            self.ledger,
            self.log,
            self.fold,
            self.members,
            self.net,
            WebhookEnvelope(),
            clock,
            Random(1),
            make_secret,
            lambda url: None,
        )
        self._running: list[asyncio.Task[None]] = []
        self._remembering = 0
        self._watch_reads()
        self.dispatcher = self._new_dispatcher()

    def _watch_reads(self) -> None:
        """A lane that looks up earlier attempts is neither out nor being recorded, and yet at work."""
        read = self.ledger.deliveries_of

        async def counted(*args: Any, **options: Any) -> Any:
            self._remembering += 1
            try:
                return await read(*args, **options)
            finally:
                self._remembering -= 1

        self.ledger.deliveries_of = counted  # type: ignore[method-assign]

    def _new_dispatcher(self) -> Dispatcher:
        withdrawals = Withdrawals(self.index, self.codec, self.clock)
        push = Push(self.net, WebhookEnvelope(), withdrawals, self.clock, Random(2), self.metrics, self.schedule)
        dispatcher = Dispatcher(
            self.ledger,
            self.fold,
            self.reader,
            self.members,
            push,
            withdrawals,
            self.subscriptions.suspend,
            self.clock,
            Random(3),
            self.metrics,
            P,
        )
        self.redrive.ordered = dispatcher.look_for_orders
        return dispatcher

    async def begin(self) -> None:
        await self.directory.put_party(Party("cmcc", Role.carrier, "CMCC", NOW))
        await self.members.refresh(force=True)
        self._running = [asyncio.create_task(self.fold.run()), asyncio.create_task(self.dispatcher.run())]
        await asyncio.sleep(0)

    async def kill_dispatcher(self) -> None:
        """As a kill -9 would: nothing is drained."""
        task = self._running.pop()
        runners = self.dispatcher._runners.values()
        lanes = [task for runner in runners for task in runner.tasks]
        for one in [task, *lanes]:
            one.cancel()
        await asyncio.gather(task, *lanes, return_exceptions=True)

    async def restart_dispatcher(self) -> None:
        self.dispatcher = self._new_dispatcher()
        self._running.append(asyncio.create_task(self.dispatcher.run()))
        await asyncio.sleep(0)

    async def subscribe(
        self,
        name: str,
        *,
        mode: DeliveryMode = DeliveryMode.webhook_full,
        lanes: tuple[Lane, ...] = tuple(Lane),
        types: frozenset[EventType] = frozenset(EventType),
        app: str | None = None,
    ) -> Subscription:
        """A subscriber of its own with an active webhook at https://<name>/."""
        subscription = Subscription(
            f"sub_{name}",
            name,
            app or f"{name}-app",
            AppClass.bank,
            Purpose.account_unbind,
            types,
            frozenset(lanes),
            mode,
            SubscriptionState.active,
            NOW,
            f"https://{name}/",
            (SigningSecret("v1", b"s" * 32, NOW),),
        )
        await self.directory.put_party(Party(name, Role.subscriber, name, NOW))
        await self.directory.put_app(App(subscription.app_id, name, AppClass.bank, name, NOW))
        start, end = NOW - timedelta(days=1), NOW + timedelta(days=3650)
        agreement = Agreement(f"agr_{name}", "*", name, Purpose.account_unbind, "pia", start, end, NOW)
        await self.directory.put_agreement(agreement)
        ends = await self.log.ends()
        await self.ledger.open_cursors(
            [Cursor(subscription.subscription_id, p, lane, ends[p], ends[p]) for p in range(P) for lane in Lane]
        )
        await self.directory.put_subscription(subscription)
        await self.members.refresh()
        return subscription

    async def publish(self, *records: NewRecord) -> list[Position]:
        positions = await self.log.append(records)
        await self.fold.catch_up()
        return positions

    async def until(self, condition: Callable[[], bool], within: float = 30.0) -> None:
        """Let things happen until ``condition`` holds."""
        async with asyncio.timeout(within):
            while not condition():
                await asyncio.sleep(0.002)

    async def quiet(self) -> None:
        """Nothing is on its way and everything that was is recorded."""
        calm = 0
        while calm < 4:
            await asyncio.sleep(0.003)
            busy = any(self.net.out.values()) or self._remembering or self.dispatcher._recorder._task is not None
            calm = 0 if busy else calm + 1

    async def advance(self, seconds: float) -> None:
        assert isinstance(self.clock, ManualClock)
        self.clock.advance(seconds)
        await self.quiet()

    async def end(self) -> None:
        await self.subscriptions.close()
        for task in self._running:
            task.cancel()
        for task in self._running:
            with suppress(asyncio.CancelledError):
                await task
        await self.kill_lanes()
        await self.ledger.close()
        await self.log.close()
        self.index.close()

    async def kill_lanes(self) -> None:
        lanes = [task for runner in self.dispatcher._runners.values() for task in runner.tasks]
        for one in lanes:
            one.cancel()
        await asyncio.gather(*lanes, return_exceptions=True)


@asynccontextmanager
async def make_world(
    path: Path, clock: ManualClock | SystemClock | None = None, schedule: tuple[timedelta, ...] = SCHEDULE
):
    world = World(path, clock or ManualClock(NOW), schedule)
    await world.begin()
    try:
        yield world
    finally:
        await world.end()
