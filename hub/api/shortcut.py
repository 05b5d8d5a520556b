"""The short way to a hot route: from the parsed head of a request to its endpoint, with no layer in between.

Only what is plain takes it: an exact path, a body announced with its length and small enough to be held. Everything
else goes the ordinary way through the application. Both judge the same, answer in the same words, set the same header
fields and count the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final

from fastapi import FastAPI, Request
from starlette.types import Scope

from hub.api import problems
from hub.api.context import Context
from hub.api.hot import HotRoute
from hub.api.limits import MAX_HEADER_BYTES, MAX_HEADERS, RATE_LIMIT, body_limit, fixed_headers

log = logging.getLogger("numhub.api")

MAX_BODY: Final = 64 << 10
"""Bytes; larger bodies are read with back-pressure, which the ordinary way knows."""

_UNUSUAL: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"range"})

Fields = Sequence[tuple[bytes, bytes]]


class Shortcut:
    """Finds hot routes by the head of a request, and answers them."""

    def __init__(self, app: FastAPI, context: Context, routes: Iterable[Any], resource_metadata: str) -> None:
        self._app, self._context, self._resource_metadata = app, context, resource_metadata
        self._routes = {
            (method.encode(), route.path.encode()): route
            for route in routes
            if isinstance(route, HotRoute)
            for method in route.methods or ()
        }
        fixed = b"".join(_line(*field) for field in fixed_headers(context.settings.public_url))
        self._heads = {
            route.status: _status_line(route.status) + fixed + b"content-type: application/json\r\ncontent-length: "
            for route in self._routes.values()
        }

    def route(self, method: bytes, url: bytes, headers: Fields, head_bytes: int) -> HotRoute | None:
        """The route that answers such a request here; None sends it the ordinary way, whatever is wrong with it."""
        found = self._routes.get((method, url))
        if found is None or head_bytes > MAX_HEADER_BYTES or len(headers) > MAX_HEADERS:
            return None
        length = -1
        for name, value in headers:
            if name in _UNUSUAL:
                return None
            if name == b"content-length":
                length = int(value) if value.isdigit() and len(value) < 8 and length < 0 else MAX_BODY + 1
        limit = body_limit("POST", found.path, self._context.settings.body_limit)
        return found if 0 <= length <= min(MAX_BODY, MAX_BODY if limit is None else limit) else None

    async def answer(self, route: HotRoute, scope: Scope, body: bytes, fields: bytes) -> tuple[bytes, bytes]:
        """(head without its last empty line, body) of the answer; ``fields`` are header lines of the server's own."""
        begun = self._context.clock.monotonic()
        scope["app"] = self._app
        request = Request(scope)
        request._body = body
        try:
            content = await route.answer(request)
            status, head = route.status, self._heads[route.status] + b"%d\r\n" % len(content)
        except Exception as error:
            response = problems.of(error, self._resource_metadata)
            if response is None:
                log.exception("request_failed", extra={"route": route.path})
                response = problems.problem("internal")
            status, content = response.status_code, bytes(response.body)
            told = [*response.raw_headers, *fixed_headers(self._context.settings.public_url, response.raw_headers)]
            head = _status_line(status) + b"".join(_line(name, value) for name, value in told)
        for name, value in scope.get(RATE_LIMIT, ()):
            head += _line(name, value)
        self.count(route, status, self._context.clock.monotonic() - begun)
        return head + fields, content

    def count(self, route: HotRoute, status: int, seconds: float) -> None:
        """Status 0: the caller was gone before there was anything to answer."""
        metrics = self._context.metrics
        if metrics is not None:
            metrics.count("numhub_http_requests_total", route=route.path, status=str(status))
            metrics.observe("numhub_http_request_seconds", seconds, route=route.path)
        if not status:
            log.info("client_disconnected", extra={"route": route.path})


class HotCycle:
    """One request on its short way; stands where uvicorn's protocol expects a ``RequestResponseCycle``.

    ``message_event`` is the cycle itself: the protocol calls ``set`` whenever something came, or the caller left.
    """

    __slots__ = (
        "_protocol", "_route", "_running", "_scope", "_shortcut", "body", "disconnected", "keep_alive",
        "message_event", "more_body", "response_complete", "response_started",
    )  # fmt: skip

    def __init__(self, protocol: Any, shortcut: Shortcut, route: HotRoute, scope: Scope, keep_alive: bool) -> None:
        self._protocol, self._shortcut, self._route, self._scope = protocol, shortcut, route, scope
        self.keep_alive = keep_alive
        self.body = bytearray()
        self.more_body = True
        self.disconnected = self.response_started = self.response_complete = self._running = False
        self.message_event = self

    def set(self) -> None:
        if self._running:
            return
        if self.disconnected:
            self._running = True
            self._shortcut.count(self._route, 0, 0.0)
        elif not self.more_body:
            self._running = True
            tasks: set[Any] = self._protocol.tasks
            task = self._protocol.loop.create_task(self._run())
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _run(self) -> None:
        protocol = self._protocol
        try:
            fields = b"".join([_line(*field) for field in protocol.server_state.default_headers])
            head, body = await self._shortcut.answer(self._route, self._scope, bytes(self.body), fields)
            if protocol.flow.write_paused and not self.disconnected:
                await protocol.flow.drain()
        except BaseException:
            protocol.transport.close()
            raise
        if self.disconnected:
            return
        self.response_started = self.response_complete = True
        protocol.transport.write(head + (b"\r\n" if self.keep_alive else b"connection: close\r\n\r\n") + body)
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


def _line(name: bytes, value: bytes) -> bytes:
    return b"%b: %b\r\n" % (name, value)


def _status_line(status: int) -> bytes:
    return f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode()
