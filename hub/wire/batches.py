"""Carrier files: announce, upload, commit, follow, collect the refused rows."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from hub.domain.batches import BatchState, ContentEncoding, ContentFormat
from hub.domain.events import EventType
from hub.wire.base import Message, Moment, OpaqueId, Sha256Hex, Slug


class BatchIn(Message):
    """``POST /v1/batches`` (header ``Idempotency-Key``, required). ``rows`` 0 announces an explicitly empty period."""

    batch_seq: Annotated[
        int, Field(ge=1, le=2**53, description="the carrier's own number for this batch, without gaps")
    ]
    rows: Annotated[int, Field(ge=0, le=50_000_000, description="data rows in the content, header line not counted")]
    sha256: Sha256Hex = Field(description="of the content bytes exactly as they will be uploaded (compressed if so)")
    event_type: EventType = Field(
        default=EventType.release_scheduled, strict=False, description="for rows that name none"
    )
    format: ContentFormat = Field(
        default=ContentFormat.csv, strict=False, description="csv and parquet with the columns of the guide, by name"
    )
    encoding: ContentEncoding = Field(
        default=ContentEncoding.identity, strict=False, description="Parquet is compressed inside: identity"
    )
    acting_for: Slug | None = Field(default=None, description="party id of the MVNO whose numbers these are")

    @model_validator(mode="after")
    def _parquet_is_compressed_inside(self) -> Self:
        if self.format is ContentFormat.parquet and self.encoding is not ContentEncoding.identity:
            raise ValueError("Parquet content has the encoding identity: it is compressed inside")
        return self


class ReasonCount(Message):
    reason: str
    rows: int
    meaning: str


class BatchOut(Message):
    """``GET /v1/batches/{id}``; also the answer to announce, upload and commit."""

    batch_id: OpaqueId
    batch_seq: int
    state: BatchState
    event_type: EventType
    rows_declared: int
    bytes_uploaded: int = Field(description="continue an interrupted upload from here (header Upload-Offset)")
    rows_seen: int
    rows_accepted: int
    rows_refused: int
    chunks: int
    reasons: list[ReasonCount]
    created_at: Moment
    committed_at: Moment | None = None
    failure: str | None = Field(default=None, description="why the batch failed as a whole; nothing of it was appended")
    acting_for: str | None = None


class BatchList(Message):
    batches: list[BatchOut]
