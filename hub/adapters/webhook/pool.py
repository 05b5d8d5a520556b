"""Idle connections, kept for the next request to the same place; and how many requests one host may have in flight."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from typing import NamedTuple

from hub.adapters.webhook.client import Connection


class Key(NamedTuple):
    tls: bool
    host: str
    port: int
    address: str


class Pool:
    """Least recently used first out above ``limit``; `reap` drops what has been idle for ``idle_seconds``."""

    def __init__(self, limit: int = 512, idle_seconds: float = 30.0) -> None:
        self._limit = limit
        self._idle_seconds = idle_seconds
        self._idle: OrderedDict[Connection, Key] = OrderedDict()  # oldest first
        self._by_key: dict[Key, list[Connection]] = {}

    def __len__(self) -> int:
        return len(self._idle)

    def take(self, key: Key, now: float) -> Connection | None:
        """The most recently used idle connection to ``key`` that is still quiet; others are dropped."""
        stack = self._by_key.get(key)
        while stack:
            connection = stack.pop()
            del self._idle[connection]
            if not stack:
                del self._by_key[key]
            fresh = now < connection.good_until and now - connection.idle_since < self._idle_seconds
            if fresh and connection.is_quiet():
                return connection
            connection.abort()
        return None

    def put(self, key: Key, connection: Connection, now: float) -> None:
        connection.idle_since = now
        self._idle[connection] = key
        self._by_key.setdefault(key, []).append(connection)
        while len(self._idle) > self._limit:
            oldest = next(iter(self._idle))
            self._remove(oldest)
            oldest.abort()

    def reap(self, now: float) -> None:
        while self._idle:
            oldest = next(iter(self._idle))
            if now - oldest.idle_since < self._idle_seconds:
                return
            self._remove(oldest)
            oldest.abort()

    def clear(self) -> None:
        for connection in list(self._idle):
            self._remove(connection)
            connection.abort()

    def _remove(self, connection: Connection) -> None:
        key = self._idle.pop(connection)
        stack = self._by_key[key]
        stack.remove(connection)
        if not stack:
            del self._by_key[key]


class HostLimit:
    """At most ``limit`` requests in flight per host; the others wait their turn, under their own deadline."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._in_flight: dict[tuple[str, int], int] = {}
        self._waiting: dict[tuple[str, int], deque[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        return sum(self._in_flight.values())

    def try_enter(self, host: tuple[str, int]) -> bool:
        """Take a place if one is free and nobody waits for it."""
        taken = self._in_flight.get(host, 0)
        if taken >= self._limit or host in self._waiting:
            return False
        self._in_flight[host] = taken + 1
        return True

    async def enter(self, host: tuple[str, int]) -> None:
        if self.try_enter(host):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue = self._waiting.setdefault(host, deque())
        queue.append(turn)
        try:
            await turn  # the place is handed over by `leave`
        except BaseException:
            if turn.done() and not turn.cancelled():
                self.leave(host)  # it came just as the caller gave up
            else:
                queue.remove(turn)
                if not queue:
                    self._waiting.pop(host, None)
            raise

    def leave(self, host: tuple[str, int]) -> None:
        """Hand the place to whoever waits longest, or free it."""
        queue = self._waiting.get(host)
        while queue:
            turn = queue.popleft()
            if not queue:
                del self._waiting[host]
            if not turn.done():
                turn.set_result(None)
                return
        left = self._in_flight[host] - 1
        if left:
            self._in_flight[host] = left
        else:
            del self._in_flight[host]
