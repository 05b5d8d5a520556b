"""One timer for all requests in flight: a timer of its own per request costs more than signing its body."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Expiring(Protocol):
    def expire(self) -> None: ...


class Deadlines:
    """Calls ``expire`` of what is still watched at its deadline (loop time), never early.

    Requests mostly get the same time, so deadlines come in ascending order and the first one watched is the first one
    due; one that comes out of order gets a timer of its own.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._watched: dict[Expiring, float] = {}  # ascending
        self._latest = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._own: dict[Expiring, asyncio.TimerHandle] = {}

    def watch(self, request: Expiring, deadline: float) -> None:
        if deadline < self._latest:
            self._own[request] = self._loop.call_at(deadline, self._expire_own, request)
            return
        self._latest = deadline
        self._watched[request] = deadline
        if self._timer is None:
            self._timer = self._loop.call_at(deadline, self._look)

    def done(self, request: Expiring) -> None:
        """Forget it; again and again changes nothing."""
        if self._watched.pop(request, None) is None and self._own:
            timer = self._own.pop(request, None)
            if timer is not None:
                timer.cancel()

    def close(self) -> None:
        """Stop the timer while nothing is in flight."""
        if self._timer is not None and not self._watched:
            self._timer.cancel()
            self._timer = None

    def _expire_own(self, request: Expiring) -> None:
        self._own.pop(request, None)
        request.expire()

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._watched:
            request, deadline = next(iter(self._watched.items()))
            if deadline > now:
                self._timer = self._loop.call_at(deadline, self._look)
                return
            del self._watched[request]
            request.expire()
        self._latest = float("-inf")
