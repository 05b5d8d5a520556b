"""Figures for the operator that no use case passes on its way: measured from time to time, never on a hot path."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from hub.domain.batches import BatchState
from hub.domain.errors import NumhubError
from hub.domain.events import Lane as LaneName
from hub.ports.clock import Clock
from hub.ports.ledger import Ledger
from hub.ports.metrics import Metrics

if TYPE_CHECKING:
    from hub.flow.reader import Reader
    from hub.workers.runner import Lane, Runner

log = logging.getLogger("numhub.gauges")

PROBE_EVERY, PROBE_WITHIN = 5.0, 4.0
LEDGER_EVERY = 30.0
CLOCK_EVERY, STEP = 1.0, 1.0

Probe = Callable[[], Awaitable[object]]


class Undelivered:
    """How old is what lanes still have before them? Apart for endpoints that answer and those that fail: the one is
    the hub's trouble, the other its receiver's. One record is read per place, and only when the place has moved."""

    def __init__(self, reader: Reader, clock: Clock, metrics: Metrics) -> None:
        self._reader, self._clock, self._metrics = reader, clock, metrics
        self._known: dict[tuple[int, int], float] = {}  # (partition, offset) -> appended at

    async def measure(self, runners: Iterable[Runner], idle: set[Lane]) -> None:
        places: dict[tuple[LaneName, str], dict[int, int]] = {}
        failing = 0
        for runner in runners:
            endpoint = "failing" if runner.gate.failing else "answering"
            failing += runner.gate.failing
            for lane in runner.lanes:
                if lane not in idle:
                    lowest = places.setdefault((lane.name, endpoint), {})
                    lowest[lane.partition] = min(lane.offset, lowest.get(lane.partition, lane.offset))
        self._metrics.set("numhub_failing_endpoints", failing)
        known: dict[tuple[int, int], float] = {}
        now = self._clock.now().timestamp()
        for name in LaneName:
            for endpoint in ("answering", "failing"):
                oldest = now
                for partition, offset in places.get((name, endpoint), {}).items():
                    place = (partition, offset)
                    known[place] = await self._appended_at(place, now)
                    oldest = min(oldest, known[place])
                self._metrics.set(
                    "numhub_oldest_undelivered_seconds", max(now - oldest, 0.0), lane=name.value, endpoint=endpoint
                )
        self._known = known

    async def _appended_at(self, place: tuple[int, int], now: float) -> float:
        if place in self._known:
            return self._known[place]
        try:
            page, _ = await self._reader.read(*place, 1)
        except NumhubError:  # shown by what it stops: lanes behind, positions expired
            return now
        return page[0].record.appended_at_ms / 1000 if page else now


async def watch_dependencies(probes: Mapping[str, Probe], clock: Clock, metrics: Metrics) -> None:
    """Ask each dependency a small question; an answer that does not come in time is none."""
    while True:
        for name, probe in probes.items():
            try:
                async with asyncio.timeout(PROBE_WITHIN):
                    await probe()
                up = 1
            except (NumhubError, TimeoutError) as error:
                log.warning("dependency_down", extra={"dependency": name, "error": type(error).__name__})
                up = 0
            metrics.set("numhub_dependency_up", up, dependency=name)
        await clock.sleep(PROBE_EVERY)


async def watch_ledger(ledger: Ledger, clock: Clock, metrics: Metrics) -> None:
    """What stands in the parking place, and since when a batch is being worked on. The ledger's figures: every
    process says the same."""
    while True:
        try:
            metrics.set("numhub_parked_chunks", await ledger.parked_total())
            at_work = await ledger.batches(state=BatchState.validating.value, limit=1000)
            now = clock.now()
            ages = [(now - (batch.committed_at or batch.created_at)).total_seconds() for batch in at_work]
            metrics.set("numhub_oldest_batch_seconds", max(ages, default=0.0))
        except NumhubError as error:
            log.warning("ledger_figures_delayed", extra={"error": type(error).__name__})
        await clock.sleep(LEDGER_EVERY)


async def watch_clock(clock: Clock, metrics: Metrics, every: float = CLOCK_EVERY) -> None:
    """The wall clock must move as the monotonic one does: freezes, tokens and signatures hang on it."""
    wall, steady = clock.now().timestamp(), clock.monotonic()
    while True:
        await clock.sleep(every)
        now, passed = clock.now().timestamp(), clock.monotonic()
        step = (now - wall) - (passed - steady)
        wall, steady = now, passed
        if abs(step) > STEP:
            metrics.count("numhub_clock_steps_total")
            log.error("clock_stepped", extra={"seconds": round(step, 3)})


async def watch_disk(folder: Path, clock: Clock, metrics: Metrics, every: float = 30.0) -> None:
    while True:
        usage = await asyncio.to_thread(shutil.disk_usage, folder)
        metrics.set("numhub_data_free_bytes", usage.free)
        metrics.set("numhub_data_size_bytes", usage.total)
        await clock.sleep(every)
