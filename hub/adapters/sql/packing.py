"""The exceptions of an answer as bytes: deterministic, small, independent of the database.

One exception is its disposition, its review date and its rows. Rows are written as the smallest of three layouts:
distances of one byte, distances of two bytes, or a bit per row; the whole is then compressed if that makes it smaller.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import sub
from struct import Struct, pack

import numpy as np
import numpy.typing as npt
import zstandard

from hub.adapters.sql.schema import from_micros, to_micros
from hub.domain.dispositions import BY_NUMBER
from hub.ports.ledger import AnswerException, Rows

_HEAD = Struct("<BBqII")  # disposition, layout, review_at in microseconds (-1 = none), rows, bytes that follow
_PLAIN, _ZSTD = b"\x00", b"\x01"
_BYTES, _WORDS, _BITS = 0, 1, 2
_NO_REVIEW = -1
_MAX_PLAIN = 64 << 20
_FEW = 64  # rows up to which plain Python is quicker than arrays
_WORTH_COMPRESSING = 160  # less comes out hardly smaller, and most answers are less


def pack_exceptions(exceptions: Sequence[AnswerException]) -> bytes | None:
    """None for none. ``rows`` of each must be strictly ascending."""
    if not exceptions:
        return None
    parts: list[bytes] = []
    for exception in exceptions:
        layout, body = _pack_rows(exception.rows)
        review = _NO_REVIEW if exception.review_at is None else to_micros(exception.review_at)
        parts += [_HEAD.pack(exception.disposition.number, layout, review, len(exception.rows), len(body)), body]
    plain = b"".join(parts)
    if len(plain) < _WORTH_COMPRESSING:
        return _PLAIN + plain
    # A compressor of its own per call: they are not to be shared between threads.
    packed = zstandard.ZstdCompressor(level=3, write_checksum=False, write_content_size=True).compress(plain)
    return _ZSTD + packed if len(packed) < len(plain) else _PLAIN + plain


def unpack_exceptions(packed: bytes | None) -> tuple[AnswerException, ...]:
    """Raises ValueError on anything `pack_exceptions` did not write."""
    if packed is None:
        return ()
    plain = packed[1:]
    if packed[:1] == _ZSTD:
        try:
            plain = zstandard.ZstdDecompressor().decompress(plain, max_output_size=_MAX_PLAIN)
        except zstandard.ZstdError as error:
            raise ValueError("packed exceptions are damaged") from error
    elif packed[:1] != _PLAIN:
        raise ValueError("packed exceptions are of an unknown kind")
    exceptions: list[AnswerException] = []
    at = 0
    while at < len(plain):
        if at + _HEAD.size > len(plain):
            raise ValueError("packed exceptions are cut off")
        code, layout, review, count, size = _HEAD.unpack_from(plain, at)
        at += _HEAD.size
        rows = _unpack_rows(layout, plain[at : at + size])
        if len(rows) != count or code not in BY_NUMBER:
            raise ValueError("packed exceptions are damaged")
        at += size
        exceptions.append(AnswerException(BY_NUMBER[code], rows, None if review == _NO_REVIEW else from_micros(review)))
    return tuple(exceptions)


def ascending(rows: Rows, count: int) -> bool:
    """Are these strictly ascending rows of a chunk of ``count``?"""
    if len(rows) > _FEW:
        return int(rows[-1]) < count and bool(np.all(rows[1:] > rows[:-1]))
    values: list[int] = rows.tolist()
    return not values or (values[-1] < count and sorted(set(values)) == values)


def counted(exceptions: Sequence[AnswerException]) -> dict[int, int] | None:
    """Rows per code, if it is quickly seen that no row stands in two of the exceptions; else None."""
    total = sum(len(exception.rows) for exception in exceptions)
    if len(exceptions) > 1:
        if total > _FEW:
            return None
        apart: set[int] = set()
        for exception in exceptions:
            apart.update(exception.rows.tolist())
        if len(apart) < total:
            return None
    found: dict[int, int] = {}
    for exception in exceptions:
        code = exception.disposition.number
        found[code] = found.get(code, 0) + len(exception.rows)
    return found


def apply_exceptions(codes: npt.NDArray[np.uint8], exceptions: Sequence[AnswerException]) -> None:
    """Write the codes of ``exceptions`` into ``codes``, later ones over earlier ones; rows beyond the end are none."""
    for exception in exceptions:
        rows = exception.rows
        codes[rows if len(rows) == 0 or int(rows[-1]) < len(codes) else rows[rows < len(codes)]] = (
            exception.disposition.number
        )


def _pack_rows(rows: Rows) -> tuple[int, bytes]:
    if len(rows) == 0:
        return _BYTES, b""
    return _pack_few(rows) if len(rows) <= _FEW else _pack_many(rows)


def _pack_many(rows: Rows) -> tuple[int, bytes]:
    rows = rows.astype(np.uint16, copy=False)
    steps = rows.copy()
    steps[1:] -= rows[:-1]
    distances = (_BYTES, steps.astype("u1").tobytes()) if steps.max() < 256 else (_WORDS, steps.astype("<u2").tobytes())
    if len(distances[1]) * 8 <= int(rows[-1]):
        return distances
    bits = np.zeros(int(rows[-1]) + 1, np.uint8)
    bits[rows] = 1
    return _BITS, np.packbits(bits, bitorder="little").tobytes()


def _pack_few(rows: Rows) -> tuple[int, bytes]:
    """The same bytes as `_pack_many`."""
    values: list[int] = rows.tolist()
    steps = [values[0], *map(sub, values[1:], values)]
    narrow = max(steps) < 256
    if len(steps) * (8 if narrow else 16) <= values[-1]:
        return (_BYTES, bytes(steps)) if narrow else (_WORDS, pack(f"<{len(steps)}H", *steps))
    return _BITS, sum(1 << value for value in values).to_bytes(values[-1] // 8 + 1, "little")


def _unpack_rows(layout: int, body: bytes) -> Rows:
    if layout == _BITS:
        bits = np.unpackbits(np.frombuffer(body, np.uint8), bitorder="little")
        return np.flatnonzero(bits).astype(np.uint16)
    if layout not in (_BYTES, _WORDS) or (layout == _WORDS and len(body) % 2):
        raise ValueError("packed rows are of an unknown kind")
    steps = np.frombuffer(body, "u1" if layout == _BYTES else "<u2")
    return np.cumsum(steps, dtype=np.uint64).astype(np.uint16)
