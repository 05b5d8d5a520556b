"""Times in carriers' files: the quick way and the ways that take every form say the same."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from hub.adapters.files import texts
from hub.adapters.files.texts import moments


def slowly(said: list[str], monkeypatch: pytest.MonkeyPatch) -> list[int]:
    with monkeypatch.context() as patched:
        patched.setattr(texts, "_plain_moments", lambda _: None)
        return moments(pl.Series(said)).tolist()


@pytest.mark.parametrize("tail", ["Z", "+08:00", "-03:30", "+00:00"])
def test_moments_written_alike_are_read_as_the_standard_library_reads_them(tail: str) -> None:
    """Leap days, ends of years and any second between."""
    random = np.random.default_rng(3)
    epochs = [951_782_400, 1_709_164_800, 1_767_225_599, *random.integers(946_800_000, 4_000_000_000, 500).tolist()]
    said = [datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%S") + tail for epoch in epochs]
    assert moments(pl.Series(said)).tolist() == [int(datetime.fromisoformat(text).timestamp()) for text in said]


@pytest.mark.parametrize(
    "odd",
    [
        "2025-02-29T00:00:00+08:00",
        "2025-13-01T00:00:00+08:00",
        "2025-00-01T00:00:00+08:00",
        "2025-01-00T00:00:00+08:00",
        "2025-01-32T00:00:00+08:00",
        "2025-01-01T24:00:00+08:00",
        "2025-01-01T00:60:00+08:00",
        "2025-01-01T00:00:61+08:00",
        "2025-01-01 00:00:00+08:00",
        "2025-01-01T00:00:00+09:00",
        "2025-01-01T00:00:00+08-00",
        "2025-01-01T00:0x:00+08:00",
        "1999-01-01T00:00:00+08:00",
        "2025-01-01T00:00:00Z",
        "2025-01-01T00:00:00.5+08:00",
        "2025-01-01",
        "1767225600",
        " 2025-01-01T00:00:00Z    ",
        "",
        "soon",
    ],
)
def test_an_odd_row_is_read_as_before_and_harms_no_other(odd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """First, in the middle or alone, the quick way changes nothing."""
    good = "2025-06-01T10:00:00+08:00"
    for said in ([odd, good], [good, odd, good], [odd]):
        found = moments(pl.Series(said)).tolist()
        assert found == slowly(said, monkeypatch)
        assert all(value == 1_748_743_200 for value, text in zip(found, said, strict=True) if text == good)
