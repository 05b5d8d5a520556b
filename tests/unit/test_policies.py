"""Reading and writing what a regulator set."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.domain.errors import InvalidRequest
from hub.domain.policies import ClearancePolicy, Policy

spans = st.integers(1, 366 * 86_400).map(lambda seconds: timedelta(seconds=seconds))


@given(
    st.builds(
        Policy,
        clearance=st.sampled_from(ClearancePolicy),
        tiered_share=st.floats(0, 1),
        freeze_days=st.integers(90, 3650),
        answer_within=spans,
        soft_lock_within=spans,
        renewal_working_days=st.integers(1, 60),
        check_lag_within=spans,
    )
)
def test_a_policy_comes_back_as_it_was_written(policy: Policy) -> None:
    """Plain values there and back change nothing."""
    assert Policy.from_mapping(policy.to_mapping()) == policy


def test_what_is_not_stored_takes_its_default() -> None:
    """An empty mapping is the default policy; names a newer version added are left alone."""
    assert Policy.from_mapping({}) == Policy()
    assert Policy.from_mapping({"clearance": "strict", "moon_phase": 3}) == Policy(clearance=ClearancePolicy.strict)


@pytest.mark.parametrize(
    "wrong",
    [
        {"clearance": "lenient"},
        {"freeze_days": 89},
        {"freeze_days": "soon"},
        {"tiered_share": 1.5},
        {"tiered_share": float("nan")},
        {"answer_within": 0},
        {"answer_within": float("inf")},
        {"renewal_working_days": None},
    ],
)
def test_values_out_of_bounds_are_refused_by_name(wrong: dict[str, object]) -> None:
    """A freeze is never shortened below 90 days, a share is a share; the message names the value."""
    with pytest.raises(InvalidRequest, match=next(iter(wrong))):
        Policy.from_mapping(wrong)
