"""Is the process alive, is it ready for requests."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from hub.api.context import Context, get_context
from hub.domain.errors import NotFound, NumhubError
from hub.wire.health import LiveOut, ReadyOut

router = APIRouter(tags=["health"])
metrics_router = APIRouter(tags=["health"])

NEAR = 1000
"""Records the fold may be behind the log's end, all partitions together, and still be called ready."""


@router.get("/health/live", operation_id="get_live", summary="The process runs")
async def live() -> LiveOut:
    """Answers as long as the process can answer at all."""
    return LiveOut(status="live")


@router.get(
    "/health/ready",
    operation_id="get_ready",
    summary="The hub takes requests",
    response_model=ReadyOut,
    responses={503: {"model": ReadyOut, "description": "not ready: what is missing"}},
)
async def ready(context: Annotated[Context, Depends(get_context)]) -> Response:
    """200 when the ledger answers and the fold stands near the log's end; else 503 with what is missing."""
    checks: dict[str, Any] = {}
    try:
        context.members.snapshot  # noqa: B018
        if context.directory is not None:
            await context.directory.version()
        checks["ledger"] = "ok"
    except NumhubError:
        checks["ledger"] = "not answering"
    try:
        if context.log is not None and context.fold is not None:
            ends = await context.log.ends()
            behind = sum(max(0, end - context.fold.position(place)) for place, end in enumerate(ends))
            checks["fold"] = "ok" if behind <= NEAR else "behind"
            checks["behind"] = behind
    except NumhubError:
        checks["fold"] = "log not answering"
    good = all(value == "ok" for name, value in checks.items() if name != "behind")
    body = {"status": "ready" if good else "not ready", **checks}
    return JSONResponse(body, 200 if good else 503, None if good else {"retry-after": "1"})


@metrics_router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Metrics for Prometheus",
    response_class=PlainTextResponse,
    responses={200: {"description": "Prometheus text format; no label holds an id or a number"}},
)
async def metrics(context: Annotated[Context, Depends(get_context)]) -> Response:
    """For the operator's own network: keep this path away from the world at the TLS proxy."""
    if context.exposition is None:
        raise NotFound
    content_type, page = context.exposition()
    return Response(page, media_type=content_type)
