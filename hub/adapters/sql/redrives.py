"""Orders to deliver again, until they are carried out."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from hub.adapters.sql.schema import LANE_BY_NUMBER, LANE_NUMBER, redrive_orders
from hub.adapters.sql.statements import Upsert
from hub.ports.ledger import Cursor, RedriveOrder

_put = Upsert.whole_row(redrive_orders)


def put(conn: Connection, order: RedriveOrder) -> None:
    places = [[cursor.partition, LANE_NUMBER[cursor.lane], cursor.start, cursor.offset] for cursor in order.cursors]
    row = {
        "order_id": order.order_id,
        "subscription_id": order.subscription_id,
        "offsets": places,
        "chunk_ids": list(order.chunk_ids),
        "ordered_at": order.ordered_at,
    }
    _put.run(conn, [row])


def pending(conn: Connection) -> list[RedriveOrder]:
    rows = conn.execute(select(redrive_orders).order_by(redrive_orders.c.ordered_at, redrive_orders.c.order_id))
    return [
        RedriveOrder(
            row.order_id,
            row.subscription_id,
            tuple(
                Cursor(row.subscription_id, partition, LANE_BY_NUMBER[lane], start, offset)
                for partition, lane, start, offset in row.offsets
            ),
            tuple(row.chunk_ids),
            row.ordered_at,
        )
        for row in rows
    ]


def done(conn: Connection, order_ids: Sequence[str]) -> None:
    conn.execute(delete(redrive_orders).where(redrive_orders.c.order_id.in_(order_ids)))
