"""What all messages share: strict models, and the texts and times in them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, StringConstraints


class Message(BaseModel):
    """A body of the API: unknown members are refused and nothing is coerced ("1" is no number, true no integer)."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, ser_json_timedelta="iso8601")


_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)


def _parse_moment(value: object) -> object:
    if isinstance(value, str):
        if not _RFC3339.fullmatch(value):  # datetime reads more than that: weeks, basic forms, seconds in offsets
            raise ValueError("an RFC 3339 date and time with zone is needed, e.g. 2026-01-01T08:00:00+08:00")
        try:
            return datetime.fromisoformat(value.upper())
        except ValueError:
            raise ValueError("there is no such day, time or offset") from None
    if isinstance(value, datetime):
        return value
    raise ValueError("an RFC 3339 date and time is needed")


def _aware(value: datetime) -> datetime:
    if value.tzinfo is None:
        raise ValueError("the time zone is missing; write e.g. +08:00 or Z")
    if not 2000 <= value.year <= 2100:
        raise ValueError("the year is out of range")
    return value.astimezone(UTC)


def rfc3339(value: datetime) -> str:
    """2026-01-01T00:00:00Z, with milliseconds only where there are any."""
    spec = "milliseconds" if value.microsecond else "seconds"
    return value.astimezone(UTC).isoformat(timespec=spec).replace("+00:00", "Z")


Moment = Annotated[
    datetime,
    BeforeValidator(_parse_moment, json_schema_input_type=str),
    AfterValidator(_aware),
    PlainSerializer(rfc3339, return_type=str, when_used="json"),
    Field(json_schema_extra={"format": "date-time"}),
]
"""An aware moment; read from RFC 3339 text, written as UTC."""

Slug = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{1,62}$")]
"""Ids that people choose: lower case, digits, dot, dash, underscore; 2 to 63 characters."""

OpaqueId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{4,80}$")]
"""Ids the hub makes."""

MAX_NUMBER_TEXT = 64
NumberText = Annotated[
    str, StringConstraints(min_length=1, max_length=MAX_NUMBER_TEXT), Field(examples=["+8613800138000"])
]
"""A number as sent in; parsed by domain.numbers (11 digits, +86 or 0086 may stand in front)."""

Sha256Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=200)]
