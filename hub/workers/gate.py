"""One gate per subscription: how many requests its endpoint gets at a time, and how it is treated while it fails.

Healthy: every lane may have its one request out, bulk lanes up to a window that grows by one with each success.
Failing (since the last failure nothing succeeded): one probe at a time, the lanes taking turns, live ones first, with
pauses that double. So a dead endpoint is asked rarely whatever waits for it, while one chunk that its receiver cannot
digest holds up its own lane only: the next lane's probe succeeds and the gate is open again.

When an endpoint on which several lanes had failed comes back, lanes that still wait for their own retry are called at
once; that costs them no step of their schedule, and happens to one record a few times at most.
"""

from __future__ import annotations

import asyncio
from random import Random
from typing import Protocol

from hub.flow.push import Trail
from hub.ports.clock import Clock

PAUSE_FIRST, PAUSE_MAX = 0.5, 60.0
CALLS_AT_ONCE, CALL_EVERY = 5, 60.0


class Turn(Protocol):
    """Whoever wants to send: a lane, or the redrive queue."""

    live: bool
    not_before: float  # clock.monotonic() before which it waits for its own retry
    trail: Trail
    calls: int  # how often its present record was called at once
    called_at: float


class Gate:
    def __init__(self, clock: Clock, random: Random, bulk_parallel: int = 8, pause_max: float = PAUSE_MAX) -> None:
        """``pause_max`` bounds the pauses between probes, in seconds; never above PAUSE_MAX."""
        self._pause_max = min(pause_max, PAUSE_MAX)
        self._clock = clock
        self._random = random
        self._bulk_parallel = bulk_parallel
        self._window = bulk_parallel
        self._in_flight = 0
        self._bulk_in_flight = 0
        self._failures = 0
        self._failed: set[Turn] = set()
        self._until = 0.0
        self._waiting: dict[Turn, asyncio.Future[bool]] = {}
        self._timer: asyncio.Task[None] | None = None
        self._timer_at = 0.0

    @property
    def failing(self) -> bool:
        return self._failures > 0

    @property
    def in_flight(self) -> int:
        return self._in_flight

    def try_enter(self, turn: Turn) -> bool:
        """Take a permit if one is to be had now."""
        if not self._may_go(turn, self._clock.monotonic()):
            return False
        self._take(turn)
        return True

    async def enter(self, turn: Turn) -> bool:
        """Wait for a permit, for hours if need be; False if the gate was closed instead."""
        if self.try_enter(turn):
            return True
        wait: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[turn] = wait
        self._pump()
        try:
            return await wait
        except asyncio.CancelledError:
            if wait.done() and not wait.cancelled() and wait.result():
                self.leave(turn, None)
            self._waiting.pop(turn, None)
            raise

    def leave(self, turn: Turn, succeeded: bool | None, *, until: float = 0.0) -> None:
        """Give the permit back. None: nothing was sent. ``until``: the endpoint asked to be left alone until then."""
        self._in_flight -= 1
        if not turn.live:
            self._bulk_in_flight -= 1
        now = self._clock.monotonic()
        if succeeded:
            if self._failures:
                self._recovered(now)
            self._window = min(self._window + 1, self._bulk_parallel)
        elif succeeded is False:
            self._failures += 1
            self._failed.add(turn)
            self._window = 1
            self._until = max(until, now + self._pause())
        self._pump()

    def close(self) -> None:
        """Send everybody away who waits; permits given out stay valid until they are left."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, {}
        for wait in waiting.values():
            if not wait.done():
                wait.set_result(False)

    def _pause(self) -> float:
        if self._failures < 2:
            return 0.0
        doubled: float = PAUSE_FIRST * 2 ** min(self._failures - 2, 10)
        return min(doubled, self._pause_max) * (1 + 0.1 * self._random.random())

    def _recovered(self, now: float) -> None:
        if len(self._failed) > 1:
            for turn in self._waiting:
                if turn.not_before > now and turn.calls < CALLS_AT_ONCE and now >= turn.called_at + CALL_EVERY:
                    turn.not_before, turn.called_at = now, now
                    turn.calls += 1
                    turn.trail.steps = max(turn.trail.steps - 1, 0)
        self._failures = 0
        self._failed.clear()
        self._until = 0.0

    def _may_go(self, turn: Turn, now: float) -> bool:
        if turn.not_before > now:
            return False
        if self._failures:
            return self._in_flight == 0 and now >= self._until
        return turn.live or self._bulk_in_flight < self._window

    def _take(self, turn: Turn) -> None:
        self._in_flight += 1
        if not turn.live:
            self._bulk_in_flight += 1

    def _pump(self) -> None:
        """Let in whoever may go, live lanes first, and be woken when time alone opens the gate for another."""
        if not self._waiting:
            return
        now = self._clock.monotonic()
        for turn in sorted(self._waiting, key=lambda turn: not turn.live):  # stable: first come, first served
            if self._may_go(turn, now):
                wait = self._waiting.pop(turn)
                if not wait.done():
                    self._take(turn)
                    wait.set_result(True)
        times = [max(turn.not_before, self._until if self._failures else 0.0) for turn in self._waiting]
        later = [at for at in times if at > now]
        if later and (self._timer is None or min(later) < self._timer_at):
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = min(later)
            self._timer = asyncio.create_task(self._tick(self._timer_at - now), name="gate")

    async def _tick(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._timer = None
        self._pump()
