"""What became of each delivery, and delivering again."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from hub.api.auth import require
from hub.api.context import Context, get_context
from hub.api.strict import StrictRoute
from hub.domain.errors import InvalidRequest
from hub.domain.parties import Principal, Scope
from hub.wire.subscriptions import DeliveryList, DeliveryOut, RedriveIn, RedriveOut

router = APIRouter(prefix="/v1", tags=["deliveries"], route_class=StrictRoute)

Caller = Annotated[Principal, Depends(require(Scope.subscriptions_manage))]
Hub = Annotated[Context, Depends(get_context)]


@router.get("/deliveries", operation_id="list_deliveries", summary="What became of each delivery")
async def deliveries(
    subscription_id: Annotated[str, Query(pattern=r"^[A-Za-z0-9_-]{4,80}$")],
    caller: Caller,
    hub: Hub,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> DeliveryList:
    """Received, retrying and parked chunks of one of your subscriptions, newest first."""
    subscription = hub.subscriptions.get(caller.party_id, subscription_id)
    rows = await hub.redrive.deliveries(subscription, limit)
    return DeliveryList(
        deliveries=[
            DeliveryOut.model_validate(
                {
                    "chunk_id": row.chunk_id,
                    "state": row.state,
                    "at": row.at,
                    "attempts": row.attempts,
                    "reason": row.reason,
                }
            )
            for row in rows
        ]
    )


@router.post("/redrive", operation_id="redrive", summary="Deliver again")
async def redrive(order: RedriveIn, caller: Caller, hub: Hub) -> RedriveOut:
    """Deliver again what was published since a moment, or send parked chunks once more."""
    if (order.since is not None) + (order.chunk_ids is not None) + order.parked != 1:
        raise InvalidRequest("Name exactly one of since, chunk_ids and parked.")
    subscription = hub.subscriptions.get(caller.party_id, order.subscription_id)
    if order.since is not None:
        await hub.redrive.since(subscription, order.since)
        return RedriveOut()
    return RedriveOut(chunks=await hub.redrive.parked(subscription, order.chunk_ids))
