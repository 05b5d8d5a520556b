"""Single events of the live lane."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hub.domain.events import EventType, TerminateReason
from hub.wire.base import Message, Moment, NumberText, OpaqueId, Slug


class EventIn(Message):
    number: NumberText
    event_type: EventType = Field(strict=False)
    occurred_at: Moment = Field(
        description="deactivated: end of the line; reassigned: activation; else when it happened"
    )
    terminated_at: Moment | None = Field(
        default=None,
        description="end of the line; required for release_scheduled of a number the hub does not know yet",
    )
    release_planned_at: Moment | None = None
    terminate_reason: TerminateReason | None = Field(default=None, strict=False)
    acting_for: Slug | None = None


class EventsIn(Message):
    """``POST /v1/events`` (header ``Idempotency-Key``, required). 202 when every item was judged; see each item."""

    events: Annotated[list[EventIn], Field(min_length=1, max_length=1000)]


class EventResult(Message):
    status: Literal["accepted", "refused"]
    event_id: OpaqueId | None = None
    reason: str | None = None
    detail: str | None = None
    retriable: bool = False


class EventsOut(Message):
    """One result per item, in the order of the request. An accepted item is in the log and will be delivered."""

    results: list[EventResult]
    accepted: int
    refused: int
