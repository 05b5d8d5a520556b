"""A log, index, fold, ledger and directory of their own for tests of the pull feed and of answers; all real, all small.

Two subscribers (``sub-a``, ``sub-b``) with agreements with every carrier, one pull subscription each and a webhook one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from hub.adapters.codec.json_codec import JsonCodec
from hub.adapters.columns.index import ColumnIndex
from hub.adapters.sql.directory import SqlDirectory
from hub.adapters.sql.ledger import SqlLedger, open_ledger
from hub.adapters.sqlite.log import SqliteLog
from hub.adapters.system.clock import ManualClock
from hub.adapters.telemetry.prometheus import NoMetrics
from hub.domain.events import EventType, Lane, Purpose
from hub.domain.numbers import partition_of
from hub.domain.parties import (
    Agreement,
    App,
    AppClass,
    DeliveryMode,
    Party,
    Role,
    Subscription,
    SubscriptionState,
)
from hub.flow.acknowledge import Acknowledge
from hub.flow.fold import Fold
from hub.flow.members import Members
from hub.flow.pull import Pull
from hub.flow.reader import Reader
from hub.ports.codec import Chunk
from hub.ports.ledger import Cursor
from hub.ports.log import NewRecord, Position

START = datetime(2026, 1, 1, tzinfo=UTC)
PARTITIONS = 2
KEY = b"k" * 32


@dataclass
class World:
    clock: ManualClock
    log: SqliteLog
    index: ColumnIndex
    ledger: SqlLedger
    directory: SqlDirectory
    members: Members
    fold: Fold
    reader: Reader
    codec: JsonCodec
    pull: Pull
    acknowledge: Acknowledge
    bodies: dict[str, bytes] = field(default_factory=dict)  # chunk id -> plain bytes

    def subscription(self, name: str) -> Subscription:
        return self.members.snapshot.subscriptions[name]

    async def change(self, subscription: Subscription) -> Subscription:
        await self.directory.put_subscription(subscription)
        await self.members.refresh(force=True)
        return subscription

    async def subscribe(self, name: str, party: str, mode: DeliveryMode = DeliveryMode.pull) -> Subscription:
        made = Subscription(
            name,
            party,
            f"app-{party}",
            AppClass.bank,
            Purpose.account_unbind,
            frozenset(EventType),
            frozenset(Lane),
            mode,
            SubscriptionState.active,
            START,
            "https://hooks.example.com/" if mode.pushes else None,
        )
        await self.change(made)
        await self.ledger.open_cursors(
            [Cursor(name, partition, lane, 0, 0) for partition in range(PARTITIONS) for lane in Lane]
        )
        return made

    async def publish(
        self,
        name: str,
        first: int,
        count: int = 1,
        *,
        event: EventType = EventType.deactivated,
        lane: Lane = Lane.bulk,
        carrier: str = "cmcc",
        seq: int = 1,
        apps: str = "",
    ) -> str:
        """Append one chunk of ``count`` numbers from ``first`` on and fold it; returns its id."""
        numbers = np.arange(first, first + count, dtype=np.int64)
        ended = int(START.timestamp()) - 86_400
        times = np.full(count, ended, np.int64)
        chunk = Chunk(
            record_id="evt_" + name.encode().hex().rjust(32, "0"),
            event_type=event,
            lane=lane,
            reported_at=int(START.timestamp()),
            numbers=numbers,
            generation=np.zeros(count, np.uint8),
            seq=np.full(count, seq, np.uint16),
            occurred_at=times,
            binding_cutoff_at=times,
        )
        headers = {
            "kind": "chunk",
            "type": event.value,
            "lane": lane.value,
            "carrier": carrier,
            "carrier_no": "1",
            "count": str(count),
            "reported_at": str(chunk.reported_at),
        } | ({"apps": apps} if apps else {})
        body = self.codec.encode(chunk)
        partition = partition_of(first, PARTITIONS)
        await self.log.append([NewRecord(partition, chunk.record_id, headers, body)])
        await self.fold.catch_up()
        self.bodies[chunk.record_id] = self.codec.plain(body)
        return chunk.record_id

    def position(self, chunk_id: str) -> Position:
        found = self.index.find(chunk_id)
        assert found is not None
        return found

    async def received(self, subscription: str, chunk_ids: Sequence[str]) -> set[str]:
        return set(await self.ledger.receipts_of(subscription, chunk_ids))

    async def agree(self, party: str, carrier: str = "*", *, days: float = 365, starts: datetime = START) -> None:
        agreement = Agreement(
            f"agr-{party}-{carrier.strip('*') or 'any'}",
            carrier,
            party,
            Purpose.account_unbind,
            "pia-1",
            starts - timedelta(days=1),
            starts + timedelta(days=days),
            START,
        )
        await self.directory.put_agreement(agreement)
        await self.members.refresh(force=True)


@contextlib.asynccontextmanager
async def world(folder: Path) -> AsyncIterator[World]:
    clock, metrics, codec = ManualClock(START), NoMetrics(), JsonCodec()
    log = SqliteLog(folder / "log.db", PARTITIONS, clock=clock)
    index = ColumnIndex(folder / "index", PARTITIONS, log.log_id)
    directory, ledger = open_ledger(folder / "ledger.db", clock)
    for party in ("sub-a", "sub-b"):
        await directory.put_party(Party(party, Role.subscriber, party, START))
        await directory.put_app(App(f"app-{party}", party, AppClass.bank, party, START))
    await directory.put_party(Party("cmcc", Role.carrier, "cmcc", START))
    members = Members(directory, clock)
    fold = Fold(log, index, codec, metrics)
    reader = Reader(log, fold, codec)
    made = World(
        clock,
        log,
        index,
        ledger,
        directory,
        members,
        fold,
        reader,
        codec,
        Pull(reader, fold, ledger, members, clock, KEY, log, index),
        Acknowledge(ledger, fold, index, reader, codec, members, clock, metrics),
    )
    for party in ("sub-a", "sub-b"):
        await made.agree(party)
        await made.subscribe(f"sub_{party[-1]}", party)
    await made.subscribe("sub_push", "sub-a", DeliveryMode.webhook_pointer)
    following = asyncio.create_task(fold.run())
    try:
        yield made
    finally:
        following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await following
        index.close()
        await log.close()
        await ledger.close()


__all__ = ["KEY", "PARTITIONS", "START", "World", "replace", "world"]
