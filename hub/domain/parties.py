"""Who takes part: carriers, subscribers, regulators, operators; what each may do."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from hub.domain.events import EventType, Lane, Purpose


class Role(StrEnum):
    carrier = "carrier"
    subscriber = "subscriber"
    regulator = "regulator"
    operator = "operator"


class Scope(StrEnum):
    events_publish = "events.publish"
    clearance_read = "clearance.read"
    renewals_write = "renewals.write"
    check_read = "check.read"
    subscriptions_manage = "subscriptions.manage"
    feed_read = "feed.read"
    acks_write = "acks.write"
    reports_read = "reports.read"
    waivers_write = "waivers.write"
    parties_manage = "parties.manage"


SCOPES: dict[Role, frozenset[Scope]] = {
    Role.carrier: frozenset(
        {Scope.events_publish, Scope.clearance_read, Scope.renewals_write, Scope.check_read, Scope.reports_read}
    ),
    Role.subscriber: frozenset(
        {Scope.subscriptions_manage, Scope.feed_read, Scope.acks_write, Scope.check_read, Scope.reports_read}
    ),
    Role.regulator: frozenset({Scope.reports_read, Scope.waivers_write, Scope.check_read}),
    Role.operator: frozenset({Scope.reports_read, Scope.parties_manage}),
}


class AppClass(StrEnum):
    bank = "bank"
    securities_fund = "securities_fund"
    payment = "payment"
    e_commerce = "e_commerce"
    social_mail = "social_mail"
    lifestyle_travel = "lifestyle_travel"
    cloud_storage = "cloud_storage"
    telecom_value_added = "telecom_value_added"
    government = "government"
    games = "games"
    lending = "lending"
    marking = "marking"
    sender = "sender"


TIER_1 = frozenset({AppClass.bank, AppClass.payment, AppClass.social_mail, AppClass.cloud_storage})


@dataclass(frozen=True, slots=True)
class Party:
    """A legal person that talks to the hub. ``party_id`` is its OAuth client id: a short slug chosen at enrolment.

    ``carrier_no`` is a small number > 0 that stands for a carrier in columns; 0 for everybody else. ``acting_for``
    lists MVNOs whose numbers this carrier may publish. ``block_holders`` are the codes of the numbering plan whose
    blocks this carrier may publish (cmcc, cucc, ctcc, cbn, mvno:cmcc ..); empty means any block.
    """

    party_id: str
    role: Role
    name: str
    created_at: datetime
    suspended: bool = False
    sandbox: bool = False
    client_secret_hash: str | None = None
    carrier_no: int = 0
    block_holders: tuple[str, ...] = ()
    acting_for: tuple[str, ...] = ()
    coverage_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class PartyKey:
    """A public key (JWK without private members) with which a party signs assertions and statements."""

    party_id: str
    kid: str
    jwk: dict[str, Any]
    created_at: datetime
    retired_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class App:
    app_id: str
    subscriber_id: str
    app_class: AppClass
    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Agreement:
    """The basis on which one carrier's events may reach one subscriber for one purpose; ``carrier_id`` may be ``*``."""

    agreement_id: str
    carrier_id: str
    subscriber_id: str
    purpose: Purpose
    pia_ref: str
    starts_at: datetime
    ends_at: datetime
    created_at: datetime

    def active(self, now: datetime) -> bool:
        return self.starts_at <= now < self.ends_at


class DeliveryMode(StrEnum):
    webhook_full = "webhook_full"
    webhook_pointer = "webhook_pointer"
    pull = "pull"

    @property
    def pushes(self) -> bool:
        return self is not DeliveryMode.pull


class SubscriptionState(StrEnum):
    unproven = "unproven"  # endpoint not proven yet; nothing is delivered
    active = "active"
    paused = "paused"  # the subscriber asked for a pause; cursors stand still
    suspended = "suspended"  # the hub stopped it (410, operator); cursors stand still
    deleted = "deleted"


@dataclass(frozen=True, slots=True)
class SigningSecret:
    """``scheme`` is v1 (HMAC-SHA256, ``secret`` raw bytes) or v1a (Ed25519, ``secret`` the 32-byte private seed)."""

    scheme: str
    secret: bytes = field(repr=False)
    created_at: datetime
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """One app's wish to hear of some events. Its start positions stand in the ledger's cursors."""

    subscription_id: str
    subscriber_id: str
    app_id: str
    app_class: AppClass
    purpose: Purpose
    event_types: frozenset[EventType]
    lanes: frozenset[Lane]
    mode: DeliveryMode
    state: SubscriptionState
    created_at: datetime
    endpoint: str | None = None
    secrets: tuple[SigningSecret, ...] = ()
    state_reason: str | None = None


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller whose token was verified."""

    party_id: str
    role: Role
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        return scope in self.scopes
