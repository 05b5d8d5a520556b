"""Between JSON values and the frozen dataclasses of `models`.

Reading is tolerant in one direction only: members this version does not know are ignored, so that a newer hub does not
break an older client; members it needs and does not find, or finds with another type, are an UnexpectedAnswer.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from numhub_client.errors import UnexpectedAnswer

T = TypeVar("T")
Convert = Callable[[Any], Any]


class _Misfit(Exception):
    """A value that does not fit its type; the argument says where."""


def decode(cls: type[T], value: object) -> T:
    """The JSON object ``value`` as ``cls``. Raises UnexpectedAnswer; its text names the member, never the value."""
    try:
        return cast(T, _converter(cast(Any, cls))(value))
    except _Misfit as error:
        raise UnexpectedAnswer(f"the hub's answer is no {cls.__name__}: {error}") from None


def encode(value: Any) -> Any:
    """Dataclasses, sequences and moments as JSON values; members that are None are left out."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        found = {f.name: encode(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {name: member for name, member in found.items() if member is not None}
    if isinstance(value, datetime):
        return rfc3339(value)
    if isinstance(value, list | tuple | set | frozenset | range):
        return [encode(item) for item in value]
    if isinstance(value, dict):
        return {name: encode(member) for name, member in value.items() if member is not None}
    return value


def rfc3339(moment: datetime) -> str:
    """2026-01-01T00:00:00Z. Raises ValueError for a moment without zone: guessing one would move a day boundary."""
    if moment.tzinfo is None:
        raise ValueError("a datetime without time zone; write e.g. datetime(..., tzinfo=UTC)")
    spec = "milliseconds" if moment.microsecond else "seconds"
    return moment.astimezone(UTC).isoformat(timespec=spec).replace("+00:00", "Z")


@cache
def _converter(kind: Any) -> Convert:
    origin, args = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value: value
    if dataclasses.is_dataclass(kind):
        return _object(cast(type, kind))
    if origin in (Union, types.UnionType):
        inner = _converter(next(arg for arg in args if arg is not type(None)))
        return lambda value: None if value is None else inner(value)
    if origin is tuple:
        item = _converter(args[0])
        return lambda value: tuple(item(each) for each in _expect(value, list))
    if origin is dict:
        member = _converter(args[1])
        return lambda value: {str(key): member(each) for key, each in _expect(value, dict).items()}
    if kind is datetime:
        return _moment
    return lambda value: _expect(value, kind)


def _object(cls: type) -> Convert:
    hints = get_type_hints(cls)
    plan = [
        (
            f.name,
            _converter(hints[f.name]),
            f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING,
        )
        for f in dataclasses.fields(cls)
    ]

    def convert(value: Any) -> Any:
        members = _expect(value, dict)
        found: dict[str, Any] = {}
        for name, inner, required in plan:
            if name in members:
                try:
                    found[name] = inner(members[name])
                except _Misfit as error:
                    raise _Misfit(f"{name}: {error}") from None
            elif required and inner is not None:
                found[name] = _absent(inner, name)
        return cls(**found)

    return convert


def _absent(inner: Convert, name: str) -> Any:
    """A member that is not there counts as null where null is allowed."""
    try:
        return inner(None)
    except _Misfit:
        raise _Misfit(f"{name} is missing") from None


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise _Misfit(f"{kind.__name__} expected")
    return value


def _moment(value: Any) -> datetime:
    try:
        moment = datetime.fromisoformat(_expect(value, str))
    except ValueError:
        raise _Misfit("a moment expected") from None
    if moment.tzinfo is None:
        raise _Misfit("a moment with zone expected")
    return moment
