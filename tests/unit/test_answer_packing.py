"""How the exceptions of answers become bytes."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.adapters.sql.answers import pack_digest, unpack_digest
from hub.adapters.sql.packing import (
    _pack_few,
    _pack_many,
    apply_exceptions,
    ascending,
    counted,
    pack_exceptions,
    unpack_exceptions,
)
from hub.domain.dispositions import Disposition
from hub.ports.ledger import AnswerException

WHEN = datetime(2026, 4, 1, 1, 2, 3, 456789, tzinfo=UTC)

row_sets = st.sets(st.integers(0, 9_999)) | st.sets(st.integers(0, 65_535), max_size=5)
moments = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
exceptions_ = st.lists(
    st.builds(
        lambda disposition, some, review_at: AnswerException(disposition, np.array(sorted(some), np.uint16), review_at),
        st.sampled_from(Disposition),
        row_sets,
        st.none() | moments,
    ),
    max_size=4,
)


def plain(exceptions: object) -> list[tuple[Disposition, list[int], datetime | None]]:
    return [(e.disposition, e.rows.tolist(), e.review_at) for e in exceptions]  # type: ignore[attr-defined]


@given(exceptions_)
def test_packing_and_unpacking_give_the_same(given_: list[AnswerException]) -> None:
    """Whatever the rows, all comes back in order, as uint16; the same exceptions give the same bytes."""
    packed = pack_exceptions(given_)
    found = unpack_exceptions(packed)
    assert plain(found) == plain(given_)
    assert all(exception.rows.dtype == np.uint16 for exception in found)
    assert pack_exceptions(found) == packed
    assert (packed is None) == (not given_)


@given(st.sets(st.integers(0, 300), min_size=1, max_size=80) | st.sets(st.integers(0, 65_535), min_size=1, max_size=9))
def test_few_rows_are_packed_like_many(some: set[int]) -> None:
    """Two ways of counting, the same bytes: a digest or a comparison of stored answers may rest on them."""
    rows = np.array(sorted(some), np.uint16)
    assert _pack_few(rows) == _pack_many(rows)


@given(st.lists(st.integers(0, 50), max_size=90), st.integers(1, 60))
def test_ascending_means_strictly_and_within(rows: list[int], count: int) -> None:
    """However many there are."""
    assert ascending(np.array(rows, np.uint16), count) == (rows == sorted(set(rows)) and max(rows, default=0) < count)


@given(exceptions_)
def test_rows_are_counted_only_if_none_stands_twice(given_: list[AnswerException]) -> None:
    """The quick count is that of the effective codes; where rows stand twice there is none."""
    found = counted(given_)
    if found is None:
        assert len(given_) > 1
        return
    codes = np.zeros(65_536, np.uint8)
    apply_exceptions(codes, given_)
    bins = np.bincount(codes)
    assert {code: int(bins[code]) for code in np.flatnonzero(bins) if code} == {c: n for c, n in found.items() if n}


@pytest.mark.parametrize(("share", "limit"), [(0.01, 200), (0.04, 400), (0.5, 1_350), (1.0, 60)])
def test_packed_rows_are_small(share: float, limit: int) -> None:
    """Near what chance allows: 100 of 10,000 rows in two bytes each at most, half of them in a bit each."""
    chosen = np.flatnonzero(np.random.default_rng(7).random(10_000) < share).astype(np.uint16)
    packed = pack_exceptions([AnswerException(Disposition.unbound, chosen, WHEN)])
    assert packed is not None
    assert len(packed) <= limit


def test_damaged_bytes_are_noticed() -> None:
    """Cut off, of an unknown kind, or with an unknown disposition: ValueError, never wrong rows."""
    packed = pack_exceptions([AnswerException(Disposition.unbound, np.array([1, 5], np.uint16))])
    assert packed is not None
    assert packed[:1] == b"\x00"
    for damaged in (packed[:-1], packed[:10], b"\x07" + packed[1:], b"\x01" + packed[1:], b"\x00\xff" + packed[2:]):
        with pytest.raises(ValueError, match="packed"):
            unpack_exceptions(damaged)


def test_later_exceptions_win_and_rows_beyond_the_end_are_none() -> None:
    """Exceptions override in their order; a row the chunk does not have changes nothing."""
    codes = np.zeros(4, np.uint8)
    first = AnswerException(Disposition.unbound, np.array([0, 1, 2], np.uint16))
    second = AnswerException(Disposition.no_account, np.array([2, 9], np.uint16))
    apply_exceptions(codes, [first, second, AnswerException(Disposition.unbound, np.array([], np.uint16))])
    assert codes.tolist() == [1, 1, 2, 0]


@given(st.text(max_size=80) | st.binary(max_size=40).map(bytes.hex))
def test_any_digest_comes_back(digest: str) -> None:
    """Hexadecimal ones take half the space, all others are kept as text."""
    packed = pack_digest(digest)
    assert unpack_digest(packed) == digest
    assert pack_digest("ab" * 32) == b"\x00" + b"\xab" * 32
