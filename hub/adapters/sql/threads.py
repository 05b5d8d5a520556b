"""The runner of an embedded database (SQLite): a thread that writes, a few threads that read."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from hub.adapters.sql.errors import translating
from hub.adapters.sql.runner import COMMIT_SECONDS, GROUP_LIMIT, BulkOperation, Operation, Write, carry_out
from hub.domain.errors import Unavailable
from hub.ports.clock import Clock
from hub.ports.metrics import Metrics

T = TypeVar("T")
A = TypeVar("A")


GATHER_SECONDS = 0.005
"""How long patient writes wait for company, if the last ones had some: a transaction costs as much as many answers."""


class ThreadRunner:
    """``write_engine`` begins its transactions as writers; ``read_engine`` as readers; both see one database."""

    def __init__(
        self, write_engine: Engine, read_engine: Engine, clock: Clock, metrics: Metrics | None = None, readers: int = 4
    ) -> None:
        self._write_engine, self._read_engine = write_engine, read_engine
        self._clock, self._metrics = clock, metrics
        self._waiting: SimpleQueue[Write | None] = SimpleQueue()
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="ledger-read")
        self._on_rollback: list[Callable[[], None]] = []
        self._closed = False
        self._writing: Connection | None = None  # kept from one transaction to the next, for the writer's thread alone
        self._writer = threading.Thread(target=self._write_for_ever, name="ledger-write", daemon=True)
        self._writer.start()

    def on_rollback(self, callback: Callable[[], None]) -> None:
        """Call back, in the writer's thread, whenever a transaction was undone."""
        self._on_rollback.append(callback)

    async def write(self, operation: Operation[T]) -> T:
        """Carry out one operation; it is committed when this returns."""
        result: T = await self._submit(operation, False, None)
        return result

    async def write_bulk(self, operation: BulkOperation[A, T], argument: A, *, patient: bool = False) -> T:
        """Like `write`; all waiting calls of the same ``operation`` are handed to it as one list."""
        result: T = await self._submit(operation, True, argument, patient)
        return result

    async def read(self, operation: Operation[T]) -> T:
        """Carry out an operation that only reads, in one consistent view."""
        if self._closed:
            raise Unavailable("the ledger is closed")
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._read, operation)

    async def close(self) -> None:
        """Carry out what waits, then close the connections."""
        if self._closed:
            return
        self._closed = True
        self._waiting.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        self._write_engine.dispose()
        self._read_engine.dispose()

    # -- the callers' side

    def _submit(
        self, function: Callable[..., Any], bulk: bool, argument: Any, patient: bool = False
    ) -> asyncio.Future[Any]:
        if self._closed:
            raise Unavailable("the ledger is closed")
        loop = asyncio.get_running_loop()
        write = Write(function, bulk, argument, loop, loop.create_future(), patient)
        self._waiting.put(write)
        return write.future

    def _read(self, operation: Operation[T]) -> T:
        with translating(), self._read_engine.connect() as conn:
            return operation(conn)

    # -- the writer's thread

    def _write_for_ever(self) -> None:
        crowded = False
        while (first := self._waiting.get()) is not None:
            if first.patient and crowded:
                time.sleep(GATHER_SECONDS)
            group, last = [first], False
            while len(group) < GROUP_LIMIT and not last:
                try:
                    write = self._waiting.get_nowait()
                except Empty:
                    break
                if write is None:
                    last = True
                else:
                    group.append(write)
            crowded = len(group) > 1  # whoever comes alone, one after the other, is never kept waiting
            self._carry_out(group)
            _settle(group)
            if last:
                break
        self._stop_writing()

    def _stop_writing(self) -> None:
        """Give the connection back; the next transaction begins with another, or the same one made anew."""
        if self._writing is not None:
            with contextlib.suppress(Exception):
                self._writing.close()
            self._writing = None

    def _carry_out(self, group: list[Write]) -> None:
        try:
            self._transaction(group)
            return
        except Exception as error:
            if len(group) == 1:
                group[0].error = error
                return
        self._one_by_one(group)

    def _one_by_one(self, group: list[Write]) -> None:
        unavailable = 0
        for write in group:
            if unavailable >= 2:  # it is the database, not the operation: spare the others the waiting
                write.error = Unavailable()
                continue
            try:
                self._transaction([write])
                unavailable = 0
            except Exception as error:
                write.error = error
                unavailable = unavailable + 1 if isinstance(error, Unavailable) else 0

    def _transaction(self, group: list[Write]) -> None:
        started = self._clock.monotonic()
        try:
            with translating():
                if self._writing is None:
                    self._writing = self._write_engine.connect()
                with self._writing.begin():
                    carry_out(self._writing, group)
        except BaseException:
            self._stop_writing()
            for callback in self._on_rollback:
                callback()
            raise
        if self._metrics is not None:
            self._metrics.observe(COMMIT_SECONDS, self._clock.monotonic() - started)


def _settle(group: list[Write]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[Write]] = {}
    for write in group:
        by_loop.setdefault(write.loop, []).append(write)
    for loop, writes in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle_all, writes)


def _settle_all(writes: list[Write]) -> None:
    for write in writes:
        write.settle()
