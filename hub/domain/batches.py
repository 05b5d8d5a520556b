"""A carrier's file on its way into the log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from hub.domain.events import EventType


class BatchState(StrEnum):
    announced = "announced"  # created, no content yet
    uploading = "uploading"  # some bytes are there
    uploaded = "uploaded"  # all bytes are there, digest and count not yet judged
    validating = "validating"  # committed by the carrier; rows are judged and appended slice by slice
    committed = "committed"  # every row is either in the log or in the result file
    failed = "failed"  # wrong count or digest: nothing was appended


class ContentFormat(StrEnum):
    csv = "csv"
    ndjson = "ndjson"
    parquet = "parquet"  # compressed inside, never outside: its encoding is identity


class ContentEncoding(StrEnum):
    identity = "identity"
    gzip = "gzip"
    zstd = "zstd"


@dataclass(frozen=True, slots=True)
class Batch:
    batch_id: str
    carrier_id: str  # who uploads
    acting_for: str | None  # the MVNO it uploads for
    batch_seq: int
    event_type: EventType  # default for rows that name none
    declared_rows: int
    declared_sha256: str  # of the content bytes as uploaded, hex
    content_format: ContentFormat
    content_encoding: ContentEncoding
    idempotency_key: str
    request_digest: str
    state: BatchState
    created_at: datetime
    uploaded_bytes: int = 0
    rows_seen: int = 0
    rows_accepted: int = 0
    rows_refused: int = 0
    chunks: int = 0
    reasons: tuple[tuple[str, int], ...] = ()  # reason code -> rows
    committed_at: datetime | None = None
    failure: str | None = None
