"""Figures for the operator: true while all is well, and while something is not."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

from hub.adapters.system.clock import ManualClock
from hub.domain.errors import Unavailable
from hub.ports.sender import Response
from hub.workers.gauges import Undelivered, watch_clock, watch_dependencies, watch_disk
from tests.dispatch_world import NOW, SCHEDULE, make_record, make_world, number
from tests.making import CountingMetrics

ENDPOINTS = ("answering", "failing")


async def while_running(work: Awaitable[None], *steps: Any) -> None:
    task = asyncio.ensure_future(work)
    try:
        for step in steps:
            await asyncio.sleep(0.02)
            step()
        await asyncio.sleep(0.02)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_dependency_is_up_or_down() -> None:
    """One that raises and one that never answers are both down, and the others are still asked."""
    clock, metrics = ManualClock(NOW), CountingMetrics()
    down = True

    async def ledger() -> None:
        if down:
            raise Unavailable

    async def log() -> None:
        return None

    def heal() -> None:
        nonlocal down
        assert metrics.gauges["numhub_dependency_up", "ledger"] == 0
        assert metrics.gauges["numhub_dependency_up", "log"] == 1
        down = False
        clock.advance(timedelta(seconds=6))

    await while_running(watch_dependencies({"ledger": ledger, "log": log}, clock, metrics), heal)
    assert metrics.gauges["numhub_dependency_up", "ledger"] == 1


async def test_a_step_of_the_wall_clock_is_counted() -> None:
    """Time that passes is no step; a wall clock that jumps is one."""

    class Stepping(ManualClock):
        offset = timedelta()

        def now(self) -> Any:
            return super().now() + self.offset

    clock, metrics = Stepping(NOW), CountingMetrics()

    def passes() -> None:
        clock.advance(timedelta(seconds=1))

    def jumps() -> None:
        assert not metrics.counts
        clock.offset = timedelta(hours=-1)
        clock.advance(timedelta(seconds=1))

    await while_running(watch_clock(clock, metrics), passes, passes, jumps, passes)
    assert metrics.counts["numhub_clock_steps_total",] == 1


async def test_the_disk_is_measured(tmp_path: Path) -> None:
    """Free and whole, in bytes."""
    metrics = CountingMetrics()
    await while_running(watch_disk(tmp_path, ManualClock(NOW), metrics), lambda: time.sleep(0.1))
    free, size = metrics.gauges["numhub_data_free_bytes",], metrics.gauges["numhub_data_size_bytes",]
    assert 0 < free < size


async def test_what_is_undelivered_is_told_apart_by_its_endpoint(tmp_path: Path) -> None:
    """A dead receiver's backlog ages under ``failing``; a receiver that answers leaves nothing behind."""
    async with make_world(tmp_path, schedule=SCHEDULE) as world:
        metrics = CountingMetrics()
        await world.subscribe("dead")
        await world.subscribe("well")
        world.net.answer["https://dead/"] = lambda _: Response(500)
        record = make_record([number(1)])
        await world.publish(record)
        await world.until(lambda: record.record_id in world.net.at("https://well/"))
        await world.quiet()
        await world.advance(4)
        runners = list(world.dispatcher._runners.values())
        idle = {lane for tail in world.dispatcher._kit.tails for lane in tail.idle()}
        await Undelivered(world.reader, world.clock, metrics).measure(runners, idle)
    assert metrics.gauges["numhub_failing_endpoints",] == 1
    ages = {key[1:]: age for key, age in metrics.gauges.items() if key[0] == "numhub_oldest_undelivered_seconds"}
    assert {key for key, age in ages.items() if age == 0} == {*product(["live"], ENDPOINTS), ("bulk", "answering")}
    assert ages["bulk", "failing"] == 4.0
