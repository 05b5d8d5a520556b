"""Named long-running tasks under one roof: one that fails ends the process visibly; stopping drains.

Order of a stop: the *drains* one after the other as registered (stop taking work, finish what is out), each with what
is left of the deadline; then every task is cancelled, the last started first.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from hub.ports.clock import Clock

log = logging.getLogger("numhub.supervisor")

Drain = Callable[[float], Awaitable[int]]
"""Given the seconds left, finishes what is out; returns how much had to be given up."""


class TaskEnded(RuntimeError):
    """A task that was to run for ever came to its end."""


class Supervisor:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._drains: list[tuple[str, Drain]] = []
        self._failure: BaseException | None = None
        self._over = asyncio.Event()
        self._stopping = False

    def start(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` for ever under ``name``."""
        if name in self._tasks:
            work.close()
            raise ValueError(f"a task named {name} is already there")
        task = asyncio.create_task(work, name=name)
        self._tasks[name] = task
        task.add_done_callback(self._ended)

    def on_stop(self, name: str, drain: Drain) -> None:
        self._drains.append((name, drain))

    @property
    def names(self) -> list[str]:
        return list(self._tasks)

    @property
    def failure(self) -> BaseException | None:
        return self._failure

    async def wait(self) -> None:
        """Return after `stop`; raise what ended the first task that ended by itself."""
        await self._over.wait()
        if self._failure is not None:
            raise self._failure

    async def stop(self, within: float = 10.0) -> int:
        """Drain, then cancel; returns how many pieces of work were given up."""
        self._stopping = True
        deadline = self._clock.monotonic() + within
        given_up = 0
        for name, drain in self._drains:
            left = max(deadline - self._clock.monotonic(), 0.1)
            try:
                given_up += await drain(left)
            except Exception:
                log.exception("drain_failed", extra={"task": name})
        for name, task in reversed(self._tasks.items()):
            task.cancel()
            await asyncio.wait([task], timeout=5.0)
            if not task.done():
                log.error("task_does_not_end", extra={"task": name})
        log.info("stopped", extra={"given_up": given_up})
        self._over.set()
        return given_up

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._stopping or task.cancelled():
            return
        error = task.exception() or TaskEnded(f"{task.get_name()} ended")
        log.critical("task_failed", extra={"task": task.get_name()}, exc_info=error)
        if self._failure is None:
            self._failure = error
            self._over.set()
