"""Times at the API are RFC 3339 and nothing else that Python's datetime would read."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from hub.wire.base import Moment

MOMENT = TypeAdapter(Moment)

GOOD = {
    "2026-01-01T08:00:00+08:00": "2026-01-01T00:00:00Z",
    "2026-01-01t00:00:00z": "2026-01-01T00:00:00Z",
    "2026-01-01T00:00:00.25Z": "2026-01-01T00:00:00.250Z",
}
BAD = [
    "2026-W10-1T00:00:00Z", "20260101T000000Z", "2026-01-01T00:00Z", "2026-01-01", "2026-01-01 00:00:00Z",
    "2026-01-01T00:00:00", "2026-01-01T00:00:00+00:00:01", "2026-01-01T23:59:60Z", "2026-02-30T00:00:00Z",
    "9999-01-01T00:00:00Z", "\uff12026-01-01T00:00:00Z", "2026-01-01T00:00:00Z\n", "",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_rfc_3339_is_read(text: str) -> None:
    """Any offset, either case, fractions of a second; written as UTC."""
    assert MOMENT.dump_json(MOMENT.validate_python(text)) == f'"{GOOD[text]}"'.encode()


@pytest.mark.parametrize("text", BAD)
def test_anything_else_is_refused(text: str) -> None:
    """Week dates, basic forms, dates alone, times without zone, seconds in offsets, days that do not exist."""
    with pytest.raises(ValidationError):
        MOMENT.validate_python(text)
