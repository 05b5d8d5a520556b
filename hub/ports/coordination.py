"""Short-lived help: rate limits, replay nonces, wake-ups. Losing all of it at any moment loses nothing that counts."""

from __future__ import annotations

from typing import Protocol

DIRECTORY = "directory"
"""Topic of wake-ups: parties, agreements or subscriptions changed."""
REDRIVES = "redrives"
"""Topic of wake-ups: an order to deliver again was stored."""
LIVE_LAG = "live-lag"
"""Figure that processes say: seconds a live event accepted now would wait for its delivery there."""


class Wait(float):
    """Seconds to wait, 0.0 where there is nothing to wait for. ``left``: uses that are left of the limit;
    ``resets_after``: seconds until the count begins anew."""

    __slots__ = ("left", "resets_after")
    left: int
    resets_after: float

    def __new__(cls, seconds: float, left: int, resets_after: float) -> Wait:
        self = super().__new__(cls, seconds)
        self.left, self.resets_after = left, resets_after
        return self


class Wakeups(Protocol):
    """What one waiter hears of one topic."""

    async def wait(self, within: float) -> bool:
        """Until somebody wakes the topic, or has done so since the last call; False after ``within`` seconds.

        A wake-up may come without a cause and may get lost: it says "look now", and who waits looks anyway at times.
        """
        ...

    def close(self) -> None: ...


class Coordination(Protocol):
    async def first_use(self, nonce: str, ttl: float, *, issued_at: float) -> bool:
        """True at most once per nonce within ``ttl`` seconds; ``issued_at`` (epoch seconds) says when it was made.

        Fails closed: False for whatever was issued before the memory of used nonces began (a restart, a flush: nobody
        can tell whether it was used then). Raises Unavailable where the same may be asked again in a moment with
        something freshly issued.
        """
        ...

    async def allow(self, key: str, *, limit: int, window: float) -> Wait:
        """Count one use of ``key``; 0.0 if within ``limit`` per ``window`` seconds, else seconds to wait; and what is
        left.

        Always answers, if need be from what this process alone has seen.
        """
        ...

    def wake(self, topic: str) -> None:
        """Tell all who wait for ``topic``, in every process. Returns at once and never fails."""
        ...

    def subscribe(self, topic: str) -> Wakeups: ...

    def say(self, figure: str, value: float) -> None:
        """Let every process hear a figure of this one. Returns at once and never fails; it may get lost."""
        ...

    def heard(self, figure: str, within: float) -> list[float]:
        """What each process, this one included, said last; only what was said in the last ``within`` seconds."""
        ...

    async def run(self) -> None:
        """Hear other processes until cancelled. Without it wake-ups from elsewhere are not heard."""
        ...

    async def close(self) -> None: ...
