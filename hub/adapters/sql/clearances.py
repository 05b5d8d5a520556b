"""Proofs of clearance judgements, and waivers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict

from sqlalchemy import Connection, select

from hub.adapters.sql.judgements import changed, still_holds
from hub.adapters.sql.schema import clearances, waivers
from hub.adapters.sql.statements import Upsert
from hub.ports.ledger import ClearanceRecord, Waiver

_record = Upsert(clearances, ["clearance_id"])
_put_waiver = Upsert.whole_row(waivers)


def record(conn: Connection, proof: ClearanceRecord, since: int, chunk_ids: Collection[str]) -> bool:
    """A proof that exists stays as it is. False if what it rests on changed after ``since``."""
    known = conn.scalar(select(clearances.c.clearance_id).where(clearances.c.clearance_id == proof.clearance_id))
    if known is None:
        if not still_holds(conn, since, chunk_ids):
            return False
        lists = {"log_positions": list(proof.log_positions), "waivers": list(proof.waivers)}
        _record.run(conn, [asdict(proof) | lists])
    return True


def put_waiver(conn: Connection, waiver: Waiver) -> None:
    _put_waiver.run(conn, [asdict(waiver)])
    changed(conn)


def all_waivers(conn: Connection) -> list[Waiver]:
    query = select(waivers).order_by(waivers.c.issued_at, waivers.c.waiver_id)
    return [Waiver(**row._mapping) for row in conn.execute(query)]
