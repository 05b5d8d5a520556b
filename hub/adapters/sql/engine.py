"""Opens the database: by its address a SQLite file or a PostgreSQL server, with the tables and a runner."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from hub.adapters.sql.aside import AsideRunner
from hub.adapters.sql.errors import translating
from hub.adapters.sql.keys import Keys
from hub.adapters.sql.postgres import Engines, asyncpg_url
from hub.adapters.sql.runner import Runner
from hub.adapters.sql.tables import add_parts, prepare
from hub.adapters.sql.tasks import TaskRunner
from hub.adapters.sql.threads import ThreadRunner
from hub.domain.errors import InvalidRequest
from hub.ports.clock import Clock
from hub.ports.metrics import Metrics

BUSY_SECONDS = 5
"""How long to wait for another process that is writing before the call is `Unavailable`."""

OPEN_WITHIN = 120.0
"""Seconds for connecting to a server and making or checking its tables."""

ROOM_SECONDS = 2
"""How long a new part waits for its table: everybody who writes or reads it waits behind."""

_CHECKPOINT_PAGES = 1000  # 4 MB: a commit that carries one out is late by it, and so is whoever waits for that commit


def open_database(
    url_or_path: str | Path, clock: Clock, metrics: Metrics | None, readers: int, migrate: bool
) -> tuple[Runner, Keys]:
    """A text with "://" is a database URL, everything else the path of a SQLite file, which is created if missing.

    Raises SchemaTooNew, SchemaBehind, Unavailable, InvalidRequest.
    """
    url = address(url_or_path)
    runner: Runner
    if url.get_backend_name() == "postgresql":
        on_server(url, lambda conn: prepare(conn, migrate))
        engines = Engines(url, readers)
        runner, keys = AsideRunner(TaskRunner(engines, clock, metrics)), Keys(engines.keys)
    else:
        write_engine, read_engine = _sqlite_engines(url, readers, migrate)
        runner, keys = ThreadRunner(write_engine, read_engine, clock, metrics, readers), Keys()
    runner.on_rollback(keys.forget)
    return runner, keys


def address(url_or_path: str | Path) -> URL:
    """Raises InvalidRequest for a URL that cannot be read; the message does not repeat it, it may hold a password."""
    if not (isinstance(url_or_path, str) and "://" in url_or_path):
        return URL.create("sqlite", database=str(url_or_path))
    try:
        url = make_url(url_or_path)
        backend = url.get_backend_name()
    except (ArgumentError, ValueError):
        raise InvalidRequest("the ledger's URL cannot be read; postgresql://user:password@host:5432/numhub") from None
    if backend not in ("sqlite", "postgresql"):
        raise InvalidRequest(f"the ledger's URL must begin with postgresql:// or sqlite://, not {url.drivername}://")
    return url


def make_room(url_or_path: str | Path) -> int:
    """Add what is missing of the parts that stand ready. Raises NumhubError."""
    url = address(url_or_path)
    if url.get_backend_name() != "postgresql":
        return 0
    made: int = on_server(url, lambda conn: add_parts(conn, within=ROOM_SECONDS))
    return made


def on_server(url: URL, operation: Callable[[Connection], Any]) -> Any:
    """Carry out ``operation`` in a transaction of its own on a PostgreSQL server; blocks, whether or not an event loop
    runs in this thread."""

    async def run() -> Any:
        engine = create_async_engine(
            asyncpg_url(url), poolclass=NullPool, hide_parameters=True, connect_args={"timeout": 5}
        )
        async with asyncio.timeout(OPEN_WITHIN):
            try:
                async with engine.begin() as conn:
                    return await conn.run_sync(operation)
            finally:
                await engine.dispose()

    outcome: list[Any] = []
    failed: list[BaseException] = []

    def in_thread() -> None:
        try:
            with translating():
                outcome.append(asyncio.run(run()))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=in_thread, name="ledger-open")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return outcome[0]


# ---- SQLite ----------------------------------------------------------------------------------------------------


def _sqlite_engines(url: URL, readers: int, migrate: bool) -> tuple[Engine, Engine]:
    """An engine for the one writer and one for the readers."""
    if not url.database or url.database == ":memory:":
        raise ValueError("the ledger needs a file: each connection to memory would see a database of its own")
    # Signing secrets live in here: for the owner's eyes only. SQLite gives -wal and -shm the same mode.
    Path(url.database).touch(mode=0o600, exist_ok=True)
    write_engine = _sqlite(url, 1, "BEGIN IMMEDIATE", ())
    read_engine = _sqlite(url, readers, "BEGIN", ("PRAGMA query_only = 1",))
    try:
        with translating(), write_engine.begin() as conn:
            prepare(conn, migrate)
    except BaseException:
        write_engine.dispose()
        read_engine.dispose()
        raise
    return write_engine, read_engine


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
