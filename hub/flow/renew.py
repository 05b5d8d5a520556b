"""Holder renewal (主动焕新): one new holder presses one key; chosen apps unbind what the former holder left.

In: a carrier's request for one number, with the apps and the digest of the holder's consent. Out: one record of the
live lane and, later, what each app did. Guaranteed: the request stands in the log before it is answered; the same
Idempotency-Key is the same renewal for ever, also after a crash between log and ledger, because the ledger's row is
made from the record that the log holds; only the requesting carrier can read it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import IntEnum

import numpy as np

from hub.domain.dispositions import BY_NUMBER, Disposition, Standing
from hub.domain.errors import (
    Forbidden,
    IdempotencyMismatch,
    InvalidRequest,
    LifecycleConflict,
    NotFound,
    RuleError,
    Unavailable,
)
from hub.domain.events import EventType, Lane
from hub.domain.lifecycle import TRANSITIONS, Phase, from_epoch
from hub.domain.numbers import partition_of
from hub.domain.parties import App, Party, Subscription
from hub.flow.append import Writer
from hub.flow.barrier import caught_up
from hub.flow.cooling import RecentRenewals
from hub.flow.fold import Fold
from hub.flow.members import Members
from hub.flow.reader import Reader
from hub.flow.workdays import beyond_calendar, due_after
from hub.ports.clock import Clock
from hub.ports.codec import Chunk, Codec
from hub.ports.ledger import Ledger, RenewalRecord
from hub.ports.log import EventLog, Header, NewRecord, Record
from hub.ports.number_index import NumberIndex, States
from hub.ports.number_plan import NumberPlan

COOLING = timedelta(hours=24)
"""The same number again so soon, under another key, is refused: a key pressed twice is one wish."""

TRIES = 8
_DAY = 86_400


@dataclass(frozen=True, slots=True)
class Request:
    """``number`` is 11 national digits; ``apps`` None = every app of the catalogue; ``acting_for`` an MVNO."""

    number: int
    activated_at: datetime
    apps: tuple[str, ...] | None
    consent_digest: str
    acting_for: str | None = None

    def digest(self) -> str:
        apps = "all" if self.apps is None else ",".join(sorted(set(self.apps)))
        told = f"{self.number}|{int(self.activated_at.timestamp())}|{apps}|{self.consent_digest}|{self.acting_for}"
        return hashlib.sha256(told.encode()).hexdigest()


class Progress(IntEnum):
    """How far an app is, in the order in which several subscriptions of one app are summed up: the least far counts."""

    queued = 0
    sent = 1
    failed = 2
    needs_holder_action = 3
    held = 4
    clear = 5
    not_connected = 6


_FINAL = frozenset({Progress.failed, Progress.needs_holder_action, Progress.held, Progress.clear})


@dataclass(frozen=True, slots=True)
class AppState:
    app: App
    progress: Progress
    reason: Disposition | None = None
    review_at: datetime | None = None
    overdue: bool = False


@dataclass(frozen=True, slots=True)
class Renewal:
    """``state`` is submitted, completed or completed_with_exceptions."""

    record: RenewalRecord
    number: int
    state: str
    apps: tuple[AppState, ...]


class Renew:
    def __init__(
        self,
        ledger: Ledger,
        fold: Fold,
        index: NumberIndex,
        log: EventLog,
        writer: Writer,
        reader: Reader,
        codec: Codec,
        members: Members,
        plan: NumberPlan,
        clock: Clock,
    ) -> None:
        self._ledger, self._index, self._writer, self._reader = ledger, index, writer, reader
        self._fold = fold
        self._partitions = log.partitions
        self._codec, self._members, self._plan, self._clock = codec, members, plan, clock
        self._recent = RecentRenewals(log, fold, codec, clock, COOLING)

    def apps(self) -> list[App]:
        """The catalogue a renewal can choose from, by app id."""
        return sorted(self._members.snapshot.apps.values(), key=lambda app: app.app_id)

    # ---- asking

    async def request(self, carrier_id: str, key: str, asked: Request) -> Renewal:
        """Start a renewal, or find the one this key started.

        Raises IdempotencyMismatch, InvalidRequest (unknown apps, a future activation), Forbidden (acting for somebody
        it may not), RuleError (``no_such_block``, ``foreign_block``, ``renewal_cooling_down``), LifecycleConflict.
        """
        renewal_id = "ren_" + hashlib.sha256(f"{carrier_id}|{key}".encode()).hexdigest()[:24]
        record_id = "evt_" + hashlib.sha256(f"{carrier_id}|renewal|{key}".encode()).hexdigest()[:32]
        digest = asked.digest()
        await caught_up(self._fold)
        known = await self._ledger.renewal(renewal_id) or await self._completed(carrier_id, record_id)
        if known is None:
            await self._append(carrier_id, renewal_id, record_id, digest, asked)
            known = await self._completed(carrier_id, record_id)
        if known is None:
            raise Unavailable("The renewal stands in the log but cannot be read back; repeat with the same key.")
        if known.request_digest != digest:
            raise IdempotencyMismatch
        return await self.view(carrier_id, renewal_id)

    async def _append(self, carrier_id: str, renewal_id: str, record_id: str, digest: str, asked: Request) -> None:
        now = self._clock.now()
        carrier = self._carrier(carrier_id, asked.acting_for)
        apps = self._chosen(asked.apps)
        if asked.activated_at > now:
            raise InvalidRequest("activated_at lies in the future.", code="future_time")
        await self._recent.ready()
        due_at, _ = due_after(now, self._members.policy.renewal_working_days)
        partition = partition_of(asked.number, self._partitions)
        numbers = np.array([asked.number], np.int64)
        for _ in range(TRIES):
            states = self._index.lookup(partition, numbers)
            self._judge(carrier, asked, states)
            if self._recent.within(asked.number, now):
                raise RuleError("A renewal of this number was asked for in the last 24 h.", code="renewal_cooling_down")
            chunk = Chunk(
                record_id=record_id,
                event_type=EventType.renewal_requested,
                lane=Lane.live,
                reported_at=int(now.timestamp()),
                numbers=numbers,
                generation=states["generation"].copy(),
                seq=states["seq"] + np.uint16(1),
                occurred_at=np.array([int(now.timestamp())], np.int64),
                binding_cutoff_at=np.array([int(asked.activated_at.timestamp())], np.int64),
                renewal={
                    "renewal_id": renewal_id,
                    "due_at": int(due_at.timestamp()),
                    "consent_digest": asked.consent_digest,
                },
            )
            headers = {
                Header.kind: "chunk",
                Header.type: EventType.renewal_requested.value,
                Header.lane: Lane.live.value,
                Header.carrier: carrier.party_id,
                Header.carrier_no: str(carrier.carrier_no),
                Header.count: "1",
                Header.reported_at: str(chunk.reported_at),
                Header.apps: ",".join(apps),
                Header.request_digest: digest,
                Header.renewal: renewal_id,
            }
            [accepted] = await self._writer.append(
                [NewRecord(partition, record_id, headers, self._codec.encode(chunk))]
            )
            if accepted:
                self._recent.note(asked.number, now)
                return
        raise Unavailable("The number keeps changing; repeat in a moment.")

    def _carrier(self, carrier_id: str, acting_for: str | None) -> Party:
        me = self._members.party(carrier_id)
        if me is None:
            raise NotFound
        if acting_for is None or acting_for == carrier_id:
            return me
        other = self._members.party(acting_for) if acting_for in me.acting_for else None
        if other is None:
            raise Forbidden("You are not registered to act for that party.")
        return other

    def _chosen(self, apps: tuple[str, ...] | None) -> list[str]:
        catalogue = self._members.snapshot.apps
        if apps is None:
            return sorted(catalogue)
        unknown = [place for place, app_id in enumerate(apps) if app_id not in catalogue]
        if unknown:
            raise InvalidRequest(
                "Some apps are not in the catalogue (GET /v1/apps).",
                parts=[
                    {"pointer": f"/apps/{place}", "code": "unknown_app", "detail": "not in the catalogue"}
                    for place in unknown[:20]
                ],
            )
        return sorted(set(apps))

    def _judge(self, carrier: Party, asked: Request, states: States) -> None:
        """May this carrier ask for this number now?  The holder must hold the line: no freeze, no sale in between."""
        state = states[0]
        block = self._plan.find(asked.number)
        if block is None:
            raise RuleError("No such number block was issued.", code="no_such_block")
        served = int(state["carrier"]) == carrier.carrier_no
        if carrier.block_holders and block.holder not in carrier.block_holders and not served:
            raise RuleError("This number's block is not yours, and you never reported it.", code="foreign_block")
        if (Phase(int(state["phase"])), EventType.renewal_requested) not in TRANSITIONS or state["seq"] == 0xFFFF:
            raise LifecycleConflict("The number is not in use; a renewal is for a line that is active.")
        if int(asked.activated_at.timestamp()) + _DAY < int(state["holder_since"]):
            # It would move the present holder's beginning back, and older bindings of the former one would survive.
            raise LifecycleConflict("activated_at lies before the present holder's activation that the hub knows of.")

    async def _completed(self, carrier_id: str, record_id: str) -> RenewalRecord | None:
        """The ledger's row, made from the accepted record of this id; None if the log holds none."""
        record = await self._record(record_id)
        if record is None:
            return None
        chunk, headers = self._codec.decode(record.body), record.headers
        renewal = chunk.renewal or {}
        made = RenewalRecord(
            renewal_id=headers[Header.renewal],
            carrier_id=carrier_id,
            chunk_id=record_id,
            apps=_app_ids(headers),
            consent_digest=str(renewal["consent_digest"]),
            request_digest=headers[Header.request_digest],
            requested_at=from_epoch(chunk.reported_at),
            due_at=from_epoch(int(renewal["due_at"])),
            due_approximate=beyond_calendar(from_epoch(int(renewal["due_at"]))),
        )
        await self._ledger.put_renewal(made)
        return made

    async def _record(self, record_id: str) -> Record | None:
        position = self._index.find(record_id)
        if position is None:
            return None
        found, _ = await self._reader.read(position.partition, position.offset, 1)
        return found[0].record if found and found[0].record.record_id == record_id else None

    # ---- following

    async def view(self, carrier_id: str, renewal_id: str) -> Renewal:
        """How far each app is. Raises NotFound for other carriers' renewals too."""
        renewal = await self._ledger.renewal(renewal_id)
        if renewal is None or renewal.carrier_id != carrier_id:
            raise NotFound
        record = await self._record(renewal.chunk_id)
        if record is None:
            raise Unavailable("The renewal's record is not folded in yet; repeat in a moment.")
        connected = await self._connected(record)
        ids = [s.subscription_id for subscriptions in connected.values() for s in subscriptions]
        standings = await self._ledger.standings([(renewal.chunk_id, 1)], ids) if ids else []
        codes = {standing.subscription_id: int(standing.codes[0]) for standing in standings}
        states = []
        for app_id in renewal.apps:
            app = self._members.snapshot.apps.get(app_id)
            if app is not None:
                states.append(await self._app_state(app, connected.get(app_id, ()), codes, renewal))
        return Renewal(renewal, int(self._codec.decode(record.body).numbers[0]), _overall(states), tuple(states))

    async def _connected(self, record: Record) -> dict[str, list[Subscription]]:
        """The subscriptions that the record goes to, by app. A pause changes nothing: it waits there for them."""
        now, apps = self._clock.now(), set(_app_ids(record.headers))
        entitled = [
            subscription
            for subscription in self._members.snapshot.subscriptions.values()
            if subscription.app_id in apps and self._members.entitled(subscription, record.headers, now)
        ]
        whose = [subscription.subscription_id for subscription in entitled] if len(entitled) < 9 else [None]
        owed = {
            cursor.subscription_id
            for subscription_id in whose
            for cursor in await self._ledger.cursors(subscription_id)
            if cursor.partition == record.partition and cursor.lane is Lane.live and cursor.start <= record.offset
        }
        found: dict[str, list[Subscription]] = {}
        for subscription in entitled:
            if subscription.subscription_id in owed:
                found.setdefault(subscription.app_id, []).append(subscription)
        return found

    async def _app_state(
        self, app: App, subscriptions: Sequence[Subscription], codes: Mapping[str, int], renewal: RenewalRecord
    ) -> AppState:
        found = [await self._one(subscription, codes, renewal) for subscription in subscriptions]
        progress, reason, review_at = min(found, default=(Progress.not_connected, None, None), key=lambda one: one[0])
        open_ = progress in (Progress.queued, Progress.sent)
        return AppState(app, progress, reason, review_at, overdue=open_ and self._clock.now() > renewal.due_at)

    async def _one(
        self, subscription: Subscription, codes: Mapping[str, int], renewal: RenewalRecord
    ) -> tuple[Progress, Disposition | None, datetime | None]:
        said = BY_NUMBER.get(codes.get(subscription.subscription_id, 0))
        if said is None:
            receipts = await self._ledger.receipts_of(subscription.subscription_id, [renewal.chunk_id])
            return (Progress.sent if receipts else Progress.queued), None, None
        match said.standing:
            case Standing.done:
                return Progress.clear, None, None  # unbound and no_account look alike to everybody but the app
            case Standing.pending:
                return Progress.sent, None, None
            case Standing.failed:
                return Progress.failed, said, None
        if said is Disposition.needs_holder_action:
            return Progress.needs_holder_action, said, None
        return Progress.held, said, await self._review_at(subscription, renewal.chunk_id)

    async def _review_at(self, subscription: Subscription, chunk_id: str) -> datetime | None:
        """The date on which the newest hold will be looked at again."""
        for answer in reversed(await self._ledger.answers_of(subscription.subscription_id, chunk_id)):
            for exception in answer.exceptions:
                if 0 in exception.rows:
                    return exception.review_at
            if answer.default is not None:
                return answer.default_review_at
        return None


def _overall(states: Sequence[AppState]) -> str:
    connected = [state.progress for state in states if state.progress is not Progress.not_connected]
    if not _FINAL.issuperset(connected):
        return "submitted"
    clear = bool(connected) and all(progress is Progress.clear for progress in connected)
    return "completed" if clear else "completed_with_exceptions"


def _app_ids(headers: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(app_id for app_id in headers.get(Header.apps, "").split(",") if app_id)
