"""The history of a run, as those around the hub saw it, and the checker that judges it whole (RELIABILITY.md 2, 3).

In: every call with its start, end and outcome, every delivery as it arrived, and what the hub's files hold after the
last restart. Out: a list of findings, empty if every invariant held. Nothing is sampled; all comparisons are of sets
and sequences. Moments are seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

FINAL = frozenset(
    (
        "unbound", "no_account", "already_rebound", "rejected_cutoff", "held_funds", "held_debt", "held_legal",
        "held_dispute", "held_memorial", "needs_holder_action",
    )
)  # fmt: skip
"""Dispositions that count as an answer for clearance, here written down a second time on purpose."""

Said = tuple[str | None, tuple[tuple[str, tuple[int, ...]], ...]]
"""An answer: the default, then (disposition, rows) of the exceptions, ascending."""


@dataclass(slots=True)
class EventsCall:
    """One idempotency key. ``heard`` has an entry per definite answer: per item the event id, None if refused."""

    carrier: str
    key: str
    items: list[tuple[int, str]]  # (number, event type)
    started: float
    ended: float = 0.0  # of the last definite answer
    doubts: int = 0
    heard: list[list[str | None]] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)  # (place, reason)
    open: set[int] = field(default_factory=set)  # places refused for now only: a repeat may be accepted
    misused: str = "not tried"  # the key with another body: "refused" or "accepted"


@dataclass(slots=True)
class BatchSent:
    carrier: str
    key: str
    event_type: str
    good: list[int]  # numbers that must be accepted
    resting: frozenset[int]  # those whose freeze is not over
    refused: int  # bad rows in the file
    started: float
    ended: float = 0.0
    batch_ids: list[str] = field(default_factory=list)  # one per definite answer
    accepted: int = -1
    refused_told: int = -1


@dataclass(frozen=True, slots=True)
class Delivery:
    """A body that the subscriber took (2xx to a webhook, or a pulled page)."""

    at: float
    subscription_id: str
    chunk_id: str
    event_type: str
    lane: str
    rows: tuple[tuple[int, int, int], ...]  # (number, generation, seq)
    digest: str  # of the bytes


@dataclass(slots=True)
class AnswerSent:
    subscription_id: str
    chunk_id: str
    count: int
    said: Said
    started: float
    ended: float | None = None  # None: never acknowledged


@dataclass(frozen=True, slots=True)
class VerdictsHeard:
    started: float
    ended: float
    verdicts: dict[int, str]


@dataclass(frozen=True, slots=True)
class Wishes:
    event_types: frozenset[str]
    lanes: frozenset[str]

    def want(self, event_type: str, lane: str) -> bool:
        return event_type in self.event_types and lane in self.lanes


@dataclass(slots=True)
class History:
    subscriptions: dict[str, Wishes] = field(default_factory=dict)
    calls: list[EventsCall] = field(default_factory=list)
    batches: list[BatchSent] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=list)
    answers: list[AnswerSent] = field(default_factory=list)
    verdicts: list[VerdictsHeard] = field(default_factory=list)
    kills: int = 0


@dataclass(slots=True)
class Kept:
    """What the hub's own files hold at the end."""

    receipts: set[tuple[str, str]] = field(default_factory=set)  # (subscription, chunk)
    parked: set[tuple[str, str]] = field(default_factory=set)
    batch_chunks: dict[str, dict[str, int]] = field(default_factory=dict)  # batch id -> chunk id -> rows
    facts: dict[tuple[str, str], list[Said]] = field(default_factory=dict)  # oldest first
    codes: dict[tuple[str, str], tuple[str | None, ...]] = field(default_factory=dict)  # effective, per row


@dataclass(frozen=True, slots=True)
class Finding:
    invariant: str
    what: str

    def __str__(self) -> str:
        return f"{self.invariant}: {self.what}"


def check(history: History, kept: Kept) -> list[Finding]:
    """Everything that breaks an invariant; see the functions for which."""
    judge = _Judge(history, kept)
    rules = (judge.repeats, judge.loss, judge.phantoms, judge.bytes_, judge.order, judge.answers, judge.clearance)
    return [finding for rule in rules for finding in rule()]


class _Judge:
    def __init__(self, history: History, kept: Kept) -> None:
        self.history, self.kept = history, kept
        self.live: dict[str, tuple[int, str]] = {}  # accepted event id -> (number, event type)
        for call in history.calls:
            for answer in call.heard:
                for item, event_id in zip(call.items, answer, strict=True):
                    if event_id is not None:
                        self.live[event_id] = item
        self.bulk: dict[str, str] = {
            chunk_id: batch_id for batch_id, chunks in kept.batch_chunks.items() for chunk_id in chunks
        }
        self.first: dict[str, dict[str, Delivery]] = defaultdict(dict)  # subscription -> chunk -> first delivery
        for delivery in history.deliveries:
            self.first[delivery.subscription_id].setdefault(delivery.chunk_id, delivery)

    def repeats(self) -> Iterator[Finding]:
        """S5: the same key gives the same answer for ever, and never serves another body."""
        for call in self.history.calls:
            if not call.heard:
                yield Finding("L1", f"call {call.key} was never answered")
            for before, after in pairwise(call.heard):
                pairs = enumerate(zip(before, after, strict=True))
                if any(a != b and not (a is None and place in call.open) for place, (a, b) in pairs):
                    yield Finding("S5", f"call {call.key} got different answers: {call.heard}, {call.refused}")
            if call.misused == "accepted":
                yield Finding("S5", f"call {call.key}: another body was taken under the same key")
        owners = Counter(
            event_id for call in self.history.calls for event_id in (call.heard or [[]])[-1] if event_id is not None
        )
        yield from (Finding("S5", f"{event_id} stands for two events") for event_id, n in owners.items() if n > 1)
        for batch in self.history.batches:
            if len(set(batch.batch_ids)) != 1:
                yield Finding("S5", f"batch {batch.key} has the ids {sorted(set(batch.batch_ids))}")
            if (batch.accepted, batch.refused_told) != (len(batch.good), batch.refused):
                told = f"{batch.accepted} accepted, {batch.refused_told} refused"
                yield Finding("S5", f"batch {batch.key}: {told} of {len(batch.good)} good and {batch.refused} bad rows")

    def loss(self) -> Iterator[Finding]:
        """S1: what was accepted reached everybody entitled, and the ledger holds a receipt or a parked row for it."""
        for subscription_id, wishes in self.history.subscriptions.items():
            first = self.first[subscription_id]
            for event_id, (_, event_type) in self.live.items():
                if wishes.want(event_type, "live"):
                    yield from self._settled(subscription_id, event_id, event_id in first)
            for batch in self.history.batches:
                if not wishes.want(batch.event_type, "bulk"):
                    continue
                chunks = self.kept.batch_chunks.get(batch.batch_ids[0], {}) if batch.batch_ids else {}
                for chunk_id in chunks:
                    yield from self._settled(subscription_id, chunk_id, chunk_id in first)
                came = {n for c in chunks if c in first for n, _, _ in first[c].rows}
                parked = any((subscription_id, c) in self.kept.parked for c in chunks)
                missing = set(batch.good) - came
                if missing and not parked:
                    yield Finding("S1", f"{len(missing)} numbers of batch {batch.key} never came to {subscription_id}")

    def _settled(self, subscription_id: str, chunk_id: str, came: bool) -> Iterator[Finding]:
        pair = (subscription_id, chunk_id)
        if pair in self.kept.parked:
            return
        if not came:
            yield Finding("S1", f"{chunk_id} never came to {subscription_id}")
        if pair not in self.kept.receipts:
            yield Finding("S1", f"the ledger has neither receipt nor parked row for {chunk_id} at {subscription_id}")

    def phantoms(self) -> Iterator[Finding]:
        """S2: what arrived was accepted, in these rows, and was meant for this subscriber."""
        good = {b.batch_ids[0]: (b.event_type, set(b.good)) for b in self.history.batches if b.batch_ids}
        for subscription_id, first in self.first.items():
            wishes = self.history.subscriptions[subscription_id]
            in_bulk: Counter[tuple[str, int]] = Counter()
            for chunk_id, delivery in first.items():
                numbers = {number for number, _, _ in delivery.rows}
                if not wishes.want(delivery.event_type, delivery.lane):
                    yield Finding("S2", f"{chunk_id} is nothing {subscription_id} asked for")
                if chunk_id in self.live:
                    if (delivery.event_type, numbers) != (self.live[chunk_id][1], {self.live[chunk_id][0]}):
                        yield Finding("S2", f"{chunk_id} says something else than was published")
                elif chunk_id in self.bulk:
                    event_type, rows = good.get(self.bulk[chunk_id], ("", set()))
                    if delivery.event_type != event_type or not numbers <= rows:
                        yield Finding("S2", f"{chunk_id} holds rows that its batch does not")
                    in_bulk.update((self.bulk[chunk_id], number) for number in numbers)
                else:
                    yield Finding("S2", f"{chunk_id} came to {subscription_id} and was never accepted")
            twice = sum(count > 1 for count in in_bulk.values())
            if twice:
                yield Finding("S2", f"{twice} rows of one batch came to {subscription_id} in two chunks")

    def bytes_(self) -> Iterator[Finding]:
        """S3: one id, one body, for every subscriber, repeat and path."""
        seen: dict[str, str] = {}
        changed = {d.chunk_id for d in self.history.deliveries if seen.setdefault(d.chunk_id, d.digest) != d.digest}
        yield from (Finding("S3", f"{chunk_id} came with different bytes") for chunk_id in sorted(changed))

    def order(self) -> Iterator[Finding]:
        """S4: per subscriber and lane, a number's events first arrive in the order of (generation, seq)."""
        newest: dict[tuple[str, str, int], tuple[int, int]] = {}
        seen: set[tuple[str, str]] = set()
        for delivery in self.history.deliveries:  # in the order in which they arrived
            if (delivery.subscription_id, delivery.chunk_id) in seen:
                continue
            seen.add((delivery.subscription_id, delivery.chunk_id))
            for number, generation, seq in delivery.rows:
                key = (delivery.subscription_id, delivery.lane, number)
                if newest.get(key, (-1, 0)) >= (generation, seq):
                    yield Finding("S4", f"{delivery.chunk_id} came to {delivery.subscription_id} after a newer event")
                newest[key] = (generation, seq)

    def answers(self) -> Iterator[Finding]:
        """S6: every acknowledged answer stands in the ledger, in its order, nothing else does, and the effective
        dispositions are what follows from them."""
        sent: dict[tuple[str, str], list[AnswerSent]] = defaultdict(list)
        for answer in self.history.answers:
            sent[answer.subscription_id, answer.chunk_id].append(answer)
        for pair, ours in sent.items():
            facts = self.kept.facts.get(pair, [])
            left = iter(facts)
            lost = [answer for answer in ours if answer.ended is not None and answer.said not in left]
            if lost:
                yield Finding("S6", f"{len(lost)} acknowledged answers of {pair[0]} to {pair[1]} are not in the ledger")
            elif all(answer.ended is not None for answer in ours) and self.kept.codes.get(pair) != _effective(ours):
                yield Finding("S6", f"the effective answers of {pair[0]} to {pair[1]} are not those given last")
            if not set(facts) <= {answer.said for answer in ours}:
                yield Finding("S6", f"the ledger holds an answer of {pair[0]} to {pair[1]} that was never given")
        strangers = self.kept.facts.keys() - sent.keys()
        yield from (Finding("S6", f"the ledger holds answers of {s} to {c}, who gave none") for s, c in strangers)

    def clearance(self) -> Iterator[Finding]:
        """S9, S10, S12: no go before everybody's final answer was sent, during a freeze, or after a withdrawal."""
        scheduled: dict[int, str] = {}  # number -> its chunk
        resting = {number for batch in self.history.batches for number in batch.resting}
        for delivery in self.history.deliveries:
            if delivery.event_type == "release_scheduled" and delivery.lane == "bulk":
                scheduled.update((number, delivery.chunk_id) for number, _, _ in delivery.rows)
        rows: dict[str, dict[int, int]] = {}
        for delivery in self.history.deliveries:
            rows.setdefault(delivery.chunk_id, {number: row for row, (number, _, _) in enumerate(delivery.rows)})
        final = self._final_since(rows)
        asked = [s for s, wishes in self.history.subscriptions.items() if wishes.want("release_scheduled", "bulk")]
        gone = {
            number: call.ended
            for call in self.history.calls
            if call.heard
            for (number, event_type), event_id in zip(call.items, call.heard[-1], strict=True)
            if event_id is not None and event_type in ("release_cancelled", "released")
        }
        for heard in self.history.verdicts:
            for number, verdict in heard.verdicts.items():
                if verdict == "wait":
                    continue
                chunk_id = scheduled.get(number)
                early = [s for s in asked if not final.get((s, chunk_id or "", number), 1e18) < heard.ended]
                if early:
                    yield Finding("S9", f"{verdict} for a number of {chunk_id} before {', '.join(early)} had answered")
                if number in resting:
                    yield Finding("S10", f"{verdict} for a number that still rests")
                if gone.get(number, 1e18) < heard.started:
                    yield Finding("S12", f"{verdict} for a number that was withdrawn or sold before")

    def _final_since(self, rows: dict[str, dict[int, int]]) -> dict[tuple[str, str, int], float]:
        """(subscription, chunk, number) -> when the first final answer about it was sent."""
        since: dict[tuple[str, str, int], float] = {}
        for answer in self.history.answers:
            numbers = {row: number for number, row in rows.get(answer.chunk_id, {}).items()}
            default, exceptions = answer.said
            said = dict.fromkeys(numbers, default) if default else {}
            said |= {row: disposition for disposition, places in exceptions for row in places}
            for row, disposition in said.items():
                if disposition in FINAL and row in numbers:
                    key = (answer.subscription_id, answer.chunk_id, numbers[row])
                    since[key] = min(since.get(key, 1e18), answer.started)
        return since


def _effective(answers: list[AnswerSent]) -> tuple[str | None, ...]:
    codes: list[str | None] = [None] * answers[0].count
    for answer in answers:
        default, exceptions = answer.said
        if default is not None:
            codes = [default] * answer.count
        for disposition, rows in exceptions:
            for row in rows:
                codes[row] = disposition
    return tuple(codes)
