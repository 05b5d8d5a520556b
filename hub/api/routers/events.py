"""Single events of the live lane."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from hub.api.auth import require
from hub.api.context import Context, get_context
from hub.api.hot import HotRoute
from hub.api.limits import IdempotencyKey
from hub.domain.parties import Principal, Scope
from hub.flow.ingest.events import Events, Item, Verdict
from hub.wire.events import EventIn, EventResult, EventsIn, EventsOut

router = APIRouter(tags=["events"], route_class=HotRoute)


@router.post("/v1/events", status_code=202, operation_id="publish_events", summary="Publish events")
async def publish_events(
    body: EventsIn,
    caller: Annotated[Principal, Depends(require(Scope.events_publish))],
    key: IdempotencyKey,
    context: Annotated[Context, Depends(get_context)],
) -> EventsOut:
    """Publish events; each item has its own verdict. An accepted item is in the log and will be delivered."""
    events: Events = context.events
    verdicts = await events.publish(caller.party_id, key, [_item(item) for item in body.events])
    results = [_result(verdict) for verdict in verdicts]
    accepted = sum(result.status == "accepted" for result in results)
    return EventsOut(results=results, accepted=accepted, refused=len(results) - accepted)


def _item(said: EventIn) -> Item:
    return Item.said(
        said.number,
        said.event_type,
        said.occurred_at,
        said.terminated_at,
        said.release_planned_at,
        said.terminate_reason,
        said.acting_for,
    )


def _result(verdict: Verdict) -> EventResult:
    if verdict.refusal is None:
        return EventResult(status="accepted", event_id=verdict.event_id)
    return EventResult(
        status="refused",
        reason=verdict.refusal.value,
        detail=verdict.detail or verdict.refusal.meaning,
        retriable=verdict.refusal.retriable,
    )
