"""Pull: pages from a cursor, a commit, and single chunks."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Response

from hub.api.auth import require
from hub.api.context import Context, get_context
from hub.api.strict import StrictRoute
from hub.domain.parties import Principal, Scope
from hub.flow.addressed import own_subscription
from hub.flow.pull import (
    DEFAULT_BYTES,
    DEFAULT_NUMBERS,
    MAX_BYTES,
    MAX_NUMBERS,
    MAX_WAIT_SECONDS,
    MIN_BYTES,
)
from hub.wire.chunk import ChunkEvent
from hub.wire.feed import FeedCommitIn, FeedCommitOut, FeedPage

router = APIRouter(tags=["feed"], route_class=StrictRoute)

Ctx = Annotated[Context, Depends(get_context)]
Caller = Annotated[Principal, Depends(require(Scope.feed_read))]

_ID = r"^[A-Za-z0-9_-]{4,80}$"
SubscriptionId = Annotated[str, Query(pattern=_ID)]
ChunkId = Annotated[str, Path(pattern=_ID)]


class _CloudEvent(Response):
    media_type = "application/cloudevents+json"


@router.get(
    "/v1/feed",
    operation_id="read_feed",
    summary="The next page of events",
    response_class=Response,
    responses={200: {"model": FeedPage, "description": "a page; `events` is empty when there is nothing new"}},
)
async def feed(
    context: Ctx,
    caller: Caller,
    subscription_id: SubscriptionId,
    cursor: Annotated[str | None, Query(max_length=4096)] = None,
    max_numbers: Annotated[int, Query(ge=1, le=MAX_NUMBERS)] = DEFAULT_NUMBERS,
    max_bytes: Annotated[int, Query(ge=MIN_BYTES, le=MAX_BYTES)] = DEFAULT_BYTES,
    wait_seconds: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS, allow_inf_nan=False)] = 0.0,
) -> Response:
    """From `cursor`, or without one from the committed position. At least one chunk, however large, if there is one.

    `wait_seconds`: how long to wait for the first event. A cursor of somebody else's subscription is 404, a forged or
    damaged one 400, one below the log's retention 410.
    """
    subscription = own_subscription(context.members, caller.party_id, subscription_id)
    page = await context.pull.page(
        subscription, cursor, max_numbers=max_numbers, max_bytes=max_bytes, wait_seconds=wait_seconds
    )
    return Response(page.body(), media_type="application/json", headers={"cache-control": "no-store"})


@router.post("/v1/feed/commit", operation_id="commit_feed", summary="Everything up to this cursor is safely yours")
async def commit(context: Ctx, caller: Caller, body: FeedCommitIn) -> FeedCommitOut:
    """The receipt for every chunk handed out up to `cursor`, and the position a page without a cursor starts at."""
    subscription = own_subscription(context.members, caller.party_id, body.subscription_id)
    done = await context.pull.commit(subscription, body.cursor)
    return FeedCommitOut(committed=done.moved, receipts=done.receipts)


@router.get(
    "/v1/chunks/{chunk_id}",
    operation_id="get_chunk",
    summary="The stored bytes of one chunk",
    response_class=_CloudEvent,
    responses={200: {"model": ChunkEvent, "description": "the CloudEvent as stored, byte for byte"}},
)
async def chunk(context: Ctx, caller: Caller, chunk_id: ChunkId, subscription_id: SubscriptionId) -> Response:
    """What a pointer webhook points to; parked chunks too. 404 unless the chunk is addressed to the subscription."""
    subscription = own_subscription(context.members, caller.party_id, subscription_id)
    plain = await context.pull.chunk(subscription, chunk_id)
    return _CloudEvent(plain, headers={"cache-control": "no-store"})
