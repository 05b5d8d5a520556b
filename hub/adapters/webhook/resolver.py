"""Names to addresses, off the event loop, in a bounded number of threads."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from hub.ports.sender import SendError


class Resolver(Protocol):
    async def resolve(self, host: str, port: int) -> list[str]:
        """Every address of ``host`` as text. Raises SendError("dns"). The caller sets the deadline by cancelling."""
        ...

    async def close(self) -> None: ...


class SystemResolver:
    """The machine's resolver. One look-up per name at a time: whoever asks meanwhile waits for the same answer, so a
    name whose servers hang holds one thread, however many deliveries ask for it."""

    def __init__(self, threads: int = 32) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="resolve")
        self._running: dict[tuple[str, int], asyncio.Future[list[str]]] = {}

    async def resolve(self, host: str, port: int) -> list[str]:
        key = host, port
        running = self._running.get(key)
        if running is None:
            loop = asyncio.get_running_loop()
            running = loop.run_in_executor(self._threads, _look_up, host, port)
            self._running[key] = running
            running.add_done_callback(lambda done: self._finished(key, done))
        return await asyncio.shield(running)  # a caller that gives up does not take the answer from the others

    def _finished(self, key: tuple[str, int], done: asyncio.Future[list[str]]) -> None:
        self._running.pop(key, None)
        if not done.cancelled():
            done.exception()  # seen, even if every caller has given up

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError) as error:
        raise SendError("dns", detail=type(error).__name__) from None
    return [str(entry[4][0]) for entry in found]
