"""Strict JSON at the door: bodies are read by `hub.wire.strict_json`, and by nothing else before it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from fastapi import Request, Response
from fastapi.routing import APIRoute

from hub.domain.errors import InvalidRequest
from hub.wire.strict_json import MAX_DEPTH, MAX_DIGITS, parse

__all__ = ["ABSENT", "MAX_DEPTH", "MAX_DIGITS", "StrictRoute", "judge_content_type", "parse", "read_json", "strict"]

_IN_THREAD_FROM = 128 << 10  # bytes: larger bodies would hold the loop for milliseconds


def judge_content_type(request: Request) -> None:
    """Raises InvalidRequest (``unsupported_media_type``) unless the body is announced as plain, uncompressed JSON."""
    kind, _, parameters = request.headers.get("content-type", "").partition(";")
    kind = kind.strip().lower()
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise InvalidRequest("Send the body as application/json.", code="unsupported_media_type")
    charset = re.search(r"charset\s*=\s*\"?([^\s\";]+)", parameters, re.IGNORECASE)
    if charset is not None and charset.group(1).lower() not in ("utf-8", "utf8"):
        raise InvalidRequest("Send the body in UTF-8.", code="unsupported_media_type")
    if request.headers.get("content-encoding", "identity").strip().lower() not in ("identity", ""):
        raise InvalidRequest("Send the body without a content coding.", code="unsupported_media_type")


class _Parsed(Request):
    """A request whose JSON was read by `parse`."""

    async def json(self) -> Any:
        return self._json


ABSENT: Final = object()


async def read_json(request: Request) -> Any:
    """The value of the body, read strictly; ABSENT for an empty one. Raises InvalidRequest."""
    body = await request.body()
    if not body:
        return ABSENT
    judge_content_type(request)
    return parse(body) if len(body) < _IN_THREAD_FROM else await asyncio.to_thread(parse, body)


async def strict(request: Request) -> Request:
    """``request`` with its body read and parsed strictly; an empty body is left for the model to refuse."""
    value = await read_json(request)
    if value is ABSENT:
        return request
    parsed = _Parsed(request.scope, request.receive)
    parsed._body = await request.body()
    parsed._json = value
    return parsed


class StrictRoute(APIRoute):
    """For every router: JSON bodies go through `strict` before anything else looks at them."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        original: Callable[[Request], Awaitable[Response]] = super().get_route_handler()
        takes_body = self.body_field is not None

        async def handle(request: Request) -> Response:
            return await original(await strict(request) if takes_body else request)

        return handle
