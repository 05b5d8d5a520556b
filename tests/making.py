"""Small makers of chunks, records and fakes that tests of several levels share."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import numpy as np

from hub.adapters.codec.json_codec import JsonCodec
from hub.domain.events import EventType, Lane
from hub.flow.fold import Fold
from hub.ports.codec import Chunk
from hub.ports.log import Header, NewRecord

T0 = 1_767_225_600  # 2026-01-01T00:00:00Z
FIRST = 13_800_000_000  # in partition 0 of 8
CODEC = JsonCodec()


def record_id(cause: str) -> str:
    return "evt_" + hashlib.sha256(cause.encode()).hexdigest()[:32]


def make_chunk(
    cause: str,
    numbers: Sequence[int],
    event_type: EventType = EventType.deactivated,
    *,
    generation: int | Sequence[int] = 0,
    seq: int | Sequence[int] = 1,
    at: int = T0,
    lane: Lane = Lane.bulk,
    **more: Any,
) -> Chunk:
    rows = len(numbers)
    return Chunk(
        record_id(cause),
        event_type,
        lane,
        at,
        np.array(numbers, np.int64),
        np.broadcast_to(np.array(generation, np.uint8), rows).copy(),
        np.broadcast_to(np.array(seq, np.uint16), rows).copy(),
        np.full(rows, at, np.int64),
        np.full(rows, at, np.int64),
        **more,
    )


def make_record(chunk: Chunk, partitions: int = 8, carrier_no: int = 1) -> NewRecord:
    headers = {
        Header.kind: "chunk",
        Header.type: chunk.event_type.value,
        Header.lane: chunk.lane.value,
        Header.carrier: f"carrier-{carrier_no}",
        Header.carrier_no: str(carrier_no),
        Header.count: str(len(chunk)),
        Header.reported_at: str(chunk.reported_at),
    }
    partition = int(chunk.numbers[0]) // 10_000 % partitions
    return NewRecord(partition, chunk.record_id, headers, CODEC.encode(chunk))


class CountingMetrics:
    """Keeps what was counted and set, by name and label values."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, ...]] = Counter()
        self.gauges: dict[tuple[str, ...], float] = {}

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        self.counts[name, *labels.values()] += amount  # type: ignore[assignment]

    def set(self, name: str, value: float, **labels: str) -> None:
        self.gauges[name, *labels.values()] = value

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        self.counts[name, *labels.values()] += 1


@contextlib.asynccontextmanager
async def running(fold: Fold) -> AsyncIterator[Fold]:
    task = asyncio.create_task(fold.run())
    try:
        yield fold
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
