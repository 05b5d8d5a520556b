"""A thousand checks are read without a model each: only what validation would take, and as it would take it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hub.api.routers.check import _read_numbers
from hub.api.routers.clearance import read_number
from hub.wire.check import FEW, MAX_CHECKS, CheckIn

GOOD = {"number": "+8613800138000", "since": "2026-01-01"}


def asked(*odd: Any, count: int = FEW + 4) -> dict[str, Any]:
    return {"checks": [*odd, *[GOOD] * (count - len(odd))]}


ODD: dict[str, Any] = {
    "no object": {"checks": 7}, "a list": [GOOD] * 20, "another member": asked() | {"more": 1},
    "an item that is none": asked(7), "a list as item": asked(["number", "since"]),
    "one member": asked({"number": "1"}), "another name": asked({"number": "1", "day": "2026-01-01"}),
    "three members": asked(GOOD | {"more": 1}), "a number that is none": asked(GOOD | {"number": 13_800_138_000}),
    "no text": asked(GOOD | {"number": ""}), "long text": asked(GOOD | {"number": "1" * 65}),
    "null": asked(GOOD | {"since": None}), "half a day": asked(GOOD | {"since": "2026-01"}),
    "a line more": asked(GOOD | {"since": "2026-01-01\n"}), "none": {"checks": []},
    "too many": asked(count=MAX_CHECKS + 1),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_what_validation_refuses_is_left_to_it(name: str) -> None:
    """Then the caller hears its words, as for a few checks."""
    assert CheckIn.quickly(ODD[name]) is None
    with pytest.raises(ValidationError):
        CheckIn.model_validate(ODD[name])


@pytest.mark.parametrize("count", [FEW + 1, 200, MAX_CHECKS])
def test_what_is_read_quickly_is_what_validation_reads(count: int) -> None:
    """The same numbers and days in the same order."""
    value = {"checks": [{"since": f"2026-01-{n % 28 + 1:02d}", "number": f"138{n:08d}"} for n in range(count)]}
    quick, whole = CheckIn.quickly(value), CheckIn.model_validate(value)
    assert quick is not None
    assert quick.columns() == whole.columns()


def test_a_few_are_left_to_validation() -> None:
    """Up to so many it costs less."""
    assert CheckIn.quickly(asked(count=FEW)) is None


_plain = st.integers(13_000_000_000, 19_999_999_999).map("+86{}".format)
_digits = st.text("0123456789+ １", min_size=14, max_size=14)
_any = st.sampled_from(["+8612800138000", "13800138000", "008613800138000", "+861380013800é", "+86138001380/0", "x"])


@given(st.lists(_plain, min_size=FEW + 1, max_size=40), st.lists(_plain | _digits | _any, max_size=2))
def test_numbers_are_read_together_as_one_by_one(plain: list[str], odd: list[str]) -> None:
    """Whether all are written the usual way or some are not; what is no number is 0."""
    texts = [*plain, *odd]
    assert _read_numbers(texts) == [read_number(text) for text in texts]
