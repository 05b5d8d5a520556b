"""Columns of a Parquet file as text that is plain in CSV, or a clear word why they cannot be."""

from __future__ import annotations

import polars as pl

from hub.adapters.files.texts import TIMES
from hub.ports.batch_files import ContentProblem

VALUE_LIMIT = 64
_ODD = r"""[,"\r\n\x00]"""
_REFUSED = "?"
"""No number, no time and no word: refused as each of them."""


def plain_text(source: str, name: str, kind: pl.DataType) -> pl.Expr:
    """``source`` is the column's name in the file, ``name`` what it is called here. Raises ContentProblem.

    Nulls are "not stated"; a number that is not stated is refused with its row, and its row is no blank line."""
    column = pl.col(source)
    if isinstance(kind, pl.String | pl.Categorical | pl.Enum | pl.Null):
        text = column.cast(pl.String)
        fits = (text.str.len_chars() <= VALUE_LIMIT) & ~text.str.contains(_ODD)
        text = pl.when(text.is_null() | fits).then(text).otherwise(pl.lit(_REFUSED))
    elif kind.is_integer() and name in ("number", *TIMES):
        text = column.cast(pl.String)
    elif name in TIMES and isinstance(kind, pl.Date):
        text = column.dt.to_string("%Y-%m-%d")
    elif name in TIMES and isinstance(kind, pl.Datetime):
        if kind.time_zone is None:
            raise ContentProblem(
                f"the column {name} has timestamps without a time zone; write them with one (adjusted to UTC)"
            )
        text = column.dt.epoch("s").cast(pl.String)
    else:
        wanted = "text or a whole number" if name == "number" else "text"
        if name in TIMES:
            wanted = "text, a date, a timestamp with a time zone or whole epoch seconds"
        raise ContentProblem(f"the column {name} is of type {str(kind)[:40]}; {wanted} is needed")
    if name == "number":
        text = pl.when(text.is_null() | (text == "")).then(pl.lit(_REFUSED)).otherwise(text)
    return text.alias(name)
