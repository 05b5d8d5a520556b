"""The life of a number: transitions, succession and the freeze."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.domain.events import EventType
from hub.domain.lifecycle import (
    CHINA,
    OUTCOME,
    TRANSITIONS,
    Phase,
    earliest_release_at,
    earliest_release_epoch,
    from_epoch,
    is_successor,
)


def test_each_event_has_one_outcome() -> None:
    """Wherever an event starts from it leads to one phase, so the fold needs no policy."""
    for event in EventType:
        assert {to for (_, on), to in TRANSITIONS.items() if on is event} == {OUTCOME[event]}


@pytest.mark.parametrize(
    ("phase", "event"),
    [
        (Phase.unknown, EventType.restored),
        (Phase.unknown, EventType.released),
        (Phase.unknown, EventType.reassigned),
        (Phase.active, EventType.reassigned),
        (Phase.frozen, EventType.deactivated),
        (Phase.frozen, EventType.released),
        (Phase.clearing, EventType.release_scheduled),
        (Phase.released, EventType.restored),
        (Phase.released, EventType.released),
    ],
)
def test_what_presupposes_another_state_is_no_transition(phase: Phase, event: EventType) -> None:
    """A number is not restored, released or given away from a state that does not allow it."""
    assert (phase, event) not in TRANSITIONS


def test_a_whole_life_comes_back_to_active_one_generation_later() -> None:
    """deactivated, scheduled, cancelled, scheduled, released, reassigned."""
    phase, generation = Phase.active, 0
    for event in (
        EventType.deactivated,
        EventType.release_scheduled,
        EventType.release_cancelled,
        EventType.release_scheduled,
        EventType.released,
        EventType.reassigned,
    ):
        step = TRANSITIONS[phase, event]
        phase, generation = step.to, generation + step.new_generation
    assert (phase, generation) == (Phase.active, 1)


@given(st.integers(0, 255), st.integers(0, 65_534), st.integers(0, 255), st.integers(0, 65_535))
def test_only_the_next_may_follow(generation: int, seq: int, next_generation: int, next_seq: int) -> None:
    """The next seq of the same generation, or the first of the next; nothing follows itself."""
    expected = (next_generation, next_seq) in ((generation, seq + 1), (generation + 1, 1))
    assert is_successor(generation, seq, next_generation, next_seq) is expected
    assert not is_successor(generation, seq, generation, seq)


def test_the_day_of_termination_does_not_count() -> None:
    """Terminated on 1 January 2026 in China, at any hour: free on 2 April at midnight in China."""
    free = datetime(2026, 4, 2, tzinfo=CHINA)
    for hour in (0, 8, 23):
        assert earliest_release_at(datetime(2026, 1, 1, hour, 59, tzinfo=CHINA)) == free
    assert earliest_release_at(datetime(2025, 12, 31, 16, 0, tzinfo=UTC)) == free
    assert earliest_release_at(datetime(2025, 12, 31, 15, 59, 59, tzinfo=UTC)) == free - timedelta(days=1)


def test_a_leap_day_is_a_day() -> None:
    """90 full days over 29 February 2028."""
    assert earliest_release_at(datetime(2028, 2, 1, 12, tzinfo=CHINA)) == datetime(2028, 5, 2, tzinfo=CHINA)


def test_policy_may_lengthen_the_freeze_but_not_shorten_it() -> None:
    """30 days are taken as 90, 120 as 120."""
    moment = datetime(2026, 1, 1, tzinfo=CHINA)
    assert earliest_release_at(moment, 30) == earliest_release_at(moment)
    assert earliest_release_at(moment, 120) == earliest_release_at(moment) + timedelta(days=30)


def test_a_time_without_zone_is_refused() -> None:
    """Nobody guesses a zone."""
    with pytest.raises(ValueError):
        earliest_release_at(datetime(2026, 1, 1))  # noqa: DTZ001


@given(st.integers(946_684_800, 4_102_444_800), st.integers(0, 400))
def test_seconds_and_dates_agree(terminated: int, days: int) -> None:
    """The form for columns gives what the form for dates gives, also elementwise."""
    exact = int(earliest_release_at(from_epoch(terminated), days).timestamp())
    assert earliest_release_epoch(terminated, days) == exact
    column = np.array([terminated, terminated + 86_400], np.int64)
    assert earliest_release_epoch(column, days).tolist() == [exact, exact + 86_400]  # type: ignore[arg-type, attr-defined]
