"""Subscribers say what they did."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from hub.api.auth import require
from hub.api.context import Context, get_context
from hub.api.hot import HotRoute
from hub.domain.parties import Principal, Scope
from hub.flow.acknowledge import Said, SaidException
from hub.flow.addressed import own_subscription
from hub.wire.acks import AckIn, AckResult, AcksIn, AcksOut

router = APIRouter(tags=["answers"], route_class=HotRoute)


@router.post("/v1/acks", operation_id="answer_chunks", summary="Answer chunks")
async def acks(
    context: Annotated[Context, Depends(get_context)],
    caller: Annotated[Principal, Depends(require(Scope.acks_write))],
    body: AcksIn,
) -> AcksOut:
    """All answers of the call are committed together before the 200, or none is.

    404 if one of the chunks was not addressed to the subscription; 422 with the place of the first fault.
    """
    subscription = own_subscription(context.members, caller.party_id, body.subscription_id)
    news = await context.acknowledge.answer(subscription, [_said(one) for one in body.answers])
    results = [AckResult(chunk_id=one.chunk_id, new=new) for one, new in zip(body.answers, news, strict=True)]
    return AcksOut(results=results)


def _said(one: AckIn) -> Said:
    exceptions = [SaidException(e.disposition, e.rows, e.numbers, e.review_at) for e in one.exceptions]
    return Said(one.chunk_id, one.default, one.review_at, exceptions)
