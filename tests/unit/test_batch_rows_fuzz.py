"""Whatever a carrier's lines hold, each of them is one row: read, or refused alone."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hub.adapters.files import csv_rows, ndjson_rows
from hub.adapters.files.content import Cutter
from hub.adapters.files.csv_rows import read_rows
from hub.domain.refusals import Refusal

HEADER = ("number", "event_type", "occurred_at", "terminated_at")
GOOD = b"13800138000,deactivated,2026-01-01,"
FIELDS = st.sampled_from(
    [b"13800138000", b"", b",", b'"', b"\r", b"\0", b"\xd0\xd0", "停机".encode(), b"?", b"#", b" "]
)
LINES = st.lists(st.one_of(st.lists(FIELDS, max_size=8).map(b",".join), st.binary(max_size=40)), min_size=1, max_size=6)


def _where(data: bytes) -> Cutter:
    cutter = Cutter(has_header=False)
    cutter.feed(data)
    cutter.finish()
    return cutter


@settings(max_examples=300, deadline=None)
@given(LINES)
def test_any_line_is_one_row(lines: list[bytes]) -> None:
    """No line makes the reader fail, swallows its neighbour or shifts the line numbers, wherever it stands."""
    data = b"\n".join(line.replace(b"\n", b"") for line in lines) + b"\n" + GOOD
    cutter = _where(data)
    for read in (
        lambda: csv_rows.read_rows(data, HEADER, cutter.slices[0]),
        lambda: ndjson_rows.read_rows(data, cutter.slices[0]),
    ):
        rows = read()
        assert len(rows) == cutter.rows
        assert rows.line[-1] == len(lines) + 1
    rows = csv_rows.read_rows(data, HEADER, cutter.slices[0])
    assert (rows.refusal[-1], rows.number[-1]) == (0, 13_800_138_000)


def test_the_first_row_may_be_short_long_or_not_utf8() -> None:
    """The first row tells the fast reader nothing about the others."""
    for first, expected in (
        (b"13800138001", None),
        (b"13800138001,deactivated", None),
        (b"13800138001" + b"," * 100_000, Refusal.invalid_value),
        (b"13800138001,a,b,c,d", Refusal.unknown_column),
        ("13800138001,停机,,".encode("gbk"), Refusal.invalid_value),
    ):
        data = first + b"\n" + GOOD + b"\n"
        rows = read_rows(data, HEADER, _where(data).slices[0])
        assert rows.refusal.tolist() == [expected.number if expected else 0, 0]
        assert rows.number[1] == 13_800_138_000
