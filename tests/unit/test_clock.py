"""The clocks: one from the machine, one that tests move."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from hub.adapters.system.clock import ManualClock, SystemClock


async def test_the_system_clock_is_aware_and_moves_on() -> None:
    """UTC, and a monotonic count that sleeping moves."""
    clock = SystemClock()
    before = clock.monotonic()
    await clock.sleep(0.001)
    assert clock.monotonic() > before
    assert clock.now().utcoffset() == timedelta(0)


async def test_sleepers_wake_when_the_clock_is_advanced_far_enough() -> None:
    """In the order of their times, not before, and now() agrees."""
    clock = ManualClock(datetime(2026, 1, 1, tzinfo=UTC))
    woken: list[str] = []

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append(name)

    tasks = [asyncio.create_task(sleeper(name, seconds)) for name, seconds in (("late", 20), ("early", 10))]
    await asyncio.sleep(0)
    clock.advance(9.5)
    await asyncio.sleep(0)
    assert woken == []
    clock.advance(timedelta(seconds=0.5))
    await tasks[1]
    assert woken == ["early"]
    clock.advance(3600)
    await tasks[0]
    assert clock.now() == datetime(2026, 1, 1, 1, 0, 10, tzinfo=UTC)
    assert clock.monotonic() == 3610


async def test_an_automatic_clock_sleeps_in_no_time() -> None:
    """Every sleep moves it by as much as was asked."""
    clock = ManualClock(auto=True)
    await clock.sleep(86_400 * 90)
    assert clock.now() == datetime(2026, 4, 1, tzinfo=UTC)


def test_no_clock_goes_back_or_lacks_a_zone() -> None:
    """Both are refused."""
    with pytest.raises(ValueError):
        ManualClock(datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError):
        ManualClock().advance(-1)
