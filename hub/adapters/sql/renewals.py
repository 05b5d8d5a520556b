"""Holder renewals: who asked, which apps are meant, until when."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, select

from hub.adapters.sql.catalogue import china_day
from hub.adapters.sql.schema import renewals
from hub.adapters.sql.statements import Upsert
from hub.ports.ledger import RenewalRecord

_put = Upsert(renewals, ["renewal_id"])
_columns = [column for column in renewals.columns if column.name not in ("app_count", "day")]


def put(conn: Connection, renewal: RenewalRecord) -> None:
    """A renewal that exists stays as it is: the first request with its key is the one that counts."""
    derived = {
        "apps": list(renewal.apps),
        "app_count": len(renewal.apps),
        "day": china_day(renewal.requested_at),
    }
    _put.run(conn, [asdict(renewal) | derived])


def one(conn: Connection, renewal_id: str) -> RenewalRecord | None:
    row = conn.execute(select(*_columns).where(renewals.c.renewal_id == renewal_id)).first()
    if row is None:
        return None
    return RenewalRecord(**{**row._mapping, "apps": tuple(row.apps)})
