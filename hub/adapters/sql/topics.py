"""The parties' topics: how far carriers' records are taken in, which answers are still to be told."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, and_, delete, func, select

from hub.adapters.sql.schema import answer_outbox, answers_told, chunk_keys, ingress_positions, subscription_keys
from hub.adapters.sql.statements import Upsert, slices
from hub.ports.ledger import IngressPositions, OutboxEntry, Told

_move = Upsert(
    ingress_positions,
    ["carrier_id", "part"],
    ["next_offset"],
    guard=lambda new: and_(
        ingress_positions.c.next_offset < new.next_offset, ingress_positions.c.topic_id == new.topic_id
    ),
)
_tell = Upsert.whole_row(answers_told)


def positions(conn: Connection, carrier_id: str) -> IngressPositions | None:
    rows = conn.execute(select(ingress_positions).where(ingress_positions.c.carrier_id == carrier_id)).all()
    return IngressPositions(rows[0].topic_id, {row.part: row.next_offset for row in rows}) if rows else None


def move(conn: Connection, carrier_id: str, to: IngressPositions) -> None:
    known = positions(conn, carrier_id)
    if known is not None and known.topic_id != to.topic_id:
        return
    _move.run(
        conn,
        [
            {"carrier_id": carrier_id, "part": part, "topic_id": to.topic_id, "next_offset": offset}
            for part, offset in sorted(to.offsets.items())
        ],
    )


def forget(conn: Connection, carrier_id: str) -> bool:
    return conn.execute(delete(ingress_positions).where(ingress_positions.c.carrier_id == carrier_id)).rowcount > 0


def outbox(conn: Connection, after: int, limit: int) -> list[OutboxEntry]:
    query = (
        select(
            answer_outbox.c.outbox_no, subscription_keys.c.subscription_id, chunk_keys.c.chunk_id, answer_outbox.c.place
        )
        .join(subscription_keys, subscription_keys.c.subscription_no == answer_outbox.c.subscription_no)
        .join(chunk_keys, chunk_keys.c.chunk_no == answer_outbox.c.chunk_no)
        .where(answer_outbox.c.outbox_no > after)
        .order_by(answer_outbox.c.outbox_no)
        .limit(limit)
    )
    return [OutboxEntry(*row) for row in conn.execute(query)]


def outbox_size(conn: Connection) -> int:
    return conn.scalar(select(func.count()).select_from(answer_outbox)) or 0


def told(conn: Connection, chunk_ids: Sequence[str]) -> list[Told]:
    found: list[Told] = []
    for part in slices(dict.fromkeys(chunk_ids)):
        query = (
            select(chunk_keys.c.chunk_id, answers_told.c.app_class, answers_told.c.version, answers_told.c.digest)
            .join(answers_told, answers_told.c.chunk_no == chunk_keys.c.chunk_no)
            .where(chunk_keys.c.chunk_id.in_(part))
        )
        found += [Told(chunk, kind, version, bytes(digest)) for chunk, kind, version, digest in conn.execute(query)]
    return found


def settle(conn: Connection, numbers: Sequence[int], told: Sequence[Told]) -> None:
    for part in slices(numbers):
        conn.execute(delete(answer_outbox).where(answer_outbox.c.outbox_no.in_(part)))
    for some in slices(told):
        query = select(chunk_keys.c.chunk_id, chunk_keys.c.chunk_no)
        chunk_no = {
            row.chunk_id: row.chunk_no
            for row in conn.execute(query.where(chunk_keys.c.chunk_id.in_({one.chunk_id for one in some})))
        }
        _tell.run(
            conn,
            [
                {
                    "chunk_no": chunk_no[one.chunk_id],
                    "app_class": one.app_class,
                    "version": one.version,
                    "digest": one.digest,
                }
                for one in sorted(some, key=lambda one: (chunk_no[one.chunk_id], one.app_class))
            ],
        )
