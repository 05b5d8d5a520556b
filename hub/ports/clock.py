"""Time, handed in. Nothing outside the adapters asks the machine for it."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol


class Clock(Protocol):
    def now(self) -> datetime:
        """The moment, aware, in UTC."""
        ...

    def monotonic(self) -> float:
        """Seconds for measuring durations; never stored."""
        ...

    async def sleep(self, seconds: float) -> None: ...
