"""Several dispatchers on one ledger: who delivers for whom, and what happens when that changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest
from dispatch_world import NOW, Got, NoMetrics, World, make_record, make_world, number

from hub.adapters.system.clock import SystemClock
from hub.domain.shards import shard_of
from hub.flow.holding import Holder, Shards
from hub.flow.push import Push
from hub.flow.withdrawals import Withdrawals
from hub.ports.leases import shard_lease
from hub.ports.sender import Response
from hub.wire.delivery import WebhookEnvelope
from hub.workers.dispatcher import Dispatcher

TTL = 1.0


class Worker:
    """One more dispatcher on the world's log and ledger, as another process would be."""

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.holder = Holder(world.ledger.leases(), name, world.clock, Random(name), ttl=TTL)
        self.shards = Shards(self.holder, NoMetrics())
        withdrawals = Withdrawals(world.index, world.codec, world.clock)
        push = Push(world.net, WebhookEnvelope(), withdrawals, world.clock, Random(2), NoMetrics(), world.schedule)
        self.dispatcher = Dispatcher(
            world.ledger,
            world.fold,
            world.reader,
            world.members,
            push,
            withdrawals,
            world.subscriptions.suspend,
            world.clock,
            Random(3),
            NoMetrics(),
            world.log.partitions,
            shards=self.shards,
        )
        self.tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self.tasks = [asyncio.create_task(self.dispatcher.run()), asyncio.create_task(self.shards.run())]

    async def kill(self) -> None:
        """As SIGKILL: nothing is drained, no lease is given back."""
        self.shards._holder.leases = _Dead()  # type: ignore[assignment]
        lanes = [task for runner in self.dispatcher._runners.values() for task in runner.tasks]
        for task in [*self.tasks, *lanes]:
            task.cancel()
        await asyncio.gather(*self.tasks, *lanes, return_exceptions=True)

    async def stop(self) -> None:
        await self.dispatcher.stop(1.0)
        for task in reversed(self.tasks):
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


class _Dead:
    async def leave(self, holder: str) -> None:
        return None


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(tmp_path, SystemClock(), (timedelta(seconds=0.2), timedelta(seconds=0.5))) as world:
        await world.kill_dispatcher()
        yield world


@asynccontextmanager
async def workers(world: World, *names: str) -> AsyncIterator[list[Worker]]:
    made = [Worker(world, name) for name in names]
    for worker in made:
        worker.start()
    try:
        yield made
    finally:
        for worker in made:
            await worker.stop()


async def settled(*made: Worker) -> None:
    """Until each has its fair share."""
    async with asyncio.timeout(10):
        while not all(len(worker.shards.owned()) == 64 // len(made) for worker in made):
            await asyncio.sleep(0.02)


async def test_two_workers_share_the_subscriptions_and_nobody_gets_a_thing_twice(world: World) -> None:
    """Each delivers for its own shards; together they deliver everything once."""
    names = [f"s{place}" for place in range(20)]
    for name in names:
        await world.subscribe(name)
    async with workers(world, "one", "two") as (one, two):
        await settled(one, two)
        assert one.shards.owned().isdisjoint(two.shards.owned())
        records = [make_record([number(place)]) for place in range(5)]
        await world.publish(*records)
        await world.until(lambda: len(world.net.got) >= 100)
        await asyncio.sleep(0.1)
        assert len(world.net.got) == 100
        served = {name for name, runner in one.dispatcher._runners.items() if runner.open}
        assert served == {f"sub_{name}" for name in names if shard_of(f"sub_{name}") in one.shards.owned()}
        assert 0 < len(served) < 20


async def test_a_dead_workers_lanes_move_within_the_lease(world: World) -> None:
    """Nothing is lost; the other goes on from the ledger's cursors."""
    for place in range(10):
        await world.subscribe(f"s{place}")
    async with workers(world, "one", "two") as (one, two):
        await settled(one, two)
        await world.publish(make_record([number(1)]))
        await world.until(lambda: len(world.net.got) == 10)
        await asyncio.sleep(0.1)
        await one.kill()
        began = asyncio.get_running_loop().time()
        await world.publish(make_record([number(2)]))
        await world.until(lambda: len(world.net.got) >= 20, within=8)
        assert asyncio.get_running_loop().time() - began < TTL * 3
        assert sorted(got.url for got in world.net.got) == sorted([f"https://s{p}/" for p in range(10)] * 2)


async def test_a_worker_that_joins_gets_its_share_without_loss_or_disorder(world: World) -> None:
    """Handing over drains first: every subscriber sees each record once, in order, while lanes move."""
    for place in range(12):
        await world.subscribe(f"s{place}")
    records = [make_record([number(place)], salt="join") for place in range(40)]
    async with workers(world, "one") as (one,):
        await settled(one)
        two = Worker(world, "two")
        for place, record in enumerate(records):
            await world.publish(record)
            await asyncio.sleep(0.03)
            if place == 10:
                two.start()
        await settled(one, two)
        await world.until(lambda: len(world.net.got) >= 480, within=10)
        await asyncio.sleep(0.1)
        wanted = [record.record_id for record in records]
        for place in range(12):
            assert world.net.at(f"https://s{place}/") == wanted
        await two.stop()


async def test_a_result_under_an_old_epoch_is_not_recorded(world: World) -> None:
    """A worker that slept through its lease can move no cursor and write no receipt, whatever it still had out."""
    subscription = await world.subscribe("a")
    late: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
    calls: list[str] = []

    def answer(got: Got) -> Response | asyncio.Future[Response]:
        calls.append(got.chunk_id)
        return late if len(calls) == 1 else Response(204)

    world.net.answer["https://a/"] = answer  # type: ignore[assignment]
    async with workers(world, "one") as (one,):
        await settled(one)
        record = make_record([number(1)])
        await world.publish(record)
        await world.until(lambda: len(calls) == 1)
        name = shard_lease(shard_of(subscription.subscription_id))
        await world.ledger.leases().release("one", [name])
        taken = await world.ledger.leases().take("two", [name], timedelta(seconds=TTL))
        assert taken == {name: 2}
        late.set_result(Response(204))
        await asyncio.sleep(0.2)
        assert await world.ledger.receipts_of(subscription.subscription_id, [record.record_id]) == {}
        assert {cursor.offset for cursor in await world.ledger.cursors(subscription.subscription_id)} == {0}
        # when the other's lease ends, this one delivers again under a new epoch: a repeat, not a loss
        await world.until(lambda: len(calls) == 2, within=8)
        async with asyncio.timeout(8):
            while not await world.ledger.receipts_of(subscription.subscription_id, [record.record_id]):
                await asyncio.sleep(0.02)


async def test_an_order_to_replay_reaches_whoever_delivers(world: World) -> None:
    """The API's process only writes the order; the owner of the shard carries it out once."""
    subscription = await world.subscribe("a")
    async with workers(world, "one", "two") as (one, two):
        await settled(one, two)
        record = make_record([number(1)])
        await world.publish(record)
        await world.until(lambda: len(world.net.got) == 1)
        await asyncio.sleep(0.1)
        await world.redrive.since(subscription, NOW)
        await world.until(lambda: len(world.net.got) == 2, within=8)
        await asyncio.sleep(0.2)
        assert world.net.at("https://a/") == [record.record_id] * 2
        assert await world.ledger.redrive_orders() == []
