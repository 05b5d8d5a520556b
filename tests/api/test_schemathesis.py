"""Requests made from the OpenAPI document, valid and invalid, against a whole hub on a socket: nothing is answered 5xx,
and every answer is one that the document promises. The same requests every time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from numhub_client import Client, Event, PrivateKey
from schemathesis import Case
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from hub.adapters.oauth.keys import generate
from hub.api.app import create_app
from hub.api.context import Context
from hub.app.wiring import Hub
from hub.domain.parties import AppClass, Role
from tests.serving import Served, served

N = 13_800_000_000
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
OF_MADE_UP_ONES = [*CHECKS, negative_data_rejection, missing_required_header, unsupported_method]
BARE: Any = None
DOCUMENT = deepcopy(create_app(Context(BARE, BARE, BARE, BARE, BARE)).openapi())  # its examples are shared
schema = schemathesis.openapi.from_dict(DOCUMENT)
schema.config.checks.negative_data_rejection.expected_statuses = ["4xx"]

PARTIES = {Role.carrier: "cmcc", Role.subscriber: "shop-co", Role.regulator: "regulator", Role.operator: "operator"}
BY_SCOPE = {
    "events.publish": "cmcc", "clearance.read": "cmcc", "renewals.write": "cmcc", "check.read": "regulator",
    "subscriptions.manage": "shop-co", "feed.read": "shop-co", "acks.write": "shop-co", "reports.read": "regulator",
    "waivers.write": "regulator", "parties.manage": "operator",
}  # fmt: skip


@dataclass
class Playground:
    """A hub with something of everything in it, a token per scope, and the ids of what is there."""

    url: str
    tokens: dict[str, str]
    known: dict[str, str]
    session: requests.Session
    statuses: set[int] = field(default_factory=set)


@pytest.fixture(scope="module")
def playground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Playground]:
    folder: Path = tmp_path_factory.mktemp("playground")
    options = {"requests_per_second": 0, "token_requests_per_minute": 1_000_000}
    with served(folder, **options) as place, requests.Session() as session:
        keys = {party_id: generate("ES256") for party_id in (*PARTIES.values(), "victim")}
        place.run(lambda hub: _enrol(hub, {party_id: public for party_id, (_, public) in keys.items()}))
        clients = {
            party_id: Client(place.url, PrivateKey.parse(private, party_id)) for party_id, (private, _) in keys.items()
        }
        try:
            known = _fill(clients)
            tokens = {scope: clients[party_id].token() for scope, party_id in BY_SCOPE.items()}
        finally:
            for client in clients.values():
                client.close()
        session.trust_env = False
        yield Playground(place.url, tokens, known, session)
        _still_well(place, session)


async def _enrol(hub: Hub, publics: dict[str, dict[str, Any]]) -> None:
    for role, party_id in [*PARTIES.items(), (Role.subscriber, "victim")]:
        await hub.enrol.add_party(role, party_id, party_id, keys=[publics[party_id]])
    await hub.enrol.add_app("shop", "shop-co", AppClass.e_commerce, "Shop")
    await hub.enrol.add_agreement("shop-co", pia_ref="PIA-1")


def _fill(clients: dict[str, Client]) -> dict[str, str]:
    carrier, shop = clients["cmcc"], clients["shop-co"]
    now = datetime.now(UTC)
    subscription = shop.subscriptions.create("shop", mode="pull", start="earliest")
    rows = [f"{N + place},{(now - timedelta(days=100)).isoformat()}" for place in range(40)]
    batch = carrier.batches.upload("\n".join(["number,terminated_at", *rows]).encode(), format="csv", batch_seq=1)
    event = carrier.events.publish([Event(str(N + 99), "deactivated", now)]).results[0]
    renewal = carrier.renewals.request(
        str(N + 500), activated_at=now - timedelta(days=1), apps="all", consent_sha256=hashlib.sha256(b"").hexdigest()
    )
    assert event.event_id is not None
    return {
        "subscription_id": subscription.subscription_id,
        "batch_id": batch.batch_id,
        "chunk_id": event.event_id,
        "renewal_id": renewal.renewal_id,
        "app_id": "shop",
        "party_id": "victim",
    }


def _still_well(place: Served, session: requests.Session) -> None:
    assert session.get(place.url + "/health/ready").json()["status"] == "ready"
    assert place.hub.supervisor.failure is None


def _token(case: Case, playground: Playground) -> dict[str, str]:
    security = case.operation.definition.raw.get("security") or []
    scopes = [scope for each in security for scopes in each.values() for scope in scopes]
    return {"Authorization": f"Bearer {playground.tokens[scopes[0]]}"} if scopes else {}


def _send(case: Case, playground: Playground, checks: list[Any]) -> None:
    if isinstance(case.query, dict) and "wait_seconds" in case.query:
        case.query["wait_seconds"] = 0  # a long poll is no fault, but long
    headers = _token(case, playground)
    response = case.call(base_url=playground.url, headers=headers, session=playground.session, timeout=10)
    playground.statuses.add(response.status_code)
    case.validate_response(response, checks=checks)


def _with_known_ids(case: Case, known: dict[str, str]) -> bool:
    """Put ids of things that are there in place of made-up ones; False if there is no place for any."""
    put = False
    case.path_parameters, case.query, case.body = map(deepcopy, (case.path_parameters, case.query, case.body))
    for part in (case.path_parameters, case.query, case.body):
        if isinstance(part, dict):
            for name in part.keys() & known.keys():
                part[name] = known[name]
                put = True
            for answer in part.get("answers", ()) if isinstance(part.get("answers"), list) else ():
                if isinstance(answer, dict) and "chunk_id" in answer:
                    answer["chunk_id"] = known["chunk_id"]
    return put


@schema.parametrize()
@settings(
    max_examples=10,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_answers_are_those_of_the_document(case: Case, playground: Playground) -> None:
    """Each operation, with made-up ids and with known ones."""
    _send(case, playground, OF_MADE_UP_ONES)
    if case.method != "DELETE" and _with_known_ids(case, playground.known):
        _send(case, playground, CHECKS)


def test_the_requests_reached_the_code_behind_the_door(playground: Playground) -> None:
    """Many were taken, many refused; none of this is a test of the door alone."""
    assert {200, 404, 422} <= playground.statuses
