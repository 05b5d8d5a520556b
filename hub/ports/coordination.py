"""Short-lived help: rate limits, replay nonces, wake-ups. Losing all of it at any moment loses nothing that counts."""

from __future__ import annotations

from typing import Protocol


class Coordination(Protocol):
    async def first_use(self, nonce: str, ttl: float) -> bool:
        """True exactly once per nonce within ``ttl`` seconds."""
        ...

    async def allow(self, key: str, *, limit: int, window: float) -> float:
        """Count one use of ``key``; 0.0 if within ``limit`` per ``window`` seconds, else seconds to wait."""
        ...

    async def close(self) -> None: ...
