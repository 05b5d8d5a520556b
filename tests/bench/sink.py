"""The receiver of a bench: takes any POST, answers 200, keeps the connection, checks one signature in a hundred.

Below ``/hang`` it never answers, below ``/drip`` a byte a second, below ``/refuse`` it resets the connection: none of
these count in what it tells. ``GET /control/stats`` tells what came; ``GET /control/arrivals`` gives "chunk id,
monotonic ns, subscriber, count" per webhook and forgets them; ``GET /control/reset?record=1`` starts anew. Times are
CLOCK_MONOTONIC, the same for every process of a machine.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from base64 import b64encode
from typing import cast

import uvloop

from tests.bench.processes import say

SAMPLE = 100
_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"


def secret_of(subscriber: int) -> bytes:
    """The signing secret of the bench's subscriber of this number."""
    return hashlib.sha256(f"bench subscriber {subscriber}".encode()).digest()


class Tally:
    """What the sink has seen; one per process."""

    def __init__(self) -> None:
        self.reset(record=False)

    def reset(self, *, record: bool) -> None:
        self.webhooks = self.numbers = self.bytes = self.verified = self.wrong = 0
        self.first = self.last = 0
        self.record = record
        self.arrivals: list[tuple[bytes, int, bytes, int]] = []

    def stats(self) -> bytes:
        names = ("webhooks", "numbers", "bytes", "verified", "wrong", "first", "last")
        return json.dumps({name: getattr(self, name) for name in names}).encode()


class Receiver(asyncio.Protocol):
    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._head = b""
        self._missing = self._count = 0
        self._body: list[bytes] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are no subclass

    def data_received(self, data: bytes) -> None:
        if self._missing:
            if not self._count:
                self._counted(data)
            if self._body is not None:
                self._body.append(data)
            self._missing -= len(data)
            if self._missing <= 0:
                self._complete()
            return
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._buffer = data
            return
        head = data[:end]
        if head.startswith(b"GET /control/"):
            self._control(head)
            return
        if not head.startswith(b"POST /s/") and self._misbehave(head):
            return
        length = int(_header(head, b"\r\ncontent-length: ") or 0)
        part = data[end + 4 :]
        tally = self._tally
        tally.webhooks += 1
        tally.bytes += length
        self._counted(part)
        self._head = head
        self._body = [part] if tally.webhooks % SAMPLE == 0 else None
        self._missing = length - len(part)
        if self._missing <= 0:
            self._complete()

    def _counted(self, part: bytes) -> None:
        """The body says near its beginning how many numbers it holds."""
        at = part.find(b'"count":', 0, 600)
        end = part.find(b",", at)
        if 0 <= at < end:
            self._count = int(part[at + 8 : end])
            self._tally.numbers += self._count

    def _complete(self) -> None:
        assert self._transport is not None
        tally = self._tally
        tally.last = time.monotonic_ns()
        tally.first = tally.first or tally.last
        if tally.record:
            subscriber = self._head.split(b" ", 2)[1].rsplit(b"/", 1)[1]
            chunk_id = _header(self._head, b"\r\nnumhub-chunk-id: ")
            tally.arrivals.append((chunk_id, tally.last, subscriber, self._count))
        self._transport.write(_OK)
        self._missing = self._count = 0
        if self._body is not None:
            tally.verified += 1
            tally.wrong += not _signed_well(self._head, b"".join(self._body))
            self._body = None

    def _misbehave(self, head: bytes) -> bool:
        assert self._transport is not None
        if head.startswith(b"POST /refuse"):
            self._transport.abort()
        elif head.startswith((b"POST /hang", b"POST /drip")):
            self._missing = 1 << 62  # whatever comes is swallowed
            if head.startswith(b"POST /drip"):
                self._drip(0)
        else:
            return False
        return True

    def _drip(self, place: int) -> None:
        if self._transport is not None and not self._transport.is_closing() and place < len(_OK):
            self._transport.write(_OK[place : place + 1])
            asyncio.get_running_loop().call_later(1.0, self._drip, place + 1)

    def _control(self, head: bytes) -> None:
        assert self._transport is not None
        if head.startswith(b"GET /control/reset"):
            self._tally.reset(record=b"record=1" in head.split(b"\r", 1)[0])
            body = b"{}"
        elif head.startswith(b"GET /control/arrivals"):
            body = b"".join(b"%s %d %s %d\n" % arrival for arrival in self._tally.arrivals)
            self._tally.arrivals = []
        else:
            body = self._tally.stats()
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))


def _header(head: bytes, name: bytes) -> bytes:
    at = head.find(name)
    if at < 0:
        return b""
    at += len(name)
    end = head.find(b"\r\n", at)
    return head[at:] if end < 0 else head[at:end]


def _signed_well(head: bytes, body: bytes) -> bool:
    """The path ends with the subscriber's number."""
    subscriber = int(head.split(b" ", 2)[1].rsplit(b"/", 1)[1])
    said = b"%s.%s." % (_header(head, b"\r\nwebhook-id: "), _header(head, b"\r\nwebhook-timestamp: "))
    mac = hmac.new(secret_of(subscriber), said, hashlib.sha256)
    mac.update(body)
    return b"v1," + b64encode(mac.digest()) in _header(head, b"\r\nwebhook-signature: ").split(b" ")


async def serve() -> None:
    tally = Tally()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Receiver(tally), "127.0.0.1", 0, backlog=2048)
    say(port=server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve())
