"""The runner of a database server (PostgreSQL): a task that writes, a few connections that read.

Other processes write at the same time, so a transaction may meet theirs: it is then begun anew, a bounded number of
times. A connection that ends while a transaction is being committed leaves it in doubt; the caller is told
`Unavailable` and repeats, which changes nothing if it had been committed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from random import Random, SystemRandom
from typing import Any, TypeVar

from sqlalchemy.ext.asyncio import AsyncConnection

from hub.adapters.sql.errors import Gone, Raced, translating
from hub.adapters.sql.postgres import Engines, terminate
from hub.adapters.sql.runner import COMMIT_SECONDS, GROUP_LIMIT, BulkOperation, Operation, Write, carry_out
from hub.domain.errors import Unavailable
from hub.ports.clock import Clock
from hub.ports.metrics import Metrics

T = TypeVar("T")
A = TypeVar("A")

CONNECT_WITHIN = 6.0
WRITE_WITHIN = 30.0
READ_WITHIN = 60.0
CLOSE_WITHIN = 5.0
"""Seconds of our own, each ended by cutting the connection: a server that is frozen answers no timeout of its own."""

TRIES = 8
"""How often a transaction that met another's is begun anew."""


class TaskRunner:
    """Of one event loop: the one in which it is first used."""

    def __init__(
        self, engines: Engines, clock: Clock, metrics: Metrics | None = None, random: Random | None = None
    ) -> None:
        self._engines, self._clock, self._metrics = engines, clock, metrics
        self._random = random or SystemRandom()
        self._waiting: deque[Write] = deque()
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self._reads: set[asyncio.Task[Any]] = set()
        self._on_rollback: list[Callable[[], None]] = []
        self._conn: AsyncConnection | None = None
        self._closed = False

    def on_rollback(self, callback: Callable[[], None]) -> None:
        self._on_rollback.append(callback)

    async def write(self, operation: Operation[T]) -> T:
        result: T = await self._submit(operation, False, None)
        return result

    async def write_bulk(self, operation: BulkOperation[A, T], argument: A, *, patient: bool = False) -> T:
        result: T = await self._submit(operation, True, argument)
        return result

    async def read(self, operation: Operation[T]) -> T:
        """In a task of its own: a caller that goes away leaves no half-read connection behind."""
        if self._closed:
            raise Unavailable("the ledger is closed")
        task = asyncio.get_running_loop().create_task(self._read(operation))
        self._reads.add(task)
        task.add_done_callback(self._read_done)
        return await asyncio.shield(task)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._wake.set()
        if self._writer is not None:
            await asyncio.wait([self._writer])
        if self._reads:
            await asyncio.wait(self._reads, timeout=READ_WITHIN)
        if self._conn is not None:
            await self._drop(self._conn)
        await self._engines.dispose(CLOSE_WITHIN)

    # -- reading

    def _read_done(self, task: asyncio.Task[Any]) -> None:
        self._reads.discard(task)
        if not task.cancelled():
            task.exception()  # seen, even if its caller went away

    async def _read(self, operation: Operation[T]) -> T:
        try:
            return await self._read_once(operation)
        except Gone:  # a pooled connection from before a restart; reading again harms nobody
            return await self._read_once(operation)

    async def _read_once(self, operation: Operation[T]) -> T:
        with translating():
            conn = await self._engines.connect_reader(CONNECT_WITHIN)
            watch = asyncio.get_running_loop().call_later(READ_WITHIN, terminate, conn)
            try:
                return await conn.run_sync(operation)
            finally:
                watch.cancel()
                await _closed(conn)

    # -- writing

    def _submit(self, function: Callable[..., Any], bulk: bool, argument: Any) -> asyncio.Future[Any]:
        if self._closed:
            raise Unavailable("the ledger is closed")
        loop = asyncio.get_running_loop()
        write = Write(function, bulk, argument, loop, loop.create_future())
        self._waiting.append(write)
        if self._writer is None:
            self._writer = loop.create_task(self._write_for_ever(), name="ledger-write")
        self._wake.set()
        return write.future

    async def _write_for_ever(self) -> None:
        group: list[Write] = []
        try:
            while True:
                if not self._waiting:
                    if self._closed:
                        return
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                group = [self._waiting.popleft() for _ in range(min(GROUP_LIMIT, len(self._waiting)))]
                await self._carry_out(group)
                for write in group:
                    write.settle()
        except asyncio.CancelledError:  # the loop ends
            for write in (*group, *self._waiting):
                write.future.cancel()
            raise

    async def _carry_out(self, group: list[Write]) -> None:
        error = await self._try(group)
        if error is None:
            return
        if len(group) == 1 or isinstance(error, Gone):
            for write in group:
                write.error = error
            return
        gone: BaseException | None = None
        for write in group:
            write.error = gone or await self._try([write])
            if isinstance(write.error, Gone):  # it is the database, not the operation: spare the others the waiting
                gone = write.error

    async def _try(self, group: Sequence[Write]) -> BaseException | None:
        """Carry out ``group`` in one transaction; the error that kept it from that."""
        error: BaseException | None = None
        for n in range(TRIES):
            try:
                await self._transaction(group)
                return None
            except Raced as raced:
                error = raced
                await asyncio.sleep(self._random.uniform(0.2, 1.0) * min(0.005 * 2**n, 0.5))
            except Exception as other:
                return other
        return error

    async def _transaction(self, group: Sequence[Write]) -> None:
        started = self._clock.monotonic()
        try:
            with translating():
                conn = await self._connection()
                watch = asyncio.get_running_loop().call_later(WRITE_WITHIN, self._cut)
                try:
                    async with conn.begin():
                        await conn.run_sync(carry_out, group)
                finally:
                    watch.cancel()
        except BaseException:
            for callback in self._on_rollback:
                callback()
            raise
        if self._metrics is not None:
            self._metrics.observe(COMMIT_SECONDS, self._clock.monotonic() - started)

    async def _connection(self) -> AsyncConnection:
        """The writer's connection, made anew if it ended. Keys remembered from another connection are forgotten: the
        database behind it may be a restored one."""
        conn = self._conn
        if conn is not None:
            if await self._engines.usable(conn):
                return conn
            self._conn = None
            await self._drop(conn)
        for callback in self._on_rollback:
            callback()
        self._conn = await self._engines.connect_writer(CONNECT_WITHIN)
        return self._conn

    def _cut(self) -> None:
        """End everything the writer waits for."""
        if self._conn is not None:
            terminate(self._conn)
        self._engines.terminate_keys()

    async def _drop(self, conn: AsyncConnection) -> None:
        terminate(conn)
        await _closed(conn)


async def _closed(conn: AsyncConnection) -> None:
    """Give ``conn`` back; one that does not let itself be given back in time is cut."""
    try:
        async with asyncio.timeout(CLOSE_WITHIN):
            await conn.close()
    except Exception:
        with suppress(Exception):
            terminate(conn)
