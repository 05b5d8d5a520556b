"""Strict JSON at the door: what two parsers could read differently is not read at all.

UTF-8 without a byte order mark, one value, no duplicate keys, depth <= 16 (judged before anything is parsed), no NaN
or Infinity, no integer of more than 18 digits, no NUL and no lone surrogate in any text.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from typing import Any, Final, NoReturn

from fastapi import Request, Response
from fastapi.routing import APIRoute

from hub.domain.errors import InvalidRequest

MAX_DEPTH = 16
MAX_DIGITS = 18
_IN_THREAD_FROM = 128 << 10  # bytes: larger bodies would hold the loop for milliseconds

_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_LONG_DIGITS = re.compile(rb"\d{%d}" % (MAX_DIGITS + 1))
_SUSPECT = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")


class _Refused(ValueError):
    pass


def parse(body: bytes) -> Any:
    """The value in ``body``. Raises InvalidRequest (code ``invalid_json``) whose message repeats nothing of it."""
    try:
        _judge_depth(body)
        text = body.decode("utf-8")
        if text.startswith("\ufeff"):
            _refuse("a byte order mark is not allowed")
        parse_int = _bounded_int if _LONG_DIGITS.search(body) else None
        value = json.loads(
            text,
            object_pairs_hook=_unique,
            parse_constant=lambda _: _refuse("NaN and Infinity are not JSON"),
            parse_float=_finite,
            parse_int=parse_int,
        )
        if _SUSPECT.search(body):
            _judge_texts(value)
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not UTF-8.", code="invalid_json") from None
    except _Refused as refused:
        raise InvalidRequest(f"The body is not strict JSON: {refused}.", code="invalid_json") from None
    except json.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON (at character {error.pos}).", code="invalid_json") from None
    return value


def _refuse(why: str) -> NoReturn:
    raise _Refused(why)


def _judge_depth(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for token in _TOKENS.finditer(body):
        first = body[token.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                _refuse(f"it is nested more than {MAX_DEPTH} levels deep")
        elif first in b"]}":
            depth -= 1


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        _refuse("an object has the same key twice")
    return found


def _finite(text: str) -> float:
    value = float(text) if len(text) <= 64 else math.inf
    return value if math.isfinite(value) else _refuse("a number is out of range")


def _bounded_int(text: str) -> int:
    return int(text) if len(text.lstrip("-")) <= MAX_DIGITS else _refuse("a number is out of range")


def _judge_texts(value: Any) -> None:
    for text in _texts(value):
        if "\x00" in text or any("\ud800" <= char <= "\udfff" for char in text):
            _refuse("a text holds a NUL or half a character")


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield key
            yield from _texts(member)
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member)


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
