"""Columns of text made into columns of values, without a Python object per row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from hub.domain.events import EventType
from hub.domain.events import TerminateReason as Reason
from hub.domain.numbers import FIRST_NATIONAL, LAST_NATIONAL
from hub.domain.refusals import Refusal
from hub.ports.batch_files import ContentProblem, Rows

COLUMNS = ("number", "event_type", "occurred_at", "terminated_at", "release_planned_at", "reason")
"""What a row may state; ``number`` is required."""
TIMES = ("occurred_at", "terminated_at", "release_planned_at")

EPOCH_MIN, EPOCH_MAX = 946_684_800, 4_133_980_800  # the years 2000 to 2100
CHINA_OFFSET = 28_800

_EVENTS = {event.value: event.number for event in EventType}
_REASONS = {reason.value: place for place, reason in enumerate(Reason, start=1)}
_UNKNOWN = 255
_HARMLESS = re.compile(r"[A-Za-z][A-Za-z_ ]{0,40}")


def checked_columns(names: Sequence[str], where: str) -> tuple[str, ...]:
    """Raises ContentProblem before any row is looked at."""
    allowed = ", ".join(COLUMNS)
    for name in names:
        if name not in COLUMNS:
            # a file without a header has a number here: it is not repeated
            told = f' "{name}"' if _HARMLESS.fullmatch(name) else ""
            raise ContentProblem(f"unknown column{told} {where}; allowed: {allowed}")
    if len(set(names)) != len(names):
        raise ContentProblem(f"a column stands twice {where}")
    if "number" not in names:
        raise ContentProblem(f"the column number is missing {where}; allowed: {allowed}")
    return tuple(names)


def to_rows(table: pl.DataFrame, line: npt.NDArray[np.int64], refusal: npt.NDArray[np.uint8]) -> Rows:
    """``table``: text columns named as in COLUMNS, any but ``number`` may be left out; ``refusal``: what is known to be
    wrong already, kept as it is."""
    count = table.height
    refusal = refusal.copy()

    def mark(bad: npt.NDArray[np.bool_], reason: Refusal) -> None:
        if bad.any():
            refusal[bad & (refusal == 0)] = reason.number

    number = numbers(table.get_column("number"))
    mark(number == 0, Refusal.invalid_number)
    event = np.zeros(count, np.uint8)
    if "event_type" in table.columns:
        event = codes(table.get_column("event_type"), _EVENTS)
        mark(event == _UNKNOWN, Refusal.invalid_value)
    times: dict[str, npt.NDArray[np.int64]] = {}
    for name in TIMES:
        times[name] = np.zeros(count, np.int64)
        if name in table.columns:
            times[name] = moments(table.get_column(name))
            mark(times[name] < 0, Refusal.invalid_time)
    reason = np.zeros(count, np.uint8)
    if "reason" in table.columns:
        reason = codes(table.get_column("reason"), _REASONS)
        mark(reason == _UNKNOWN, Refusal.invalid_value)
    return Rows(line=line, number=number, event=event, reason=reason, refusal=refusal, **times)


def numbers(text: pl.Series) -> npt.NDArray[np.int64]:
    """National numbers; 0 where the text is none. Same rules as domain.numbers.PhoneNumber.parse."""
    value = text.cast(pl.Int64, strict=False)
    good = ((text.str.len_bytes() == 11) & value.is_between(FIRST_NATIONAL, LAST_NATIONAL)).fill_null(False)
    out = _int64(value)
    if not good.all():
        rest = ~good.to_numpy()
        short = pl.when(pl.col("t").str.len_chars() <= 32).then(pl.col("t").str.replace_all(r"[ \-]", ""))
        found = pl.select(pl.lit(text.filter(~good)).alias("t")).select(
            short.str.extract(r"^(?:\+86|0086|86)?(1[3-9][0-9]{9})$", 1).cast(pl.Int64)
        )
        out = out.copy()
        out[rest] = _int64(found.to_series())
    return out


def codes(text: pl.Series, known: dict[str, int]) -> npt.NDArray[np.uint8]:
    """Small integers for known words; 0 where empty, 255 where unknown."""
    found = _code(text, known)
    if (found == _UNKNOWN).any():
        found = _code(text.str.strip_chars(" \t").replace("", None), known)
    return found


def _code(text: pl.Series, known: dict[str, int]) -> npt.NDArray[np.uint8]:
    mapped = text.replace_strict(known, default=_UNKNOWN, return_dtype=pl.UInt8)
    empty = text.is_null()
    out: npt.NDArray[np.uint8] = mapped.fill_null(_UNKNOWN).to_numpy().copy()
    out[empty.to_numpy()] = 0
    return out


def moments(text: pl.Series) -> npt.NDArray[np.int64]:
    """Epoch seconds from RFC 3339, YYYY-MM-DD (midnight in China) or epoch seconds; 0 where empty, -1 where none."""
    out = np.zeros(len(text), np.int64)
    stated = text.is_not_null()
    open_rows = np.flatnonzero(stated.to_numpy())
    rest = text.filter(stated)
    if not len(rest):
        return out
    plain = _plain_moments(rest)
    if plain is not None:
        out[open_rows] = plain
        return out
    ways = (_as_date, _as_moment, _as_epoch) if rest.str.len_bytes()[0] == 10 else (_as_moment, _as_date, _as_epoch)
    for stripped in (False, True):
        if stripped:
            rest = rest.str.strip_chars(" \t")
        for way in ways:
            value = _int64(way(rest), missing=-1)
            good = (value >= EPOCH_MIN) & (value <= EPOCH_MAX)
            out[open_rows] = np.where(good, value, -1)
            if good.all():
                return out
            open_rows, rest = open_rows[~good], rest.filter(pl.Series(~good))
    out[open_rows[(rest == "").to_numpy()]] = 0
    return out


def _plain_moments(text: pl.Series) -> npt.NDArray[np.int64] | None:
    """Epoch seconds where every text is written alike, ``2026-01-01T08:00:00+08:00`` or ``...Z``, with one offset for
    all, and is a moment; None otherwise. Four times as quick as the ways that take more forms."""
    width = len(text[0].encode())
    if width not in (20, 25) or not (text.str.len_bytes() == width).all():
        return None
    raw = np.frombuffer(text.str.join("").item().encode(), np.uint8).reshape(len(text), width)
    tail = raw[0, 19:].tobytes()
    sign = {b"+"[0]: 1, b"-"[0]: -1, b"Z"[0]: 0}.get(tail[0])
    if sign is None or not (raw[:, 19:] == raw[0, 19:]).all() or not (raw[:, _MARK_PLACES] == _MARKS).all():
        return None
    digits = raw[:, _DIGIT_PLACES].T - np.uint8(48)  # what is no digit wraps around to more than 9
    offset = 0
    if sign:
        hours, minutes = tail[1:3], tail[4:6]
        if not (hours.isdigit() and minutes.isdigit() and tail[3:4] == b":" and hours <= b"14" and minutes <= b"59"):
            return None
        offset = sign * (int(hours) * 3600 + int(minutes) * 60)
    if (digits > 9).any():
        return None
    year, month, day, hour, minute, second = (_digits(digits, start, end) for start, end in _FIELDS)
    if year.min() < _FIRST_YEAR or year.max() > _LAST_YEAR or month.max() > 12 or day.max() > 31:
        return None
    days = _DAYS[((year - _FIRST_YEAR) * 13 + month) * 32 + day]
    if days.min() < 0 or hour.max() > 23 or minute.max() > 59 or second.max() > 59:
        return None
    seconds = days.astype(np.int64) * 86_400 + (hour * 3600 + minute * 60 + second)
    value = seconds - offset
    return value if value.min() >= EPOCH_MIN and value.max() <= EPOCH_MAX else None


def _digits(digits: npt.NDArray[np.uint8], start: int, end: int) -> npt.NDArray[np.int32]:
    value: npt.NDArray[np.int32] = digits[start].astype(np.int32)
    for place in range(start + 1, end):
        value *= 10
        value += digits[place]
    return value


def _days() -> npt.NDArray[np.int32]:
    """Days since 1970 by ((year - first) * 13 + month) * 32 + day; -1 where there is no such day."""
    found = np.full((_LAST_YEAR - _FIRST_YEAR + 1) * 13 * 32, -1, np.int32)
    every = np.arange(np.datetime64(f"{_FIRST_YEAR}-01-01"), np.datetime64(f"{_LAST_YEAR + 1}-01-01"))
    months = every.astype("datetime64[M]")
    month = months.astype(np.int64)
    day = (every - months).astype(np.int64) + 1
    found[((month // 12 + 1970 - _FIRST_YEAR) * 13 + month % 12 + 1) * 32 + day] = every.astype(np.int64)
    return found


_FIRST_YEAR, _LAST_YEAR = 2000, 2100
_DAYS = _days()
_MARK_PLACES, _MARKS = [4, 7, 10, 13, 16], np.frombuffer(b"--T::", np.uint8)
_DIGIT_PLACES = [0, 1, 2, 3, 5, 6, 8, 9, 11, 12, 14, 15, 17, 18]
_FIELDS = ((0, 4), (4, 6), (6, 8), (8, 10), (10, 12), (12, 14))


def _as_date(text: pl.Series) -> pl.Series:
    day = text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Int64)
    return (day * 86_400 - CHINA_OFFSET).set(text.str.len_bytes() != 10, None)


def _as_moment(text: pl.Series) -> pl.Series:
    return text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%#z", strict=False, time_unit="ms").dt.epoch("s").cast(pl.Int64)


def _as_epoch(text: pl.Series) -> pl.Series:
    return text.cast(pl.Int64, strict=False)


def _int64(values: pl.Series, missing: int = 0) -> npt.NDArray[np.int64]:
    out: npt.NDArray[Any] = values.cast(pl.Int64).fill_null(missing).to_numpy()
    return out
