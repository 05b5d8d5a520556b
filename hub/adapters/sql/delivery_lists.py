"""Reading cursors, receipts, the parking place and the list of failed attempts."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, func, select

from hub.adapters.sql.keys import find_subscription
from hub.adapters.sql.schema import (
    LANE_BY_NUMBER,
    attempts,
    chunk_keys,
    cursors,
    parked,
    receipts,
    subscription_keys,
)
from hub.adapters.sql.statements import slices
from hub.ports.ledger import Cursor, DeliveryRow, ParkedChunk, Receipt
from hub.ports.log import Position


def all_cursors(conn: Connection, subscription_id: str | None) -> list[Cursor]:
    query = (
        select(
            subscription_keys.c.subscription_id,
            cursors.c.part,
            cursors.c.lane,
            cursors.c.start_offset,
            cursors.c.next_offset,
        )
        .join_from(cursors, subscription_keys, cursors.c.subscription_no == subscription_keys.c.subscription_no)
        .order_by(cursors.c.subscription_no, cursors.c.part, cursors.c.lane)
    )
    if subscription_id is not None:
        query = query.where(subscription_keys.c.subscription_id == subscription_id)
    return [
        Cursor(id_, part, LANE_BY_NUMBER[lane], start, offset) for id_, part, lane, start, offset in conn.execute(query)
    ]


def receipts_of(conn: Connection, subscription_id: str, chunk_ids: Sequence[str]) -> dict[str, Receipt]:
    subscription_no = find_subscription(conn, subscription_id)
    found: dict[str, Receipt] = {}
    for part in slices(dict.fromkeys(chunk_ids)) if subscription_no is not None else ():
        query = (
            select(
                chunk_keys.c.chunk_id,
                chunk_keys.c.part,
                chunk_keys.c.log_offset,
                receipts.c.received_at,
                receipts.c.attempts,
                receipts.c.via,
            )
            .join_from(chunk_keys, receipts, receipts.c.chunk_no == chunk_keys.c.chunk_no)
            .where(chunk_keys.c.chunk_id.in_(part), receipts.c.subscription_no == subscription_no)
        )
        for chunk_id, partition, offset, received_at, tried, via in conn.execute(query):
            place = Position(partition, offset)
            found[chunk_id] = Receipt(subscription_id, chunk_id, place, received_at, tried, via)
    return found


def parked_total(conn: Connection) -> int:
    return int(conn.execute(select(func.count()).select_from(parked)).scalar_one())


def parked_of(conn: Connection, subscription_id: str, limit: int) -> list[ParkedChunk]:
    subscription_no = find_subscription(conn, subscription_id)
    query = (
        select(
            chunk_keys.c.chunk_id,
            chunk_keys.c.part,
            chunk_keys.c.log_offset,
            parked.c.parked_at,
            parked.c.attempts,
            parked.c.reason,
        )
        .join_from(parked, chunk_keys, parked.c.chunk_no == chunk_keys.c.chunk_no)
        .where(parked.c.subscription_no == subscription_no)
        .order_by(parked.c.parked_at, parked.c.chunk_no)
        .limit(limit)
    )
    return [
        ParkedChunk(subscription_id, chunk_id, Position(partition, offset), at, tried, reason)
        for chunk_id, partition, offset, at, tried, reason in conn.execute(query)
    ]


def deliveries_of(conn: Connection, subscription_id: str, limit: int) -> list[DeliveryRow]:
    subscription_no = find_subscription(conn, subscription_id)
    received = (
        select(chunk_keys.c.chunk_id, receipts.c.received_at, receipts.c.attempts)
        .join_from(receipts, chunk_keys, receipts.c.chunk_no == chunk_keys.c.chunk_no)
        .where(receipts.c.subscription_no == subscription_no)
        .order_by(receipts.c.received_at.desc())
        .limit(limit)
    )
    aside = (
        select(chunk_keys.c.chunk_id, parked.c.parked_at, parked.c.attempts, parked.c.reason)
        .join_from(parked, chunk_keys, parked.c.chunk_no == chunk_keys.c.chunk_no)
        .where(parked.c.subscription_no == subscription_no)
        .order_by(parked.c.parked_at.desc())
        .limit(limit)
    )
    newest = (
        select(attempts.c.chunk_no, func.max(attempts.c.attempt).label("attempt"))
        .where(attempts.c.subscription_no == subscription_no)
        .group_by(attempts.c.chunk_no)
        .subquery()
    )
    is_parked = select(parked.c.chunk_no).where(
        parked.c.subscription_no == subscription_no, parked.c.chunk_no == attempts.c.chunk_no
    )
    retrying = (
        select(chunk_keys.c.chunk_id, attempts.c.at, attempts.c.attempt, attempts.c.reason)
        .join_from(
            newest,
            attempts,
            and_(attempts.c.chunk_no == newest.c.chunk_no, attempts.c.attempt == newest.c.attempt),
        )
        .join(chunk_keys, chunk_keys.c.chunk_no == attempts.c.chunk_no)
        .where(attempts.c.subscription_no == subscription_no, ~is_parked.exists())
        .order_by(attempts.c.at.desc())
        .limit(limit)
    )
    rows = [DeliveryRow(subscription_id, id_, "received", at, tried) for id_, at, tried in conn.execute(received)]
    for state, query in (("parked", aside), ("retrying", retrying)):
        rows += [
            DeliveryRow(subscription_id, id_, state, at, tried, why) for id_, at, tried, why in conn.execute(query)
        ]
    rows.sort(key=lambda row: row.at, reverse=True)
    return rows[:limit]
