"""Runs operations against the database: one writer with group commit, a few readers.

An operation is a plain function of a connection. Writes that wait while a transaction is being committed are carried
out together in the next one: one fsync for all of them. If one of them fails, the transaction is rolled back and each
is carried out in a transaction of its own, so only the guilty one fails. Operations may therefore run twice; they
must keep nothing outside the connection (or forget it in an ``on_rollback`` callback).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine

from hub.adapters.sql.errors import translating
from hub.domain.errors import Unavailable
from hub.ports.clock import Clock
from hub.ports.metrics import Metrics

T = TypeVar("T")
A = TypeVar("A")

Operation = Callable[[Connection], T]
BulkOperation = Callable[[Connection, list[A]], list[T]]

GROUP_LIMIT = 2048
"""Waiting writes carried out in one transaction at most: bounds how long a commit can take."""


@dataclass(slots=True, eq=False)
class _Write:
    function: Callable[..., Any]
    bulk: bool
    argument: Any
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        if self.future.done():  # the caller was cancelled meanwhile
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class Runner:
    """``write_engine`` begins its transactions as writers; ``read_engine`` as readers; both see one database."""

    def __init__(
        self, write_engine: Engine, read_engine: Engine, clock: Clock, metrics: Metrics | None = None, readers: int = 4
    ) -> None:
        self._write_engine, self._read_engine = write_engine, read_engine
        self._clock, self._metrics = clock, metrics
        self._waiting: SimpleQueue[_Write | None] = SimpleQueue()
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="ledger-read")
        self._on_rollback: list[Callable[[], None]] = []
        self._closed = False
        self._begun = False  # whether the writer's newest transaction came as far as its first operation
        self._writer = threading.Thread(target=self._write_for_ever, name="ledger-write", daemon=True)
        self._writer.start()

    def on_rollback(self, callback: Callable[[], None]) -> None:
        """Call back, in the writer's thread, whenever a transaction was undone."""
        self._on_rollback.append(callback)

    async def write(self, operation: Operation[T]) -> T:
        """Carry out one operation; it is committed when this returns."""
        result: T = await self._submit(operation, False, None)
        return result

    async def write_bulk(self, operation: BulkOperation[A, T], argument: A) -> T:
        """Like `write`; all waiting calls of the same ``operation`` are handed to it as one list."""
        result: T = await self._submit(operation, True, argument)
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

    def _submit(self, function: Callable[..., Any], bulk: bool, argument: Any) -> asyncio.Future[Any]:
        if self._closed:
            raise Unavailable("the ledger is closed")
        loop = asyncio.get_running_loop()
        write = _Write(function, bulk, argument, loop, loop.create_future())
        self._waiting.put(write)
        return write.future

    def _read(self, operation: Operation[T]) -> T:
        with translating(), self._read_engine.connect() as conn:
            return operation(conn)

    # -- the writer's thread

    def _write_for_ever(self) -> None:
        while (first := self._waiting.get()) is not None:
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
            self._carry_out(group)
            _settle(group)
            if last:
                return

    def _carry_out(self, group: list[_Write]) -> None:
        try:
            self._transaction(group)
            return
        except Exception as error:
            if len(group) == 1:
                group[0].error = error
                return
        self._one_by_one(group)

    def _one_by_one(self, group: list[_Write]) -> None:
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

    def _transaction(self, group: list[_Write]) -> None:
        started = self._clock.monotonic()
        self._begun = False
        try:
            with translating(), self._write_engine.begin() as conn:
                self._begun = True
                for function, writes in _by_function(group):
                    if writes[0].bulk:
                        results = function(conn, [write.argument for write in writes])
                        for write, result in zip(writes, results, strict=True):
                            write.result = result
                    else:
                        for write in writes:
                            write.result = function(conn)
        except BaseException:
            for callback in self._on_rollback:
                callback()
            raise
        if self._metrics is not None:
            self._metrics.observe("numhub_ledger_commit_seconds", self._clock.monotonic() - started)


def _by_function(group: list[_Write]) -> list[tuple[Callable[..., Any], list[_Write]]]:
    """Calls of one bulk operation side by side, in the order of the first of each.

    All calls of a group are under way at the same time, so none of them can expect to come before another.
    """
    together: dict[Callable[..., Any], list[_Write]] = {}
    for write in group:
        together.setdefault(write.function, []).append(write)
    return list(together.items())


def _settle(group: list[_Write]) -> None:
    by_loop: dict[asyncio.AbstractEventLoop, list[_Write]] = {}
    for write in group:
        by_loop.setdefault(write.loop, []).append(write)
    for loop, writes in by_loop.items():
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle_all, writes)


def _settle_all(writes: list[_Write]) -> None:
    for write in writes:
        write.settle()
