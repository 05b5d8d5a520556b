"""A subscriber's own subscriptions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hub.domain.events import EventType, Lane, Purpose
from hub.domain.parties import DeliveryMode, SubscriptionState
from hub.wire.base import Message, Moment, OpaqueId, Slug

EventTypes = Annotated[list[Annotated[EventType, Field(strict=False)]], Field(min_length=1, max_length=16)]
Lanes = Annotated[list[Annotated[Lane, Field(strict=False)]], Field(min_length=1, max_length=2)]
Endpoint = Annotated[str, Field(max_length=2048, examples=["https://hooks.example.com/numhub"])]


class SubscriptionIn(Message):
    """``POST /v1/subscriptions``. ``start``: ``now`` = events from now on; ``earliest`` = everything the log keeps."""

    app_id: Slug
    mode: DeliveryMode = Field(default=DeliveryMode.webhook_full, strict=False)
    endpoint: Endpoint | None = Field(default=None, description="required for the webhook modes")
    event_types: EventTypes = Field(default_factory=lambda: list(EventType))
    lanes: Lanes = Field(default_factory=lambda: list(Lane))
    purpose: Purpose = Field(default=Purpose.account_unbind, strict=False)
    start: Literal["now", "earliest"] = "now"
    signature: Literal["v1", "v1a"] = Field(default="v1", description="v1 HMAC-SHA256, v1a Ed25519")


class SubscriptionPatch(Message):
    """``PATCH /v1/subscriptions/{id}``; members left out stay. A new endpoint must be proven again."""

    endpoint: Endpoint | None = None
    event_types: EventTypes | None = None
    lanes: Lanes | None = None


class SecretOut(Message):
    """Shown once. v1: ``whsec_`` secret to verify with. v1a: ``whpk_`` public key."""

    scheme: Literal["v1", "v1a"]
    key: str
    created_at: Moment
    expires_at: Moment | None = None


class SubscriptionOut(Message):
    subscription_id: OpaqueId
    app_id: str
    app_class: str
    mode: DeliveryMode
    endpoint: str | None
    event_types: list[EventType]
    lanes: list[Lane]
    purpose: Purpose
    state: SubscriptionState
    state_reason: str | None
    created_at: Moment
    secret: SecretOut | None = Field(default=None, description="only in the answer that created or rotated it")
    parked: int = 0


class SubscriptionList(Message):
    subscriptions: list[SubscriptionOut]


class RotateIn(Message):
    """``POST /v1/subscriptions/{id}/rotate``: both secrets sign for ``overlap_seconds``, then only the new one."""

    overlap_seconds: Annotated[int, Field(ge=0, le=30 * 86_400)] = 86_400


class ProofOut(Message):
    """``POST /v1/subscriptions/{id}/prove``."""

    state: SubscriptionState
    proven: bool = Field(description="this try; a subscription that was proven before stays so")
    status: int | None = Field(default=None, description="what the endpoint answered, if it did")
    detail: str


class EndpointTestOut(Message):
    """``POST /v1/subscriptions/{id}/test``."""

    delivered: bool
    status: int | None = Field(default=None, description="what the endpoint answered, if it did")
    detail: str


class DeliveryOut(Message):
    chunk_id: OpaqueId
    state: Literal["received", "retrying", "parked"]
    at: Moment
    attempts: int
    reason: str | None = None


class DeliveryList(Message):
    """``GET /v1/deliveries?subscription_id=``, newest first."""

    deliveries: list[DeliveryOut]


class RedriveIn(Message):
    """``POST /v1/redrive``: exactly one of ``since`` (replay by time), ``chunk_ids`` (parked chunks), ``parked`` (all
    parked chunks)."""

    subscription_id: OpaqueId
    since: Moment | None = None
    chunk_ids: Annotated[list[OpaqueId], Field(min_length=1, max_length=1000)] | None = None
    parked: bool = False


class RedriveOut(Message):
    chunks: int | None = Field(default=None, description="parked chunks queued again; absent for a replay by time")
