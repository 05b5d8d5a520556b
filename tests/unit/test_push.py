"""One attempt and its outcome; the gate in front of a failing endpoint; rows that were withdrawn."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from random import Random

import numpy as np
import pytest

from hub.adapters.system.clock import ManualClock
from hub.domain.delivery import RETRY_AFTER, Delivered, Parked, Refused, RetryAt, next_attempt_after
from hub.domain.events import EventType, Lane
from hub.domain.lifecycle import Phase
from hub.flow.push import Push, Trail, retry_after_seconds
from hub.flow.withdrawals import TOO_MANY, rows_text, superseded_rows
from hub.ports.codec import Chunk
from hub.ports.number_index import STATE
from hub.ports.sender import Response
from hub.wire.delivery import WebhookEnvelope
from hub.workers.gate import CALLS_AT_ONCE, Gate
from tests.dispatch_world import NoMetrics

NOW = datetime(2026, 1, 5, 4, tzinfo=UTC)
SCHEDULE = (timedelta(seconds=5), timedelta(seconds=300))


def judge(answer: Response | str, trail: Trail, clock: ManualClock | None = None):
    push = Push(None, WebhookEnvelope(), None, clock or ManualClock(NOW), Random(1), NoMetrics(), SCHEDULE)  # type: ignore[arg-type]
    return push._judge(answer, trail)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_a_receipt(status: int) -> None:
    """Whatever the body says."""
    assert judge(Response(status, body=b"error"), Trail()) == Delivered(status)


def test_410_is_refused() -> None:
    """Gone means: stop."""
    assert judge(Response(410), Trail()) == Refused(410)


@pytest.mark.parametrize("answer", [Response(301), Response(308), Response(400), Response(500), "timeout", "dns"])
def test_everything_else_is_tried_again_by_the_schedule_then_parked(answer: Response | str) -> None:
    """Two waits, up to a tenth longer, then the parking place."""
    trail = Trail()
    first, second, third = (judge(answer, trail) for _ in range(3))
    assert isinstance(first, RetryAt) and 5 <= (first.at - NOW).total_seconds() <= 5.5
    assert isinstance(second, RetryAt) and 300 <= (second.at - NOW).total_seconds() <= 330
    assert isinstance(third, Parked)
    assert trail.attempts == 3


@pytest.mark.parametrize(
    ("said", "wait"),
    [("7", 7), ("0", 1), ("-5", 1), (str(10**30), 3600), ("Mon, 05 Jan 2026 04:00:20 GMT", 20)],
)
def test_retry_after_is_clamped(said: str, wait: int) -> None:
    """Between a second and an hour, whatever was said; it uses up no step of the schedule."""
    trail = Trail()
    outcome = judge(Response(429, retry_after=said), trail)
    assert isinstance(outcome, RetryAt)
    assert outcome.at == NOW + timedelta(seconds=wait)
    assert (trail.steps, trail.attempts, trail.told_when) == (0, 1, True)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_who_is_overloaded_may_say_when(status: int) -> None:
    """Too many requests, and every way a gateway says that nobody is there just now."""
    assert judge(Response(status, retry_after="7"), Trail()) == RetryAt(
        NOW + timedelta(seconds=7), f"http_{status}", status
    )


def test_an_endpoint_is_tried_for_three_days() -> None:
    """0, 5 s, 5 min, 30 min, 2, 5, 10, 10 h, then on to 72 h after the first attempt; only then it is parked."""
    hours = [wait / timedelta(hours=1) for wait in RETRY_AFTER]
    assert RETRY_AFTER[:3] == (timedelta(seconds=5), timedelta(minutes=5), timedelta(minutes=30))
    assert hours[3:7] == [2, 5, 10, 10] and max(hours) == 10
    assert sum(RETRY_AFTER, timedelta()) == timedelta(hours=72)
    assert next_attempt_after(len(RETRY_AFTER), Random(1)) is not None
    assert next_attempt_after(len(RETRY_AFTER) + 1, Random(1)) is None


def test_retry_after_does_not_put_off_the_parking_for_ever() -> None:
    """After as long as the schedule lasts the steps count again."""
    clock, trail = ManualClock(NOW), Trail()
    judge(Response(503, retry_after="1"), trail, clock)
    clock.advance(400)
    outcomes = [judge(Response(503, retry_after="1"), trail, clock) for _ in range(3)]
    assert isinstance(outcomes[-1], Parked)


@pytest.mark.parametrize("said", [None, "", "soon", "Mon, 99 Foo", "1e3", "\x00"])
def test_unusable_retry_after_is_ignored(said: str | None) -> None:
    """Nothing usable: the schedule decides."""
    assert retry_after_seconds(said, NOW) is None


class Turn:
    def __init__(self, live: bool = False) -> None:
        self.live = live
        self.not_before = 0.0
        self.trail = Trail()
        self.calls = 0
        self.called_at = float("-inf")


async def entered(gate: Gate, turn: Turn) -> asyncio.Task[bool]:
    task = asyncio.create_task(gate.enter(turn))
    await asyncio.sleep(0)
    return task


async def test_healthy_gate_bounds_bulk_only() -> None:
    """Bulk lanes share the window; live lanes pass."""
    gate = Gate(ManualClock(NOW), Random(1), bulk_parallel=2)
    assert [gate.try_enter(Turn()) for _ in range(3)] == [True, True, False]
    assert gate.try_enter(Turn(live=True))


async def test_failing_gate_lets_one_probe_through_live_first_with_growing_pauses() -> None:
    """After two failures one probe at a time, and each failure makes the pause longer."""
    clock = ManualClock(NOW)
    gate = Gate(clock, Random(1))
    for _ in range(3):
        turn = Turn()
        assert gate.try_enter(turn)
        gate.leave(turn, False)
        clock.advance(5)
    bulk, live, other = Turn(), Turn(live=True), Turn()
    assert gate.try_enter(other)
    tasks = [await entered(gate, turn) for turn in (bulk, live)]
    gate.leave(other, False)
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    clock.advance(3)
    await asyncio.sleep(0.001)
    assert [task.done() for task in tasks] == [False, True]
    gate.leave(live, True)
    await asyncio.sleep(0.001)
    assert tasks[0].result() is True
    assert not gate.failing


async def outage(gate: Gate, clock: ManualClock, *turns: Turn) -> None:
    """All of ``turns`` fail one after the other and then wait two hours for their own retry."""
    for turn in turns:
        clock.advance(70)
        assert gate.try_enter(turn)
        gate.leave(turn, False)
        turn.trail.steps, turn.not_before = 3, clock.monotonic() + 7200


async def recover(gate: Gate, clock: ManualClock) -> None:
    clock.advance(70)
    probe = Turn(live=True)
    assert gate.try_enter(probe)
    gate.leave(probe, True)
    await asyncio.sleep(0)


async def test_recovery_calls_lanes_that_failed_too_but_not_for_ever() -> None:
    """Lanes waiting for their own retry are called when the endpoint is back, at no cost in steps, a few times."""
    clock = ManualClock(NOW)
    gate = Gate(clock, Random(1))
    waiting = Turn()
    for _ in range(CALLS_AT_ONCE):
        await outage(gate, clock, waiting, Turn())
        task = await entered(gate, waiting)
        await recover(gate, clock)
        assert task.result() is True
        assert waiting.trail.steps == 2
        gate.leave(waiting, None)
    await outage(gate, clock, waiting, Turn())
    task = await entered(gate, waiting)
    await recover(gate, clock)
    assert not task.done()
    gate.close()
    assert await task is False


async def test_one_indigestible_chunk_is_not_called_by_the_success_of_others() -> None:
    """A lane that failed alone keeps to its own schedule."""
    clock = ManualClock(NOW)
    gate = Gate(clock, Random(1))
    waiting = Turn()
    await outage(gate, clock, waiting)
    task = await entered(gate, waiting)
    await recover(gate, clock)
    assert not task.done()
    assert waiting.trail.steps == 3
    gate.close()
    assert await task is False


def chunk(event: EventType, rows: int, seq: int = 2, generation: int = 1) -> Chunk:
    moments = np.zeros(rows, np.int64)
    return Chunk(
        "evt_1",
        event,
        Lane.bulk,
        0,
        np.arange(rows, dtype=np.int64) + 13_800_000_000,
        np.full(rows, generation, np.uint8),
        np.full(rows, seq, np.uint16),
        moments,
        moments,
    )


def states(*rows: tuple[int, int, Phase, int]) -> np.ndarray:
    column = np.zeros(len(rows), STATE)
    for place, (generation, seq, phase, duty) in enumerate(rows):
        column[place]["generation"], column[place]["seq"] = generation, seq
        column[place]["phase"], column[place]["duty"] = phase, duty
    return column


def test_superseded_release() -> None:
    """Restored, cancelled, scheduled anew, reassigned: superseded. As it was, or released since: not."""
    now = states(
        (1, 2, Phase.clearing, 8),
        (1, 3, Phase.active, 0),
        (1, 3, Phase.frozen, 0),
        (1, 4, Phase.clearing, 20),
        (1, 3, Phase.released, 8),
        (2, 1, Phase.active, 0),
    )
    assert superseded_rows(chunk(EventType.release_scheduled, 6), 7, now).tolist() == [1, 2, 3, 5]


def test_superseded_soft_lock_and_new_holder() -> None:
    """A soft-lock falls with the restore; what a former holder left stays foreign until the next generation."""
    now = states((1, 3, Phase.active, 0), (1, 3, Phase.clearing, 9), (2, 1, Phase.active, 0))
    assert superseded_rows(chunk(EventType.deactivated, 3), 7, now).tolist() == [0, 2]
    assert superseded_rows(chunk(EventType.reassigned, 3), 7, now).tolist() == [2]


def test_rows_as_text() -> None:
    """Single rows and ranges; a list that would be too long says where to look instead."""
    assert rows_text(np.array([], np.intp)) == ""
    assert rows_text(np.array([3, 17, 18, 19, 20])) == "3,17-20"
    assert rows_text(np.arange(10_000)) == "0-9999"
    assert rows_text(np.arange(0, 10_000, 2)) == TOO_MANY


async def test_pauses_never_grow_beyond_the_schedule_s_own_waits() -> None:
    """A hub set to short retries finds a recovered endpoint as quickly as its longest wait says."""
    clock = ManualClock(NOW)
    gate = Gate(clock, Random(1), pause_max=1.5)
    for _ in range(12):
        turn = Turn()
        assert gate.try_enter(turn)
        gate.leave(turn, False)
        clock.advance(1.7)
    assert gate.try_enter(Turn())
