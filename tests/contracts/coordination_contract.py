"""What every adapter of the coordination port must do; the classes that run it supply `make`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from hub.adapters.system.clock import ManualClock
from hub.ports.coordination import Coordination


class CoordinationContract:
    async def make(self, clock: ManualClock) -> Coordination:
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    async def coordination(self, clock: ManualClock) -> AsyncIterator[Coordination]:
        made = await self.make(clock)
        yield made
        await made.close()

    async def first(
        self, coordination: Coordination, clock: ManualClock, nonce: str, *, ttl: float = 10, age: float = 0.0
    ) -> bool:
        return await coordination.first_use(nonce, ttl, issued_at=clock.now().timestamp() - age)

    async def test_a_nonce_is_new_once(self, coordination: Coordination, clock: ManualClock) -> None:
        """True the first time, False until the ttl has passed, for each nonce apart."""
        assert await self.first(coordination, clock, "a")
        assert not await self.first(coordination, clock, "a")
        assert await self.first(coordination, clock, "b")
        clock.advance(9.9)
        assert not await self.first(coordination, clock, "a")
        clock.advance(0.2)
        assert await self.first(coordination, clock, "a")

    async def test_a_refused_use_does_not_prolong_the_memory(
        self, coordination: Coordination, clock: ManualClock
    ) -> None:
        """The ttl counts from the first use."""
        assert await self.first(coordination, clock, "a")
        clock.advance(8)
        assert not await self.first(coordination, clock, "a")
        clock.advance(3)
        assert await self.first(coordination, clock, "a")

    async def test_a_limit_holds_per_key(self, coordination: Coordination) -> None:
        """The first ``limit`` uses pass, the next one is told how long to wait, another key is not concerned."""
        waits = [await coordination.allow("a", limit=3, window=10) for _ in range(5)]
        assert waits[:3] == [0.0, 0.0, 0.0]
        assert all(0 < wait <= 10 for wait in waits[3:])
        assert [wait.left for wait in waits] == [2, 1, 0, 0, 0]
        assert all(0 < wait.resets_after <= 10 for wait in waits)
        assert await coordination.allow("b", limit=3, window=10) == 0.0

    async def test_who_waits_as_told_may_go_on(self, coordination: Coordination, clock: ManualClock) -> None:
        """Waiting as long as told, a few times at most, leads back in."""
        for _ in range(4):
            await coordination.allow("a", limit=3, window=10)
        for _ in range(5):
            wait = await coordination.allow("a", limit=3, window=10)
            if not wait:
                return
            clock.advance(wait)
        pytest.fail("told to wait again and again")

    async def test_a_burst_across_a_border_is_not_let_through_twice(
        self, coordination: Coordination, clock: ManualClock
    ) -> None:
        """Within any short span about ``limit`` uses pass, wherever it lies."""
        clock.advance(9.9)
        first = [await coordination.allow("a", limit=100, window=10) for _ in range(100)]
        clock.advance(0.2)
        second = [await coordination.allow("a", limit=100, window=10) for _ in range(100)]
        assert first.count(0.0) == 100
        assert second.count(0.0) <= 5

    async def test_refused_uses_are_not_counted(self, coordination: Coordination, clock: ManualClock) -> None:
        """A client that hammers is not locked out for longer than one that waits."""
        for _ in range(1000):
            await coordination.allow("a", limit=10, window=10)
        clock.advance(20)
        assert await coordination.allow("a", limit=10, window=10) == 0.0

    async def test_what_was_issued_before_the_memory_began_is_refused(
        self, coordination: Coordination, clock: ManualClock
    ) -> None:
        """Nobody can tell whether it was used then. Later it is still too old; what is issued now is taken."""
        clock.advance(30)
        assert not await self.first(coordination, clock, "old", ttl=300, age=60)
        clock.advance(30)
        assert not await self.first(coordination, clock, "old", ttl=300, age=90)
        assert await self.first(coordination, clock, "new", ttl=300, age=20)

    async def test_callers_at_once_share_a_limit_and_a_nonce(
        self, coordination: Coordination, clock: ManualClock
    ) -> None:
        """However many ask at the same moment, ``limit`` pass, and one is the first."""
        waits = await asyncio.gather(*(coordination.allow("a", limit=50, window=10) for _ in range(300)))
        assert waits.count(0.0) == 50
        firsts = await asyncio.gather(*(self.first(coordination, clock, "a") for _ in range(50)))
        assert firsts.count(True) == 1

    async def test_a_wake_up_reaches_its_topic_only(self, coordination: Coordination) -> None:
        """All waiters of the topic wake, nobody else does."""
        first, second = coordination.subscribe("a"), coordination.subscribe("a")
        other = coordination.subscribe("b")
        waiting = [asyncio.create_task(each.wait(5)) for each in (first, second)]
        await asyncio.sleep(0)
        coordination.wake("a")
        assert await asyncio.gather(*waiting) == [True, True]
        assert not await other.wait(0.05)

    async def test_a_wake_up_between_two_waits_is_not_lost(self, coordination: Coordination) -> None:
        """It ends the next wait at once, and only that one."""
        waiter = coordination.subscribe("a")
        coordination.wake("a")
        coordination.wake("a")
        assert await waiter.wait(5)
        assert not await waiter.wait(0.05)
        waiter.close()
        coordination.wake("a")
        assert not await waiter.wait(0.05)

    async def test_a_figure_is_heard_for_a_while(self, coordination: Coordination, clock: ManualClock) -> None:
        """The last value, of each figure apart; what is older than asked for is not told."""
        assert coordination.heard("lag", 3) == []
        coordination.say("lag", 1.5)
        coordination.say("lag", 2.5)
        coordination.say("other", 9.0)
        clock.advance(2)
        assert coordination.heard("lag", 3) == [2.5]
        clock.advance(2)
        assert coordination.heard("lag", 3) == [] and coordination.heard("other", 5) == [9.0]
