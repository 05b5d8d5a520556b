"""uvicorn inside our own loop, with the deadlines it lacks.

Headers must be complete within 10 seconds; a body may take 30 seconds plus one second per KiB (while the hub is
willing to read); request line and headers are bounded before they are collected; a head that two readers could take
differently (no Host or several, HTTP/0.9, the absolute form meant for proxies) is refused; after an answer that came
before the end of the body, what still comes is discarded for two seconds so that the answer is not lost in a reset.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hub.api import problems
from hub.api.shortcut import HotCycle, Shortcut

HEADERS_WITHIN = 10.0
BODY_GRACE = 30.0
BODY_RATE = 1024.0
"""Bytes per second a body must bring on average after the grace."""

LINGER = 2.0
MAX_URL = 16_384
MAX_HEADERS = 128
MAX_HEADER_BYTES = 65_536
_TICK = 5.0

_STATUS = {
    400: "400 Bad Request", 408: "408 Request Timeout", 414: "414 URI Too Long",
    431: "431 Request Header Fields Too Large", 503: "503 Service Unavailable",
}  # fmt: skip
_CODES = {
    400: "bad_request", 408: "request_timeout", 414: "uri_too_long", 431: "headers_too_large", 503: "unavailable",
}  # fmt: skip


class _BadHead(Exception):
    pass


class DeadlineProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol under deadlines and limits. One instance per connection, on the loop's thread."""

    headers_within = HEADERS_WITHIN
    body_grace = BODY_GRACE
    tick = _TICK
    linger = LINGER
    max_connections = 4000
    shortcut: Shortcut | None = None
    on_refused: Callable[[int], None] | None = None
    """Told the status of every refusal given here, which no application sees."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._head_bytes = 0
        self._in_head = False
        self._in_body = False
        self._received = 0
        self._waited = 0.0
        self._refuse_with = 400

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self.max_connections:
            self._in_head = True  # it is told why, although it has said nothing yet
            self._refuse(503)
        else:
            self._arm(self.headers_within, self._head_late)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._in_body:
            self._received += len(data)
        super().data_received(data)
        if self._deadline is not None or self.transport.is_closing():
            return
        if self._in_body:
            self._arm(self.tick, self._judge_body)
        elif self._in_head or self.cycle is None or self.cycle.response_complete:
            self._arm(self.headers_within, self._head_late)  # first bytes of a further request

    def on_message_begin(self) -> None:
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > MAX_URL:
            self._refuse_with = 414
            raise _BadHead

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_bytes += len(name) + len(value)
        if self._head_bytes > MAX_HEADER_BYTES or len(self.headers) >= MAX_HEADERS:
            self._refuse_with = 431
            raise _BadHead
        if self._in_head:
            super().on_header(name, value)  # trailers are read and dropped

    def on_headers_complete(self) -> None:
        self._judge_head()
        self._in_head, self._in_body, self._received, self._waited = False, True, 0, 0.0
        self._disarm()  # what comes in one piece, as most requests do, needs no timer
        if self.shortcut is None or not self._take_shortcut(self.shortcut):
            super().on_headers_complete()

    def _take_shortcut(self, shortcut: Shortcut) -> bool:
        """Begin a request the short way, if it is a plain one for a hot route and none is under way."""
        if self.cycle is not None and not self.cycle.response_complete:
            return False
        method = self.parser.get_method()
        route = shortcut.route(method, self.url, self.headers, self._head_bytes)
        if route is None or self.parser.get_http_version() != "1.1":
            return False
        path = self.url.decode("ascii")
        scope: Any = self.scope
        scope |= {"method": method.decode("ascii"), "path": path, "raw_path": self.url, "query_string": b""}
        cycle: Any = HotCycle(self, shortcut, route, scope, self.parser.should_keep_alive())
        self.cycle = cycle
        return True

    def _judge_head(self) -> None:
        """RFC 9112 sections 3.2 and 2.3. Raises for what is neither HTTP/1.0 nor a plain HTTP/1.1 request."""
        version = self.parser.get_http_version()
        hosts = sum(name == b"host" for name, _ in self.headers)
        if version not in ("1.0", "1.1") or hosts > 1 or (version == "1.1" and not hosts):
            raise _BadHead
        if not self.url.startswith(b"/") and self.url != b"*":
            raise _BadHead  # the hub is nobody's proxy

    def on_message_complete(self) -> None:
        self._in_body = False
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._in_body and not self.transport.is_closing():
            self._arm(self.linger, self.transport.close)

    def send_400_response(self, msg: str) -> None:
        self._refuse(self._refuse_with)

    def _head_late(self) -> None:
        self._refuse(408)

    def _judge_body(self) -> None:
        if not self.flow.read_paused:  # while the hub does not read, the sender is not the slow one
            self._waited += self.tick
        if self._waited > self.body_grace + self._received / BODY_RATE:
            self._refuse(408)
        else:
            self._arm(self.tick, self._judge_body)

    def _refuse(self, status: int) -> None:
        """Answer, if no answer has begun, and close."""
        self._disarm()
        if self.transport.is_closing():
            return
        if self.on_refused is not None:
            self.on_refused(status)
        busy = self.cycle is not None and self.cycle.response_started and not self.cycle.response_complete
        # a connection that never said anything gets no answer either
        if not busy and (self._in_head or self._in_body or status != 408):
            body = bytes(problems.problem(_CODES[status], status=status).body)
            head = f"HTTP/1.1 {_STATUS[status]}\r\ncontent-type: application/problem+json\r\n"
            if status == 503:
                head += "retry-after: 1\r\n"
            self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
        self.transport.close()

    def _arm(self, seconds: float, callback: Callable[[], None]) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(seconds, callback)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class _Server(uvicorn.Server):
    """Signals are the caller's business: other loops must stop together with this one."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int, backlog: int = 2048) -> socket.socket:
    """A listening socket; ``port`` 0 takes a free one. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(backlog)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


async def serve(
    app: Any,
    host: str = "127.0.0.1",
    port: int = 8080,
    *,
    listener: socket.socket | None = None,
    bound: Callable[[int], None] | None = None,
    stop: asyncio.Event | None = None,
    max_connections: int = 4000,
    drain_within: float = 10.0,
    refused: Callable[[int], None] | None = None,
    protocol: type[DeadlineProtocol] = DeadlineProtocol,
) -> None:
    """Serve ``app``, its hot routes by the ``shortcut`` of its state (if any), until ``stop`` is set or this call is
    cancelled; both finish running requests first, at most ``drain_within`` seconds. ``bound`` is told the port once
    the socket listens; ``refused`` the status of every refusal the application does not see. More than
    ``max_connections`` are answered 503. Raises OSError if it cannot bind."""
    limits = {
        "max_connections": max_connections,
        "shortcut": getattr(getattr(app, "state", None), "shortcut", None),
        "on_refused": staticmethod(refused) if refused else None,
    }
    protocol = type(protocol.__name__, (protocol,), limits)
    listener = listener or bind(host, port)
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        loop="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=65,
        timeout_graceful_shutdown=int(drain_within),
    )
    server = _Server(config)
    running = asyncio.create_task(server.serve(sockets=[listener]), name="http-server")
    stopping = asyncio.create_task((stop or asyncio.Event()).wait(), name="http-server-stop")
    try:
        if bound is not None:
            bound(int(listener.getsockname()[1]))
        await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        server.should_exit = True
        await asyncio.shield(running)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """uvloop's loop where there is one; for ``asyncio.Runner(loop_factory=...)``."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
