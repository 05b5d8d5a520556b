"""The list of accepted records, against which receipts and answers are counted. Derived from the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Select, delete, select

from hub.adapters.sql.keys import Keys
from hub.adapters.sql.schema import (
    LANE_BY_NUMBER,
    LANE_NUMBER,
    catalogue,
    catalogue_apps,
    catalogue_positions,
    catalogue_provinces,
    chunk_keys,
)
from hub.adapters.sql.statements import Upsert, slices, two_columns
from hub.domain.events import BY_NUMBER
from hub.domain.lifecycle import CHINA
from hub.ports.ledger import CatalogueEntry
from hub.ports.log import Position

_list = Upsert.whole_row(catalogue)
_add_app = Upsert.whole_row(catalogue_apps)
_add_province = Upsert.whole_row(catalogue_provinces)
_advance = Upsert(
    catalogue_positions,
    ["part"],
    ["next_offset"],
    guard=lambda new: catalogue_positions.c.next_offset < new.next_offset,
)


def china_day(moment: datetime) -> int:
    """Days since 1970-01-01 on China's calendar; the inverse is ``date.fromordinal(day + EPOCH_ORDINAL)``."""
    return moment.astimezone(CHINA).date().toordinal() - EPOCH_ORDINAL


EPOCH_ORDINAL = 719_163  # date(1970, 1, 1).toordinal()


def put(conn: Connection, keys: Keys, entries: Sequence[CatalogueEntry], positions: Mapping[int, int]) -> None:
    chunk_no = keys.chunks(conn, {entry.chunk_id: entry.position for entry in entries})
    _list.run(conn, [_row(chunk_no[entry.chunk_id], entry) for entry in entries])
    _add_app.run(
        conn,
        [
            {"chunk_no": chunk_no[entry.chunk_id], "app_id": app, "place": place}
            for entry in entries
            for place, app in enumerate(entry.apps)
        ],
    )
    _add_province.run(
        conn,
        [
            {"chunk_no": chunk_no[entry.chunk_id], "province": province, "numbers": numbers}
            for entry in entries
            for province, numbers in entry.provinces.items()
        ],
    )
    _advance.run(conn, [{"part": part, "next_offset": offset} for part, offset in positions.items()])


def positions(conn: Connection) -> dict[int, int]:
    query = select(catalogue_positions.c.part, catalogue_positions.c.next_offset)
    return two_columns(conn, query)


def clear(conn: Connection) -> None:
    """Only what `put` wrote: receipts and answers stay and count again once their chunks are listed again."""
    for table in (catalogue_provinces, catalogue_apps, catalogue, catalogue_positions):
        conn.execute(delete(table))


def of_batch(conn: Connection, batch_id: str) -> list[CatalogueEntry]:
    """In log order, partition by partition."""
    query = _entries().where(catalogue.c.batch_id == batch_id).order_by(catalogue.c.part, catalogue.c.log_offset)
    return _read(conn, query)


def one(conn: Connection, chunk_id: str) -> CatalogueEntry | None:
    found = _read(conn, _entries().where(chunk_keys.c.chunk_id == chunk_id))
    return found[0] if found else None


def _row(chunk_no: int, entry: CatalogueEntry) -> dict[str, Any]:
    return {
        "chunk_no": chunk_no,
        "part": entry.position.partition,
        "log_offset": entry.position.offset,
        "event_type": entry.event_type.number,
        "lane": LANE_NUMBER[entry.lane],
        "carrier_id": entry.carrier_id,
        "numbers": entry.count,
        "reported_at": entry.reported_at,
        "day": china_day(entry.reported_at),
        "due_at": entry.due_at,
        "batch_id": entry.batch_id,
        "renewal_id": entry.renewal_id,
        "targeted": bool(entry.apps),
    }


def _entries() -> Select[Any]:
    return select(chunk_keys.c.chunk_id, catalogue).join_from(
        catalogue, chunk_keys, catalogue.c.chunk_no == chunk_keys.c.chunk_no
    )


def _read(conn: Connection, query: Select[Any]) -> list[CatalogueEntry]:
    rows = conn.execute(query).all()
    provinces: dict[int, dict[str, int]] = {}
    apps: dict[int, list[str]] = {}
    for part in slices([row.chunk_no for row in rows]):
        by_province = select(catalogue_provinces).where(catalogue_provinces.c.chunk_no.in_(part))
        for chunk_no, province, numbers in conn.execute(by_province):
            provinces.setdefault(chunk_no, {})[province] = numbers
    for part in slices([row.chunk_no for row in rows if row.targeted]):
        by_app = select(catalogue_apps).where(catalogue_apps.c.chunk_no.in_(part)).order_by(catalogue_apps.c.place)
        for chunk_no, app_id, _ in conn.execute(by_app):
            apps.setdefault(chunk_no, []).append(app_id)
    return [
        CatalogueEntry(
            chunk_id=row.chunk_id,
            position=Position(row.part, row.log_offset),
            event_type=BY_NUMBER[row.event_type],
            lane=LANE_BY_NUMBER[row.lane],
            carrier_id=row.carrier_id,
            count=row.numbers,
            reported_at=row.reported_at,
            due_at=row.due_at,
            batch_id=row.batch_id,
            renewal_id=row.renewal_id,
            apps=tuple(apps.get(row.chunk_no, ())),
            provinces=provinces.get(row.chunk_no, {}),
        )
        for row in rows
    ]
