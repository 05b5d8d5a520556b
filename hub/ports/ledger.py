"""The ledger: receipts, answers, cursors, batches, clearances, renewals, waivers.

Every method is one transaction: it is committed, durably, when it returns; if it raises `Unavailable`, nothing of it
is. Callers may call concurrently; an adapter may commit several calls together (group commit). Every method may be
repeated with the same arguments without changing anything (idempotent by the ids in its arguments).

The ledger never holds a row per (number, subscriber): the finest grain is (chunk, subscription), with the differing
rows of a chunk packed into that row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hub.domain.batches import Batch
from hub.domain.dispositions import Disposition
from hub.domain.events import EventType, Lane
from hub.domain.parties import Agreement, App, Party, PartyKey, Subscription
from hub.ports.leases import Fences
from hub.ports.log import Position

Rows = npt.NDArray[np.uint16]

__all__ = [
    "Agreement",
    "Answer",
    "AnswerException",
    "Batch",
    "CatalogueEntry",
    "ChunkStanding",
    "ClearanceRecord",
    "Cursor",
    "DirectorySnapshot",
    "Directory",
    "IngressPositions",
    "Ledger",
    "OutboxEntry",
    "ParkedChunk",
    "Receipt",
    "RedriveOrder",
    "RenewalRecord",
    "Rows",
    "Told",
    "Waiver",
    "replace",
]


# ---- directory -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DirectorySnapshot:
    """All parties and what hangs on them, as of one version. A few thousand rows; held in memory by every process."""

    version: int
    parties: Mapping[str, Party]
    keys: Mapping[str, tuple[PartyKey, ...]]  # by party id; those whose retired_at has come are left out
    apps: Mapping[str, App]
    agreements: tuple[Agreement, ...]
    subscriptions: Mapping[str, Subscription]  # deleted ones left out
    policy: Mapping[str, Any]  # see domain.policies


class Directory(Protocol):
    """Parties, keys, apps, agreements, subscriptions, policy. Every change raises the version by one."""

    async def version(self) -> int: ...

    async def snapshot(self) -> DirectorySnapshot: ...

    async def put_party(self, party: Party) -> Party:
        """Insert or replace; returns what is stored: a carrier with ``carrier_no`` 0 is given the next free one."""
        ...

    async def put_key(self, key: PartyKey) -> None: ...

    async def put_app(self, app: App) -> None: ...

    async def put_agreement(self, agreement: Agreement) -> None: ...

    async def put_subscription(self, subscription: Subscription) -> None: ...

    async def put_policy(self, policy: Mapping[str, Any]) -> None: ...


# ---- delivery --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a subscription stands in one partition and lane: ``offset`` is the next record to look at.

    ``start`` is where it began; the subscription is owed every matching record from there on.
    """

    subscription_id: str
    partition: int
    lane: Lane
    start: int
    offset: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """A subscriber answered 2xx to the whole body, or confirmed a page that held it. Says nothing about unbinding."""

    subscription_id: str
    chunk_id: str
    position: Position
    received_at: datetime
    attempts: int
    via: str  # webhook_full, webhook_pointer, pull


@dataclass(frozen=True, slots=True)
class RedriveOrder:
    """A subscriber wants something again. Kept until whoever delivers for the subscription has carried it out.

    ``cursors`` are to be set back; ``chunk_ids`` are parked chunks to be sent once more.
    """

    order_id: str
    subscription_id: str
    cursors: tuple[Cursor, ...]
    chunk_ids: tuple[str, ...]
    ordered_at: datetime


@dataclass(frozen=True, slots=True)
class ParkedChunk:
    """A chunk that a subscriber never took by push; still pullable, revived by a redrive."""

    subscription_id: str
    chunk_id: str
    position: Position
    parked_at: datetime
    attempts: int
    reason: str


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One failed delivery attempt, kept so that a subscriber can see why. Successful ones are receipts."""

    subscription_id: str
    chunk_id: str
    at: datetime
    attempt: int
    status: int | None
    reason: str
    next_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """One line of a subscriber's own delivery list; ``state`` is received, retrying or parked."""

    subscription_id: str
    chunk_id: str
    state: str
    at: datetime
    attempts: int
    reason: str | None = None


# ---- catalogue -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """One accepted record, listed in the ledger so that receipts and answers can be counted against it.

    Derived from the log by the catalogue worker; `numhub rebuild` makes it anew. ``provinces`` counts numbers by
    province name. ``apps`` is the renewal's target list, empty for everybody.
    """

    chunk_id: str
    position: Position
    event_type: EventType
    lane: Lane
    carrier_id: str
    count: int
    reported_at: datetime
    due_at: datetime
    batch_id: str | None = None
    renewal_id: str | None = None
    apps: tuple[str, ...] = ()
    provinces: Mapping[str, int] = field(default_factory=dict)


# ---- answers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AnswerException:
    disposition: Disposition
    rows: Rows  # ascending row numbers within the chunk, 0-based
    review_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What one subscription says about one chunk. A later answer is a new fact.

    ``default`` None: only the rows named are answered. A ``default`` answers every row of the chunk anew, then the
    exceptions override it. ``digest`` identifies the content: an answer equal to the newest one stored for the
    same (subscription, chunk) changes nothing.
    """

    subscription_id: str
    chunk_id: str
    position: Position
    count: int  # rows in the chunk
    default: Disposition | None
    exceptions: tuple[AnswerException, ...]
    digest: str
    answered_at: datetime
    default_review_at: datetime | None = None


# ---- clearance, waivers, renewals ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Waiver:
    """A signed act: these answers are not waited for. ``batch_id`` None means every batch; ``statement`` is the JWS."""

    waiver_id: str
    subscriber_id: str
    batch_id: str | None
    person: str
    reason: str
    issued_by: str
    issued_at: datetime
    statement: str
    ends_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class ChunkStanding:
    """Per row the disposition code (domain.dispositions, 0 = none) of one subscription for one chunk."""

    chunk_id: str
    subscription_id: str
    codes: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class ClearanceRecord:
    """Proof of one judgement: what was asked, up to where the log and the ledger were seen, what came out."""

    clearance_id: str
    carrier_id: str
    batch_id: str | None
    judged_at: datetime
    log_positions: tuple[int, ...]
    policy: str
    go: int
    go_with_exceptions: int
    wait: int
    waivers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RenewalRecord:
    renewal_id: str
    carrier_id: str
    chunk_id: str
    apps: tuple[str, ...]
    consent_digest: str
    request_digest: str
    requested_at: datetime
    due_at: datetime
    due_approximate: bool  # the calendar of working days did not reach that far: Mon-Fri counted


# ---- the parties' topics ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class IngressPositions:
    """How far a carrier's own topic has been taken in: partition -> next offset, of the topic with this id."""

    topic_id: str
    offsets: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """An answer that waits to be told on the topics. ``place``: which of the pair's answers, from 0."""

    number: int
    subscription_id: str
    chunk_id: str
    place: int


@dataclass(frozen=True, slots=True)
class Told:
    """What a carrier was told last of one chunk and app class: ``version`` counts, ``digest`` is of the content."""

    chunk_id: str
    app_class: str
    version: int
    digest: bytes


class Ledger(Protocol):
    keeps_outbox: bool
    """Set where somebody publishes answers on the topics: what nobody takes out of the outbox would only grow."""

    # -- cursors and receipts
    async def open_cursors(self, cursors: Sequence[Cursor]) -> None:
        """Create cursors that do not exist yet; existing ones stay as they are."""
        ...

    async def cursors(self, subscription_id: str | None = None) -> list[Cursor]: ...

    async def deliver(
        self,
        *,
        receipts: Sequence[Receipt] = (),
        parked: Sequence[ParkedChunk] = (),
        cursors: Sequence[Cursor] = (),
        attempts: Sequence[AttemptRecord] = (),
        fences: Fences | None = None,
    ) -> frozenset[int]:
        """Record what a dispatcher or a pull commit brought about, together. A cursor never moves backwards here; a
        receipt that exists stays; a receipt takes its chunk out of the parking place and the retry list.

        ``fences``: the epochs under which the caller delivers. Where one is no longer current somebody else delivers
        for that shard: nothing of its subscriptions is recorded, and the shard is among those returned."""
        ...

    async def rewind(self, subscription_id: str, cursors: Sequence[Cursor]) -> None:
        """Set cursors back (or forth) for a redrive. Receipts stay: repeats are the subscriber's to recognise."""
        ...

    async def belongs_to(self, log_id: str, *, replace: bool = False) -> str:
        """The log that the ledger belongs to: the first it was asked about, or from now on this one (``replace``)."""
        ...

    async def restart(self, cursors: Sequence[Cursor]) -> None:
        """Put ``cursors`` in the place of those there, their start included: another log is accepted."""
        ...

    async def order_redrive(self, order: RedriveOrder) -> None: ...

    async def redrive_orders(self) -> list[RedriveOrder]:
        """Those not carried out yet, oldest first."""
        ...

    async def redrive_done(self, order_ids: Sequence[str]) -> None: ...

    async def receipts_of(self, subscription_id: str, chunk_ids: Sequence[str]) -> dict[str, Receipt]: ...

    async def parked_of(self, subscription_id: str, *, limit: int = 1000) -> list[ParkedChunk]: ...

    async def parked_total(self) -> int:
        """Chunks in the parking place, all subscriptions together."""
        ...

    async def unpark(self, subscription_id: str, chunk_ids: Sequence[str]) -> int: ...

    async def deliveries_of(self, subscription_id: str, *, limit: int = 100) -> list[DeliveryRow]:
        """Newest first."""
        ...

    # -- catalogue
    async def catalogue(self, entries: Sequence[CatalogueEntry], positions: Mapping[int, int]) -> None:
        """List records and move the catalogue's own position per partition, together."""
        ...

    async def catalogue_positions(self) -> dict[int, int]: ...

    async def clear_catalogue(self) -> None: ...

    async def chunks_of_batch(self, batch_id: str) -> list[CatalogueEntry]: ...

    async def chunk(self, chunk_id: str) -> CatalogueEntry | None: ...

    # -- answers
    async def answer(self, answers: Sequence[Answer]) -> list[bool]:
        """Record answers; per answer True if it was new, False if it repeated the newest one. All or none."""
        ...

    async def standings(
        self, chunks: Sequence[tuple[str, int]], subscription_ids: Sequence[str]
    ) -> list[ChunkStanding]:
        """For (chunk id, row count) x subscriptions the effective codes; pairs never answered are left out."""
        ...

    async def answers_of(self, subscription_id: str, chunk_id: str) -> list[Answer]:
        """All facts, oldest first."""
        ...

    # -- batches
    async def put_batch(self, batch: Batch) -> None:
        """Insert or replace by ``batch_id``. Raises BatchConflict if (carrier, batch_seq) or (carrier, idempotency key)
        belongs to another batch id."""
        ...

    async def batch(self, batch_id: str) -> Batch | None: ...

    async def batch_by_key(self, carrier_id: str, idempotency_key: str) -> Batch | None: ...

    async def batches(
        self, carrier_id: str | None = None, *, state: str | None = None, limit: int = 100
    ) -> list[Batch]:
        """Newest first."""
        ...

    # -- clearance
    async def moment(self) -> int:
        """A number that grows with each change that may turn a "go" into a "wait": an answer corrected, a waiver put, a
        cursor opened, anything in the directory. To be read before all that a judgement rests on."""
        ...

    async def record_clearance(self, record: ClearanceRecord, *, since: int, chunk_ids: Collection[str]) -> bool:
        """Record a judgement that began to read at the moment ``since`` and rests on the answers to ``chunk_ids``.

        False, and nothing is kept, if such a change came after ``since`` and was about one of these chunks, or about
        anything but answers: judge anew. Looking and recording are one transaction: at its commit the judgement holds.
        """
        ...

    async def put_waiver(self, waiver: Waiver) -> None: ...

    async def waivers(self) -> list[Waiver]: ...

    # -- renewals
    async def put_renewal(self, renewal: RenewalRecord) -> None: ...

    async def renewal(self, renewal_id: str) -> RenewalRecord | None: ...

    # -- the parties' topics
    async def ingress_positions(self, carrier_id: str) -> IngressPositions | None:
        """None if nothing was ever taken in, or the positions were forgotten."""
        ...

    async def move_ingress(self, carrier_id: str, positions: IngressPositions) -> None:
        """A position never moves backwards, and never into another topic: then nothing is changed."""
        ...

    async def forget_ingress(self, carrier_id: str) -> bool:
        """An operator's act: the topic is taken in from its beginning again. True if there was something to forget."""
        ...

    async def outbox(self, after: int = 0, limit: int = 500) -> list[OutboxEntry]:
        """Answers not told yet, with a number above ``after``, ascending. Empty unless the ledger keeps an outbox."""
        ...

    async def outbox_size(self) -> int: ...

    async def told(self, chunk_ids: Sequence[str]) -> list[Told]: ...

    async def settle_outbox(self, numbers: Sequence[int], told: Sequence[Told] = ()) -> None:
        """The brokers have it: delete the entries and note what carriers were told, together."""
        ...

    # -- reports: rows of plain values, see flow.report for their meaning
    async def report(self, name: str, **filters: Any) -> list[dict[str, Any]]:
        """One of the named reports; every figure is counted from the rows of this ledger, nothing is remembered.

        ``published``: carrier_id, event_type, lane, day, chunks, numbers
        ``provinces``: province, event_type, numbers
        ``regions``: province, event_type, numbers_owed, numbers_received, numbers_answered, numbers_overdue   (by home
                     region; a chunk's rows count as answered once all of them are)
        ``delivery``: subscription_id, carrier_id, event_type, lane, day, chunks_owed, chunks_received,
                      chunks_parked, numbers_owed, numbers_received
        ``answers``: subscription_id, carrier_id, event_type, day, disposition, numbers
                     (effective, corrections applied)
        ``open``: subscription_id, event_type, chunks_open, numbers_open, oldest_reported_at, overdue_chunks,
                  oldest_due_at   (owed chunks not fully answered)
        ``clearances``: carrier_id, judged_at, batch_id, go, go_with_exceptions, wait
        ``batches``: carrier_id, batches, rows_seen, rows_accepted, rows_refused
        ``renewals``: day, requested, app_requests
        Filters: carrier_id, subscriber_id, app_class, since, until (days as YYYY-MM-DD, by reported_at in China time).
        """
        ...

    async def close(self) -> None: ...
