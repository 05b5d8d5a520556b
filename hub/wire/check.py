"""Has this number changed hands since this date?"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hub.wire.base import Message, Moment, NumberText

DateText = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$", examples=["2025-06-01"])]


class CheckItem(Message):
    number: NumberText
    since: DateText = Field(description="the day (China) on which you last knew whose number it was")


class CheckIn(Message):
    """``POST /v1/check``."""

    checks: Annotated[list[CheckItem], Field(min_length=1, max_length=1000)]


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
