"""Carrier files: announce, upload (resumable), commit, follow, collect the refused rows."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from hub.api.auth import require
from hub.api.context import Context, get_context
from hub.api.limits import IdempotencyKey
from hub.api.strict import StrictRoute
from hub.domain.batches import Batch
from hub.domain.errors import InvalidRequest
from hub.domain.parties import Principal, Scope
from hub.domain.refusals import Refusal
from hub.flow.ingest.batches import Announcement, Batches
from hub.wire.batches import BatchIn, BatchList, BatchOut, ReasonCount

router = APIRouter(prefix="/v1/batches", tags=["batches"], route_class=StrictRoute)

Carrier = Annotated[Principal, Depends(require(Scope.events_publish))]
_OFFSET = re.compile(r"[0-9]{1,15}")
_STREAMED_BODY = {
    "requestBody": {
        "required": True,
        "description": "the content, exactly the bytes whose SHA-256 was announced; streamed",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def _batches(context: Annotated[Context, Depends(get_context)]) -> Batches:
    batches: Batches = context.batches
    return batches


Flow = Annotated[Batches, Depends(_batches)]


@router.post(
    "",
    status_code=201,
    operation_id="announce_batch",
    summary="Announce a file",
    responses={200: {"model": BatchOut, "description": "announced before"}},
)
async def announce_batch(
    body: BatchIn, caller: Carrier, key: IdempotencyKey, flow: Flow, response: Response
) -> BatchOut:
    """Announce a file: its rows, its digest, your own number for it. Repeating the call gives the same batch."""
    said = Announcement(
        batch_seq=body.batch_seq,
        rows=body.rows,
        sha256=body.sha256,
        event_type=body.event_type,
        form=body.format,
        encoding=body.encoding,
        acting_for=body.acting_for,
    )
    batch, new = await flow.announce(caller.party_id, key, said)
    if not new:
        response.status_code = 200
    return _out(batch)


@router.get("", operation_id="list_batches", summary="Your batches")
async def list_batches(caller: Carrier, flow: Flow, limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> BatchList:
    """Your batches, newest first."""
    return BatchList(batches=[_out(batch) for batch in await flow.newest(caller.party_id, limit)])


@router.get("/{batch_id}", operation_id="get_batch", summary="How far a batch is")
async def get_batch(batch_id: str, caller: Carrier, flow: Flow) -> BatchOut:
    """State, counts, and the refused rows by reason."""
    return _out(await flow.get(caller.party_id, batch_id))


@router.head("/{batch_id}/content", operation_id="get_upload_offset", summary="Where an upload continues")
async def get_upload_offset(batch_id: str, caller: Carrier, flow: Flow) -> Response:
    """Where an interrupted upload continues: header ``Upload-Offset``."""
    size = await flow.uploaded_bytes(caller.party_id, batch_id)
    return Response(headers={"upload-offset": str(size)})


@router.put(
    "/{batch_id}/content", operation_id="upload_content", summary="Upload the content", openapi_extra=_STREAMED_BODY
)
async def upload_content(
    batch_id: str,
    request: Request,
    response: Response,
    caller: Carrier,
    flow: Flow,
    offset: Annotated[str, Header(alias="Upload-Offset", description="0 starts anew")] = "0",
) -> BatchOut:
    """Upload the content, or the rest of it from ``Upload-Offset`` on. The last upload before the commit counts."""
    if not _OFFSET.fullmatch(offset):
        raise InvalidRequest("Upload-Offset is a count of bytes.", code="invalid_query")
    batch = await flow.upload(caller.party_id, batch_id, int(offset), request.stream())
    response.headers["upload-offset"] = str(batch.uploaded_bytes)
    return _out(batch)


@router.post("/{batch_id}/commit", status_code=202, operation_id="commit_batch", summary="Publish the content")
async def commit_batch(batch_id: str, caller: Carrier, flow: Flow) -> BatchOut:
    """Have the content judged and its rows published. Follow the batch until it is ``committed`` or ``failed``."""
    return _out(await flow.commit(caller.party_id, batch_id))


@router.get(
    "/{batch_id}/result",
    operation_id="get_batch_result",
    summary="The refused rows",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}, "description": "refused rows as CSV"}},
)
async def get_result(batch_id: str, caller: Carrier, flow: Flow) -> StreamingResponse:
    """Each refused row: line, reason, meaning, masked number. Complete once the batch is ``committed``."""
    pieces = await flow.result(caller.party_id, batch_id)
    headers = {"content-disposition": f'attachment; filename="{batch_id}-refused.csv"'}
    return StreamingResponse(pieces, media_type="text/csv; charset=utf-8", headers=headers)


def _out(batch: Batch) -> BatchOut:
    return BatchOut(
        batch_id=batch.batch_id,
        batch_seq=batch.batch_seq,
        state=batch.state,
        event_type=batch.event_type,
        rows_declared=batch.declared_rows,
        bytes_uploaded=batch.uploaded_bytes,
        rows_seen=batch.rows_seen,
        rows_accepted=batch.rows_accepted,
        rows_refused=batch.rows_refused,
        chunks=batch.chunks,
        reasons=[ReasonCount(reason=code, rows=rows, meaning=Refusal(code).meaning) for code, rows in batch.reasons],
        created_at=batch.created_at,
        committed_at=batch.committed_at,
        failure=batch.failure,
        acting_for=batch.acting_for,
    )
