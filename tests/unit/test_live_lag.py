"""How late a live event accepted now would be."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from hub.adapters.memory.coordination import MemoryCoordination
from hub.adapters.system.clock import ManualClock
from hub.ports.coordination import LIVE_LAG
from hub.ports.log import Record
from hub.workers.live_lag import SAID_STANDS, LiveLag, heard_live_lag


@dataclass
class Endpoint:
    live_at: float = float("-inf")
    live_appended: int = 0


class World:
    """Accepts and delivers live records at given paces, ten times a second."""

    def __init__(self, endpoints: int = 4) -> None:
        self.clock = ManualClock()
        self.lag = LiveLag(self.clock)
        self.endpoints = [Endpoint() for _ in range(endpoints)]
        self.accepted: list[int] = []  # when (ms)
        self.delivered = 0

    def accept(self, count: int, lane: str = "live") -> None:
        at = int(self.clock.now().timestamp() * 1000)
        self.lag.folded([Record(0, 0, "c", {"lane": lane}, b"", at)] * count)
        if lane == "live":
            self.accepted += [at] * count

    def deliver(self, count: int, endpoints: int = 4) -> None:
        self.delivered = min(self.delivered + count, len(self.accepted))
        for endpoint in self.endpoints[:endpoints]:
            endpoint.live_at, endpoint.live_appended = self.clock.monotonic(), self.accepted[self.delivered - 1]

    def pass_seconds(self, seconds: float, accepted: int = 0, delivered: int = 0) -> list[float | None]:
        """Per tenth of a second so many; what was said after each."""
        said = []
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            if accepted:
                self.accept(accepted)
            if delivered and self.accepted:
                self.deliver(delivered)
            said.append(self.lag.seconds(self.endpoints))
        return said


def test_a_queue_is_as_long_as_it_takes_to_deliver_it() -> None:
    """100 a second come, 50 go: after 4 s 200 wait, and the next one will wait 4 s; when they stop it shrinks."""
    world = World()
    said = world.pass_seconds(4, accepted=10, delivered=5)
    assert said[-1] == pytest.approx(4.0, rel=0.15)
    said = world.pass_seconds(3, delivered=5)
    assert said[-1] == pytest.approx(1.0, rel=0.3) and [said[0], said[10], said[20]] == sorted(
        [said[0] or 0, said[10] or 0, said[20] or 0], reverse=True
    )


def test_a_burst_after_a_quiet_time_is_not_taken_for_a_crawl() -> None:
    """Before the pace is known the queue is as late as it is old."""
    world = World()
    world.pass_seconds(10, accepted=1, delivered=1)
    world.accept(300)
    said = world.pass_seconds(0.9, delivered=20)
    assert max(one or 0.0 for one in said) < 1.0
    assert world.pass_seconds(0.4, delivered=20)[-1] == pytest.approx(40 / 200, abs=0.6)


def test_nothing_waits_nothing_is_late() -> None:
    """Bulk records do not count, nor does a time long past."""
    world = World()
    assert world.lag.seconds(world.endpoints) is None
    world.accept(1_000, lane="bulk")
    said = world.pass_seconds(3, accepted=10, delivered=10)
    assert set(said) == {0.0}
    world.accept(50)  # and nobody is served any more: they all fail
    assert world.pass_seconds(6)[-1] is None
    assert world.pass_seconds(1, accepted=1, delivered=60)[-1] == 0.0  # what waited meanwhile is not counted twice


def test_a_quarter_that_keeps_up_is_enough() -> None:
    """Three of four that stand still have no say."""
    world = World()
    world.accept(1)
    world.deliver(1)
    for _ in range(40):
        world.clock.advance(0.1)
        world.accept(10)
        world.deliver(10, endpoints=2)
        for slow in world.endpoints[2:]:
            slow.live_at = world.clock.monotonic()
    assert world.lag.seconds(world.endpoints) == 0.0


def test_memory_is_bounded_when_nobody_asks() -> None:
    """A hub without publishers of its own still delivers."""
    world = World()
    for _ in range(70_000):
        world.clock.advance(0.05)
        world.accept(1)
    assert len(world.lag._times) <= 65_536 and world.lag._before > 0


def test_processes_that_accept_go_by_what_those_that_deliver_said() -> None:
    """For a while; then nothing is known, and nobody is pushed back by old news."""
    clock = ManualClock()
    coordination = MemoryCoordination(clock)
    assert heard_live_lag(coordination) is None
    coordination.say(LIVE_LAG, 7.5)
    assert heard_live_lag(coordination) == 7.5
    clock.advance(SAID_STANDS + 0.1)
    assert heard_live_lag(coordination) is None
