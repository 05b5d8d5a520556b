"""Proofs of clearance judgements, and waivers."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, select

from hub.adapters.sql.schema import clearances, waivers
from hub.adapters.sql.statements import Upsert
from hub.ports.ledger import ClearanceRecord, Waiver

_record = Upsert(clearances, ["clearance_id"])
_put_waiver = Upsert.whole_row(waivers)


def record(conn: Connection, proof: ClearanceRecord) -> None:
    """A proof that exists stays as it is."""
    lists = {"log_positions": list(proof.log_positions), "waivers": list(proof.waivers)}
    _record.run(conn, [asdict(proof) | lists])


def put_waiver(conn: Connection, waiver: Waiver) -> None:
    _put_waiver.run(conn, [asdict(waiver)])


def all_waivers(conn: Connection) -> list[Waiver]:
    query = select(waivers).order_by(waivers.c.issued_at, waivers.c.waiver_id)
    return [Waiver(**row._mapping) for row in conn.execute(query)]
