"""NDJSON: a JSON object per line. Read line by line; the values then go the same way as CSV columns."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import orjson
import polars as pl

from hub.adapters.files.content import Slice
from hub.adapters.files.texts import COLUMNS, to_rows
from hub.domain.refusals import Refusal
from hub.ports.batch_files import Rows

VALUE_LIMIT = 64
_KNOWN = frozenset(COLUMNS)


def read_rows(data: bytes, where: Slice) -> Rows:
    """The rows of one slice. Numbers may be text or integers, times text or epoch seconds."""
    lines: list[int] = []
    refusals: list[int] = []
    texts: dict[str, list[str | None]] = {name: [] for name in COLUMNS}
    for line, raw in enumerate(data.removesuffix(b"\n").split(b"\n"), start=where.first_line):
        if raw in (b"", b"\r"):
            continue
        row, reason = _read(raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw)
        lines.append(line)
        refusals.append(0 if reason is None else reason.number)
        for name, column in texts.items():
            column.append(row.get(name))
    table = pl.DataFrame(texts, schema=dict.fromkeys(COLUMNS, pl.String()))
    return to_rows(table, np.array(lines, np.int64), np.array(refusals, np.uint8))


def _read(raw: bytes) -> tuple[dict[str, str | None], Refusal | None]:
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return {}, Refusal.invalid_value
    if not isinstance(value, dict):
        return {}, Refusal.invalid_value
    row: dict[str, str | None] = {}
    reason = None
    for name, member in value.items():
        if name not in _KNOWN:
            reason = Refusal.unknown_column
            continue
        text = _text(member)
        if text is None and member is not None:
            reason = reason or Refusal.invalid_value
        row[name] = text
    return row, reason


def _text(member: Any) -> str | None:
    if isinstance(member, str):
        if len(member) > VALUE_LIMIT:
            return None
        return (member if member.isascii() else unicodedata.normalize("NFKC", member)) or None
    if isinstance(member, int) and not isinstance(member, bool):
        return str(member)
    return None
