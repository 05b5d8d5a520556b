"""Figures as JSON or CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import date, datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Response

from hub.api.auth import require
from hub.api.context import Context, get_context
from hub.api.strict import StrictRoute
from hub.domain.errors import InvalidRequest
from hub.domain.events import EventType
from hub.domain.parties import AppClass, Principal, Scope
from hub.flow.report import Filters, Table
from hub.wire.base import Slug, rfc3339
from hub.wire.reports import ReportOut

router = APIRouter(prefix="/v1/reports", tags=["reports"], route_class=StrictRoute)

Caller = Annotated[Principal, Depends(require(Scope.reports_read))]
Hub = Annotated[Context, Depends(get_context)]
Day = Annotated[str | None, Query(pattern=r"^\d{4}-\d{2}-\d{2}$", description="a day in China, included")]


class ReportName(StrEnum):
    summary = "summary"
    delivery = "delivery"
    answers = "answers"
    lateness = "lateness"
    provinces = "provinces"
    batches = "batches"
    clearances = "clearances"


@router.get(
    "/{name}",
    operation_id="read_report",
    summary="Figures, as far as you may see them",
    response_model=ReportOut,
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
async def read(
    name: ReportName,
    caller: Caller,
    hub: Hub,
    format: Annotated[Literal["json", "csv"], Query()] = "json",
    since: Day = None,
    until: Day = None,
    carrier: Annotated[Slug | None, Query()] = None,
    app_class: Annotated[AppClass | None, Query()] = None,
    event_type: Annotated[EventType | None, Query()] = None,
) -> Any:
    """Regulators and operators see all, carriers their own events by app class, subscribers their own deliveries.

    A CSV answer names its watermark in the header field ``Numhub-Watermark``.
    """
    filters = Filters(
        since=_day("since", since),
        until=_day("until", until),
        carrier=carrier,
        app_class=app_class.value if app_class else None,
        event_type=event_type.value if event_type else None,
    )
    table: Table = await hub.report.make(caller, name.value, filters)
    if format == "csv":
        return _csv_response(table)
    rows = [{column: _cell(row.get(column)) for column in table.columns} for row in table.rows]
    return ReportOut.model_validate(
        {
            "name": table.name,
            "watermark": {
                "judged_at": table.watermark.judged_at,
                "log_positions": list(table.watermark.log_positions),
                "catalogue_positions": list(table.watermark.catalogue_positions),
                "waivers": table.watermark.waivers,
            },
            "suppressed_below": table.suppressed_below,
            "columns": list(table.columns),
            "rows": rows,
        }
    )


def _day(name: str, text: str | None) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise InvalidRequest(f"{name} is not a day of the calendar.", code="invalid_query") from None


def _cell(value: Any) -> Any:
    return rfc3339(value) if isinstance(value, datetime) else value


def _csv_response(table: Table) -> Response:
    mark = table.watermark
    told = (
        f'judged_at="{rfc3339(mark.judged_at)}", log="{_joined(mark.log_positions)}", '
        f'catalogue="{_joined(mark.catalogue_positions)}", waivers={mark.waivers}'
    )
    headers = {
        "numhub-watermark": told,
        "content-disposition": f'attachment; filename="numhub-{table.name}.csv"',
        "x-content-type-options": "nosniff",
    }
    return Response(to_csv(table), headers=headers, media_type="text/csv; charset=utf-8")


def to_csv(table: Table) -> str:
    """A header line, then the rows; withheld counts read ``<10``. No cell can be taken for a formula."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow(table.columns)
    for row in table.rows:
        writer.writerow([_csv_cell(column, row.get(column), table.suppressed_below) for column in table.columns])
    return out.getvalue()


def _csv_cell(column: str, value: Any, below: int | None) -> str:
    if value is None:
        counted = column.startswith(("numbers", "pairs")) or column in ("done", "held", "failed", "pending")
        return f"<{below}" if below and counted else ""
    text = str(_cell(value))
    # A spreadsheet runs what begins like this; the apostrophe makes it a text (OWASP, CSV injection).
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text


def _joined(positions: Sequence[int]) -> str:
    return " ".join(str(position) for position in positions)
