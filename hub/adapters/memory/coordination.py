"""Rate limits and replay nonces in the memory of one process; a restart forgets them all."""

from __future__ import annotations

import heapq

from hub.ports.clock import Clock

MAX_KEYS = 200_000


class MemoryCoordination:
    """Implements `ports.coordination.Coordination` for one process.

    A limit is a sliding window approximated from two fixed ones: the previous window counts by the share of it that
    the sliding window still covers, so a burst across the border of two windows is not let through twice.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._used: dict[str, float] = {}
        self._expiring: list[tuple[float, str]] = []
        self._windows: dict[str, tuple[int, int, int]] = {}  # key -> window number, uses in it, uses in the one before

    async def first_use(self, nonce: str, ttl: float) -> bool:
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

    async def allow(self, key: str, *, limit: int, window: float) -> float:
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
            return max(window - passed if uses >= limit else fade, 0.001)
        if len(self._windows) >= MAX_KEYS and key not in self._windows:
            self._windows = {name: held for name, held in self._windows.items() if held[0] >= number - 1}
            if len(self._windows) >= MAX_KEYS:
                self._windows.clear()
        self._windows[key] = (number, uses + 1, before)
        return 0.0

    async def close(self) -> None:
        self._used.clear()
        self._windows.clear()
