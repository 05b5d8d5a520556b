"""A runner on a thread and an event loop of its own.

A transaction on a database server is a dozen short conversations. On the loop that serves requests and deliveries each
of them waits its turn behind everything else that is ready; on a loop of its own only for the server.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from hub.adapters.sql.runner import BulkOperation, Operation, Runner
from hub.domain.errors import Unavailable

T = TypeVar("T")
A = TypeVar("A")


class AsideRunner:
    """Implements `runner.Runner` by ``inner``, which must not have been used yet. The thread begins with the first
    call and ends with `close`; its loop is of the kind of the first caller's."""

    def __init__(self, inner: Runner) -> None:
        self._inner = inner
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def on_rollback(self, callback: Callable[[], None]) -> None:
        """Called on the runner's own thread, as operations are."""
        self._inner.on_rollback(callback)

    async def write(self, operation: Operation[T]) -> T:
        return await self._aside(self._inner.write(operation))

    async def write_bulk(self, operation: BulkOperation[A, T], argument: A, *, patient: bool = False) -> T:
        return await self._aside(self._inner.write_bulk(operation, argument, patient=patient))

    async def read(self, operation: Operation[T]) -> T:
        return await self._aside(self._inner.read(operation))

    async def close(self) -> None:
        if self._closed:
            return
        closing = self._aside(self._inner.close())
        self._closed = True
        await closing
        assert self._loop is not None and self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        await asyncio.to_thread(self._thread.join)

    def _aside(self, work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        if self._closed:
            work.close()
            raise Unavailable("the ledger is closed")
        if self._loop is None:
            self._loop = type(asyncio.get_running_loop())()
            self._thread = threading.Thread(target=_run, args=(self._loop,), name="ledger", daemon=True)
            self._thread.start()
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        loop.close()
