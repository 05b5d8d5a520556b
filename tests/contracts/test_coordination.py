"""Coordination in process memory keeps the contract, and stays bounded."""

from __future__ import annotations

import pytest
from coordination_contract import CoordinationContract

from hub.adapters.memory import coordination as memory
from hub.adapters.memory.coordination import MemoryCoordination
from hub.adapters.system.clock import ManualClock
from hub.ports.coordination import Coordination


class TestMemoryCoordination(CoordinationContract):
    async def make(self, clock: ManualClock) -> Coordination:
        return MemoryCoordination(clock)

    async def test_a_full_memory_lets_no_replay_through(
        self, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Beyond its bound it refuses new nonces instead of forgetting old ones, until some have run out."""
        monkeypatch.setattr(memory, "MAX_KEYS", 3)
        coordination = MemoryCoordination(clock)
        firsts = [await self.first(coordination, clock, str(place)) for place in range(4)]
        assert firsts == [True, True, True, False]
        clock.advance(11)
        assert await self.first(coordination, clock, "3")

    async def test_limits_of_many_keys_stay_bounded(self, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keys of the past are forgotten first."""
        monkeypatch.setattr(memory, "MAX_KEYS", 10)
        coordination = MemoryCoordination(clock)
        for place in range(100):
            assert await coordination.allow(str(place), limit=1, window=10) == 0.0
        assert len(coordination._windows) <= 10
