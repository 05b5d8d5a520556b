"""Leases: which process does what, when several could.

A lease has a name, a holder and an **epoch** that grows by one each time the lease changes hands (or its holder begins
anew). Time is the ledger's own: no process's clock decides who holds what. A lease alone protects nothing, since its
holder may sleep through its end; what protects is that the ledger refuses writes made under an older epoch (`Fences`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

Fences = Mapping[int, int]
"""Shard -> the epoch under which its results are written."""


def shard_lease(shard: int) -> str:
    """The lease on delivering for a shard of subscriptions."""
    return f"dispatch/{shard:02d}"


@dataclass(frozen=True, slots=True)
class Share:
    """One process's part of a pool: the leases it holds, by name with their epochs, and how many are its due.

    ``due`` is the pool's size divided by the processes that take part, rounded up. Who holds more should finish the
    surplus in good order and release it.
    """

    held: Mapping[str, int]
    due: int


@dataclass(frozen=True, slots=True)
class LeaseRow:
    name: str
    holder: str
    epoch: int
    expires_at: datetime


class Leases(Protocol):
    """Every method is one transaction, committed when it returns. Raises Unavailable."""

    async def begin(self, holder: str) -> None:
        """A new process goes on under a name that a dead one used: what that one held stays with the name, under new
        epochs. Only for a caller who knows that the former process is gone."""
        ...

    async def take(self, holder: str, names: Collection[str], ttl: timedelta) -> dict[str, int]:
        """Take those of ``names`` that are free or expired, renew those held already; name -> epoch of both kinds.
        Renewing keeps the epoch."""
        ...

    async def share(self, holder: str, pool: Sequence[str], ttl: timedelta) -> Share:
        """Take part in a pool of leases: renew what is held of it and, up to the fair share, take what is free."""
        ...

    async def release(self, holder: str, names: Collection[str]) -> None:
        """Give back those of ``names`` that are held; the next to take them need not wait."""
        ...

    async def leave(self, holder: str) -> None:
        """Give back everything and take part in no pool any more."""
        ...

    async def rows(self) -> list[LeaseRow]:
        """All leases that are held now, by name."""
        ...
