"""A load generator's HTTP/1.1 connection: one request at a time, as little work per request as Python allows."""

from __future__ import annotations

import asyncio
from typing import NamedTuple, cast
from urllib.parse import urlsplit


class Reply(NamedTuple):
    status: int
    body: bytes
    retry_after: float = 0.0


class Connection(asyncio.Protocol):
    """Answers must state their Content-Length; anything else ends the connection with an error."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Reply] | None = None
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(exc or ConnectionError("the server closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self._waiter is None or self._waiter.done():
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        if at < 0:
            self._waiter.set_exception(ConnectionError("an answer without content-length"))
            return
        length = int(head[at + 15 :].split(b"\r", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return
        wait = head.find(b"\r\nretry-after:")
        seconds = float(head[wait + 14 :].split(b"\r", 1)[0]) if wait >= 0 else 0.0
        reply = Reply(int(head[9:12]), self._buffer[end + 4 : end + 4 + length], seconds)
        self._buffer = self._buffer[end + 4 + length :]
        self._waiter.set_result(reply)

    async def send(self, request: bytes) -> Reply:
        """``request`` is complete: head and body."""
        assert self._transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiter

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def connect(url: str) -> Connection:
    host = urlsplit(url)
    _, connection = await asyncio.get_running_loop().create_connection(Connection, host.hostname, host.port)
    return connection


def request(url: str, method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    """The bytes of a request; underscores in header names stand for dashes."""
    lines = [f"{method} {path} HTTP/1.1", f"host: {urlsplit(url).netloc}", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body
