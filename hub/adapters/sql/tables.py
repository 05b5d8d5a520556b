"""Makes the tables, or checks that they are those this program knows."""

from __future__ import annotations

from sqlalchemy import Connection, insert, inspect, select, text

from hub.adapters.sql.errors import SchemaTooNew
from hub.adapters.sql.schema import SCHEMA_VERSION, directory_state, metadata, schema_info

_ONE_AT_A_TIME = 7_305_118_204_916_003
"""Key of the lock under which processes that start together take turns at making the tables."""


def prepare(conn: Connection, migrate: bool) -> None:
    if conn.dialect.name == "postgresql":
        conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_AT_A_TIME})
    if inspect(conn).has_table(schema_info.name):
        version = conn.scalar(select(schema_info.c.version)) or 0
        if version > SCHEMA_VERSION:
            raise SchemaTooNew(
                f"The ledger has schema version {version}, this numhub knows versions up to {SCHEMA_VERSION}; "
                "use a newer numhub or restore an older copy of the ledger."
            )
        return
    metadata.create_all(conn)
    conn.execute(insert(schema_info), {"version": SCHEMA_VERSION})
    conn.execute(insert(directory_state), {"id": 1, "version": 0, "policy": {}})
