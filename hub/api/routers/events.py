"""Single events of the live lane."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends

from hub.api.auth import require
from hub.api.context import Context, get_context
from hub.api.hot import HotRoute
from hub.api.limits import IdempotencyKey
from hub.domain.errors import InvalidNumber
from hub.domain.events import TerminateReason
from hub.domain.numbers import PhoneNumber
from hub.domain.parties import Principal, Scope
from hub.flow.ingest.events import Events, Item, Verdict
from hub.wire.events import EventIn, EventResult, EventsIn, EventsOut

router = APIRouter(tags=["events"], route_class=HotRoute)

_REASONS = {None: 0} | {reason: place for place, reason in enumerate(TerminateReason, start=1)}


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
    try:
        number = PhoneNumber.parse(said.number).national
    except InvalidNumber:
        number = 0  # this item is refused, the others are not
    return Item(
        number=number,
        event_type=said.event_type,
        occurred_at=_epoch(said.occurred_at),
        terminated_at=_epoch(said.terminated_at),
        release_planned_at=_epoch(said.release_planned_at),
        reason=_REASONS[said.terminate_reason],
        acting_for=said.acting_for,
    )


def _epoch(moment: datetime | None) -> int:
    return 0 if moment is None else int(moment.timestamp())


def _result(verdict: Verdict) -> EventResult:
    if verdict.refusal is None:
        return EventResult(status="accepted", event_id=verdict.event_id)
    return EventResult(
        status="refused",
        reason=verdict.refusal.value,
        detail=verdict.detail or verdict.refusal.meaning,
        retriable=verdict.refusal.retriable,
    )
