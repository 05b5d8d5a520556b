"""What subscriptions say about chunks: facts that are only ever added, and tallies by which they are counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sqlalchemy import Connection, select

from hub.adapters.sql.judgements import changed
from hub.adapters.sql.keys import Keys
from hub.adapters.sql.packing import apply_exceptions, ascending, counted, pack_exceptions, unpack_exceptions
from hub.adapters.sql.schema import answer_outbox, answer_tallies, answers, chunk_keys, subscription_keys
from hub.adapters.sql.statements import Insert, OfPairs, slices, two_columns
from hub.domain.dispositions import BY_NUMBER
from hub.domain.errors import InvalidRequest
from hub.ports.ledger import Answer, ChunkStanding
from hub.ports.log import Position

Codes = npt.NDArray[np.uint8]
Pair = tuple[int, int]  # subscription_no, chunk_no

_CODES = 1 + max(BY_NUMBER)
_add_answer = Insert(answers)
_add_tally = Insert(answer_tallies)
_to_tell = Insert(answer_outbox)

_pair = answers.c.subscription_no, answers.c.chunk_no
_digests_of = OfPairs(select(*_pair, answers.c.digest).order_by(*_pair, answers.c.place), _pair)
_fact = answers.c.place, answers.c.numbers, answers.c.default_code, answers.c.exceptions
_facts_of = OfPairs(select(*_pair, *_fact).order_by(*_pair, answers.c.place), _pair)


@dataclass(frozen=True, slots=True)
class Prepared:
    """An answer checked and packed, away from the writer's thread."""

    answer: Answer
    digest: bytes
    exceptions: bytes | None


def prepare(answer: Answer) -> Prepared:
    """Raises InvalidRequest if the rows of an exception are not ascending or lie outside the chunk."""
    for exception in answer.exceptions:
        if not ascending(exception.rows, answer.count):
            raise InvalidRequest("rows of an exception must be ascending and lie within the chunk")
    return Prepared(answer, pack_digest(answer.digest), pack_exceptions(answer.exceptions))


def pack_digest(digest: str) -> bytes:
    """Hexadecimal digests in half the space; any other text as it is."""
    if len(digest) % 2 == 0 and not digest.strip("0123456789abcdef"):
        return b"\x00" + bytes.fromhex(digest)
    return b"\x01" + digest.encode()


def unpack_digest(packed: bytes) -> str:
    return packed[1:].hex() if packed[:1] == b"\x00" else packed[1:].decode()


class _Fact(NamedTuple):
    """A stored answer, as far as replaying it needs."""

    place: int
    numbers: int
    default_code: int
    exceptions: bytes | None


def answer(conn: Connection, keys: Keys, calls: Sequence[Sequence[Prepared]], outbox: bool = False) -> list[list[bool]]:
    """Carry out many calls with few statements; per call and answer whether it was new.

    ``outbox``: note each new answer there, so that it is told on the topics once this transaction is committed.
    """
    subscription_no = keys.subscriptions(conn, {item.answer.subscription_id for call in calls for item in call})
    chunk_no = keys.chunks(conn, {item.answer.chunk_id: item.answer.position for call in calls for item in call})

    def pair_of(item: Prepared) -> Pair:
        return subscription_no[item.answer.subscription_id], chunk_no[item.answer.chunk_id]

    digests = _digests(conn, {pair_of(item) for call in calls for item in call})
    fresh: list[tuple[Pair, int, Prepared]] = []
    results = [_sift(call, pair_of, digests, fresh) for call in calls]
    if fresh:
        fresh.sort(key=lambda one: one[:2])  # processes that write the same rows take them in the same order
        again = {pair for pair, place, _ in fresh if place > 0}
        history = _facts(conn, again) if again else {}
        corrected: set[int] = set()
        tallies = [row for pair, place, item in fresh for row in _tally(pair, place, item, history, corrected)]
        _add_answer.run(conn, [_row(pair, place, item) for pair, place, item in fresh])
        _add_tally.run(conn, tallies)
        if outbox:
            _to_tell.run(
                conn,
                [{"subscription_no": pair[0], "chunk_no": pair[1], "place": place} for pair, place, _ in fresh],
            )
        if corrected:
            changed(conn, corrected)
    return results


def _sift(
    call: Sequence[Prepared], pair_of: Any, digests: dict[Pair, list[bytes]], fresh: list[tuple[Pair, int, Prepared]]
) -> list[bool]:
    """Tell new answers from repeats, and give the new ones their place. ``digests`` and ``fresh`` grow."""
    repeated: set[Pair] = set()
    if len(call) > 1:
        # A call may answer one pair several times over; if the stored facts end with just these, it is a repeat.
        said: dict[Pair, list[bytes]] = {}
        for item in call:
            said.setdefault(pair_of(item), []).append(item.digest)
        repeated = {pair for pair, these in said.items() if digests.get(pair, [])[-len(these) :] == these}
    news: list[bool] = []
    for item in call:
        pair = pair_of(item)
        known = digests.setdefault(pair, [])
        new = pair not in repeated and (not known or known[-1] != item.digest)
        if new:
            fresh.append((pair, len(known), item))
            known.append(item.digest)
        news.append(new)
    return news


def _digests(conn: Connection, pairs: set[Pair]) -> dict[Pair, list[bytes]]:
    found: dict[Pair, list[bytes]] = {}
    for subscription_no, chunk_no, digest in _digests_of.run(conn, sorted(pairs)):
        found.setdefault((subscription_no, chunk_no), []).append(bytes(digest))
    return found


def _facts(conn: Connection, pairs: set[Pair]) -> dict[Pair, list[_Fact]]:
    found: dict[Pair, list[_Fact]] = {}
    for subscription_no, chunk_no, *fact in _facts_of.run(conn, sorted(pairs)):
        found.setdefault((subscription_no, chunk_no), []).append(_Fact(*fact))
    return found


def _row(pair: Pair, place: int, item: Prepared) -> dict[str, Any]:
    said = item.answer
    return {
        "subscription_no": pair[0],
        "chunk_no": pair[1],
        "place": place,
        "numbers": said.count,
        "default_code": 0 if said.default is None else said.default.number,
        "default_review_at": said.default_review_at,
        "answered_at": said.answered_at,
        "digest": item.digest,
        "exceptions": item.exceptions,
    }


def _tally(
    pair: Pair, place: int, item: Prepared, history: dict[Pair, list[_Fact]], corrected: set[int]
) -> Iterator[dict[str, Any]]:
    """By how much this answer changes the effective counts of its pair. ``history`` learns the answer, ``corrected``
    the chunk if a row is answered otherwise than before."""
    said = item.answer
    default = 0 if said.default is None else said.default.number
    counts = counted(said.exceptions) if place == 0 else None
    if counts is not None:
        if default:
            counts[default] = counts.get(default, 0) + said.count - sum(counts.values())
        deltas: Iterable[tuple[int, int]] = [(code, counts[code]) for code in sorted(counts) if counts[code]]
    else:
        before = replay(history.get(pair, ()), said.count)
        after = before.copy() if default == 0 else np.full(said.count, default, np.uint8)
        apply_exceptions(after, said.exceptions)
        change = np.bincount(after, minlength=_CODES) - np.bincount(before, minlength=_CODES)
        deltas = [(int(code), int(change[code])) for code in np.flatnonzero(change) if code]
        if place and bool(((before != after) & (before != 0)).any()):
            corrected.add(pair[1])
    if pair in history or place == 0:
        history.setdefault(pair, []).append(_Fact(place, said.count, default, item.exceptions))
    for code, delta in deltas:
        yield {"subscription_no": pair[0], "chunk_no": pair[1], "place": place, "code": code, "delta": delta}


def replay(facts: Sequence[_Fact], count: int) -> Codes:
    """The effective code of each of ``count`` rows after ``facts`` (oldest first)."""
    start = 0
    for i in range(len(facts) - 1, -1, -1):
        if facts[i].default_code:  # answers every row anew: nothing before it matters
            start = i
            break
    codes = np.zeros(count, np.uint8)
    for fact in facts[start:]:
        if fact.default_code:
            codes[:] = fact.default_code
        if fact.exceptions is not None:
            apply_exceptions(codes, unpack_exceptions(bytes(fact.exceptions)))
    return codes


# ---- reading ---------------------------------------------------------------------------------------------------


def standings(
    conn: Connection, chunks: Sequence[tuple[str, int]], subscription_ids: Sequence[str]
) -> list[ChunkStanding]:
    """Chunks in the order asked for. The arrays are read-only."""
    subscriptions: dict[int, str] = {}
    for part in slices(dict.fromkeys(subscription_ids)):
        by_id = select(subscription_keys).where(subscription_keys.c.subscription_id.in_(part))
        subscriptions.update(two_columns(conn, by_id))
    if not subscriptions:
        return []
    found: list[ChunkStanding] = []
    for wanted in slices(dict(chunks).items(), 200):
        found += _standings(conn, dict(wanted), subscriptions)
    return found


def _standings(conn: Connection, counts: dict[str, int], subscriptions: dict[int, str]) -> Iterator[ChunkStanding]:
    by_id = select(chunk_keys.c.chunk_no, chunk_keys.c.chunk_id).where(chunk_keys.c.chunk_id.in_(list(counts)))
    chunk_ids: dict[int, str] = two_columns(conn, by_id)
    facts: dict[Pair, list[_Fact]] = {}
    for some in slices(subscriptions):
        query = select(
            answers.c.subscription_no,
            answers.c.chunk_no,
            answers.c.place,
            answers.c.numbers,
            answers.c.default_code,
            answers.c.exceptions,
        ).where(answers.c.subscription_no.in_(some), answers.c.chunk_no.in_(list(chunk_ids)))
        query = query.order_by(answers.c.subscription_no, answers.c.chunk_no, answers.c.place)
        for subscription_no, chunk_no, *fact in conn.execute(query):
            facts.setdefault((subscription_no, chunk_no), []).append(_Fact(*fact))
    number_of = {id_: number for number, id_ in chunk_ids.items()}
    order = {number_of[id_]: place for place, id_ in enumerate(counts) if id_ in number_of}
    for (subscription_no, chunk_no), history in sorted(facts.items(), key=lambda kv: (order[kv[0][1]], kv[0][0])):
        chunk_id = chunk_ids[chunk_no]
        yield ChunkStanding(chunk_id, subscriptions[subscription_no], _codes(history, counts[chunk_id]))


def _codes(history: Sequence[_Fact], count: int) -> Codes:
    newest = history[-1]
    if newest.default_code and newest.exceptions is None:
        # The usual answer, one disposition for all: a view of one byte instead of a byte per row.
        return np.broadcast_to(np.uint8(newest.default_code), (count,))
    codes = replay(history, count)
    codes.setflags(write=False)
    return codes


def answers_of(conn: Connection, subscription_id: str, chunk_id: str) -> list[Answer]:
    query = (
        select(answers, chunk_keys.c.part, chunk_keys.c.log_offset)
        .join_from(answers, chunk_keys, answers.c.chunk_no == chunk_keys.c.chunk_no)
        .join(subscription_keys, subscription_keys.c.subscription_no == answers.c.subscription_no)
        .where(subscription_keys.c.subscription_id == subscription_id, chunk_keys.c.chunk_id == chunk_id)
        .order_by(answers.c.place)
    )
    return [
        Answer(
            subscription_id=subscription_id,
            chunk_id=chunk_id,
            position=Position(row.part, row.log_offset),
            count=row.numbers,
            default=BY_NUMBER[row.default_code] if row.default_code else None,
            exceptions=unpack_exceptions(None if row.exceptions is None else bytes(row.exceptions)),
            digest=unpack_digest(bytes(row.digest)),
            answered_at=row.answered_at,
            default_review_at=row.default_review_at,
        )
        for row in conn.execute(query)
    ]
