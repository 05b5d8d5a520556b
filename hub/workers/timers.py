"""What happens by the clock: the index is written down, the loop's own lag is measured."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from hub.domain.errors import NumhubError
from hub.ports.clock import Clock
from hub.ports.metrics import Metrics
from hub.ports.number_index import NumberIndex

log = logging.getLogger("numhub.timers")

FLUSH_EVERY = 15.0
SNAPSHOT_AFTER = 60.0  # a process that is started again and again publishes too, and folds first
ROOM_AFTER, ROOM_EVERY = 60.0, 3600.0
LAG_EVERY = 0.5
LAG_WORTH_A_LINE = 0.25


async def flush_index(index: NumberIndex, clock: Clock, every: float = FLUSH_EVERY) -> None:
    """Bound what a restart folds again. A failure to write ends the process: the disk is full or broken."""
    while True:
        await clock.sleep(every)
        await asyncio.to_thread(index.flush)


async def publish_snapshots(publish: Callable[[], object], clock: Clock, every: float) -> None:
    """Copies of the index for new nodes. A failure is told and tried again at the next turn: nobody waits for it."""
    await clock.sleep(min(every, SNAPSHOT_AFTER))
    while True:
        try:
            await asyncio.to_thread(publish)
        except OSError as error:
            log.warning("index_snapshot_failed", extra={"cause": str(error)})
        await clock.sleep(every)


async def make_room(make: Callable[[], Awaitable[int]], clock: Clock, every: float = ROOM_EVERY) -> None:
    """Parts of the ledger's tables for what is still to come, long before it comes. A failure is told and tried again:
    until then there is a last resort for rows (see `numhub doctor`)."""
    await clock.sleep(min(every, ROOM_AFTER))
    while True:
        try:
            if made := await make():
                log.info("ledger_parts_made", extra={"parts": made})
        except NumhubError as error:
            log.warning("ledger_parts_failed", extra={"cause": error.message})
        await clock.sleep(every)


async def watch_loop(clock: Clock, metrics: Metrics, every: float = LAG_EVERY) -> None:
    """How late a sleeper is woken: what blocks the event loop shows here."""
    while True:
        before = clock.monotonic()
        await clock.sleep(every)
        lag = max(clock.monotonic() - before - every, 0.0)
        metrics.set("numhub_loop_lag_seconds", lag)
        if lag > LAG_WORTH_A_LINE:
            log.warning("event_loop_late", extra={"milliseconds": round(lag * 1000)})


async def publish(read: Callable[[], None], clock: Clock, every: float = 5.0) -> None:
    """Call ``read`` again and again: gauges that nobody pushes."""
    while True:
        read()
        await clock.sleep(every)
