"""Runs operations against the database: what the two runners have in common.

An operation is a plain function of a connection. Writes that wait while a transaction is being committed are carried
out together in the next one: one fsync for all of them. If one of them fails, the transaction is rolled back and each
is carried out in a transaction of its own, so only the guilty one fails. Operations may therefore run twice; they
must keep nothing outside the connection (or forget it in an ``on_rollback`` callback).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from sqlalchemy import Connection

T = TypeVar("T")
A = TypeVar("A")

Operation = Callable[[Connection], T]
BulkOperation = Callable[[Connection, list[A]], list[T]]

GROUP_LIMIT = 2048
"""Waiting writes carried out in one transaction at most: bounds how long a commit can take."""

COMMIT_SECONDS: Final = "numhub_ledger_commit_seconds"


class Runner(Protocol):
    """One database, one writer of this process, a few readers."""

    def on_rollback(self, callback: Callable[[], None]) -> None:
        """Call back whenever a transaction was undone, or the database may be another one than before."""
        ...

    async def write(self, operation: Operation[T]) -> T:
        """Carry out one operation; it is committed when this returns."""
        ...

    async def write_bulk(self, operation: BulkOperation[A, T], argument: A, *, patient: bool = False) -> T:
        """Like `write`; all waiting calls of the same ``operation`` are handed to it as one list.

        ``patient``: nothing but its own caller waits for it, so under load it may wait some milliseconds for company.
        """
        ...

    async def read(self, operation: Operation[T]) -> T:
        """Carry out an operation that only reads, in one consistent view."""
        ...

    async def close(self) -> None:
        """Carry out what waits, then close the connections."""
        ...


@dataclass(slots=True, eq=False)
class Write:
    """A call that waits to be carried out."""

    function: Callable[..., Any]
    bulk: bool
    argument: Any
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    patient: bool = False
    result: Any = None
    error: BaseException | None = None

    def settle(self) -> None:
        if self.future.done():  # the caller was cancelled meanwhile
            return
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


def carry_out(conn: Connection, group: Sequence[Write]) -> None:
    """All of ``group`` in the transaction of ``conn``."""
    for function, writes in _by_function(group):
        if writes[0].bulk:
            results = function(conn, [write.argument for write in writes])
            for write, result in zip(writes, results, strict=True):
                write.result = result
        else:
            for write in writes:
                write.result = function(conn)


def _by_function(group: Sequence[Write]) -> list[tuple[Callable[..., Any], list[Write]]]:
    """Calls of one bulk operation side by side, in the order of the first of each.

    All calls of a group are under way at the same time, so none of them can expect to come before another.
    """
    together: dict[Callable[..., Any], list[Write]] = {}
    for write in group:
        together.setdefault(write.function, []).append(write)
    return list(together.items())
