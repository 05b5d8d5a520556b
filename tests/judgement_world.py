"""A hub in a few dicts, for tests of what is judged: clearance, renewal, check. No I/O, no clock but its own."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from hub.domain.batches import Batch, BatchState, ContentEncoding, ContentFormat
from hub.domain.dispositions import Disposition
from hub.domain.events import EventType, Lane, Purpose
from hub.domain.lifecycle import CHINA, OUTCOME, Phase
from hub.domain.numbers import partition_of
from hub.domain.parties import (
    Agreement,
    App,
    AppClass,
    DeliveryMode,
    Party,
    Role,
    Subscription,
    SubscriptionState,
)
from hub.flow.members import Members
from hub.ports.codec import Chunk
from hub.ports.ledger import (
    AnswerException,
    CatalogueEntry,
    ChunkStanding,
    ClearanceRecord,
    Cursor,
    DirectorySnapshot,
    Receipt,
    RenewalRecord,
    Waiver,
)
from hub.ports.log import Header, NewRecord, Position, Record
from hub.ports.number_index import STATE
from hub.ports.number_plan import Block

START = datetime(2026, 6, 1, 4, tzinfo=UTC)
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
PARTITIONS = 4


def china(year: int, month: int, day: int, hour: int = 0) -> datetime:
    return datetime(year, month, day, hour, tzinfo=CHINA)


@dataclass
class HandClock:
    moment: datetime = START
    ticks: float = 0.0

    def now(self) -> datetime:
        return self.moment

    def monotonic(self) -> float:
        self.ticks += 0.001
        return self.ticks

    async def sleep(self, seconds: float) -> None:
        self.ticks += seconds


class PickleCodec:
    def encode(self, chunk: Chunk) -> bytes:
        return pickle.dumps(chunk)

    def plain(self, body: bytes) -> bytes:
        return body

    def decode(self, body: bytes) -> Chunk:
        chunk: Chunk = pickle.loads(body)
        return chunk


class DictIndex:
    def __init__(self) -> None:
        self.states: dict[int, np.void] = {}
        self.ids: dict[str, Position] = {}
        self.before_lookup: Callable[[], None] = lambda: None

    def lookup(self, partition: int, numbers: Any) -> Any:
        self.before_lookup()
        found = np.zeros(len(numbers), STATE)
        for place, number in enumerate(numbers.tolist()):
            assert partition_of(number, PARTITIONS) == partition
            if number in self.states:
                found[place] = self.states[number]
        return found

    def find(self, record_id: str) -> Position | None:
        return self.ids.get(record_id)


@dataclass
class Readable:
    record: Record

    def plain(self) -> bytes:
        return self.record.body


class ListLog:
    partitions = PARTITIONS
    log_id = "log"

    def __init__(self) -> None:
        self.records: list[list[Record]] = [[] for _ in range(PARTITIONS)]

    async def ends(self) -> list[int]:
        return [len(records) for records in self.records]

    async def read(self, partition: int, offset: int, **_: Any) -> list[Record]:
        return self.records[partition][offset:]


class SameFold:
    """Everything is folded as it is appended."""

    def __init__(self, log: ListLog) -> None:
        self.log, self.callbacks, self.caught_up = log, [], 0

    async def catch_up(self, *, proven: object = False) -> list[int]:
        self.caught_up += 1
        return await self.log.ends()

    def positions(self) -> list[int]:
        return [self.position(partition) for partition in range(PARTITIONS)]

    def position(self, partition: int) -> int:
        return len(self.log.records[partition])

    def is_visible(self, position: Position) -> bool:
        return self.log.records[position.partition][position.offset].headers[Header.kind] == "chunk"

    def subscribe(self, callback: Any) -> Callable[[], None]:
        self.callbacks.append(callback)
        return lambda: self.callbacks.remove(callback)


class ListReader:
    def __init__(self, log: ListLog) -> None:
        self.log = log

    async def read(self, partition: int, offset: int, max_records: int = 64) -> tuple[list[Readable], int]:
        found = [Readable(record) for record in self.log.records[partition][offset : offset + max_records]]
        return found, offset + len(found)


class DictLedger:
    def __init__(self) -> None:
        self.opened: list[Cursor] = []
        self.codes: dict[tuple[str, str], np.ndarray] = {}
        self.reviews: dict[tuple[str, str], datetime] = {}
        self.given: set[tuple[str, str]] = set()
        self.clearances: list[ClearanceRecord] = []
        self.changes = 0  # to be raised by a test that corrects an answer
        self.all_waivers: list[Waiver] = []
        self.all_renewals: dict[str, RenewalRecord] = {}
        self.all_batches: dict[str, Batch] = {}
        self.entries: list[CatalogueEntry] = []
        self.listed: dict[int, int] | None = None
        self.before_standings: Callable[[], None] = lambda: None

    async def cursors(self, subscription_id: str | None = None) -> list[Cursor]:
        return [c for c in self.opened if subscription_id in (None, c.subscription_id)]

    async def standings(self, chunks: Sequence[tuple[str, int]], subscription_ids: Sequence[str]) -> Any:
        self.before_standings()
        return [
            ChunkStanding(chunk, subscription, self.codes[chunk, subscription])
            for chunk, _ in chunks
            for subscription in subscription_ids
            if (chunk, subscription) in self.codes
        ]

    async def answers_of(self, subscription_id: str, chunk_id: str) -> list[Any]:
        from hub.domain.dispositions import BY_NUMBER
        from hub.ports.ledger import Answer

        if (chunk_id, subscription_id) not in self.codes:
            return []
        codes = self.codes[chunk_id, subscription_id]
        review = self.reviews.get((chunk_id, subscription_id))
        said = BY_NUMBER[int(codes[0])]
        exception = AnswerException(said, np.zeros(1, np.uint16), review)
        return [Answer(subscription_id, chunk_id, Position(0, 0), 1, None, (exception,), "d", START)]

    async def receipts_of(self, subscription_id: str, chunk_ids: Sequence[str]) -> dict[str, Receipt]:
        return {
            chunk: Receipt(subscription_id, chunk, Position(0, 0), START, 1, "pull")
            for chunk in chunk_ids
            if (chunk, subscription_id) in self.given
        }

    async def moment(self) -> int:
        return self.changes

    async def record_clearance(self, record: ClearanceRecord, *, since: int, chunk_ids: Collection[str]) -> bool:
        if since == self.changes:
            self.clearances.append(record)
        return since == self.changes

    async def waivers(self) -> list[Waiver]:
        return list(self.all_waivers)

    async def put_waiver(self, waiver: Waiver) -> None:
        self.all_waivers.append(waiver)

    async def renewal(self, renewal_id: str) -> RenewalRecord | None:
        return self.all_renewals.get(renewal_id)

    async def put_renewal(self, renewal: RenewalRecord) -> None:
        self.all_renewals[renewal.renewal_id] = renewal

    async def batch(self, batch_id: str) -> Batch | None:
        return self.all_batches.get(batch_id)

    async def batches(
        self, carrier_id: str | None = None, *, state: str | None = None, limit: int = 100
    ) -> list[Batch]:
        found = [
            b for b in self.all_batches.values() if carrier_id in (None, b.carrier_id) and state in (None, b.state)
        ]
        return sorted(found, key=lambda b: b.created_at, reverse=True)[:limit]

    async def chunks_of_batch(self, batch_id: str) -> list[CatalogueEntry]:
        return [entry for entry in self.entries if entry.batch_id == batch_id]

    async def catalogue_positions(self) -> dict[int, int]:
        return self.listed if self.listed is not None else dict.fromkeys(range(PARTITIONS), 1 << 40)


class DictDirectory:
    def __init__(self) -> None:
        self.current = DirectorySnapshot(1, {}, {}, {}, (), {}, {})

    async def version(self) -> int:
        return self.current.version

    async def snapshot(self) -> DirectorySnapshot:
        return self.current

    def change(self, **parts: Any) -> None:
        self.current = replace(self.current, version=self.current.version + 1, **parts)


class TinyPlan:
    """Blocks 13xxxxx are cmcc's, 16xxxxx an MVNO's on cmcc, 15xxxxx nobody's."""

    source_version = "tiny"
    holders = ("", "cmcc", "mvno:cmcc")
    provinces = ("", "广东")

    def find(self, national: int) -> Block | None:
        holder = {13: "cmcc", 16: "mvno:cmcc"}.get(national // 10**9)
        return Block(holder, "广东", "深圳") if holder else None

    def holder_of(self, numbers: Any) -> Any:
        lead = numbers // 10**9
        return np.where(lead == 13, 1, np.where(lead == 16, 2, 0)).astype(np.uint8)

    def province_of(self, numbers: Any) -> Any:
        return np.where(self.holder_of(numbers) > 0, 1, 0).astype(np.uint8)


@dataclass
class World:
    clock: HandClock = field(default_factory=HandClock)
    codec: PickleCodec = field(default_factory=PickleCodec)
    index: DictIndex = field(default_factory=DictIndex)
    log: ListLog = field(default_factory=ListLog)
    ledger: DictLedger = field(default_factory=DictLedger)
    directory: DictDirectory = field(default_factory=DictDirectory)
    plan: TinyPlan = field(default_factory=TinyPlan)

    def __post_init__(self) -> None:
        self.fold, self.reader = SameFold(self.log), ListReader(self.log)
        self.members = Members(self.directory, self.clock)  # type: ignore[arg-type]

    # ---- who takes part

    def party(self, party_id: str, role: Role = Role.carrier, **parts: Any) -> Party:
        parties = dict(self.directory.current.parties)
        no = 1 + sum(p.carrier_no > 0 for p in parties.values()) if role is Role.carrier else 0
        made = Party(party_id, role, party_id, CREATED, carrier_no=no, **parts)
        self.directory.change(parties={**parties, party_id: made})
        return made

    def app(self, app_id: str, app_class: AppClass, *, subscribed: bool = True, start: int = 0) -> str:
        """An app of a subscriber of its own, with an agreement and, unless told not to, a subscription."""
        now = self.directory.current
        whose = f"of-{app_id}"
        self.party(whose, Role.subscriber)
        agreement = Agreement(
            f"agr_{app_id}", "*", whose, Purpose.account_unbind, "p", CREATED, CREATED + timedelta(days=999), CREATED
        )
        self.directory.change(
            apps={**now.apps, app_id: App(app_id, whose, app_class, app_id.title(), CREATED)},
            agreements=(*now.agreements, agreement),
        )
        if subscribed:
            self.subscribe(app_id, start=start)
        return f"sub_{app_id}"

    def subscribe(self, app_id: str, *, start: int = 0, name: str = "", **parts: Any) -> str:
        now = self.directory.current
        app, subscription_id = now.apps[app_id], f"sub_{name or app_id}"
        made = Subscription(
            subscription_id=subscription_id,
            subscriber_id=app.subscriber_id,
            app_id=app_id,
            app_class=app.app_class,
            purpose=Purpose.account_unbind,
            event_types=frozenset(EventType),
            lanes=frozenset(Lane),
            mode=DeliveryMode.pull,
            state=SubscriptionState.active,
            created_at=CREATED,
        )
        made = replace(made, **parts)
        self.directory.change(subscriptions={**now.subscriptions, subscription_id: made})
        self.ledger.opened += [
            Cursor(subscription_id, p, lane, start, start) for p in range(PARTITIONS) for lane in Lane
        ]
        return subscription_id

    def alter(self, subscription_id: str, **parts: Any) -> None:
        now = self.directory.current.subscriptions
        self.directory.change(subscriptions={**now, subscription_id: replace(now[subscription_id], **parts)})

    # ---- what happened

    def publish(
        self,
        event: EventType,
        numbers: Sequence[int],
        *,
        carrier: str = "cmcc",
        cutoff: datetime = START - timedelta(days=100),
        batch: str | None = None,
        lane: Lane = Lane.bulk,
    ) -> list[Record]:
        """Append and fold, one record per partition; the states need not allow it."""
        records = []
        for partition in range(PARTITIONS):
            mine = np.array(sorted(n for n in numbers if partition_of(n, PARTITIONS) == partition), np.int64)
            if not len(mine):
                continue
            states = self.index.lookup(partition, mine)
            fresh = OUTCOME[event].new_generation
            generation = states["generation"] + (1 if fresh else 0)
            seq = np.ones_like(states["seq"]) if fresh else states["seq"] + 1
            cause = f"{event}|{mine.tolist()}|{len(self.log.records[partition])}"
            record_id = "evt_" + hashlib.sha256(cause.encode()).hexdigest()[:32]
            at = np.full(len(mine), int(cutoff.timestamp()))
            reported = int(self.clock.now().timestamp())
            chunk = Chunk(record_id, event, lane, reported, mine, generation, seq, at, at)
            headers = {
                Header.kind: "chunk",
                Header.type: event.value,
                Header.lane: lane.value,
                Header.carrier: carrier,
                Header.carrier_no: str(self.directory.current.parties[carrier].carrier_no),
                Header.count: str(len(mine)),
                Header.reported_at: str(reported),
            }
            if batch:
                headers[Header.batch] = batch
            records.append(self.take(NewRecord(partition, record_id, headers, self.codec.encode(chunk))))
        return records

    def take(self, new: NewRecord) -> Record:
        """Append a record and fold it in."""
        offset = len(self.log.records[new.partition])
        appended = int(self.clock.now().timestamp() * 1000)
        record = Record(new.partition, offset, new.record_id, new.headers, new.body, appended)
        self.log.records[new.partition].append(record)
        chunk = self.codec.decode(new.body)
        event = chunk.event_type
        for row, number in enumerate(chunk.numbers.tolist()):
            state = self.index.states.get(number, np.zeros((), STATE)).copy()
            unknown = state["phase"] == Phase.unknown
            cutoff = int(chunk.binding_cutoff_at[row])
            state["generation"], state["seq"] = chunk.generation[row], chunk.seq[row]
            state["phase"] = OUTCOME[event].to
            state["carrier"] = int(new.headers[Header.carrier_no])
            if event in (EventType.deactivated, EventType.release_scheduled):
                state["ended_at"] = cutoff
            if event in (EventType.restored, EventType.reassigned, EventType.owner_transferred):
                state["ended_at"] = state["duty"] = 0
            if event is EventType.release_scheduled:
                state["duty"] = 1 + offset
            if event is EventType.release_cancelled:
                state["duty"] = 0
            if event in (EventType.reassigned, EventType.owner_transferred) or (
                event is EventType.renewal_requested and (unknown or state["generation"])
            ):
                state["holder_since"] = cutoff
            self.index.states[number] = state
        self.index.ids[new.record_id] = record.position
        when = datetime.fromtimestamp(chunk.reported_at, UTC)
        self.ledger.entries.append(
            CatalogueEntry(
                new.record_id,
                record.position,
                event,
                chunk.lane,
                new.headers[Header.carrier],
                len(chunk),
                when,
                when,
                new.headers.get(Header.batch),
            )
        )
        for callback in self.fold.callbacks:
            callback(new.partition, [record])
        return record

    def answer(
        self, subscription_id: str, records: Sequence[Record], default: Disposition | None, **by_number: Disposition
    ) -> None:
        """``n13800000001=Disposition.held_funds`` answers that number otherwise."""
        for record in records:
            numbers = self.codec.decode(record.body).numbers
            codes = self.ledger.codes.setdefault((record.record_id, subscription_id), np.zeros(len(numbers), np.uint8))
            if default is not None:
                codes[:] = default.number
            for name, disposition in by_number.items():
                codes[numbers == int(name[1:])] = disposition.number

    def batch(self, batch_id: str, carrier: str = "cmcc", seq: int = 1, **parts: Any) -> Batch:
        made = Batch(
            batch_id=batch_id,
            carrier_id=carrier,
            acting_for=None,
            batch_seq=seq,
            event_type=EventType.release_scheduled,
            declared_rows=0,
            declared_sha256="0" * 64,
            content_format=ContentFormat.csv,
            content_encoding=ContentEncoding.identity,
            idempotency_key=batch_id,
            request_digest="",
            state=BatchState.committed,
            created_at=self.clock.now(),
            committed_at=self.clock.now(),
        )
        made = replace(made, **parts)
        self.ledger.all_batches[batch_id] = made
        return made

    def waive(self, subscriber_id: str, batch_id: str | None = None, **parts: Any) -> Waiver:
        waiver = Waiver(
            f"wai_{len(self.ledger.all_waivers)}", subscriber_id, batch_id, "p", "r", "miit", CREATED, "jws"
        )
        waiver = replace(waiver, **parts)
        self.ledger.all_waivers.append(waiver)
        return waiver

    def headers(self, record: Record) -> Mapping[str, str]:
        return record.headers


class WorldWriter:
    """Appends to the world; ``void_times`` appends are taken by somebody else first."""

    def __init__(self, world: World) -> None:
        self.world, self.appended, self.before = world, 0, lambda: None

    async def append(self, records: Sequence[NewRecord]) -> list[bool]:
        self.before()
        verdicts = []
        for record in records:
            if record.record_id in self.world.index.ids:
                verdicts.append(True)
                continue
            chunk = self.world.codec.decode(record.body)
            states = self.world.index.lookup(record.partition, chunk.numbers)
            if (states["seq"] + 1 != chunk.seq).any():
                verdicts.append(False)
                continue
            self.world.take(record)
            self.appended += 1
            verdicts.append(True)
        return verdicts
