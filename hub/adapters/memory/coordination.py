"""Rate limits, replay nonces and wake-ups in the memory of one process; a restart forgets them all."""

from __future__ import annotations

import asyncio
import heapq

from hub.ports.clock import Clock
from hub.ports.coordination import Wait, Wakeups

MAX_KEYS = 200_000
START_GRACE = 2.0
"""Seconds before the start from which something issued is still taken: times are given in whole seconds, rounded down,
and the process that used nonces before this one had ended well before this one was ready."""


class _Waiter:
    """Implements `ports.coordination.Wakeups`."""

    def __init__(self, waiters: set[_Waiter]) -> None:
        self._waiters = waiters
        self._woken = asyncio.Event()
        waiters.add(self)

    async def wait(self, within: float) -> bool:
        try:
            async with asyncio.timeout(within):
                await self._woken.wait()
        except TimeoutError:
            return False
        self._woken.clear()
        return True

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        self._waiters.discard(self)


class MemoryCoordination:
    """Implements `ports.coordination.Coordination` for one process.

    A limit is a sliding window approximated from two fixed ones: the previous window counts by the share of it that
    the sliding window still covers, so a burst across the border of two windows is not let through twice.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._began_at = clock.now().timestamp() - START_GRACE
        self._waiters: dict[str, set[_Waiter]] = {}
        self._used: dict[str, float] = {}
        self._expiring: list[tuple[float, str]] = []
        self._said: dict[str, tuple[float, float]] = {}  # figure -> value, when
        self._windows: dict[str, tuple[int, int, int]] = {}  # key -> window number, uses in it, uses in the one before

    async def first_use(self, nonce: str, ttl: float, *, issued_at: float) -> bool:
        if issued_at < self._began_at:
            return False
        now = self._clock.monotonic()
        while self._expiring and self._expiring[0][0] <= now:
            _, expired = heapq.heappop(self._expiring)
            if self._used.get(expired, now + 1) <= now:
                del self._used[expired]
        if nonce in self._used:
            return False
        if len(self._used) >= MAX_KEYS:
            return False  # a full memory must not let a replay through
        self._used[nonce] = now + ttl
        heapq.heappush(self._expiring, (now + ttl, nonce))
        return True

    async def allow(self, key: str, *, limit: int, window: float) -> Wait:
        now = self._clock.monotonic()
        current, passed = divmod(now, window)
        number = int(current)
        seen, uses, before = self._windows.get(key, (number, 0, 0))
        if seen != number:
            uses, before = 0, uses if seen == number - 1 else 0
        weight = before * (1 - passed / window)
        if uses + weight + 1 > limit:
            self._windows[key] = (number, uses, before)
            # until the next window, or until the one before has faded enough, whichever is later to matter
            fade = window * (uses + weight + 1 - limit) / max(before, 1)
            return Wait(max(window - passed if uses >= limit else fade, 0.001), 0, window - passed)
        if len(self._windows) >= MAX_KEYS and key not in self._windows:
            self._windows = {name: held for name, held in self._windows.items() if held[0] >= number - 1}
            if len(self._windows) >= MAX_KEYS:
                self._windows.clear()
        self._windows[key] = (number, uses + 1, before)
        return Wait(0.0, int(limit - uses - weight - 1), window - passed)

    def wake(self, topic: str) -> None:
        for waiter in self._waiters.get(topic, ()):
            waiter.wake()

    def subscribe(self, topic: str) -> Wakeups:
        return _Waiter(self._waiters.setdefault(topic, set()))

    def say(self, figure: str, value: float) -> None:
        self._said[figure] = value, self._clock.monotonic()

    def heard(self, figure: str, within: float) -> list[float]:
        value, at = self._said.get(figure, (0.0, float("-inf")))
        return [value] if self._clock.monotonic() - at <= within else []

    async def run(self) -> None:
        await asyncio.Event().wait()  # there is no other process to hear

    async def close(self) -> None:
        self._used.clear()
        self._windows.clear()
