"""A subscriber's own subscriptions."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from hub.api.auth import require
from hub.api.context import Context, get_context
from hub.api.strict import StrictRoute
from hub.domain.parties import Principal, Scope, Subscription
from hub.flow.subscriptions import Made, Posted
from hub.wire.subscriptions import (
    EndpointTestOut,
    ProofOut,
    RotateIn,
    SecretOut,
    SubscriptionIn,
    SubscriptionList,
    SubscriptionOut,
    SubscriptionPatch,
)

router = APIRouter(prefix="/v1/subscriptions", tags=["subscriptions"], route_class=StrictRoute)

Caller = Annotated[Principal, Depends(require(Scope.subscriptions_manage))]
Hub = Annotated[Context, Depends(get_context)]
Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{4,80}$")]

PARKED_COUNTED = 1000


def shown(subscription: Subscription, *, secret: SecretOut | None = None, parked: int = 0) -> SubscriptionOut:
    return SubscriptionOut(
        subscription_id=subscription.subscription_id,
        app_id=subscription.app_id,
        app_class=subscription.app_class.value,
        mode=subscription.mode,
        endpoint=subscription.endpoint,
        event_types=sorted(subscription.event_types, key=lambda event: event.number),
        lanes=sorted(subscription.lanes),
        purpose=subscription.purpose,
        state=subscription.state,
        state_reason=subscription.state_reason,
        created_at=subscription.created_at,
        secret=secret,
        parked=parked,
    )


def with_secret(made: Made) -> SubscriptionOut:
    secret = None
    if made.secret is not None and made.key is not None:
        secret = SecretOut.model_validate(
            {"scheme": made.secret.scheme, "key": made.key, "created_at": made.secret.created_at}
        )
    return shown(made.subscription, secret=secret)


async def with_parked(hub: Context, subscription: Subscription) -> SubscriptionOut:
    parked = 0
    if subscription.mode.pushes:
        parked = len(await hub.ledger.parked_of(subscription.subscription_id, limit=PARKED_COUNTED))
    return shown(subscription, parked=parked)


@router.post("", status_code=201, operation_id="create_subscription", summary="Subscribe an app")
async def create(order: SubscriptionIn, caller: Caller, hub: Hub, response: Response) -> SubscriptionOut:
    """Subscribe one of your apps. A webhook must first prove that it wants the events: see ``state``.

    The hub posts a challenge at once and a few times more; ask for another try with ``/prove``. The secret in the
    answer is shown this once.
    """
    made = await hub.subscriptions.create(
        caller.party_id,
        app_id=order.app_id,
        mode=order.mode,
        endpoint=order.endpoint,
        event_types=order.event_types,
        lanes=order.lanes,
        purpose=order.purpose,
        start=order.start,
        signature=order.signature,
    )
    response.headers["Location"] = f"/v1/subscriptions/{made.subscription.subscription_id}"
    return with_secret(made)


@router.get("", operation_id="list_subscriptions", summary="Your subscriptions")
async def list_mine(caller: Caller, hub: Hub) -> SubscriptionList:
    """All of yours, oldest first."""
    await hub.members.refresh()
    return SubscriptionList(subscriptions=[shown(one) for one in hub.subscriptions.mine(caller.party_id)])


@router.get("/{subscription_id}", operation_id="get_subscription", summary="One subscription")
async def read(subscription_id: Id, caller: Caller, hub: Hub) -> SubscriptionOut:
    """One of yours; ``parked`` counts the chunks set aside after the last attempt (at most 1,000 are counted)."""
    await hub.members.refresh()
    return await with_parked(hub, hub.subscriptions.get(caller.party_id, subscription_id))


@router.patch("/{subscription_id}", operation_id="change_subscription", summary="Change filters or endpoint")
async def change(subscription_id: Id, order: SubscriptionPatch, caller: Caller, hub: Hub) -> SubscriptionOut:
    """Change filters or endpoint. A new endpoint must be proven again; a lane added starts now."""
    changed = await hub.subscriptions.change(
        caller.party_id,
        subscription_id,
        endpoint=order.endpoint,
        event_types=order.event_types,
        lanes=order.lanes,
    )
    return await with_parked(hub, changed)


@router.delete(
    "/{subscription_id}",
    status_code=204,
    response_class=Response,
    operation_id="delete_subscription",
    summary="End a subscription",
)
async def delete(subscription_id: Id, caller: Caller, hub: Hub) -> None:
    """End it for good. Answers already given stay."""
    await hub.subscriptions.delete(caller.party_id, subscription_id)


@router.post("/{subscription_id}/prove", operation_id="prove_endpoint", summary="Prove the endpoint now")
async def prove(subscription_id: Id, caller: Caller, hub: Hub) -> ProofOut:
    """Post a challenge to the endpoint now; it must answer 2xx with ``{"challenge": same}``."""
    subscription, posted = await hub.subscriptions.prove(caller.party_id, subscription_id)
    return ProofOut(state=subscription.state, proven=posted.ok, status=posted.status, detail=posted.detail)


@router.post("/{subscription_id}/rotate", operation_id="rotate_secret", summary="Make a new secret")
async def rotate(subscription_id: Id, order: RotateIn, caller: Caller, hub: Hub) -> SubscriptionOut:
    """Make a new secret; shown this once."""
    overlap = timedelta(seconds=order.overlap_seconds)
    return with_secret(await hub.subscriptions.rotate(caller.party_id, subscription_id, overlap))


@router.post("/{subscription_id}/pause", operation_id="pause_subscription", summary="Stop deliveries")
async def pause(subscription_id: Id, caller: Caller, hub: Hub) -> SubscriptionOut:
    """Stop deliveries; nothing is lost meanwhile."""
    return await with_parked(hub, await hub.subscriptions.pause(caller.party_id, subscription_id))


@router.post("/{subscription_id}/resume", operation_id="resume_subscription", summary="Go on with deliveries")
async def resume(subscription_id: Id, caller: Caller, hub: Hub) -> SubscriptionOut:
    """Go on where it stopped."""
    return await with_parked(hub, await hub.subscriptions.resume(caller.party_id, subscription_id))


@router.post("/{subscription_id}/test", operation_id="send_test_event", summary="Send a test event")
async def send_test(subscription_id: Id, caller: Caller, hub: Hub) -> EndpointTestOut:
    """Post a test event to the endpoint now."""
    posted: Posted = await hub.subscriptions.send_test(caller.party_id, subscription_id)
    return EndpointTestOut(delivered=posted.ok, status=posted.status, detail=posted.detail)
