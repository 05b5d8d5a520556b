"""Has this number changed hands since this date?"""

from __future__ import annotations

from datetime import date
from functools import lru_cache
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Depends

from hub.api.auth import require
from hub.api.context import Context, get_context
from hub.api.hot import HotRoute
from hub.api.routers.clearance import read_number
from hub.domain.errors import InvalidRequest
from hub.domain.numbers import FIRST_NATIONAL, LAST_NATIONAL
from hub.domain.parties import Principal, Scope
from hub.flow.check import Checked
from hub.wire.check import FEW, CheckAnswer, CheckIn, CheckOut

router = APIRouter(prefix="/v1", tags=["check"], route_class=HotRoute)

Caller = Annotated[Principal, Depends(require(Scope.check_read))]
Hub = Annotated[Context, Depends(get_context)]

_E164 = 14  # characters of +8613812345678, the usual way
_PREFIX = np.frombuffer(b"+86", np.uint8)
_POWERS = 10 ** np.arange(10, -1, -1, dtype=np.int64)


@router.post("/check", operation_id="check_numbers", summary="Have these numbers changed hands?")
async def check(order: CheckIn, _: Caller, hub: Hub) -> CheckOut:
    """One or up to 1,000 numbers. ``no`` rests on coverage, never on lack of data; see ``as_of``."""
    numbers, since = order.columns()
    found = await hub.check.check(_read_numbers(numbers), _read_days(since))
    shown: dict[int, CheckAnswer] = {}  # many answers are one and the same object
    answers = [shown.get(id(one)) or shown.setdefault(id(one), _shown(one)) for one in found.answers]
    return CheckOut.model_construct(answers=answers, as_of=found.as_of)


def _read_numbers(texts: list[str]) -> list[int]:
    """National digits; 0 for what is no number."""
    if len(texts) > FEW and set(map(len, texts)) == {_E164}:
        joined = "".join(texts)
        if joined.isascii():
            places = np.frombuffer(joined.encode(), np.uint8).reshape(len(texts), _E164)
            digits = places[:, 3:] - np.uint8(48)  # whatever is no digit becomes more than 9
            national = digits @ _POWERS
            good = (places[:, :3] == _PREFIX).all() and digits.max() <= 9
            if good and national.min() >= FIRST_NATIONAL and national.max() <= LAST_NATIONAL:
                plain: list[int] = national.tolist()
                return plain
    return [read_number(text) for text in texts]


def _read_days(texts: list[str]) -> list[date]:
    known: dict[str, date] = {}
    for place, text in enumerate(texts):
        if text not in known:
            known[text] = _read_day(text, place)
    return [known[text] for text in texts]


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
