"""Which log the ledger belongs to."""

from __future__ import annotations

from sqlalchemy import Connection, select

from hub.adapters.sql.schema import ledger_log
from hub.adapters.sql.statements import Upsert

_first = Upsert(ledger_log, ["id"])
_other = Upsert.whole_row(ledger_log)


def bind(conn: Connection, log_id: str, replace: bool) -> str:
    """The log that stands there afterwards: the first that was named, or with ``replace`` this one."""
    (_other if replace else _first).run(conn, [{"id": 1, "log_id": log_id}])
    return str(conn.scalar(select(ledger_log.c.log_id)))
