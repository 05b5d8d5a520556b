"""The outermost layer of the HTTP surface: sizes are judged, errors caught, headers set, requests counted.

Pure ASGI, so that streaming and cancellation stay as they are. What is too large is refused before it is read.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import Depends, Header, Request
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hub.api import problems
from hub.api.context import Context
from hub.domain.errors import InvalidRequest, PayloadTooLarge

log = logging.getLogger("numhub.api")

MAX_PATH = 2048
MAX_QUERY = 8192
MAX_HEADERS = 100
MAX_HEADER_BYTES = 32_768
MAX_RANGES = 10

_LARGER = {"/v1/acks": 4 << 20, "/v1/clearance": 2 << 20}
_STREAMED = re.compile(r"/v1/batches/[^/]+/content")

_FIXED_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cache-control", b"no-store"),
)


RATE_LIMIT = "numhub.ratelimit"
"""Where in a request's scope the header fields wait that say how much of its limit is left; set once it counted."""


def rate_limit(name: str, quota: int, window: float, left: int, resets_after: float) -> dict[str, str]:
    """The header fields that say how much of a limit is left (draft-ietf-httpapi-ratelimit-headers)."""
    return {
        "ratelimit-policy": f'"{name}";q={quota};w={window:.0f}',
        "ratelimit": f'"{name}";r={left};t={math.ceil(resets_after)}',
    }


def body_limit(method: str, path: str, default: int) -> int | None:
    """Bytes a request body may have; None where the route itself streams and counts."""
    if method == "PUT" and _STREAMED.fullmatch(path):
        return None
    return _LARGER.get(path, default)


def fixed_headers(public_url: str, given: Sequence[tuple[bytes, bytes]] = ()) -> list[tuple[bytes, bytes]]:
    """What every answer carries besides the header fields it was ``given``."""
    names = {name.lower() for name, _ in given}
    added = [pair for pair in _FIXED_HEADERS if pair[0] not in names]
    if public_url.startswith("https://"):
        added.append((b"strict-transport-security", b"max-age=31536000"))
    return added


class Limits:
    """Wraps the application; see the module."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = self._context.clock.monotonic()
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = message.get("headers", [])
                fixed = fixed_headers(self._context.settings.public_url, given)
                message["headers"] = [*given, *fixed, *scope.get(RATE_LIMIT, ())]
            await send(message)

        refusal = self._judge(scope)
        if refusal is not None:
            await problems.problem(refusal)(scope, receive, answer)
        else:
            limit = body_limit(scope["method"], scope["path"], self._context.settings.body_limit)
            bounded = receive if limit is None else _bounded(receive, limit)
            try:
                await self._app(scope, bounded, answer)
            except ClientDisconnect:
                log.info("client_disconnected", extra={"route": _route(scope)})
            except Exception:
                log.exception("request_failed", extra={"route": _route(scope)})
                if status:
                    raise  # the answer has begun: all that is left is to cut the connection
                await problems.problem("internal")(scope, receive, answer)
        self._count(scope, status, self._context.clock.monotonic() - begun)

    def _judge(self, scope: Scope) -> str | None:
        """The code of what is wrong with the head of the request, or None."""
        if len(scope.get("raw_path") or scope["path"]) > MAX_PATH or len(scope["query_string"]) > MAX_QUERY:
            return "uri_too_long"
        headers = scope["headers"]
        if len(headers) > MAX_HEADERS or sum(len(name) + len(value) for name, value in headers) > MAX_HEADER_BYTES:
            return "headers_too_large"
        if "\x00" in scope["path"]:
            return "bad_request"
        limit = body_limit(scope["method"], scope["path"], self._context.settings.body_limit)
        for name, value in headers:
            if name == b"range" and value.count(b",") >= MAX_RANGES:
                return "range_not_satisfiable"
            if name == b"content-length" and limit is not None and (not value.isdigit() or int(value[:20]) > limit):
                return "payload_too_large" if value.isdigit() else "bad_request"
        return None

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        metrics, route = self._context.metrics, _route(scope)
        if metrics is not None:
            metrics.count("numhub_http_requests_total", route=route, status=str(status))
            metrics.observe("numhub_http_request_seconds", seconds, route=route)


def _route(scope: Scope) -> str:
    """The route's template: a path as sent might hold anything, a template holds no id."""
    path = getattr(scope.get("route"), "path", None)
    return path if isinstance(path, str) else "unmatched"


def _bounded(receive: Receive, limit: int) -> Receive:
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit:
                raise PayloadTooLarge
        return message

    return bounded


_KEY = re.compile(r'"([\x20\x21\x23-\x5b\x5d-\x7e]{1,128})"|([\x21\x23-\x5b\x5d-\x7e]{1,128})')


async def idempotency_key(
    request: Request,
    given: Annotated[
        str | None,
        Header(alias="Idempotency-Key", description='required; your own, in quotes: "b3f1.."; scoped to your client'),
    ] = None,
) -> str:
    """The caller's Idempotency-Key (a structured-field string; without quotes it is taken too), 1 to 128 characters."""
    values = request.headers.getlist("idempotency-key")
    if not values:
        raise InvalidRequest("The Idempotency-Key header is required here.", code="idempotency_key_missing")
    found = _KEY.fullmatch(values[0].strip()) if len(values) == 1 else None
    if found is None:
        raise InvalidRequest("Idempotency-Key must be one quoted text.", code="idempotency_key_malformed")
    return found.group(1) or found.group(2)


IdempotencyKey = Annotated[str, Depends(idempotency_key)]
