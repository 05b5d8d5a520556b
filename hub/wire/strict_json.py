"""Strict JSON: what two parsers could read differently is not read at all.

UTF-8 without a byte order mark, one value, no duplicate keys, depth <= 16 (and no parser that goes deep before that is
known), no NaN or Infinity, no integer of more than 18 digits, no NUL and no lone surrogate in any text.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final, NoReturn

import orjson

from hub.domain.errors import InvalidRequest

MAX_DEPTH = 16
MAX_DIGITS = 18

_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)
_DIGITS = bytes.maketrans(b"0123456789", b"0000000000")
_LONG_DIGITS = b"0" * (MAX_DIGITS + 1)
_KEY = re.compile(rb'"[ \t\n\r]*:')
_NOT_PLAIN: Final = object()
_SUSPECT = re.compile(rb"\\u(?:[dD][89a-fA-F]|0000)")


class _Refused(ValueError):
    pass


def parse(body: bytes) -> Any:
    """The value in ``body``. Raises InvalidRequest (code ``invalid_json``) whose message repeats nothing of it."""
    value = _plain(body)
    if value is not _NOT_PLAIN:
        return value
    try:
        _judge_depth(body)
        text = body.decode("utf-8")
        if text.startswith("\ufeff"):
            _refuse("a byte order mark is not allowed")
        parse_int = _bounded_int if _has_long_digits(body) else None
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


def _plain(body: bytes) -> Any:
    """The value of a body without escapes and long numbers, read by a quick parser that knows no duplicate keys:
    these are found by counting. _NOT_PLAIN where there is any doubt."""
    if b"\\" in body or _has_long_digits(body):
        return _NOT_PLAIN
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError:
        return _NOT_PLAIN
    members, containers, depth = _counted(value)
    if containers != body.count(b"[") + body.count(b"{") or depth > MAX_DEPTH:
        return _NOT_PLAIN  # a bracket in a text, or a list that was not looked into
    # Without escapes this never counts a key too little; twice the same makes it more than there are members.
    return value if len(_KEY.findall(body)) == members else _NOT_PLAIN


def _counted(value: Any) -> tuple[int, int, int]:
    """Members of all objects, objects and lists, and how deep they stand; lists that begin with something else are
    counted, not looked into."""
    members = containers = depth = 0
    level = [value]
    while level:
        inner: list[Any] = []
        before = containers
        for each in level:
            kind = type(each)
            if kind is dict:
                containers += 1
                members += len(each)
                inner.extend(each.values())
            elif kind is list:
                containers += 1
                if each and type(each[0]) in (dict, list):
                    inner.extend(each)
        depth += containers > before
        level = inner
    return members, containers, depth


def _has_long_digits(body: bytes) -> bool:
    return _LONG_DIGITS in body.translate(_DIGITS)


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
