"""One new holder presses one key (主动焕新)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hub.wire.base import Message, Moment, NumberText, OpaqueId, Sha256Hex, Slug


class RenewalIn(Message):
    """``POST /v1/renewals`` (header ``Idempotency-Key``, required). The carrier has checked the holder's identity;
    the hub keeps only the digest of the signed consent."""

    number: NumberText
    activated_at: Moment = Field(description="since when the line is this holder's: older bindings are foreign")
    apps: Annotated[list[Slug], Field(min_length=1, max_length=500)] | Literal["all"]
    consent_sha256: Sha256Hex
    acting_for: Slug | None = None


AppState = Literal["queued", "sent", "clear", "needs_holder_action", "held", "failed", "not_connected"]


class RenewalApp(Message):
    app_id: str
    name: str
    app_class: str
    state: AppState
    reason: str | None = Field(default=None, description="disposition code behind held, failed and needs_holder_action")
    next_step: str | None = None
    review_at: Moment | None = None
    overdue: bool = False


class RenewalOut(Message):
    """``GET /v1/renewals/{id}``. For the holder's own screen only: which apps somebody uses is sensitive."""

    renewal_id: OpaqueId
    state: Literal["submitted", "completed", "completed_with_exceptions"]
    number: str = Field(description="masked")
    requested_at: Moment
    due_at: Moment
    due_approximate: bool = Field(description="true: the holiday calendar ends before the due date; Mon-Fri counted")
    apps: list[RenewalApp]


class CatalogueApp(Message):
    app_id: str
    name: str
    app_class: str


class AppCatalogue(Message):
    """``GET /v1/apps``: apps a renewal can name."""

    apps: list[CatalogueApp]
