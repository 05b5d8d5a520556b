"""Signed acts by which answers are not waited for."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends

from hub.api.auth import require
from hub.api.context import Context, get_context
from hub.api.strict import StrictRoute
from hub.domain.parties import Principal, Scope
from hub.ports.ledger import Waiver
from hub.wire.clearance import WaiverIn, WaiverList, WaiverOut

router = APIRouter(prefix="/v1/waivers", tags=["waivers"], route_class=StrictRoute)

Hub = Annotated[Context, Depends(get_context)]


@router.post("", status_code=201, operation_id="issue_waiver", summary="Waive a subscriber's answers")
async def issue(
    order: WaiverIn, caller: Annotated[Principal, Depends(require(Scope.waivers_write))], hub: Hub
) -> WaiverOut:
    """Waive a subscriber's answers, for one batch or for all. The statement is kept as evidence and counts once."""
    return shown(await hub.waive.issue(caller.party_id, order.statement))


@router.get("", operation_id="list_waivers", summary="Waivers")
async def read_all(
    caller: Annotated[Principal, Depends(require(Scope.waivers_write, Scope.reports_read))], hub: Hub
) -> WaiverList:
    """All of them for regulators and operators; for a subscriber those that concern it."""
    return WaiverList(waivers=[shown(waiver) for waiver in await hub.waive.visible_to(caller)])


def shown(waiver: Waiver) -> WaiverOut:
    return WaiverOut(
        waiver_id=waiver.waiver_id,
        subscriber_id=waiver.subscriber_id,
        batch_id=waiver.batch_id,
        person=waiver.person,
        reason=waiver.reason,
        issued_by=waiver.issued_by,
        issued_at=waiver.issued_at,
        ends_at=waiver.ends_at,
    )
