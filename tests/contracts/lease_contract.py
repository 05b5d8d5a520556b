"""What every `hub.ports.leases.Leases` promises. A class supplies ``make_two``: two doors to one ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from hub.ports.leases import Leases

TTL = timedelta(seconds=10)
POOL = [f"pool/{place:02d}" for place in range(8)]


class LeaseContract:
    async def make_two(self, where: Path) -> tuple[Leases, Leases]:
        raise NotImplementedError

    async def pass_time(self, seconds: float) -> None:
        """Let the ledger's clock go on."""
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    @pytest.fixture
    async def two(self, tmp_path: Path) -> AsyncIterator[tuple[Leases, Leases]]:
        yield await self.make_two(tmp_path)
        await self.close()

    async def test_one_holds_and_the_other_does_not(self, two: tuple[Leases, Leases]) -> None:
        """What somebody holds is not to be had; a renewal keeps the epoch."""
        a, b = two
        assert await a.take("a", ["x"], TTL) == {"x": 1}
        assert await b.take("b", ["x", "y"], TTL) == {"y": 1}
        assert await a.take("a", ["x"], TTL) == {"x": 1}

    async def test_an_expired_lease_changes_hands_under_a_new_epoch(self, two: tuple[Leases, Leases]) -> None:
        """The former holder finds it gone; the epoch tells the two apart."""
        a, b = two
        await a.take("a", ["x"], TTL)
        await self.pass_time(10.5)
        assert await b.take("b", ["x"], TTL) == {"x": 2}
        assert await a.take("a", ["x"], TTL) == {}

    async def test_an_expired_lease_nobody_wanted_is_renewed(self, two: tuple[Leases, Leases]) -> None:
        """A ledger outage alone changes no hands."""
        a, _ = two
        await a.take("a", ["x"], TTL)
        await self.pass_time(60)
        assert await a.take("a", ["x"], TTL) == {"x": 1}

    async def test_released_is_free_at_once(self, two: tuple[Leases, Leases]) -> None:
        """Releasing what is not held does nothing."""
        a, b = two
        await a.take("a", ["x", "y"], TTL)
        await b.release("b", ["x"])
        assert await b.take("b", ["x"], TTL) == {}
        await a.release("a", ["x"])
        assert await b.take("b", ["x", "y"], TTL) == {"x": 2}

    async def test_a_new_process_of_the_same_name_goes_on_under_new_epochs(self, two: tuple[Leases, Leases]) -> None:
        """What the dead one still has under way is refused by its epoch; nobody waits for the lease to end."""
        a, b = two
        await a.take("a", ["x"], TTL)
        await b.begin("a")
        assert await b.take("a", ["x"], TTL) == {"x": 2}

    async def test_a_pool_is_shared_fairly(self, two: tuple[Leases, Leases]) -> None:
        """The first has all; when a second comes, each one's due is half, and what is released is taken."""
        a, b = two
        first = await a.share("a", POOL, TTL)
        assert (len(first.held), first.due) == (8, 8)
        second = await b.share("b", POOL, TTL)
        assert (len(second.held), second.due) == (0, 4)
        again = await a.share("a", POOL, TTL)
        assert (len(again.held), again.due) == (8, 4)
        surplus = sorted(again.held)[4:]
        await a.release("a", surplus)
        assert (await b.share("b", POOL, TTL)).held == dict.fromkeys(surplus, 2)

    async def test_who_leaves_a_pool_or_dies_makes_room(self, two: tuple[Leases, Leases]) -> None:
        """Leaving is at once, dying takes the lease's time."""
        a, b = two
        await a.share("a", POOL, TTL)
        await b.share("b", POOL, TTL)
        await a.leave("a")
        assert len((await b.share("b", POOL, TTL)).held) == 8
        await self.pass_time(10.5)
        taken = await a.share("a", POOL, TTL)
        assert (len(taken.held), taken.due) == (8, 8)
        assert (await b.share("b", POOL, TTL)).held == {}

    async def test_ten_processes_at_once_get_disjoint_fair_shares(self, two: tuple[Leases, Leases]) -> None:
        """Racing for one pool, nobody gets what another has."""
        doors = [two[place % 2] for place in range(10)]
        pool = [f"many/{place:02d}" for place in range(64)]
        for _ in range(3):
            shares = await asyncio.gather(*(door.share(f"n{place}", pool, TTL) for place, door in enumerate(doors)))
            for place, (door, share) in enumerate(zip(doors, shares, strict=True)):
                await door.release(f"n{place}", sorted(share.held)[share.due :])
        shares = await asyncio.gather(*(door.share(f"n{place}", pool, TTL) for place, door in enumerate(doors)))
        names = [name for share in shares for name in share.held]
        assert len(names) == len(set(names)) == 64
        assert max(len(share.held) for share in shares) == 7

    async def test_rows_tell_who_holds_what(self, two: tuple[Leases, Leases]) -> None:
        """Only what is held now."""
        a, b = two
        await a.take("a", ["x"], TTL)
        await b.take("b", ["y"], TTL)
        await self.pass_time(5)
        await a.take("a", ["x"], TTL)
        await self.pass_time(6)
        assert [(row.name, row.holder, row.epoch) for row in await b.rows()] == [("x", "a", 1)]
