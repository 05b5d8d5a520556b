"""One HTTP/1.1 connection to a receiver nobody trusts: one request at a time, every answer bounded.

Raw limits are counted before the parser sees a byte, so no header, chunk extension or interim answer can make it work
without end: 64 KiB of head over all interim answers (at most 8 of those), then 64 KiB of body with its framing. What
goes beyond is cut off and judged by the status. Nothing is decoded, followed or repeated here.
"""

from __future__ import annotations

import asyncio
import select
from typing import Any, Final, cast

import httptools

from hub.adapters.webhook.deadlines import Deadlines
from hub.adapters.webhook.guard import Address
from hub.ports.sender import Response, SendError

HEAD_LIMIT: Final = 65_536
BODY_LIMIT: Final = 65_536
INTERIM_LIMIT: Final = 8
HEADER_COUNT_LIMIT: Final = 256
_JOIN_BELOW: Final = 16_384  # head and body in one write up to here


class _Refused(Exception):
    """Raised inside a parser callback to stop the parser; the reason stands in the connection."""


class Connection(asyncio.Protocol):
    """``address`` is the checked one; ``idle_since`` and ``good_until`` (monotonic seconds) are the pool's notes."""

    def __init__(self, loop: asyncio.AbstractEventLoop, address: Address, deadlines: Deadlines) -> None:
        self.address = address
        self._loop, self._deadlines = loop, deadlines
        self._transport: asyncio.Transport | None = None
        self._poll: Any = None
        self._parser: Any = None
        self._waiter: asyncio.Future[Response] | None = None
        self._clean = True  # nothing has happened yet that forbids another request
        self._body_length = 0
        self._reset()
        self.requests = 0
        self.tls = False
        self.idle_since = 0.0
        self.good_until = 0.0

    def _reset(self) -> None:
        self._raw = 0
        self._interim = 0
        self._headers = 0
        self._length: bytes | None = None
        self._encoding: bytes | None = None
        self._retry_after: str | None = None
        self._status = 0  # of the final answer, once its head is complete
        self._keep_alive = False
        self._parts: list[bytes] = []
        self._done = False
        self._fault = ""

    # -- used by the sender ------------------------------------------------------------------------------------------

    @property
    def owns_socket(self) -> bool:
        return self._transport is not None

    @property
    def reused(self) -> bool:
        return self.requests > 1

    @property
    def sent(self) -> bool:
        """Whether bytes of the running request's body may have left; only a plain False is certain."""
        assert self._transport is not None
        return self.tls or self._transport.get_write_buffer_size() < self._body_length

    @property
    def reusable(self) -> bool:
        """Complete, keep-alive, no byte too many, all of the request written."""
        transport = self._transport
        return (
            self._clean
            and self._keep_alive
            and transport is not None
            and not transport.is_closing()
            and transport.get_write_buffer_size() == 0
        )

    def is_quiet(self) -> bool:
        """Asked right before reuse: still open, and nothing to read. A readable idle connection is dying or lying."""
        transport = self._transport
        if not self._clean or transport is None or transport.is_closing():
            return False
        try:
            if self._poll is None:
                self._poll = _poll_of(transport.get_extra_info("socket").fileno())
            return not self._poll()
        except (OSError, ValueError):
            return False

    def upgrade(self, transport: asyncio.Transport) -> None:
        """From here on the bytes go through TLS."""
        self._transport = transport
        self.tls = True

    async def exchange(self, head: bytes, body: bytes, deadline: float) -> Response:
        """Send one request and wait for the final answer, at the latest until ``deadline`` (loop time).

        At the deadline an answer whose head is there is judged by its status, body or not. Raises SendError.
        """
        transport = self._transport
        if transport is None or not self._clean or transport.is_closing():
            raise SendError("closed", reused=self.requests > 0, detail="the connection was gone before the request")
        self._reset()
        self._parser = httptools.HttpResponseParser(self)
        self._waiter = self._loop.create_future()
        self._body_length = len(body)
        self.requests += 1
        if len(body) <= _JOIN_BELOW:
            transport.write(head + body)
        else:
            transport.write(head)
            transport.write(body)
        self._deadlines.watch(self, deadline)
        try:
            return await self._waiter
        finally:
            self._deadlines.done(self)

    def abort(self) -> None:
        self._clean = False
        if self._transport is not None:
            self._transport.abort()

    # -- asyncio.Protocol --------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._done or self._waiter is None or self._waiter.done():
            self.abort()  # bytes nobody asked for: an answer to a request not yet made must never be taken for one
            return
        if not self._status:
            piece = data[: HEAD_LIMIT - self._raw]
            self._raw += len(piece)
            self._feed(piece)
            if self._done:
                self._clean = self._clean and len(piece) == len(data)
                return
            if not self._status:
                if self._raw >= HEAD_LIMIT:
                    self._fail("the head of the answer is too long")
                return
            self._raw = len(piece) - (piece.find(b"\r\n\r\n") + 4)  # body that came with the head; rather too much
            data = data[len(piece) :]
            if not data and self._raw < BODY_LIMIT:
                return
        piece = data[: BODY_LIMIT - self._raw]
        self._raw += len(piece)
        self._feed(piece)
        if self._done:
            self._clean = self._clean and len(piece) == len(data)
        elif self._raw >= BODY_LIMIT:
            self._finish(truncated=True)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: BaseException | None) -> None:
        self._clean = False
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        if self._status:
            until_close = self._length is None and self._encoding is None
            self._finish(truncated=not until_close or exc is not None)
            return
        detail = "the receiver closed without an answer" if exc is None else type(exc).__name__
        waiter.set_exception(SendError("closed", sent=True, reused=self.reused, detail=detail))

    # -- httptools ---------------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._done:
            self._clean = False  # a second answer behind the first

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers += 1
        if self._headers > HEADER_COUNT_LIMIT:
            self._refuse("too many headers")
        if self._done or len(name) not in (11, 14, 17):
            return
        name = name.lower()
        if name == b"content-length":
            if self._length is not None and self._length != value:
                self._refuse("two lengths")
            self._length = value
        elif name == b"transfer-encoding":
            if self._encoding is not None or value.strip().lower() != b"chunked":
                self._refuse("a transfer encoding other than chunked")
            self._encoding = value
        elif name == b"retry-after" and len(value) <= 64:
            self._retry_after = value.decode("ascii", "replace")

    def on_headers_complete(self) -> None:
        if self._done:
            return
        status = self._parser.get_status_code()
        if self._length is not None and self._encoding is not None:
            self._refuse("a length together with a transfer encoding")
        if self._parser.get_http_version() not in ("1.1", "1.0"):
            self._refuse("not HTTP/1.1")
        if 100 <= status <= 199:
            self._interim += 1
            if status == 101 or self._interim > INTERIM_LIMIT:
                self._refuse("protocol switch" if status == 101 else "too many interim answers")
            self._length = self._encoding = self._retry_after = None
            return
        if not 200 <= status <= 599:
            self._refuse("no such status")
        self._status = status
        if self._length is not None and (len(self._length) > 18 or int(self._length) > BODY_LIMIT):
            self._finish(truncated=True)

    def on_body(self, body: bytes) -> None:
        if not self._done:
            self._parts.append(body)

    def on_message_complete(self) -> None:
        if not self._done and self._status:
            self._keep_alive = self._parser.should_keep_alive()
            self._finish(truncated=False)

    # -- inside ------------------------------------------------------------------------------------------------------

    def expire(self) -> None:
        """The running request's time is up, see `Deadlines`."""
        if self._done or self._waiter is None or self._waiter.done():
            return
        if self._status:
            self._finish(truncated=True)
            return
        sent = self.sent
        self._done, self._clean = True, False
        self._waiter.set_exception(SendError("timeout", sent=sent, reused=self.reused, detail="no answer in time"))

    def _feed(self, piece: bytes) -> None:
        try:
            self._parser.feed_data(piece)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._clean = False
            if self._done:
                return  # the answer was complete; what follows it is the receiver's mistake
            self._fail(self._fault or type(error).__name__)

    def _refuse(self, fault: str) -> None:
        self._fault = fault
        raise _Refused

    def _response(self, *, truncated: bool) -> Response:
        return Response(self._status, self._retry_after, b"".join(self._parts), truncated)

    def _finish(self, *, truncated: bool) -> None:
        self._done = True
        if truncated:
            self._clean = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(self._response(truncated=truncated))

    def _fail(self, detail: str) -> None:
        self._done = True
        self._clean = False
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(SendError("protocol", sent=True, reused=self.reused, detail=detail))


def _poll_of(descriptor: int) -> Any:
    """A cheap "is there anything to read" for one socket; `select.poll` where the platform has it."""
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(descriptor, select.POLLIN | select.POLLHUP | select.POLLERR)
        return lambda: poll.poll(0)
    return lambda: select.select([descriptor], [], [descriptor], 0)[0]
