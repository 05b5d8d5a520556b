"""Connections to PostgreSQL through asyncpg: one that writes, one for keys, a few that read."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

APPLICATION = "numhub"

STATEMENT_SECONDS = 20
"""A statement that takes longer is ended by the server; our own deadlines are longer and cut the connection."""

LOCK_SECONDS = 10
IDLE_IN_TRANSACTION_SECONDS = 10
"""A process that freezes in the middle of a transaction holds its locks no longer than a lease lasts by default."""

CONNECT_SECONDS = 5

_SETTINGS = {
    "application_name": APPLICATION,
    "synchronous_commit": "on",  # committed means on disk, whatever the database or role defaults to
    "statement_timeout": f"{STATEMENT_SECONDS * 1000}",
    "lock_timeout": f"{LOCK_SECONDS * 1000}",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS * 1000}",
    "jit": "off",  # our statements are short; compiling them costs more than they do
}


def asyncpg_url(url: URL) -> URL:
    """``postgresql://``, with the driver that is used here."""
    return url.set(drivername="postgresql+asyncpg")


class Engines:
    """The engines of one process. The writer commits what it read: READ COMMITTED, and keys of its own decide races;
    readers see one moment: REPEATABLE READ."""

    def __init__(self, url: URL, readers: int) -> None:
        self._raw: WeakSet[Any] = WeakSet()
        self._key_raw: WeakSet[Any] = WeakSet()
        self._writer = self._engine(url, "READ COMMITTED", poolclass=NullPool)
        self._keys = self._engine(url, "AUTOCOMMIT", pool_size=1, max_overflow=0, pool_pre_ping=True)
        self._readers = self._engine(
            url, "REPEATABLE READ", pool_size=readers, max_overflow=0, pool_timeout=CONNECT_SECONDS, pool_use_lifo=True
        )
        event.listen(self._keys.sync_engine, "connect", lambda raw, _: self._key_raw.add(raw.driver_connection))

    @property
    def keys(self) -> Any:
        """A plain engine, for use inside operations: what is done on it is committed at once."""
        return self._keys.sync_engine

    async def connect_writer(self, within: float) -> AsyncConnection:
        return await _connected(self._writer, within)

    async def connect_reader(self, within: float) -> AsyncConnection:
        conn = await _connected(self._readers, within)
        return await conn.execution_options(postgresql_readonly=True)

    async def usable(self, conn: AsyncConnection) -> bool:
        if conn.closed or conn.invalidated:
            return False
        return not (await conn.get_raw_connection()).driver_connection.is_closed()  # type: ignore[union-attr]

    def terminate_keys(self) -> None:
        for raw in list(self._key_raw):
            raw.terminate()

    async def dispose(self, within: float) -> None:
        """Close all connections; those that do not close in time are cut (asyncpg may wait for ever)."""
        try:
            async with asyncio.timeout(within):
                for engine in (self._readers, self._keys, self._writer):
                    await engine.dispose()
        except Exception:
            for raw in list(self._raw):
                raw.terminate()

    def _engine(self, url: URL, isolation: Any, **options: Any) -> AsyncEngine:
        engine = create_async_engine(
            asyncpg_url(url),
            isolation_level=isolation,
            hide_parameters=True,  # secrets and names must not reach the log with an error
            connect_args={
                "timeout": CONNECT_SECONDS,
                "server_settings": _SETTINGS,
                "prepared_statement_cache_size": 500,
            },
            **options,
        )
        event.listen(engine.sync_engine, "connect", lambda raw, _: self._raw.add(raw.driver_connection))
        return engine


async def _connected(engine: AsyncEngine, within: float) -> AsyncConnection:
    """Waiting is given up after ``within`` seconds; the attempt itself ends by asyncpg's own deadline."""
    attempt = asyncio.ensure_future(engine.connect())
    done, _ = await asyncio.wait([attempt], timeout=within)
    if done:
        return attempt.result()
    attempt.add_done_callback(_let_go)
    raise TimeoutError


def _let_go(attempt: asyncio.Future[AsyncConnection]) -> None:
    """A connection that came too late."""
    if not attempt.cancelled() and attempt.exception() is None:
        terminate(attempt.result())


def terminate(conn: AsyncConnection) -> None:
    """Cut the connection at once, without a word to the server; whoever waits for it gets an error."""
    held = conn.sync_connection
    if held is None or held.closed or held.invalidated:  # to ask for its connection would make a new one
        return
    with suppress(Exception):
        held.connection.driver_connection.terminate()  # type: ignore[union-attr]
