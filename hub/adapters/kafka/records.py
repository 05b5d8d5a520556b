"""Record batches: from the hub's records to Kafka's and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiokafka.errors import CorruptRecordException
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from hub.ports.log import Header, NewRecord, Record

OVERHEAD = 200
"""Bytes of a batch with one record beside its id, headers and body, generously."""

GAP = "gap"
BARRIER = "barrier"
"""Kinds of records without an event; the fold passes over both."""


def size_of(record: NewRecord) -> int:
    """At most so many bytes a batch with this record alone has."""
    texts = record.headers
    letters = len("".join(texts)) + len("".join(texts.values())) + len(record.record_id)
    return len(record.body) + 4 * letters + 12 * len(texts) + OVERHEAD


class Batch:
    """Records of one partition on their way, as the bytes that every try sends again."""

    def __init__(self, limit: int) -> None:
        self._builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, limit)
        self.count = 0

    def add(self, record: NewRecord, now_ms: int) -> bool:
        """False = it does not fit any more; the first always does."""
        headers = [(name, value.encode()) for name, value in record.headers.items()]
        done = self._builder.append(self.count, now_ms, record.record_id.encode(), record.body, headers)
        self.count += done is not None
        return done is not None

    def bytes(self, producer_id: int, epoch: int, sequence: int) -> bytes:
        self._builder.set_producer_state(producer_id, epoch, sequence)
        return bytes(self._builder.build())


def unpacked(partition: int, offset: int, data: bytes) -> list[Record]:
    """The records in ``data`` from ``offset`` on, without a hole between them: where Kafka has one (a transaction
    marker of some other program), a record of kind "gap" stands. Raises CorruptRecordException."""
    found: list[Record] = []
    batches = MemoryRecords(data)
    while batches.has_next():
        batch = batches.next_batch()
        if not batch.validate_crc():
            raise CorruptRecordException(f"partition {partition}, after offset {offset}: wrong checksum")
        if not batch.is_control_batch:
            for raw in batch:
                if raw.offset >= offset:
                    found += _gaps(partition, offset, raw.offset)
                    found.append(_record(partition, raw))
                    offset = raw.offset + 1
        found += _gaps(partition, offset, batch.next_offset)
        offset = max(offset, batch.next_offset)
    return found


def _record(partition: int, raw: Any) -> Record:
    key, headers = raw.key, raw.headers
    return Record(
        partition,
        raw.offset,
        key.decode(errors="replace") if key else "",
        {name: value.decode(errors="replace") if value else "" for name, value in headers},
        raw.value or b"",
        raw.timestamp,
    )


def _gaps(partition: int, start: int, stop: int) -> Sequence[Record]:
    return [Record(partition, offset, "", {Header.kind: GAP}, b"", 0) for offset in range(start, stop)]
