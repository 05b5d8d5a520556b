"""Exceptions of an answer: few rows are taken in by plain Python, many by arrays, with the same outcome."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.domain.dispositions import Disposition
from hub.domain.errors import InvalidRequest
from hub.flow import acknowledge
from hub.flow.acknowledge import SaidException

WHEN = datetime(2027, 1, 1, tzinfo=UTC)

said = st.builds(
    SaidException,
    st.sampled_from((Disposition.unbound, Disposition.held_funds, Disposition.no_account)),
    st.lists(st.integers(-1, 40), max_size=6),
    st.just(()),
    st.sampled_from((None, WHEN)),
)


def outcome(exceptions: list[SaidException], few: int) -> Any:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(acknowledge, "_FEW", few)
        try:
            found = acknowledge._exceptions(exceptions, 40, None, "/answers/0")
        except InvalidRequest as error:
            return error.details
    return [(one.disposition, one.review_at, one.rows.dtype, one.rows.tolist()) for one in found]


@settings(max_examples=300, deadline=None)
@given(st.lists(said, max_size=4))
def test_both_ways_say_the_same(exceptions: list[SaidException]) -> None:
    """Rows, order, joined dispositions, and the first fault with its place."""
    assert outcome(exceptions, 1_000) == outcome(exceptions, -1)
