"""May these numbers be sold again? And the waivers that count as an answer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hub.wire.base import Message, Moment, NumberText, OpaqueId, Slug

Verdict = Literal["go", "go_with_exceptions", "wait"]


class ClearanceIn(Message):
    """``POST /v1/clearance``."""

    numbers: Annotated[list[NumberText], Field(min_length=1, max_length=10_000)]


class NumberClearance(Message):
    """``number`` is masked; ``index`` is its place in the request (or the row in the batch's sorted list)."""

    index: int
    number: str
    verdict: Verdict
    until: Moment | None = Field(default=None, description="wait: not before; absent where no date is known")
    reasons: list[str] = Field(
        default_factory=list,
        description="freeze, answers_pending, answers_failed, not_scheduled, withdrawn, already_released, "
        "unknown_number (or another carrier's: the two look alike), invalid_number",
    )
    app_classes: list[str] = Field(
        default_factory=list, description="classes with held or failed answers; never app names"
    )


class ClearanceOut(Message):
    clearance_id: OpaqueId
    policy: str
    judged_at: Moment
    go: int
    go_with_exceptions: int
    wait: int
    waivers: list[str] = Field(description="ids of the waivers that counted")
    numbers: list[NumberClearance]


class BatchClearanceOut(Message):
    """``GET /v1/batches/{id}/clearance?detail=none|not_go|all``: counts for the batch, numbers as asked for."""

    clearance_id: OpaqueId
    batch_id: OpaqueId
    policy: str
    judged_at: Moment
    go: int
    go_with_exceptions: int
    wait: int
    wait_until: Moment | None = Field(default=None, description="when the last freeze in the batch ends")
    waiting_for: dict[str, int] = Field(description="reason -> numbers")
    waivers: list[str]
    numbers: list[NumberClearance]
    numbers_left_out: int = Field(default=0, description="numbers asked for in detail beyond the first 100,000")


class WaiverIn(Message):
    """``POST /v1/waivers``: ``statement`` is a compact JWS signed with a registered key of the caller over
    ``{"waiver": "numhub/v1", "subscriber_id", "batch_id"?, "person", "reason", "iat", "jti", "ends_at"?}``."""

    statement: Annotated[str, Field(min_length=20, max_length=8192)]


class WaiverOut(Message):
    waiver_id: OpaqueId
    subscriber_id: Slug
    batch_id: str | None
    person: str
    reason: str
    issued_by: str
    issued_at: Moment
    ends_at: Moment | None


class WaiverList(Message):
    waivers: list[WaiverOut]
