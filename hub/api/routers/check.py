"""Has this number changed hands since this date?"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from typing import Annotated

from fastapi import APIRouter, Depends

from hub.api.auth import require
from hub.api.context import Context, get_context
from hub.api.hot import HotRoute
from hub.api.routers.clearance import read_number
from hub.domain.errors import InvalidRequest
from hub.domain.parties import Principal, Scope
from hub.flow.check import Checked
from hub.wire.check import CheckAnswer, CheckIn, CheckOut

router = APIRouter(prefix="/v1", tags=["check"], route_class=HotRoute)

Caller = Annotated[Principal, Depends(require(Scope.check_read))]
Hub = Annotated[Context, Depends(get_context)]


@router.post("/check", operation_id="check_numbers", summary="Have these numbers changed hands?")
async def check(order: CheckIn, _: Caller, hub: Hub) -> CheckOut:
    """One or up to 1,000 numbers. ``no`` rests on coverage, never on lack of data; see ``as_of``."""
    since = [_read_day(item.since, place) for place, item in enumerate(order.checks)]
    found = await hub.check.check([read_number(item.number) for item in order.checks], since)
    return CheckOut.model_construct(answers=[_shown(one) for one in found.answers], as_of=found.as_of)


def _read_day(text: str, place: int) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidRequest(
            "A day is not in the calendar.",
            parts=[{"pointer": f"/checks/{place}/since", "code": "invalid_time", "detail": "no such day"}],
        ) from None


@lru_cache(maxsize=4096)
def _shown(checked: Checked) -> CheckAnswer:
    return CheckAnswer.model_construct(
        answer=checked.answer.name,
        reason=checked.reason.value if checked.reason else None,
        coverage_since=checked.coverage_since.isoformat() if checked.coverage_since else None,
    )
