"""How late a live event accepted now would reach its receivers because of the hub: by this publishers are held back.

The age of what is delivered now is no answer: it says what happened to events accepted long ago, stays high until the
queue they stood in is empty, and a door that opens by it swings between flood and drought. So the wait is predicted:
live records accepted behind the one being delivered, over the pace at which delivery has moved on lately. A queue that
is younger than a moment says nothing about the pace; then its own age stands.

Receivers that hang, fail or are slow do not count: measured is what the quickest quarter of the endpoints sees that
were served lately.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from hub.domain.events import Lane
from hub.ports.clock import Clock
from hub.ports.coordination import LIVE_LAG, Coordination
from hub.ports.log import Header, Record

SERVED_WITHIN = 5.0
SAID_EVERY, SAID_STANDS = 0.5, 3.0
"""Seconds between two reports to other processes, and how long one counts."""
STANDS_FOR = 0.1
"""Seconds that an answer is reused."""
_SOON = 1.0
"""Seconds of queueing from which on the pace is known."""
_PACE_OVER = 4.0
_GRAIN_MS = 20
_ENTRIES = 65_536


class Served(Protocol):
    """An endpoint: when its last live record came to it (monotonic), and when that had been appended (unix ms)."""

    live_at: float
    live_appended: int


class LiveLag:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._times: list[int] = []  # append times of live records (unix ms), rounded down, ascending
        self._counts: list[int] = []  # live records so far, those of the same entry included
        self._total = self._before = 0  # in all; in entries that were forgotten
        self._paces: deque[tuple[float, int]] = deque()  # (monotonic, records delivered)
        self._known: float | None = None
        self._known_until = float("-inf")

    def folded(self, records: Sequence[Record]) -> None:
        """Records that lanes may deliver from now on."""
        for record in records:
            if record.headers[Header.lane] != Lane.live:
                continue
            self._total += 1
            at = record.appended_at_ms // _GRAIN_MS * _GRAIN_MS
            if self._times and self._times[-1] >= at:
                self._counts[-1] = self._total
            else:
                self._times.append(at)
                self._counts.append(self._total)
        if len(self._times) > _ENTRIES:
            self._forget(_ENTRIES // 2)

    def seconds(self, endpoints: Iterable[Served]) -> float | None:
        """None if no endpoint was served of late: then nothing is known."""
        now = self._clock.monotonic()
        if now >= self._known_until:
            self._known = self._measure(now, endpoints)
            self._known_until = now + STANDS_FOR
        return self._known

    def _measure(self, now: float, endpoints: Iterable[Served]) -> float | None:
        reached = sorted((one.live_appended for one in endpoints if one.live_at >= now - SERVED_WITHIN), reverse=True)
        if not reached:
            self._forget(len(self._times))
            self._paces.clear()
            return None
        place = bisect_right(self._times, reached[len(reached) // 4])
        self._forget(place)
        done = self._before
        waiting = self._total - done
        if waiting <= 0:
            self._paces.clear()
            return 0.0
        while self._paces and self._paces[0][0] < now - _PACE_OVER:
            self._paces.popleft()
        self._paces.append((now, done))
        age = max(self._clock.now().timestamp() - self._times[0] / 1000, 0.0)
        began, before = self._paces[0]
        if age < _SOON or done <= before or now - began < _SOON / 2:
            return age
        return waiting * (now - began) / (done - before)

    def _forget(self, places: int) -> None:
        if places > 0:
            self._before = self._counts[places - 1]
            del self._times[:places], self._counts[:places]


async def say_live_lag(lag: Callable[[], float | None], coordination: Coordination, clock: Clock) -> None:
    """Let the processes that accept events know how it stands where they are delivered."""
    while True:
        seconds = lag()
        if seconds is not None:
            coordination.say(LIVE_LAG, seconds)
        await clock.sleep(SAID_EVERY)


def heard_live_lag(coordination: Coordination) -> float | None:
    """The least of what the delivering processes said: one that serves nobody but a slow receiver has no say."""
    return min(coordination.heard(LIVE_LAG, SAID_STANDS), default=None)
