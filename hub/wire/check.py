"""Has this number changed hands since this date?"""

from __future__ import annotations

import re
from operator import itemgetter
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr

from hub.wire.base import MAX_NUMBER_TEXT, Message, Moment, NumberText

DateText = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$", examples=["2025-06-01"])]


MAX_CHECKS = 1000
FEW = 16  # up to so many items validation costs less than looking at all of them
_PLAIN_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_number_of, _since_of = itemgetter("number"), itemgetter("since")


class CheckItem(Message):
    number: NumberText
    since: DateText = Field(description="the day (China) on which you last knew whose number it was")


class CheckIn(Message):
    """``POST /v1/check``."""

    checks: Annotated[list[CheckItem], Field(min_length=1, max_length=MAX_CHECKS)]
    _columns: tuple[list[str], list[str]] | None = PrivateAttr(None)

    def columns(self) -> tuple[list[str], list[str]]:
        """What is asked about, and since when: two lists of equal length."""
        if self._columns is not None:
            return self._columns
        return [item.number for item in self.checks], [item.since for item in self.checks]

    @classmethod
    def quickly(cls, value: Any) -> CheckIn | None:
        """The message in ``value`` without a model per item (only `columns` may be asked of it); None wherever
        validation should have the word."""
        checks = value.get("checks") if type(value) is dict and len(value) == 1 else None
        if type(checks) is not list or not FEW < len(checks) <= MAX_CHECKS or set(map(type, checks)) != {dict}:
            return None
        if set(map(len, checks)) != {2}:
            return None
        try:
            numbers, since = list(map(_number_of, checks)), list(map(_since_of, checks))
        except KeyError:
            return None
        if set(map(type, numbers)) != {str} or set(map(type, since)) != {str}:
            return None
        if not 1 <= min(map(len, numbers)) <= max(map(len, numbers)) <= MAX_NUMBER_TEXT:
            return None
        if not all(map(_PLAIN_DAY.fullmatch, set(since))):
            return None
        found = cls.model_construct()
        found._columns = numbers, since
        return found


class CheckAnswer(Message):
    """``yes``: another holder, or none, since that day. ``no``: the same holder, and every day since is covered.
    ``no_data``: the hub cannot say; never read it as no."""

    answer: Literal["yes", "no", "no_data"]
    reason: str | None = Field(
        default=None,
        description="yes: ended, gap, reassigned; no_data: before_coverage, "
        "no_coverage, stale, invalid_number, future_date",
    )
    coverage_since: str | None = None


class CheckOut(Message):
    answers: list[CheckAnswer]
    as_of: Moment
