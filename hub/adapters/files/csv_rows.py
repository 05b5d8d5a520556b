"""CSV: a header, then a row per line. Plain lines are read by polars at once; odd ones are looked at one by one."""

from __future__ import annotations

import csv
import unicodedata

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.exceptions import PolarsError

from hub.adapters.files.content import Slice
from hub.adapters.files.texts import COLUMNS, checked_columns, to_rows
from hub.domain.refusals import Refusal
from hub.ports.batch_files import ContentProblem, Rows

ODD_LINE_LIMIT = 64 << 10
_PLACEHOLDER = b"?"


def read_header(line: bytes | None) -> tuple[str, ...]:
    """Column names of the first line. Raises ContentProblem before any row is looked at."""
    allowed = ", ".join(COLUMNS)
    if line is None:
        raise ContentProblem(f"the content is empty; a header line is needed with columns out of: {allowed}")
    try:
        text = line.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
        fields = next(csv.reader([text], strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ContentProblem("the header line is not UTF-8 text in CSV form") from error
    return checked_columns([field.strip().lower() for field in fields], "in the header line (comma-separated)")


def read_rows(data: bytes, header: tuple[str, ...], where: Slice) -> Rows:
    """The rows of one slice. ``data`` holds whole lines; the last line feed may be missing."""
    if not data.endswith(b"\n"):
        data += b"\n"
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    line = np.arange(where.first_line, where.first_line + where.lines, dtype=np.int64)
    if where.rows != where.lines:
        data, line = _without_blank(data, line)
    refusal = np.zeros(len(line), np.uint8)
    plain = data.isascii() and not any(mark in data for mark in (b'"', b"\r", b"\0"))
    table = _parse(data, header) if plain else None
    if table is None:
        data = _plain(data, header, refusal)
        table = _parse(data, header)
    if table is None or table.height != len(line):
        table = _one_by_one(data, header)
    return to_rows(table, line, refusal)


def _parse(data: bytes, header: tuple[str, ...]) -> pl.DataFrame | None:
    """None if some row has too many fields. Short rows are filled up with nulls."""
    end = data.find(b"\n")
    lacking = len(header) - 1 - data.count(b",", 0, max(end, 0))
    if lacking < 0:
        return None
    if lacking:  # polars counts the columns of the first row
        data = data[:end] + b"," * lacking + data[end:]
    try:
        return pl.read_csv(
            data,
            has_header=False,
            schema=dict.fromkeys(header, pl.String()),
            quote_char=None,
            infer_schema=False,
        )
    except PolarsError:
        return None


def _one_by_one(data: bytes, header: tuple[str, ...]) -> pl.DataFrame:
    """Slow and without an opinion: one row per line whatever the fast reader thinks of plain lines."""
    rows = [line.split(",") for line in data.decode("ascii").removesuffix("\n").split("\n")]
    columns = {
        name: [row[place] or None if place < len(row) else None for row in rows] for place, name in enumerate(header)
    }
    return pl.DataFrame(columns, schema=dict.fromkeys(header, pl.String()))


def _line_ends(data: bytes) -> npt.NDArray[np.int64]:
    return np.flatnonzero(np.frombuffer(data, np.uint8) == 10)


def _without_blank(data: bytes, line: npt.NDArray[np.int64]) -> tuple[bytes, npt.NDArray[np.int64]]:
    ends = _line_ends(data)
    filled = np.diff(ends, prepend=-1) > 1
    while b"\n\n" in data:
        data = data.replace(b"\n\n", b"\n")
    return data.removeprefix(b"\n"), line[filled]


def _plain(data: bytes, header: tuple[str, ...], refusal: npt.NDArray[np.uint8]) -> bytes:
    """Rewrite odd lines so that every line is plain; those that cannot be are marked in ``refusal``."""
    view = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(view == 10)
    starts = np.concatenate([[0], ends[:-1] + 1])
    commas = np.flatnonzero(view == 44)
    fields = np.diff(np.searchsorted(commas, ends), prepend=0) + 1
    odd = fields > len(header)
    marks = np.flatnonzero((view >= 0x80) | (view == 0x22) | (view == 0x0D) | (view == 0))
    odd[np.searchsorted(ends, marks)] = True
    pieces: list[bytes] = []
    done = 0
    for row in np.flatnonzero(odd).tolist():
        start, end = int(starts[row]), int(ends[row])
        if start > done:
            pieces.append(data[done:start])
        text, reason = _rewrite(data[start:end], len(header))
        pieces += (text, b"\n")
        refusal[row] = 0 if reason is None else reason.number
        done = end + 1
    pieces.append(data[done:])
    return b"".join(pieces)


def _rewrite(line: bytes, width: int) -> tuple[bytes, Refusal | None]:
    """A plain line with the same fields, full-width digits folded; or a placeholder and what is wrong."""
    if len(line) > ODD_LINE_LIMIT or b"\0" in line or b"\r" in line:
        return _PLACEHOLDER, Refusal.invalid_value
    try:
        fields = next(csv.reader([line.decode("utf-8")], strict=True))
    except (UnicodeDecodeError, csv.Error, StopIteration):
        return _PLACEHOLDER, Refusal.invalid_value
    if len(fields) > width:
        return _number_only(fields), Refusal.unknown_column
    folded = [unicodedata.normalize("NFKC", field) for field in fields]
    if not all(field.isascii() and field.isprintable() and not set(field) & set(',"') for field in folded):
        return _PLACEHOLDER, Refusal.invalid_value
    return ",".join(folded).encode() or _PLACEHOLDER, None


def _number_only(fields: list[str]) -> bytes:
    """The row is refused anyway; its first field is kept for the result file if it is harmless."""
    first = fields[0]
    return first.encode() if first.isascii() and first.isalnum() else _PLACEHOLDER
