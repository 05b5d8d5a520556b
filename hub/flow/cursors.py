"""The opaque cursor of the pull feed.

It says how far each lane and partition was read, where that reading began (``base``), and which chunks it handed out
(a sum over their ids): so a commit gives receipts for exactly those, or is refused. It is signed, not encrypted.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from hub.domain.errors import CursorMalformed
from hub.domain.events import Lane

VERSION: Final = 1
_MAC_BYTES: Final = 16
_SUM_BYTES: Final = 16
_SUM_MODULUS: Final = 1 << (8 * _SUM_BYTES)
_LANES: Final = (Lane.live, Lane.bulk)
_TEXT: Final = re.compile(r"[A-Za-z0-9_-]{40,4096}")

Strand = tuple[Lane, int]
"""One lane of one partition."""


class Stretch(NamedTuple):
    """What was read of a strand: from ``base`` up to, not including, ``offset``."""

    base: int
    offset: int


@dataclass(frozen=True, slots=True)
class FeedCursor:
    subscription_id: str
    log_id: str
    stretches: Mapping[Strand, Stretch]
    handed_out: int = 0  # `sum_of` the ids of the chunks handed out within the stretches


def sum_of(handed_out: int, chunk_id: str) -> int:
    """``handed_out`` with one more chunk in it. Order does not matter: pages and commits walk differently."""
    digest = hashlib.sha256(chunk_id.encode()).digest()
    return (handed_out + int.from_bytes(digest[:_SUM_BYTES])) % _SUM_MODULUS


def encode(cursor: FeedCursor, key: bytes) -> str:
    raw = bytearray([VERSION])
    for text in (cursor.subscription_id, cursor.log_id):
        data = text.encode()
        _put(raw, len(data))
        raw += data
    _put(raw, len(cursor.stretches))
    for (lane, partition), (base, offset) in cursor.stretches.items():
        _put(raw, partition * len(_LANES) + _LANES.index(lane))
        _put(raw, base)
        _put(raw, offset - base)
    raw += cursor.handed_out.to_bytes(_SUM_BYTES)
    return urlsafe_b64encode(bytes(raw) + _mac(bytes(raw), key)).rstrip(b"=").decode("ascii")


def decode(text: str, key: bytes) -> FeedCursor:
    """Raises CursorMalformed for anything this hub did not write."""
    if not _TEXT.fullmatch(text):
        raise CursorMalformed
    try:
        raw = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise CursorMalformed from None
    raw, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
    if not hmac.compare_digest(mac, _mac(raw, key)) or raw[0] != VERSION:
        raise CursorMalformed
    place = 1
    texts: list[str] = []
    for _ in range(2):
        length, place = _get(raw, place)
        texts.append(raw[place : place + length].decode())
        place += length
    count, place = _get(raw, place)
    stretches: dict[Strand, Stretch] = {}
    for _ in range(count):
        strand, place = _get(raw, place)
        base, place = _get(raw, place)
        further, place = _get(raw, place)
        partition, lane = divmod(strand, len(_LANES))
        stretches[_LANES[lane], partition] = Stretch(base, base + further)
    return FeedCursor(texts[0], texts[1], stretches, int.from_bytes(raw[place:]))


def _mac(raw: bytes, key: bytes) -> bytes:
    return hmac.digest(key, b"numhub feed cursor\0" + raw, "sha256")[:_MAC_BYTES]


def _put(raw: bytearray, value: int) -> None:
    while value > 0x7F:
        raw.append(value & 0x7F | 0x80)
        value >>= 7
    raw.append(value)


def _get(raw: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = raw[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
