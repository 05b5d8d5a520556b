"""Subscriptions over HTTP: made, proven, changed, stopped; deliveries and redrives; nothing of anybody else's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from hub.adapters.memory.coordination import MemoryCoordination
from hub.adapters.telemetry.prometheus import NoMetrics
from hub.api.app import create_app
from hub.api.context import Context
from hub.domain.errors import InvalidRequest, Unauthenticated
from hub.domain.events import Lane, Purpose
from hub.domain.parties import SCOPES, Agreement, App, AppClass, Party, Principal, Role, SubscriptionState
from hub.ports.sender import Response
from tests.dispatch_world import NOW, Got, World, make_record, make_world, number

BOB = {"authorization": "Bearer subscriber:bob"}
EVE = {"authorization": "Bearer subscriber:eve"}
ORDER = {"app_id": "bob-app", "endpoint": "https://bob/hook"}


class NamedTokens:
    """The token is ``role:party``."""

    def verify(self, token: str) -> Principal:
        role, _, party = token.partition(":")
        if not party:
            raise Unauthenticated
        return Principal(party, Role(role), SCOPES[Role(role)])


def repeat_challenge(got: Got) -> Response:
    event = json.loads(got.body)
    return Response(200, body=json.dumps({"challenge": event["data"].get("challenge")}).encode())


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with make_world(tmp_path) as world:
        for name in ("bob", "eve"):
            await world.directory.put_party(Party(name, Role.subscriber, name, NOW))
            await world.directory.put_app(App(f"{name}-app", name, AppClass.bank, name, NOW))
            until = NOW + timedelta(days=365)
            agreement = Agreement(f"agr_{name}", "*", name, Purpose.account_unbind, "pia", NOW, until, NOW)
            await world.directory.put_agreement(agreement)
        await world.members.refresh()
        world.net.answer["https://bob/hook"] = repeat_challenge
        yield world


@pytest.fixture
async def api(world: World) -> AsyncIterator[httpx.AsyncClient]:
    context = Context(
        clock=world.clock,
        members=world.members,
        tokens=NamedTokens(),  # type: ignore[arg-type]
        coordination=MemoryCoordination(world.clock),
        metrics=NoMetrics(),
        ledger=world.ledger,
        subscriptions=world.subscriptions,
        redrive=world.redrive,
    )
    transport = httpx.ASGITransport(create_app(context))
    async with httpx.AsyncClient(transport=transport, base_url="http://hub", headers=BOB) as client:
        yield client


async def made(api: httpx.AsyncClient, **members: Any) -> dict[str, Any]:
    answer = await api.post("/v1/subscriptions", json={**ORDER, **members})
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def state_of(world: World, subscription_id: str, wanted: SubscriptionState) -> None:
    await world.until(lambda: world.members.snapshot.subscriptions[subscription_id].state is wanted)


async def test_a_webhook_is_proven_by_itself_and_then_gets_what_was_published_meanwhile(
    api: httpx.AsyncClient, world: World
) -> None:
    """Unproven at first; what is appended after the creation is owed, and arrives only after the proof."""
    gate = asyncio.Event()

    async def later(got: Got) -> Response:
        await gate.wait()
        return repeat_challenge(got)

    world.net.answer["https://bob/hook"] = later
    subscription = await made(api)
    assert subscription["state"] == "unproven"
    assert subscription["secret"]["key"].startswith("whsec_")
    await world.publish(make_record([number(1)]))
    await world.until(lambda: len(world.net.got) == 1)
    assert "numhub-chunk-id" not in world.net.got[0].headers
    gate.set()
    await state_of(world, subscription["subscription_id"], SubscriptionState.active)
    await world.until(lambda: len(world.net.got) == 2)
    assert world.net.got[1].headers["numhub-lane"] == "bulk"
    again = (await api.get(f"/v1/subscriptions/{subscription['subscription_id']}")).json()
    assert again["state"] == "active"
    assert again["secret"] is None


@pytest.mark.parametrize(
    "answer", [Response(200, body=b"{}"), Response(200, body=b"[[["), Response(500), Response(302), Response(204)]
)
async def test_an_endpoint_that_does_not_repeat_the_challenge_gets_nothing(
    api: httpx.AsyncClient, world: World, answer: Response
) -> None:
    """It stays unproven and says why; another try can be asked for."""
    world.net.answer["https://bob/hook"] = lambda got: answer
    subscription = await made(api)
    path = f"/v1/subscriptions/{subscription['subscription_id']}"
    tried = (await api.post(f"{path}/prove")).json()
    assert (tried["proven"], tried["state"], tried["status"]) == (False, "unproven", answer.status)
    await world.publish(make_record([number(1)]))
    assert all("numhub-chunk-id" not in got.headers for got in world.net.got)
    assert (await api.get(path)).json()["state_reason"]
    world.net.answer["https://bob/hook"] = repeat_challenge
    assert (await api.post(f"{path}/prove")).json()["state"] == "active"


async def test_a_proof_cut_short_by_a_restart_is_made_up_for(api: httpx.AsyncClient, world: World) -> None:
    """Nobody has to ask again because the hub was killed between creation and proof."""
    world.net.answer["https://bob/hook"] = lambda got: Response(500)
    subscription_id = (await made(api))["subscription_id"]
    await world.until(lambda: len(world.net.got) == 1)
    await world.subscriptions.close()
    world.net.answer["https://bob/hook"] = repeat_challenge
    running = asyncio.create_task(world.subscriptions.run())
    await state_of(world, subscription_id, SubscriptionState.active)
    running.cancel()


async def test_pull_is_active_at_once_and_starts_where_it_was_asked_to(api: httpx.AsyncClient, world: World) -> None:
    """No endpoint, no secret; ``earliest`` starts at 0, ``now`` at the end."""
    await world.publish(make_record([number(1)]))
    now = await made(api, mode="pull", endpoint=None)
    early = await made(api, mode="pull", endpoint=None, start="earliest", lanes=["bulk"])
    assert now["state"] == "active"
    assert now["secret"] is None
    starts = {one.lane: one.offset for one in await world.ledger.cursors(now["subscription_id"]) if one.partition == 0}
    assert starts == {Lane.bulk: 1, Lane.live: 1}
    assert [one.offset for one in await world.ledger.cursors(early["subscription_id"])] == [0, 0]


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ({"app_id": "eve-app"}, 404),
        ({"app_id": "no-app"}, 404),
        ({"endpoint": None}, 422),
        ({"mode": "pull"}, 422),
        ({"event_types": []}, 422),
        ({"lanes": ["fast"]}, 422),
        ({"start": "yesterday"}, 422),
        ({"colour": "red"}, 422),
    ],
)
async def test_orders_that_cannot_be_met_are_refused(
    api: httpx.AsyncClient, world: World, order: dict[str, Any], status: int
) -> None:
    """A problem document, and no subscription."""
    answer = await api.post("/v1/subscriptions", json={**ORDER, **order})
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert (await api.get("/v1/subscriptions")).json() == {"subscriptions": []}


async def test_a_forbidden_address_is_refused(api: httpx.AsyncClient, world: World) -> None:
    """What will never be posted to is said at once."""

    def refuse(url: str) -> None:
        raise InvalidRequest("The host is not public.", code="endpoint_refused")

    world.subscriptions._check_url = refuse
    answer = await api.post("/v1/subscriptions", json=ORDER)
    assert (answer.status_code, answer.json()["code"]) == (422, "endpoint_refused")


async def test_somebody_elses_subscription_looks_unknown(api: httpx.AsyncClient, world: World) -> None:
    """404 on every door, and no trace in the list; carriers have no business here at all."""
    subscription = await made(api)
    path = f"/v1/subscriptions/{subscription['subscription_id']}"
    await state_of(world, subscription["subscription_id"], SubscriptionState.active)
    calls = [
        ("GET", path, None),
        ("PATCH", path, {"lanes": ["bulk"]}),
        ("DELETE", path, None),
        *(("POST", f"{path}/{act}", None) for act in ("prove", "pause", "resume", "test")),
        ("POST", f"{path}/rotate", {}),
        ("POST", "/v1/redrive", {"subscription_id": subscription["subscription_id"], "parked": True}),
        ("GET", f"/v1/deliveries?subscription_id={subscription['subscription_id']}", None),
    ]
    for method, url, body in calls:
        foreign = await api.request(method, url, json=body, headers=EVE)
        unknown = await api.request(method, url.replace(path, "/v1/subscriptions/sub_0"), json=body, headers=EVE)
        assert foreign.status_code == unknown.status_code == 404, (method, url)
    assert (await api.get("/v1/subscriptions", headers=EVE)).json() == {"subscriptions": []}
    carrier = {"authorization": "Bearer carrier:cmcc"}
    assert (await api.get("/v1/subscriptions", headers=carrier)).status_code == 403


async def test_rotation_signs_with_both_secrets_until_the_overlap_ends(api: httpx.AsyncClient, world: World) -> None:
    """Two signatures during the overlap, one afterwards; the new key is shown once."""
    subscription = await made(api, signature="v1a")
    assert subscription["secret"]["key"].startswith("whpk_")
    path = f"/v1/subscriptions/{subscription['subscription_id']}"
    await state_of(world, subscription["subscription_id"], SubscriptionState.active)
    rotated = (await api.post(f"{path}/rotate", json={"overlap_seconds": 60})).json()
    assert rotated["secret"]["key"] != subscription["secret"]["key"]
    await api.post(f"{path}/test")
    assert len(world.net.got[-1].headers["webhook-signature"].split(" ")) == 2
    await world.advance(61)
    assert (await api.post(f"{path}/test")).json()["delivered"] is True
    assert len(world.net.got[-1].headers["webhook-signature"].split(" ")) == 1


async def test_pause_resume_delete(api: httpx.AsyncClient, world: World) -> None:
    """States as documented; what is deleted is gone."""
    subscription = await made(api)
    path = f"/v1/subscriptions/{subscription['subscription_id']}"
    await state_of(world, subscription["subscription_id"], SubscriptionState.active)
    assert (await api.post(f"{path}/pause")).json()["state"] == "paused"
    assert (await api.post(f"{path}/resume")).json()["state"] == "active"
    assert (await api.delete(path)).status_code == 204
    assert (await api.get(path)).status_code == 404
    await world.publish(make_record([number(1)]))
    assert all("numhub-chunk-id" not in got.headers for got in world.net.got)


async def test_a_new_endpoint_is_proven_again_and_an_added_lane_starts_now(
    api: httpx.AsyncClient, world: World
) -> None:
    """Nothing goes to an address nobody proved; nothing old comes through a lane that was just added."""
    subscription = await made(api, lanes=["live"])
    subscription_id = subscription["subscription_id"]
    path = f"/v1/subscriptions/{subscription_id}"
    await state_of(world, subscription_id, SubscriptionState.active)
    await world.publish(make_record([number(1)]))
    world.net.answer["https://bob/new"] = repeat_challenge
    changed = await api.patch(path, json={"endpoint": "https://bob/new", "lanes": ["live", "bulk"]})
    assert (changed.json()["state"], changed.json()["lanes"]) == ("unproven", ["bulk", "live"])
    await state_of(world, subscription_id, SubscriptionState.active)
    fresh = make_record([number(2)])
    await world.publish(fresh)
    await world.until(lambda: any("numhub-chunk-id" in got.headers for got in world.net.got))
    await world.quiet()
    assert [got.chunk_id for got in world.net.got if "numhub-chunk-id" in got.headers] == [fresh.record_id]
    assert world.net.got[-1].url == "https://bob/new"


async def test_after_410_resuming_means_proving_again(api: httpx.AsyncClient, world: World) -> None:
    """The hub suspended it because nobody wants it there; its owner may come back with a proof."""
    subscription = await made(api)
    subscription_id = subscription["subscription_id"]
    await state_of(world, subscription_id, SubscriptionState.active)
    world.net.answer["https://bob/hook"] = lambda got: Response(410)
    record = make_record([number(1)])
    await world.publish(record)
    await state_of(world, subscription_id, SubscriptionState.suspended)
    await world.quiet()
    world.net.answer["https://bob/hook"] = repeat_challenge
    assert (await api.post(f"/v1/subscriptions/{subscription_id}/resume")).json()["state"] == "unproven"
    await world.until(
        lambda: [got.headers.get("numhub-chunk-id") for got in world.net.got].count(record.record_id) == 2
    )


async def test_deliveries_and_redrive(api: httpx.AsyncClient, world: World) -> None:
    """Retrying, parked, received are shown; parked chunks come again on request; exactly one way must be named."""
    subscription_id = (await made(api))["subscription_id"]
    await state_of(world, subscription_id, SubscriptionState.active)
    world.net.answer["https://bob/hook"] = lambda got: Response(500)
    record = make_record([number(1)])
    await world.publish(record)
    await world.until(lambda: len(world.net.got) == 2)
    url = f"/v1/deliveries?subscription_id={subscription_id}"
    await world.quiet()
    row = (await api.get(url)).json()["deliveries"][0]
    assert (row["chunk_id"], row["state"], row["reason"]) == (record.record_id, "retrying", "http_500")
    for wait in (6, 331):
        await world.advance(wait)
        await asyncio.sleep(0.05)
    await world.quiet()
    assert (await api.get(url)).json()["deliveries"][0]["state"] == "parked"
    assert (await api.get(f"/v1/subscriptions/{subscription_id}")).json()["parked"] == 1
    world.net.answer["https://bob/hook"] = repeat_challenge
    await world.advance(5)
    order: dict[str, Any] = {"subscription_id": subscription_id}
    for wrong in ({}, {"parked": True, "chunk_ids": [record.record_id]}, {"since": "yesterday"}):
        assert (await api.post("/v1/redrive", json={**order, **wrong})).status_code == 422
    answer = await api.post("/v1/redrive", json={**order, "chunk_ids": [record.record_id, "evt_unknown"]})
    assert answer.json() == {"chunks": 1}
    await world.until(lambda: len(world.net.got) == 5)
    await world.quiet()
    assert (await api.get(url)).json()["deliveries"][0]["state"] == "received"
    assert (await api.post("/v1/redrive", json={**order, "since": "2026-01-01T00:00:00Z"})).json() == {"chunks": None}
    await world.until(lambda: len(world.net.got) == 6)
