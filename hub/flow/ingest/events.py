"""Single events of the live lane: judged, appended, folded, and only then answered.

An item's id follows from carrier, idempotency key and its place in the call, so a call may be repeated after any
failure: what the log accepted is answered as accepted, with the same id. Each record carries the digest of its whole
call, so that a key is never continued with other items. Items about one number are taken in their
order, each judged after the one before it is folded.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from hub.domain.errors import (
    Forbidden,
    IdempotencyInProgress,
    IdempotencyMismatch,
    InvalidNumber,
    TooManyRequests,
)
from hub.domain.events import EventType, Lane, TerminateReason
from hub.domain.numbers import PhoneNumber
from hub.domain.refusals import BY_NUMBER, Refusal
from hub.flow.append import Writer
from hub.flow.barrier import caught_up
from hub.flow.fold import Fold
from hub.flow.ingest.chunks import (
    Cleared,
    Columns,
    make_record,
    partition_of_all,
    record_id,
    states_of,
)
from hub.flow.ingest.judge import Claims, Judgement, judge
from hub.flow.ingest.publisher import Publisher, publisher_for
from hub.flow.members import Members
from hub.ports.clock import Clock
from hub.ports.codec import Codec
from hub.ports.log import EventLog, Header, NewRecord
from hub.ports.metrics import Metrics
from hub.ports.number_index import NumberIndex
from hub.ports.number_plan import NumberPlan

MAX_TRIES = 8
RETRY_AT_MOST = 5
"""Seconds a caller that is pushed back is asked to wait at most."""

_REASONS = {None: 0} | {reason: place for place, reason in enumerate(TerminateReason, start=1)}


@dataclass(frozen=True, slots=True)
class Item:
    """What a carrier says of one number. Times are epoch seconds, 0 = not stated; ``number`` 0 = unreadable.

    ``reason`` is 0 or 1 + the place in TerminateReason.
    """

    number: int = field(repr=False)
    event_type: EventType
    occurred_at: int
    terminated_at: int = 0
    release_planned_at: int = 0
    reason: int = 0
    acting_for: str | None = None

    @classmethod
    def said(
        cls,
        number: str,
        event_type: EventType,
        occurred_at: datetime,
        terminated_at: datetime | None = None,
        release_planned_at: datetime | None = None,
        reason: TerminateReason | None = None,
        acting_for: str | None = None,
    ) -> Item:
        """From what a carrier wrote; a number that cannot be read spoils this item only."""
        try:
            national = PhoneNumber.parse(number).national
        except InvalidNumber:
            national = 0
        occurred, ended, planned = map(_epoch, (occurred_at, terminated_at, release_planned_at))
        return cls(national, event_type, occurred, ended, planned, _REASONS[reason], acting_for)

    @property
    def digest(self) -> str:
        said = (
            self.number,
            self.event_type.value,
            self.occurred_at,
            self.terminated_at,
            self.release_planned_at,
            self.reason,
            self.acting_for,
        )
        return hashlib.sha256("|".join(map(str, said)).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Verdict:
    """``refusal`` None: the event stands in the log under ``event_id``. ``id_reused``: the carrier gave this id to
    something else before, so nothing was judged."""

    event_id: str
    refusal: Refusal | None = None
    detail: str | None = None
    id_reused: bool = False

    @property
    def accepted(self) -> bool:
        return self.refusal is None and not self.id_reused


class Events:
    """Takes in live events. Concurrent calls share the log's group commits."""

    def __init__(
        self,
        members: Members,
        index: NumberIndex,
        fold: Fold,
        log: EventLog,
        writer: Writer,
        codec: Codec,
        plan: NumberPlan,
        clock: Clock,
        metrics: Metrics,
        cleared: Cleared,
        lag: Callable[[], float | None] = lambda: None,
        lag_limit: float = 0.0,
    ) -> None:
        """``lag``: seconds that a live event accepted now would wait for its delivery; beyond ``lag_limit`` (0 = never)
        callers are pushed back, so that what is accepted does not grow old without bound."""
        self._lag, self._lag_limit = lag, lag_limit
        self._members, self._log, self._index, self._fold, self._writer = members, log, index, fold, writer
        self._codec, self._plan, self._clock, self._metrics = codec, plan, clock, metrics
        self._cleared = cleared
        self._in_progress: set[tuple[str, str]] = set()

    async def publish(self, caller_id: str, idempotency_key: str, items: Sequence[Item]) -> list[Verdict]:
        """One verdict per item, in order, each final: accepted means appended and folded.

        Raises Forbidden (the caller is no carrier), IdempotencyMismatch (something was accepted
        under this key in another call), IdempotencyInProgress, TooManyRequests (more is accepted than can be
        delivered), Unavailable (repeat with the same key).
        """
        self._push_back()
        publishers = self._publishers(caller_id, items)
        call = (caller_id, idempotency_key)
        if call in self._in_progress:
            raise IdempotencyInProgress
        self._in_progress.add(call)
        try:
            digest = _digest(items)
            names = [record_id(caller_id, idempotency_key, place) for place in range(len(items))]
            await caught_up(self._fold)  # or the state, and the key's own trace, might be missed
            verdicts: dict[int, Verdict] = {}
            for place, (name, item) in enumerate(zip(names, items, strict=True)):
                if await self._is_in_log(name, digest):
                    verdicts[place] = Verdict(name)
                elif (refusal := _unreadable(item)) is not None:
                    verdicts[place] = Verdict(name, *refusal)
                elif item.acting_for not in publishers:
                    verdicts[place] = Verdict(name, Refusal.not_acting_for)
            rest = [place for place in range(len(items)) if place not in verdicts]
            digests = [digest] * len(items)
            for turn in _rounds(items, rest):
                verdicts |= await self._take_in(turn, items, names, publishers, digests)
        finally:
            self._in_progress.discard(call)
        return self._counted(verdicts)

    async def publish_each(self, caller_id: str, keyed: Sequence[tuple[str, Item]]) -> list[Verdict]:
        """Items that stand each under a key of its own: the same events as so many calls of `publish` with one item.

        In the order given; all of them are appended together. A key used for another item before, or earlier in
        ``keyed``, is told in its verdict and nothing else suffers. Raises Forbidden, TooManyRequests, Unavailable
        (repeat all).
        """
        self._push_back()
        items = [item for _, item in keyed]
        publishers = self._publishers(caller_id, items)
        names = [record_id(caller_id, key, 0) for key, _ in keyed]
        digests = [_digest([item]) for item in items]
        await caught_up(self._fold)
        verdicts: dict[int, Verdict] = {}
        first: dict[str, int] = {}
        repeats: list[int] = []
        rest: list[int] = []
        for place, (name, digest, item) in enumerate(zip(names, digests, items, strict=True)):
            try:
                if name in first:
                    if digests[first[name]] != digest:
                        raise IdempotencyMismatch
                    repeats.append(place)
                    continue
                first[name] = place
                if await self._is_in_log(name, digest):
                    verdicts[place] = Verdict(name)
                elif (refusal := _unreadable(item)) is not None:
                    verdicts[place] = Verdict(name, *refusal)
                elif item.acting_for not in publishers:
                    verdicts[place] = Verdict(name, Refusal.not_acting_for)
                else:
                    rest.append(place)
            except IdempotencyMismatch:
                verdicts[place] = Verdict(name, id_reused=True)
        for turn in _rounds(items, rest):
            verdicts |= await self._take_in(turn, items, names, publishers, digests)
        verdicts |= {place: verdicts[first[names[place]]] for place in repeats}
        return self._counted(verdicts)

    def _counted(self, verdicts: dict[int, Verdict]) -> list[Verdict]:
        for verdict in verdicts.values():
            if verdict.refusal is not None:
                self._metrics.count("numhub_rows_refused_total", reason=verdict.refusal.value)
        return [verdicts[place] for place in range(len(verdicts))]

    def _push_back(self) -> None:
        lag = self._lag() if self._lag_limit else None
        if lag is not None and lag > self._lag_limit:
            # The queue is as long as the limit: who comes back too early asks once more, who comes too late finds the
            # hub idle. The lag is an estimate, so rather early.
            wait = min(max(math.ceil((lag - self._lag_limit) / 4), 1), RETRY_AT_MOST)
            raise TooManyRequests(
                "Live events are accepted faster than they can be delivered; nothing was taken in.", retry_after=wait
            )

    def _publishers(self, caller_id: str, items: Sequence[Item]) -> dict[str | None, Publisher]:
        """The caller, and whom it may act for, by what the items name; raises Forbidden if it is no carrier."""
        found: dict[str | None, Publisher] = {None: publisher_for(self._members, self._plan, caller_id, None)}
        for party in {item.acting_for for item in items} - {None}:
            with contextlib.suppress(Forbidden):
                found[party] = publisher_for(self._members, self._plan, caller_id, party)
        return found

    async def _is_in_log(self, name: str, digest: str) -> bool:
        """Was this item of this very call accepted before? Raises IdempotencyMismatch if the key was another call's."""
        position = self._index.find(name)
        if position is None:
            return False
        records = await self._log.read(position.partition, position.offset, max_records=1)
        if not records or records[0].record_id != name:
            return False
        if records[0].headers.get(Header.request_digest) != digest:
            raise IdempotencyMismatch
        return True

    async def _take_in(
        self,
        turn: list[int],
        items: Sequence[Item],
        names: Sequence[str],
        publishers: dict[str | None, Publisher],
        digests: Sequence[str],
    ) -> dict[int, Verdict]:
        """Items about different numbers: judge and append until each is in the log or refused."""
        verdicts: dict[int, Verdict] = {}
        for _ in range(MAX_TRIES):
            records: list[NewRecord] = []
            places: list[int] = []
            for group in _groups(turn, items):
                group = self._sorted(group, items)
                publisher = publishers[items[group[0]].acting_for]
                now = int(self._clock.now().timestamp())
                found = await self._judge(group, items, publisher, now)
                for row, place in enumerate(group):
                    code = int(found.refusal[row])
                    if code:
                        # an earlier try in doubt may have been folded since: then it is its own trace that was judged
                        late = await self._is_in_log(names[place], digests[place])
                        verdicts[place] = Verdict(names[place], None if late else BY_NUMBER[code])
                    else:
                        name, digest = names[place], digests[place]
                        records.append(self._record(found, row, items[place], name, publisher, now, digest))
                        places.append(place)
            if not records:
                return verdicts
            accepted = await self._writer.append(records)
            turn = []
            for place, done in zip(places, accepted, strict=True):
                if done:
                    verdicts[place] = Verdict(names[place])
                else:
                    turn.append(place)
            if not turn:
                return verdicts
        return verdicts | {place: Verdict(names[place], Refusal.number_changed_meanwhile) for place in turn}

    def _sorted(self, group: list[int], items: Sequence[Item]) -> list[int]:
        """By (partition, number), as the index wants it."""
        if len(group) == 1:
            return group
        numbers = np.array([items[place].number for place in group], np.int64)
        order = np.lexsort((numbers, partition_of_all(numbers, self._log.partitions)))
        return [group[at] for at in order.tolist()]

    async def _judge(self, group: Sequence[int], items: Sequence[Item], publisher: Publisher, now: int) -> Judgement:
        said = [items[place] for place in group]
        event = said[0].event_type
        numbers = np.array([item.number for item in said], np.int64)
        found = judge(
            event,
            states_of(self._index, self._log.partitions, numbers),
            Claims(
                occurred_at=np.array([item.occurred_at for item in said], np.int64),
                terminated_at=np.array([item.terminated_at for item in said], np.int64),
                release_planned_at=np.array([item.release_planned_at for item in said], np.int64),
                reason=np.array([item.reason for item in said], np.uint8),
            ),
            holder=self._plan.holder_of(numbers),
            may_publish=publisher.may_publish,
            carrier_no=publisher.carrier_no,
            now=now,
            freeze_days=self._members.policy.freeze_days,
        )
        if event is EventType.released and not found.refusal.all():
            asked = np.flatnonzero(found.refusal == 0)
            free = await self._cleared(publisher.carrier_id, numbers[asked])
            found.refusal[asked[~free]] = Refusal.not_cleared.number
        return found

    def _record(
        self, found: Judgement, row: int, item: Item, name: str, publisher: Publisher, now: int, digest: str
    ) -> NewRecord:
        one = slice(row, row + 1)
        numbers = np.array([item.number], np.int64)
        columns = Columns(
            numbers=numbers,
            generation=found.generation[one],
            seq=found.seq[one],
            occurred_at=found.occurred_at[one],
            binding_cutoff_at=found.binding_cutoff_at[one],
            release_planned_at=found.release_planned_at[one],
            reason=found.reason[one],
        )
        partition = int(partition_of_all(numbers, self._log.partitions)[0])
        return make_record(
            self._codec,
            publisher,
            name,
            item.event_type,
            Lane.live,
            partition,
            now,
            columns,
            request_digest=digest,
        )


def _epoch(moment: datetime | None) -> int:
    return 0 if moment is None else int(moment.timestamp())


def _digest(items: Sequence[Item]) -> str:
    """Of a whole call: the same only for the same items in the same order."""
    return hashlib.sha256("|".join(item.digest for item in items).encode()).hexdigest()


def _unreadable(item: Item) -> tuple[Refusal, str | None] | None:
    if not item.number:
        return Refusal.invalid_number, None
    if item.event_type is EventType.renewal_requested:
        return Refusal.invalid_value, "a holder's request needs consent: send it to POST /v1/renewals"
    return None


def _rounds(items: Sequence[Item], places: Iterable[int]) -> list[list[int]]:
    """Places such that no number stands twice in a round and a number's items keep their order."""
    rounds: list[list[int]] = []
    seen: dict[int, int] = {}
    for place in places:
        turn = seen.get(items[place].number, 0)
        seen[items[place].number] = turn + 1
        if turn == len(rounds):
            rounds.append([])
        rounds[turn].append(place)
    return rounds


def _groups(places: Iterable[int], items: Sequence[Item]) -> list[list[int]]:
    """Places of one event type and one publisher each."""
    groups: dict[tuple[EventType, str | None], list[int]] = {}
    for place in places:
        groups.setdefault((items[place].event_type, items[place].acting_for), []).append(place)
    return list(groups.values())
