"""What goes to the hub and what comes back, as plain frozen values. Moments are aware datetimes.

Texts of a closed set (states, reasons, event types) are ``str`` where they come from the hub, so that a newer hub does
not break an older client; what you send is typed by the literals below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

EventType = Literal[
    "deactivated",
    "restored",
    "release_scheduled",
    "release_cancelled",
    "released",
    "reassigned",
    "owner_transferred",
    "renewal_requested",
]
Lane = Literal["bulk", "live"]
Mode = Literal["webhook_full", "webhook_pointer", "pull"]
Purpose = Literal["account_unbind", "label_clear", "fraud_risk"]
TerminateReason = Literal["holder_request", "arrears", "fraud", "carrier", "deceased"]
Disposition = Literal[
    "unbound",
    "no_account",
    "already_rebound",
    "rejected_cutoff",
    "soft_locked",
    "held_funds",
    "held_debt",
    "held_legal",
    "held_dispute",
    "held_memorial",
    "needs_holder_action",
    "failed_retryable",
    "failed_final",
]
ContentFormat = Literal["csv", "ndjson", "parquet"]
ContentEncoding = Literal["identity", "gzip", "zstd"]

ORDERS_UNBIND = frozenset({"release_scheduled", "reassigned", "owner_transferred", "renewal_requested"})
"""Event types that ask you to unbind what was bound before the cutoff."""


@dataclass(frozen=True, slots=True)
class Event:
    """One number's event as a carrier publishes it. ``number``: 11 digits, +86 may stand in front."""

    number: str = field(repr=False)
    event_type: EventType
    occurred_at: datetime
    terminated_at: datetime | None = None
    release_planned_at: datetime | None = None
    terminate_reason: TerminateReason | None = None
    acting_for: str | None = None


@dataclass(frozen=True, slots=True)
class EventResult:
    """``status`` is ``accepted`` (in the log, will be delivered) or ``refused`` (see ``reason``)."""

    status: str
    event_id: str | None = None
    reason: str | None = None
    detail: str | None = None
    retriable: bool = False

    @property
    def accepted(self) -> bool:
        return self.status == "accepted"


@dataclass(frozen=True, slots=True)
class EventResults:
    """One result per event, in the order sent."""

    results: tuple[EventResult, ...]
    accepted: int
    refused: int


@dataclass(frozen=True, slots=True)
class ReasonCount:
    reason: str
    rows: int
    meaning: str


@dataclass(frozen=True, slots=True)
class Batch:
    batch_id: str
    batch_seq: int
    state: str  # announced, uploading, uploaded, validating, committed, failed
    event_type: str
    rows_declared: int
    bytes_uploaded: int
    rows_seen: int
    rows_accepted: int
    rows_refused: int
    chunks: int
    reasons: tuple[ReasonCount, ...]
    created_at: datetime
    committed_at: datetime | None = None
    failure: str | None = None
    acting_for: str | None = None

    @property
    def final(self) -> bool:
        return self.state in ("committed", "failed")


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """One line of a batch's result file. ``line`` counts as your editor does; ``members`` holds the whole record."""

    line: int
    reason: str
    meaning: str = ""
    members: dict[str, Any] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Progress:
    """Handed to ``progress`` callbacks. ``stage``: ``digest`` and ``upload`` count bytes, ``validate`` counts rows."""

    stage: Literal["digest", "upload", "validate"]
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Secret:
    """Shown once. ``key`` is what a Receiver is made with: ``whsec_`` (v1) or ``whpk_`` (v1a)."""

    scheme: str
    key: str = field(repr=False)
    created_at: datetime
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    subscription_id: str
    app_id: str
    app_class: str
    mode: str
    endpoint: str | None
    event_types: tuple[str, ...]
    lanes: tuple[str, ...]
    purpose: str
    state: str  # unproven, active, paused, suspended, deleted
    state_reason: str | None
    created_at: datetime
    secret: Secret | None = None
    parked: int = 0


@dataclass(frozen=True, slots=True)
class ProofResult:
    """What came of posting the challenge; ``state`` is the subscription's afterwards."""

    state: str
    proven: bool
    status: int | None  # what the endpoint answered, if it did
    detail: str


@dataclass(frozen=True, slots=True)
class TestResult:
    __test__ = False  # not a test case, whatever pytest thinks of the name

    delivered: bool
    status: int | None
    detail: str


@dataclass(frozen=True, slots=True)
class Delivery:
    chunk_id: str
    state: str  # received, retrying, parked
    at: datetime
    attempts: int
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class CommitResult:
    committed: bool  # False: it was committed before
    receipts: int


@dataclass(frozen=True, slots=True)
class AckException:
    """Rows (places in the chunk's ``numbers``, from 0) or numbers that got another disposition than the default."""

    disposition: Disposition
    rows: Sequence[int] = ()
    numbers: Sequence[str] = field(default=(), repr=False)
    review_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class AckResult:
    chunk_id: str
    new: bool  # False: the same answer was recorded before


@dataclass(frozen=True, slots=True)
class CheckAnswer:
    """``yes``: another holder, or none, since that day. ``no``: the same holder, every day since is covered.
    ``no_data``: the hub cannot say; never read it as no."""

    answer: str
    reason: str | None
    coverage_since: str | None
    as_of: datetime


@dataclass(frozen=True, slots=True)
class App:
    app_id: str
    name: str
    app_class: str


@dataclass(frozen=True, slots=True)
class RenewalApp:
    app_id: str
    name: str
    app_class: str
    state: str  # queued, sent, clear, needs_holder_action, held, failed, not_connected
    reason: str | None = None
    next_step: str | None = None
    review_at: datetime | None = None
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class Renewal:
    """For the holder's own screen only: which apps somebody uses is sensitive. ``number`` is masked."""

    renewal_id: str
    state: str  # submitted, completed, completed_with_exceptions
    number: str
    requested_at: datetime
    due_at: datetime
    due_approximate: bool
    apps: tuple[RenewalApp, ...] = field(repr=False)

    @property
    def final(self) -> bool:
        return self.state != "submitted"


@dataclass(frozen=True, slots=True)
class NumberClearance:
    """``number`` is masked; ``index`` is its place in the request (or in the batch's sorted list)."""

    index: int
    number: str
    verdict: str  # go, go_with_exceptions, wait
    until: datetime | None = None
    reasons: tuple[str, ...] = ()
    app_classes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Clearance:
    clearance_id: str
    policy: str
    judged_at: datetime
    go: int
    go_with_exceptions: int
    wait: int
    waivers: tuple[str, ...]
    numbers: tuple[NumberClearance, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class BatchClearance:
    clearance_id: str
    batch_id: str
    policy: str
    judged_at: datetime
    go: int
    go_with_exceptions: int
    wait: int
    wait_until: datetime | None
    waiting_for: dict[str, int]
    waivers: tuple[str, ...]
    numbers: tuple[NumberClearance, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Waiver:
    waiver_id: str
    subscriber_id: str
    batch_id: str | None
    person: str
    reason: str
    issued_by: str
    issued_at: datetime
    ends_at: datetime | None
