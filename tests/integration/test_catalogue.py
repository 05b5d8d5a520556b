"""The catalogue lists every accepted record once, and goes on where it stopped."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import numpy as np

from hub.adapters.system.clock import SystemClock
from hub.domain.events import EventType, Lane
from hub.workers.catalogue import CatalogueWorker
from tests.dispatch_world import P, World, make_record, make_world, number


class OneProvince:
    source_version, holders, provinces = "1", ("", "cmcc"), ("", "广东")

    def province_of(self, numbers: np.ndarray) -> np.ndarray:
        return np.ones(len(numbers), np.uint8)


def make_worker(world: World) -> CatalogueWorker:
    parts = world.ledger, world.fold, world.reader, world.codec, OneProvince(), world.members, world.clock, P
    return CatalogueWorker(*parts)  # type: ignore[arg-type]


async def test_accepted_records_are_listed_once_across_a_restart(tmp_path: Path) -> None:
    """Void records are not listed; a second worker goes on where the first one was stopped."""
    async with make_world(tmp_path, SystemClock()) as world:
        first = make_record([number(i) for i in range(5)])
        void = make_record([number(1)], EventType.deactivated, seq=7)
        worker = make_worker(world)
        running = asyncio.create_task(worker.run())
        await world.publish(first, void)
        await asyncio.wait_for(worker.wait_for(await world.fold.catch_up()), 30)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        second = make_record([number(1, 1)], EventType.renewal_requested, Lane.live, apps="a-app,b-app")
        await world.publish(second)
        worker = make_worker(world)
        running = asyncio.create_task(worker.run())
        await asyncio.wait_for(worker.wait_for(await world.fold.catch_up()), 30)
        running.cancel()
        assert await world.ledger.catalogue_positions() == dict(enumerate(await world.log.ends()))
        entry = await world.ledger.chunk(first.record_id)
        assert entry is not None
        assert (entry.count, entry.provinces, entry.position.offset) == (5, {"广东": 5}, 0)
        renewal = await world.ledger.chunk(second.record_id)
        assert renewal is not None
        assert renewal.apps == ("a-app", "b-app")
        assert await world.ledger.chunk(void.record_id) is None
