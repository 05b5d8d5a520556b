"""May these numbers be sold again?"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Depends, Path, Query

from hub.api.auth import require
from hub.api.context import Context, get_context
from hub.api.strict import StrictRoute
from hub.domain.clearance import Verdict
from hub.domain.errors import InvalidNumber
from hub.domain.lifecycle import from_epoch
from hub.domain.numbers import PhoneNumber, mask
from hub.domain.parties import Principal, Scope
from hub.flow.judge import Columns, class_names, reason_names
from hub.wire.clearance import BatchClearanceOut, ClearanceIn, ClearanceOut, NumberClearance

router = APIRouter(prefix="/v1", tags=["clearance"], route_class=StrictRoute)

Caller = Annotated[Principal, Depends(require(Scope.clearance_read))]
Hub = Annotated[Context, Depends(get_context)]
BatchId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{4,80}$")]
Detail = Annotated[Literal["none", "not_go", "all"], Query(description="which numbers to list; counts cover all")]

_VERDICTS = {int(verdict): verdict.name for verdict in Verdict}


@router.post("/clearance", operation_id="clear_numbers", summary="May these numbers be released?")
async def of_numbers(order: ClearanceIn, caller: Caller, hub: Hub) -> ClearanceOut:
    """Judge up to 10,000 of your numbers. Nothing accepted before this call is overlooked; silence is no answer."""
    numbers = np.array([read_number(text) for text in order.numbers], np.int64)
    found = await hub.clear.numbers(caller.party_id, numbers)
    record = found.record
    return ClearanceOut(
        clearance_id=record.clearance_id,
        policy=record.policy,
        judged_at=record.judged_at,
        go=record.go,
        go_with_exceptions=record.go_with_exceptions,
        wait=record.wait,
        waivers=list(record.waivers),
        numbers=await asyncio.to_thread(shown, found.columns, range(len(numbers))),
    )


@router.get(
    "/batches/{batch_id}/clearance", operation_id="clear_batch", summary="May this batch's numbers be released?"
)
async def of_batch(batch_id: BatchId, caller: Caller, hub: Hub, detail: Detail = "none") -> BatchClearanceOut:
    """Judge a whole committed batch of yours."""
    found = await hub.clear.batch(caller.party_id, batch_id, detail)
    record = found.record
    return BatchClearanceOut(
        clearance_id=record.clearance_id,
        batch_id=batch_id,
        policy=record.policy,
        judged_at=record.judged_at,
        go=record.go,
        go_with_exceptions=record.go_with_exceptions,
        wait=record.wait,
        wait_until=_moment(found.wait_until),
        waiting_for=found.waiting_for,
        waivers=list(record.waivers),
        numbers=await asyncio.to_thread(shown, found.columns, found.index.tolist()),
        numbers_left_out=found.left_out,
    )


def read_number(text: str) -> int:
    """The national digits, or 0 if the text is no number: one bad number does not sink the others."""
    try:
        return PhoneNumber.parse(text).national
    except InvalidNumber:
        return 0


def shown(columns: Columns, index: Sequence[int]) -> list[NumberClearance]:
    rows = zip(
        index,
        columns.numbers.tolist(),
        columns.verdict.tolist(),
        columns.until.tolist(),
        columns.reasons.tolist(),
        columns.classes.tolist(),
        strict=True,
    )
    return [
        NumberClearance.model_construct(
            index=place,
            number=mask(number) if number else "",
            verdict=_VERDICTS[verdict],
            until=_moment(until),
            reasons=list(reason_names(reasons)),
            app_classes=list(class_names(classes)),
        )
        for place, number, verdict, until, reasons, classes in rows
    ]


def _moment(seconds: int) -> datetime | None:
    return from_epoch(seconds) if seconds else None
