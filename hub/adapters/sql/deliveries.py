"""Writing cursors, receipts, the parking place and the list of failed attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection, and_, bindparam, delete, exists, select

from hub.adapters.sql.judgements import changed
from hub.adapters.sql.keys import NO_PLACE, Keys, find_subscription
from hub.adapters.sql.leases import stale_fences
from hub.adapters.sql.schema import (
    LANE_NUMBER,
    attempts,
    chunk_keys,
    cursors,
    parked,
    receipts,
    to_micros,
)
from hub.adapters.sql.statements import Upsert, slices
from hub.domain.shards import shard_of
from hub.ports.leases import Fences
from hub.ports.ledger import AttemptRecord, Cursor, ParkedChunk, Receipt

_Item = TypeVar("_Item", Receipt, ParkedChunk, Cursor, AttemptRecord)

ATTEMPTS_KEPT = 12
"""Failed attempts kept per chunk and subscription: the whole retry schedule, no more."""

_CURSOR_KEYS = ["subscription_no", "part", "lane"]
_open_cursor = Upsert(cursors, _CURSOR_KEYS)
_advance_cursor = Upsert(
    cursors, _CURSOR_KEYS, ["next_offset"], guard=lambda new: cursors.c.next_offset < new.next_offset
)
_set_cursor = Upsert(cursors, _CURSOR_KEYS, ["next_offset"])
_put_cursor = Upsert.whole_row(cursors)
_new_receipt = Upsert(receipts, ["subscription_no", "chunk_no"])
_park = Upsert.whole_row(parked)
_put_attempt = Upsert.whole_row(attempts)

_unpark = delete(parked).where(
    parked.c.subscription_no == bindparam("subscription_no"), parked.c.chunk_no == bindparam("chunk_no")
)
_forget_attempts = delete(attempts).where(
    attempts.c.subscription_no == bindparam("subscription_no"), attempts.c.chunk_no == bindparam("chunk_no")
)
_any_trouble = select(exists(select(parked)), exists(select(attempts)))
_forget_old_attempts = delete(attempts).where(
    attempts.c.subscription_no == bindparam("subscription_no"),
    attempts.c.chunk_no == bindparam("chunk_no"),
    attempts.c.attempt <= bindparam("oldest"),
)


@dataclass(frozen=True, slots=True)
class Delivery:
    """The arguments of one `Ledger.deliver`."""

    receipts: Sequence[Receipt] = ()
    parked: Sequence[ParkedChunk] = ()
    cursors: Sequence[Cursor] = ()
    attempts: Sequence[AttemptRecord] = field(default=())
    fences: Fences = field(default_factory=dict)

    def without(self, stale: frozenset[int]) -> Delivery:
        """What does not concern the shards ``stale``."""
        if not stale & self.fences.keys():
            return self

        def kept(items: Sequence[_Item]) -> list[_Item]:
            return [item for item in items if shard_of(item.subscription_id) not in stale]

        return Delivery(kept(self.receipts), kept(self.parked), kept(self.cursors), kept(self.attempts))


def open_cursors(conn: Connection, keys: Keys, wanted: Sequence[Cursor]) -> None:
    """Where a new cursor begins decides who must answer, so a judgement may rest on it."""
    rows = _cursor_rows(conn, keys, wanted)
    subscriptions = sorted({row["subscription_no"] for row in rows})
    there: set[tuple[int, int, int]] = set()
    for part in slices(subscriptions):
        query = select(cursors.c.subscription_no, cursors.c.part, cursors.c.lane)
        there.update((a, b, c) for a, b, c in conn.execute(query.where(cursors.c.subscription_no.in_(part))))
    fresh = [row for row in rows if (row["subscription_no"], row["part"], row["lane"]) not in there]
    if fresh:
        _open_cursor.run(conn, fresh)
        changed(conn)


def rewind(conn: Connection, keys: Keys, subscription_id: str, wanted: Sequence[Cursor]) -> None:
    _set_cursor.run(conn, _cursor_rows(conn, keys, [c for c in wanted if c.subscription_id == subscription_id]))


def restart(conn: Connection, keys: Keys, wanted: Sequence[Cursor]) -> None:
    _put_cursor.run(conn, _cursor_rows(conn, keys, wanted))
    changed(conn)


def deliver(conn: Connection, keys: Keys, calls: Sequence[Delivery]) -> list[frozenset[int]]:
    """Carry out many calls with few statements. A receipt wins over a parking or attempt of the same group.

    Per call the shards whose part was left out because its epoch has passed.
    """
    fences = {(shard, epoch) for call in calls for shard, epoch in call.fences.items()}
    passed = stale_fences(conn, fences)
    stale = [frozenset(shard for shard, epoch in call.fences.items() if (shard, epoch) in passed) for call in calls]
    if passed:
        calls = [call.without(left_out) for call, left_out in zip(calls, stale, strict=True)]
    new_receipts = [receipt for call in calls for receipt in call.receipts]
    new_parked = [chunk for call in calls for chunk in call.parked]
    new_attempts = [attempt for call in calls for attempt in call.attempts]
    subscription_no = keys.subscriptions(
        conn, {item.subscription_id for items in (new_receipts, new_parked, new_attempts) for item in items}
    )
    places = {item.chunk_id: item.position for items in (new_receipts, new_parked) for item in items}
    for attempt in new_attempts:
        places.setdefault(attempt.chunk_id, NO_PLACE)
    chunk_no = keys.chunks(conn, places)

    if new_attempts:
        _record_attempts(conn, new_attempts, subscription_no, chunk_no)
    _park.run(
        conn,
        [
            {
                "subscription_no": subscription_no[item.subscription_id],
                "chunk_no": chunk_no[item.chunk_id],
                "parked_at": item.parked_at,
                "attempts": item.attempts,
                "reason": item.reason,
            }
            for item in new_parked
        ],
    )
    if new_receipts:
        rows = [
            (
                subscription_no[one.subscription_id],
                chunk_no[one.chunk_id],
                to_micros(one.received_at),
                one.attempts,
                one.via,
            )
            for one in new_receipts
        ]
        _new_receipt.run_raw(conn, rows)
        _clear_trouble(conn, [row[:2] for row in rows])
    _advance_cursor.run_raw(conn, _furthest(conn, keys, [cursor for call in calls for cursor in call.cursors]))
    return stale


def _clear_trouble(conn: Connection, received: list[tuple[int, int]]) -> None:
    """Take received chunks (subscription, chunk) out of the parking place and the list of attempts."""
    some = conn.execute(_any_trouble).one()
    if not any(some):
        return
    for there_are, table, statement in zip(some, (parked, attempts), (_unpark, _forget_attempts), strict=True):
        if not there_are:
            continue
        # Receivers in trouble are few: ask once which of these have rows at all.
        numbers = {subscription_no for subscription_no, _ in received}
        troubled: set[int] = set()
        for part in slices(numbers):
            found = select(table.c.subscription_no).where(table.c.subscription_no.in_(part)).distinct()
            troubled.update(conn.scalars(found))
        concerned = [{"subscription_no": one, "chunk_no": chunk} for one, chunk in received if one in troubled]
        if concerned:
            conn.execute(statement, concerned)


def _record_attempts(conn: Connection, wanted: Sequence[AttemptRecord], subscription_no: Any, chunk_no: Any) -> None:
    rows = [
        {
            "subscription_no": subscription_no[item.subscription_id],
            "chunk_no": chunk_no[item.chunk_id],
            "attempt": item.attempt,
            "at": item.at,
            "status": item.status,
            "reason": item.reason,
            "next_at": item.next_at,
        }
        for item in wanted
    ]
    _put_attempt.run(conn, rows)
    old = [
        {
            "subscription_no": row["subscription_no"],
            "chunk_no": row["chunk_no"],
            "oldest": row["attempt"] - ATTEMPTS_KEPT,
        }
        for row in rows
        if row["attempt"] > ATTEMPTS_KEPT
    ]
    if old:
        conn.execute(_forget_old_attempts, old)


def _cursor_rows(conn: Connection, keys: Keys, wanted: Sequence[Cursor]) -> list[dict[str, Any]]:
    subscription_no = keys.subscriptions(conn, {cursor.subscription_id for cursor in wanted})
    return [
        {
            "subscription_no": subscription_no[cursor.subscription_id],
            "part": cursor.partition,
            "lane": LANE_NUMBER[cursor.lane],
            "start_offset": cursor.start,
            "next_offset": cursor.offset,
        }
        for cursor in wanted
    ]


def _furthest(conn: Connection, keys: Keys, wanted: Sequence[Cursor]) -> list[tuple[int, ...]]:
    """One row per cursor: of several moves in one group only the furthest counts."""
    subscription_no = keys.subscriptions(conn, {cursor.subscription_id for cursor in wanted})
    furthest: dict[tuple[int, int, int], tuple[int, ...]] = {}
    for cursor in wanted:
        key = (subscription_no[cursor.subscription_id], cursor.partition, LANE_NUMBER[cursor.lane])
        known = furthest.get(key)
        if known is None or known[4] < cursor.offset:
            furthest[key] = (*key, cursor.start, cursor.offset)
    return list(furthest.values())


def unpark(conn: Connection, subscription_id: str, chunk_ids: Sequence[str]) -> int:
    """Take chunks out of the parking place; their attempts are counted afresh. Returns how many were parked."""
    subscription_no = find_subscription(conn, subscription_id)
    if subscription_no is None:
        return 0
    count = 0
    for part in slices(dict.fromkeys(chunk_ids)):
        numbers = select(chunk_keys.c.chunk_no).where(chunk_keys.c.chunk_id.in_(part))
        here = and_(parked.c.subscription_no == subscription_no, parked.c.chunk_no.in_(numbers))
        found = list(conn.scalars(delete(parked).where(here).returning(parked.c.chunk_no)))
        if found:
            tried = and_(attempts.c.subscription_no == subscription_no, attempts.c.chunk_no.in_(found))
            conn.execute(delete(attempts).where(tried))
        count += len(found)
    return count
