"""Opens the database: connections as they must be, tables, and the version of the schema."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, inspect, make_url, select

from hub.adapters.sql.errors import SchemaTooNew, translating
from hub.adapters.sql.schema import SCHEMA_VERSION, directory_state, metadata, schema_info

BUSY_SECONDS = 5
"""How long to wait for another process that is writing before the call is `Unavailable`."""

_CHECKPOINT_PAGES = 4000  # 16 MB: fewer, larger checkpoints; reading the WAL back stays short


def open_engines(url_or_path: str | Path, readers: int) -> tuple[Engine, Engine]:
    """An engine for the one writer and one for the readers. Raises SchemaTooNew, Unavailable.

    A text with "://" is a SQLAlchemy URL, everything else the path of a SQLite file, which is created if missing.
    """
    url = _url(url_or_path)
    if url.get_backend_name() == "sqlite":
        if not url.database or url.database == ":memory:":
            raise ValueError("the ledger needs a file: each connection to memory would see a database of its own")
        # Signing secrets live in here: for the owner's eyes only. SQLite gives -wal and -shm the same mode.
        Path(url.database).touch(mode=0o600, exist_ok=True)
        write_engine = _sqlite(url, 1, "BEGIN IMMEDIATE", ())
        read_engine = _sqlite(url, readers, "BEGIN", ("PRAGMA query_only = 1",))
    else:
        common = {"max_overflow": 0, "pool_pre_ping": True, "hide_parameters": True}
        write_engine = create_engine(url, pool_size=1, **common)
        read_engine = create_engine(url, pool_size=readers, isolation_level="REPEATABLE READ", **common)
    try:
        with translating(), write_engine.begin() as conn:
            _prepare(conn)
    except BaseException:
        write_engine.dispose()
        read_engine.dispose()
        raise
    return write_engine, read_engine


def _url(url_or_path: str | Path) -> URL:
    if isinstance(url_or_path, str) and "://" in url_or_path:
        return make_url(url_or_path)
    return URL.create("sqlite", database=str(url_or_path))


def _sqlite(url: URL, size: int, begin: str, more: tuple[str, ...]) -> Engine:
    engine = create_engine(
        url,
        pool_size=size,
        max_overflow=0,
        hide_parameters=True,  # secrets and names must not reach the log with an error
        connect_args={"check_same_thread": False, "timeout": BUSY_SECONDS, "cached_statements": 256},
    )
    pragmas = (
        f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}",
        "PRAGMA journal_mode = WAL",
        "PRAGMA synchronous = FULL",
        "PRAGMA foreign_keys = 1",
        f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}",
        "PRAGMA cache_size = -16000",
        *more,
    )

    @event.listens_for(engine, "connect")
    def _(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions by itself; _begin below does
        for pragma in pragmas:
            connection.execute(pragma)

    @event.listens_for(engine, "begin")
    def _begin(conn: Connection) -> None:
        conn.exec_driver_sql(begin)

    return engine


def _prepare(conn: Connection) -> None:
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
