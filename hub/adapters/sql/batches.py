"""Carriers' files and how far they have come."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, Select, select

from hub.adapters.sql.schema import batches
from hub.adapters.sql.statements import Upsert
from hub.domain.batches import Batch, BatchState, ContentEncoding, ContentFormat
from hub.domain.events import BY_NUMBER

_put = Upsert.whole_row(batches)


def put(conn: Connection, batch: Batch) -> None:
    """Raises BatchConflict (by the error translation) if the sequence number or key is another batch's."""
    _put.run(
        conn,
        [
            {
                "batch_id": batch.batch_id,
                "carrier_id": batch.carrier_id,
                "acting_for": batch.acting_for,
                "batch_seq": batch.batch_seq,
                "event_type": batch.event_type.number,
                "declared_rows": batch.declared_rows,
                "declared_sha256": batch.declared_sha256,
                "content_format": batch.content_format.value,
                "content_encoding": batch.content_encoding.value,
                "idempotency_key": batch.idempotency_key,
                "request_digest": batch.request_digest,
                "state": batch.state.value,
                "created_at": batch.created_at,
                "uploaded_bytes": batch.uploaded_bytes,
                "rows_seen": batch.rows_seen,
                "rows_accepted": batch.rows_accepted,
                "rows_refused": batch.rows_refused,
                "chunks": batch.chunks,
                "reasons": [list(reason) for reason in batch.reasons],
                "committed_at": batch.committed_at,
                "failure": batch.failure,
            }
        ],
    )


def one(conn: Connection, batch_id: str) -> Batch | None:
    return _first(conn, select(batches).where(batches.c.batch_id == batch_id))


def by_key(conn: Connection, carrier_id: str, idempotency_key: str) -> Batch | None:
    mine = select(batches).where(batches.c.carrier_id == carrier_id)
    return _first(conn, mine.where(batches.c.idempotency_key == idempotency_key))


def newest(conn: Connection, carrier_id: str | None, state: str | None, limit: int) -> list[Batch]:
    query = select(batches).order_by(batches.c.created_at.desc(), batches.c.batch_seq.desc(), batches.c.batch_id)
    if carrier_id is not None:
        query = query.where(batches.c.carrier_id == carrier_id)
    if state is not None:
        query = query.where(batches.c.state == str(state))
    return [_batch(row) for row in conn.execute(query.limit(limit))]


def _first(conn: Connection, query: Select[Any]) -> Batch | None:
    row = conn.execute(query).first()
    return None if row is None else _batch(row)


def _batch(row: Row[Any]) -> Batch:
    values = dict(row._mapping)
    values["event_type"] = BY_NUMBER[row.event_type]
    values["content_format"] = ContentFormat(row.content_format)
    values["content_encoding"] = ContentEncoding(row.content_encoding)
    values["state"] = BatchState(row.state)
    values["reasons"] = tuple((code, rows) for code, rows in row.reasons)
    return Batch(**values)
