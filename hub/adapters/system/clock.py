"""The machine's clock, and one that stands still until it is told to move."""

from __future__ import annotations

import asyncio
import heapq
import time
from datetime import UTC, datetime, timedelta


class SystemClock:
    """What the machine says; the only place that asks it."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class ManualClock:
    """A clock for tests: it moves by `advance` only, or, with ``auto``, by every sleep that is asked of it.

    ``auto=False``: `sleep` returns once the clock has been advanced far enough. ``auto=True``: `sleep` moves the clock
    itself and returns at the next turn of the event loop, so that months pass in no time.
    """

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC), *, auto: bool = False) -> None:
        if start.tzinfo is None:
            raise ValueError("start must be aware")
        self._start = start.astimezone(UTC)
        self._passed = 0.0
        self._auto = auto
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._taken = 0

    def now(self) -> datetime:
        return self._start + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        return self._passed

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0 or self._auto:
            self.advance(max(seconds, 0.0))
            await asyncio.sleep(0)
            return
        self._taken += 1
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._passed + seconds, self._taken, woken))
        await woken

    def advance(self, step: float | timedelta) -> None:
        """Move on by seconds (or a timedelta) and wake whoever slept until then; time never runs backwards."""
        seconds = step.total_seconds() if isinstance(step, timedelta) else step
        if seconds < 0:
            raise ValueError("a clock is never put back")
        self._passed += seconds
        while self._sleepers and self._sleepers[0][0] <= self._passed:
            _, _, woken = heapq.heappop(self._sleepers)
            if not woken.done():
                woken.set_result(None)
