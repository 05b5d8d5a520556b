"""The regulator's page as plain values, made from `Report.overview`: the template writes them, the script renews them.

One source for both, so that what a browser shows first and what it shows after an update cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from hub.domain.events import EventType
from hub.domain.lifecycle import CHINA
from hub.domain.parties import AppClass
from hub.flow.report import K
from hub.web import charts
from hub.web.texts import Texts, count, share

Row = Mapping[str, Any]

DAYS_LISTED = 31
_WITHHELD = "<10"

_PEOPLE = frozenset(
    {"owed", "delivered", "asked", "reached", "answered", "final", "done", "held", "failed", "pending", "numbers_open"}
)
_OF_ALL = frozenset({"numbers"})  # withheld where it is a count, kept where it is a group of counts


def build(overview: Row, text: Texts, *, withhold: bool = False) -> dict[str, Any]:
    """Texts and numbers ready to show: ``cells`` (by name), ``bars`` (percent), ``tables`` (rows of texts; a row's
    ``mark`` is late or empty), ``charts`` (plotly figures, None where there is nothing to draw).

    ``withhold`` hides counts of pairs below 10, as `Report.make` does for everybody but the regulator.
    """
    seen = _withheld(overview) if withhold else overview
    cells, bars = _funnel(seen, text)
    return {
        "empty": not overview["funnel"]["numbers"]["published"],
        "watermark": _watermark(overview["watermark"], text),
        "cells": cells | _attention(seen),
        "bars": bars,
        "tables": {name: make(seen, text) for name, make in _TABLES.items()},
        "charts": {
            "days": charts.days(_plain(seen["days"]), text),
            "mix": charts.dispositions(seen["dispositions"], text),
            "classes": charts.classes(_plain(_in_order("app_class", AppClass, seen["classes"])), text),
            "provinces": charts.provinces(seen["provinces"], text),
        },
    }


def _withheld(value: Any, name: str = "") -> Any:
    if isinstance(value, Mapping):
        return {key: _withheld(member, key) for key, member in value.items()}
    if isinstance(value, (list, tuple)):
        return [_withheld(member) for member in value]
    hidden = name in _PEOPLE or name in _OF_ALL
    return None if hidden and isinstance(value, int) and 0 < value < K else value


def _plain(rows: Sequence[Row]) -> list[Row]:
    """For charts: what is withheld is not drawn."""
    return [{name: 0 if value is None else value for name, value in row.items()} for row in rows]


def _n(value: int | None) -> str:
    return _WITHHELD if value is None else count(value)


def _share(part: int | None, whole: int | None) -> str:
    return "–" if part is None or whole is None else share(part, whole)


def _percent(part: int | None, whole: int | None) -> float:
    """For a bar: at least a hairline when there is something, and never beyond the end."""
    if not part or not whole:
        return 0.0
    return round(min(max(100 * part / whole, 0.4), 100.0), 2)


def _watermark(seen: Row, text: Texts) -> str:
    listed, end = sum(seen["catalogue_positions"]), sum(seen["log_positions"])
    moment: datetime = seen["judged_at"]
    time = f"{moment.astimezone(CHINA):%Y-%m-%d %H:%M:%S} {text('time_zone')}"
    position = count(listed) if listed >= end else f"{count(listed)} / {count(end)}"
    return text("watermark", time=time, position=position)


def _funnel(seen: Row, text: Texts) -> tuple[dict[str, str], dict[str, float]]:
    pairs, chunks, numbers = (seen["funnel"][unit] for unit in ("pairs", "chunks", "numbers"))
    owed, delivered, answered = pairs["published"], pairs["delivered"], pairs["answered"]
    asked = sum(row["asked"] or 0 for row in seen["event_types"])
    scheduled, cleared = numbers["scheduled"], numbers["cleared"]
    cells = {
        "published": count(numbers["published"]),
        "published.more": text("in_chunks", chunks=count(chunks["published"]), pairs=_n(owed)),
        "delivered": _n(delivered),
        "delivered.more": text("of_owed", total=_n(owed)),
        "delivered.share": _share(delivered, owed),
        "answered": _n(answered),
        "answered.more": text("of_asked", total=_n(asked), final=_n(pairs["final"])),
        "answered.share": _share(answered, asked),
        "cleared": count(cleared),
        "cleared.more": text("of_scheduled", total=count(scheduled), released=count(numbers["released"])),
        "cleared.share": _share(cleared, scheduled),
    }
    bars = {
        "published": 100.0 if numbers["published"] else 0.0,
        "delivered": _percent(delivered, owed),
        "answered": _percent(answered, asked),
        "cleared": _percent(cleared, scheduled),
    }
    return cells, bars


def _attention(seen: Row) -> dict[str, str]:
    return {
        "late": count(len({row["app_id"] for row in seen["late"]})),
        "overdue": count(seen["open"]["overdue_chunks"]),
        "open": _n(seen["open"]["numbers"]),
        "parked": count(seen["funnel"]["chunks"]["parked"]),
        "refused": count(sum(row["rows_refused"] for row in seen["carriers"])),
        "renewals": count(sum(row["requested"] for row in seen["renewals"])),
        "waivers": count(len(seen["waivers"])),
    }


# ---- tables: rows of texts, in the order of the template's columns ------------------------------------------------


def _in_order(name: str, kinds: type[StrEnum], rows: Sequence[Row]) -> list[Row]:
    """``rows`` in the order in which the domain lists the kinds in column ``name``; unknown kinds last."""
    places = {kind.value: place for place, kind in enumerate(kinds)}
    return sorted(rows, key=lambda row: places.get(row[name], len(places)))


def _row(*cells: str, mark: str = "") -> dict[str, Any]:
    return {"cells": list(cells), "mark": mark}


def _progress(row: Row) -> tuple[str, ...]:
    """Owed, delivered and its share; what asks for an answer, answered and its share; exceptions."""
    return (
        _n(row["owed"]), _n(row["delivered"]), _share(row["delivered"], row["owed"]),
        _n(row["asked"]), _n(row["answered"]), _share(row["answered"], row["asked"]),
        _n(row["held"]),
    )  # fmt: skip


def _late(seen: Row, text: Texts) -> list[dict[str, Any]]:
    return [
        _row(
            row["app_name"],
            text.span(timedelta(seconds=row["late_seconds"])),
            text.moment(row["oldest_due_at"]),
            count(row["overdue_chunks"]),
            _n(row["numbers_open"]),
            row["subscriber_id"],
            text.of("class", row["app_class"]),
            text.of("event", row["event_type"]),
            text.of("state", row["state"]),
            mark="late",
        )
        for row in seen["late"]
    ]


def _days(seen: Row, text: Texts) -> list[dict[str, Any]]:
    return [_row(row["day"], count(row["published"]), *_progress(row)) for row in seen["days"][: -DAYS_LISTED - 1 : -1]]


def _mix(seen: Row, text: Texts) -> list[dict[str, Any]]:
    total = sum(row["numbers"] or 0 for row in seen["dispositions"])
    return [
        _row(
            text.of("disposition", row["disposition"]),
            text.of("standing", row["standing"]),
            _n(row["numbers"]),
            _share(row["numbers"], total),
        )
        for row in seen["dispositions"]
    ]


def _provinces(seen: Row, text: Texts) -> list[dict[str, Any]]:
    total = sum(row["numbers"] or 0 for row in seen["provinces"])
    return [
        _row(text.of("province", row["province"]) or text("unknown"), _n(row["numbers"]), _share(row["numbers"], total))
        for row in seen["provinces"]
    ]


def _classes(seen: Row, text: Texts) -> list[dict[str, Any]]:
    return [
        _row(text.of("class", row["app_class"]), *_progress(row))
        for row in _in_order("app_class", AppClass, seen["classes"])
    ]


def _apps(seen: Row, text: Texts) -> list[dict[str, Any]]:
    return [_row(row["name"], text.of("class", row["app_class"]), *_progress(row)) for row in seen["apps"]]


def _events(seen: Row, text: Texts) -> list[dict[str, Any]]:
    return [
        _row(text.of("event", row["event_type"]), count(row["published"]), *_progress(row))
        for row in _in_order("event_type", EventType, seen["event_types"])
    ]


def _carriers(seen: Row, text: Texts) -> list[dict[str, Any]]:
    return [
        _row(
            row["name"],
            count(row["batches"]),
            count(row["rows_refused"]),
            count(row["published"]),
            *_progress(row),
            count(row["cleared"]),
        )  # fmt: skip
        for row in seen["carriers"]
    ]


def _clearances(seen: Row, text: Texts) -> list[dict[str, Any]]:
    return [
        _row(
            text.moment(row["judged_at"]),
            row["carrier_name"],
            row["batch_id"] or text("single_numbers"),
            count(row["go"]),
            count(row["go_with_exceptions"]),
            count(row["wait"]),
        )
        for row in seen["clearances"]
    ]


def _waivers(seen: Row, text: Texts) -> list[dict[str, Any]]:
    return [
        _row(
            row["subscriber_id"],
            row["batch_id"] or text("every_batch"),
            row["person"],
            row["reason"],
            text.moment(row["issued_at"]),
            text.moment(row["ends_at"]) if row["ends_at"] else text("no_end"),
        )
        for row in seen["waivers"]
    ]


_TABLES: Mapping[str, Callable[[Row, Texts], list[dict[str, Any]]]] = {
    "late": _late,
    "days": _days,
    "mix": _mix,
    "provinces": _provinces,
    "classes": _classes,
    "apps": _apps,
    "events": _events,
    "carriers": _carriers,
    "clearances": _clearances,
    "waivers": _waivers,
}
