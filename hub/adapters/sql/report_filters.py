"""What limits a report, and the limits as SQL conditions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import date, datetime
from typing import Any

from sqlalchemy import ColumnElement

from hub.adapters.sql.catalogue import EPOCH_ORDINAL
from hub.adapters.sql.schema import catalogue, subscriptions
from hub.domain.errors import InvalidRequest
from hub.domain.lifecycle import CHINA


@dataclass(frozen=True, slots=True)
class Filters:
    """None = not limited by it. ``since`` and ``until`` are days of China's calendar, both included."""

    carrier_id: str | None = None
    subscriber_id: str | None = None
    app_class: str | None = None
    since: int | None = None
    until: int | None = None

    @classmethod
    def read(cls, given: Mapping[str, Any]) -> Filters:
        names = {field.name for field in fields(cls)}
        unknown = sorted(set(given) - names)
        if unknown:
            raise InvalidRequest(f"unknown filter {unknown[0]}; known: {', '.join(sorted(names))}")
        values: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        for name, value in values.items():
            values[name] = _day_number(name, value) if name in ("since", "until") else str(value)
        return cls(**values)


def _day_number(name: str, text: Any) -> int:
    try:
        return date.fromisoformat(str(text)).toordinal() - EPOCH_ORDINAL
    except ValueError:
        raise InvalidRequest(f"{name} is a day such as 2026-03-01") from None


def of_catalogue(filters: Filters) -> list[ColumnElement[bool]]:
    """Conditions on the catalogue."""
    return limits(
        (filters.carrier_id, catalogue.c.carrier_id.__eq__),
        (filters.since, catalogue.c.day.__ge__),
        (filters.until, catalogue.c.day.__le__),
    )


def of_subscription(filters: Filters) -> list[ColumnElement[bool]]:
    """Conditions on the directory's subscriptions."""
    return limits(
        (filters.subscriber_id, subscriptions.c.subscriber_id.__eq__),
        (filters.app_class, subscriptions.c.app_class.__eq__),
    )


def limits(*wanted: tuple[Any, Callable[[Any], Any]]) -> list[ColumnElement[bool]]:
    """Of pairs (value, comparison) those whose value is given."""
    return [compare(value) for value, compare in wanted if value is not None]


def moments(filters: Filters, column: Any) -> list[ColumnElement[bool]]:
    """The days of ``filters`` as limits of a Moment column."""
    return limits(
        (filters.since, lambda day: column >= _midnight(day)), (filters.until, lambda day: column < _midnight(day + 1))
    )


def _midnight(day: int) -> datetime:
    start = date.fromordinal(day + EPOCH_ORDINAL)
    return datetime(start.year, start.month, start.day, tzinfo=CHINA)
