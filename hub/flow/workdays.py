"""Deadlines in Chinese working days (工作日)."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from typing import NamedTuple

import chinese_calendar

from hub.domain.lifecycle import CHINA

_ONE_DAY = timedelta(days=1)


class Deadline(NamedTuple):
    due_at: datetime
    approximate: bool  # the holiday calendar does not reach that far: Monday to Friday counted for the rest


def due_after(requested_at: datetime, working_days: int) -> Deadline:
    """The last second of the ``working_days``-th working day (China) after the day of the request.

    The day of the request is never counted, even if it is a working day. The State Council publishes holidays and
    make-up days one year ahead; beyond the known years Monday to Friday count, and the deadline says so. A request of
    2026-02-13 is due on 2026-02-27: the Spring Festival lies between.
    """
    if requested_at.tzinfo is None:
        raise ValueError("requested_at must be aware")
    day, left, approximate = requested_at.astimezone(CHINA).date(), working_days, False
    while left > 0:
        day += _ONE_DAY
        counts, known = _is_working_day(day)
        approximate |= not known
        left -= counts
    return Deadline(datetime.combine(day, time(23, 59, 59), CHINA), approximate)


def beyond_calendar(due_at: datetime) -> bool:
    """Does a deadline lie on a day whose holidays were not known when this program was made?"""
    return not _is_working_day(due_at.astimezone(CHINA).date())[1]


def _is_working_day(day: date) -> tuple[bool, bool]:
    try:
        return bool(chinese_calendar.is_workday(day)), True
    except NotImplementedError:
        return day.weekday() < 5, False
