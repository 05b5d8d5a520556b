"""Subscriptions in shards: what one worker delivers for at a time, and another may take over as a whole."""

from __future__ import annotations

from functools import lru_cache
from zlib import crc32

SHARDS = 64
"""Fixed: workers of every version must agree. Enough for some tens of workers to carry fair shares."""


@lru_cache(maxsize=16_384)
def shard_of(subscription_id: str) -> int:
    """0 to SHARDS - 1; the same on every machine, for ever."""
    return crc32(subscription_id.encode()) % SHARDS
