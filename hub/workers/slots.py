"""The bulk lanes' shared limit on requests out at a time; live lanes do not pass here.

A slot bounds what is being signed and written, not how long receivers take to answer: one that is out for longer than
``lend_for`` counts no more, so that receivers which hang occupy nothing but their own subscription's gate.
"""

from __future__ import annotations

import asyncio
from collections import deque


class Lease:
    __slots__ = ("_slots", "_timer")

    def __init__(self, slots: Slots, lend_for: float) -> None:
        self._slots: Slots | None = slots
        self._timer = asyncio.get_running_loop().call_later(lend_for, self.release)

    def release(self) -> None:
        """Give the slot back; again and again changes nothing."""
        if self._slots is not None:
            slots, self._slots = self._slots, None
            self._timer.cancel()
            slots._returned()


class Slots:
    def __init__(self, limit: int = 64, lend_for: float = 1.0) -> None:
        self._free = limit
        self._lend_for = lend_for
        self._waiting: deque[asyncio.Future[Lease]] = deque()

    def try_take(self) -> Lease | None:
        if self._free <= 0 or self._waiting:
            return None
        self._free -= 1
        return Lease(self, self._lend_for)

    async def take(self) -> Lease:
        """First come, first served."""
        lease = self.try_take()
        if lease is not None:
            return lease
        wait: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._waiting.append(wait)
        try:
            return await wait
        except asyncio.CancelledError:
            if wait.done() and not wait.cancelled():
                wait.result().release()
            raise

    def _returned(self) -> None:
        while self._waiting:
            wait = self._waiting.popleft()
            if not wait.done():
                wait.set_result(Lease(self, self._lend_for))
                return
        self._free += 1
