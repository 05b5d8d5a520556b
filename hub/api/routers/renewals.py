"""One new holder presses one key; the apps' answers for the holder's own screen."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from hub.api.auth import require
from hub.api.context import Context, get_context
from hub.api.limits import IdempotencyKey
from hub.api.strict import StrictRoute
from hub.domain.dispositions import Disposition
from hub.domain.lifecycle import CHINA
from hub.domain.numbers import PhoneNumber, mask
from hub.domain.parties import Principal, Scope
from hub.flow.renew import AppState, Progress, Renewal, Request
from hub.wire.renewals import AppCatalogue, CatalogueApp, RenewalApp, RenewalIn, RenewalOut

router = APIRouter(prefix="/v1", tags=["renewals"], route_class=StrictRoute)

Caller = Annotated[Principal, Depends(require(Scope.renewals_write))]
Hub = Annotated[Context, Depends(get_context)]
Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{4,80}$")]

NEXT_STEPS: dict[Disposition | Progress, str] = {
    Disposition.held_funds: "The former holder's account still holds money. The app looks at it again on {day}.",
    Disposition.held_debt: "The former holder's account has a debt, which stays with that account. Register anew.",
    Disposition.held_legal: "A legal order keeps the former holder's account. The app looks at it again on {day}.",
    Disposition.held_dispute: "The account was used after the number changed hands. Contact the app to settle it.",
    Disposition.held_memorial: "The account is kept in memory of its owner. The app looks at it again on {day}.",
    Disposition.needs_holder_action: "Open the app and confirm there that the number is yours.",
    Disposition.failed_final: "The app could not unbind the number. Contact its support and name this request.",
    Progress.not_connected: "This app does not take part yet. Contact its support.",
}
"""What the holder can do, by reason; the code beside it is stable, the text may be reworded. ``day``: of the review."""


@router.post("/renewals", status_code=202, operation_id="request_renewal", summary="A new holder presses the key")
async def create(order: RenewalIn, caller: Caller, key: IdempotencyKey, hub: Hub, response: Response) -> RenewalOut:
    """Ask the chosen apps to unbind what was bound before ``activated_at``. The request stands when this answers."""
    asked = Request(
        number=PhoneNumber.parse(order.number).national,
        activated_at=order.activated_at,
        apps=None if order.apps == "all" else tuple(order.apps),
        consent_digest=order.consent_sha256,
        acting_for=order.acting_for,
    )
    renewal = await hub.renew.request(caller.party_id, key, asked)
    response.headers["Location"] = f"/v1/renewals/{renewal.record.renewal_id}"
    return shown(renewal)


@router.get("/renewals/{renewal_id}", operation_id="get_renewal", summary="What each app did")
async def read(renewal_id: Id, caller: Caller, hub: Hub) -> RenewalOut:
    """How far each app is. Only for the carrier that asked, and only for the holder's own screen."""
    return shown(await hub.renew.view(caller.party_id, renewal_id))


@router.get("/apps", operation_id="list_apps", summary="The apps that take part")
async def catalogue(
    _: Annotated[Principal, Depends(require(Scope.renewals_write, Scope.subscriptions_manage))], hub: Hub
) -> AppCatalogue:
    """The apps a renewal can name."""
    apps = [CatalogueApp(app_id=a.app_id, name=a.name, app_class=a.app_class.value) for a in hub.renew.apps()]
    return AppCatalogue(apps=apps)


def shown(renewal: Renewal) -> RenewalOut:
    record = renewal.record
    return RenewalOut.model_validate(
        {
            "renewal_id": record.renewal_id,
            "state": renewal.state,
            "number": mask(renewal.number),
            "requested_at": record.requested_at,
            "due_at": record.due_at,
            "due_approximate": record.due_approximate,
            "apps": [_app(state) for state in renewal.apps],
        }
    )


def _next_step(state: AppState) -> str | None:
    """For the holder's own eyes: days are China's."""
    text = NEXT_STEPS.get(state.reason or state.progress)
    if text is None:
        return None
    day = state.review_at.astimezone(CHINA).date().isoformat() if state.review_at else "a day it has yet to name"
    return text.format(day=day)


def _app(state: AppState) -> RenewalApp:
    return RenewalApp.model_validate(
        {
            "app_id": state.app.app_id,
            "name": state.app.name,
            "app_class": state.app.app_class.value,
            "state": state.progress.name,
            "reason": state.reason.value if state.reason else None,
            "next_step": _next_step(state),
            "review_at": state.review_at,
            "overdue": state.overdue,
        }
    )
