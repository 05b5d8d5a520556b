"""Deadlines in Chinese working days."""

from datetime import UTC, date, datetime, timedelta

import chinese_calendar
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.domain.lifecycle import CHINA
from hub.flow.workdays import beyond_calendar, due_after


def test_spring_festival_is_not_counted() -> None:
    """Five working days from 2026-02-13 end with 2026-02-27."""
    due_at, approximate = due_after(datetime(2026, 2, 13, 10, tzinfo=CHINA), 5)
    assert due_at == datetime(2026, 2, 27, 23, 59, 59, tzinfo=CHINA)
    assert not approximate


def test_the_day_is_the_day_in_china() -> None:
    """17:00 UTC is already the next day in China."""
    late = due_after(datetime(2026, 6, 1, 17, tzinfo=UTC), 1)
    early = due_after(datetime(2026, 6, 1, 15, tzinfo=UTC), 1)
    assert (early.due_at.date(), late.due_at.date()) == (date(2026, 6, 2), date(2026, 6, 3))


def test_a_saturday_request_has_five_whole_days_and_no_more() -> None:
    """Saturday 2026-05-16 -> Friday 2026-05-22, not the Monday after."""
    assert due_after(datetime(2026, 5, 16, 9, tzinfo=CHINA), 5).due_at.date() == date(2026, 5, 22)


def test_beyond_the_calendar_monday_to_friday_count_and_it_is_said() -> None:
    """The published holidays end with 2026."""
    due_at, approximate = due_after(datetime(2026, 12, 30, 9, tzinfo=CHINA), 5)
    assert due_at.date() == date(2027, 1, 6)
    assert approximate
    assert beyond_calendar(due_at)
    assert not beyond_calendar(datetime(2026, 12, 31, 15, 59, tzinfo=UTC))


def test_a_naive_moment_is_refused() -> None:
    """Without a zone nobody knows the day."""
    with pytest.raises(ValueError, match="aware"):
        due_after(datetime(2026, 1, 1), 5)  # noqa: DTZ001


@given(st.integers(0, 700), st.integers(1, 8))
def test_exactly_so_many_working_days_lie_in_the_span(offset: int, days: int) -> None:
    """Counted independently, day by day, over two years with their make-up days."""
    start = datetime(2025, 1, 1, 12, tzinfo=CHINA) + timedelta(days=offset)
    due_at, approximate = due_after(start, days)
    assert not approximate
    between = [start.date() + timedelta(days=n) for n in range(1, (due_at.date() - start.date()).days + 1)]
    assert sum(chinese_calendar.is_workday(day) for day in between) == days
    assert chinese_calendar.is_workday(due_at.date())
