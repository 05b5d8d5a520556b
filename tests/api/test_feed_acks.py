"""The feed, commits, chunks and answers over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from hub.adapters.memory.coordination import MemoryCoordination
from hub.adapters.telemetry.prometheus import NoMetrics
from hub.api import problems
from hub.api.context import ApiSettings, Context
from hub.api.limits import Limits
from hub.api.routers import acks, feed
from hub.domain.errors import Unauthenticated
from hub.domain.events import Lane
from hub.domain.parties import SCOPES, Principal, Role
from hub.flow import cursors
from hub.flow.cursors import FeedCursor, Stretch
from hub.ports.ledger import Cursor
from tests.feed_world import KEY, World, world

EVEN = 13_800_000_000


class NamedTokens:
    """The token is ``role:party``."""

    def verify(self, token: str) -> Principal:
        role, _, party = token.partition(":")
        if not party:
            raise Unauthenticated
        return Principal(party, Role(role), SCOPES[Role(role)])


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


@pytest.fixture
async def api(hub: World) -> AsyncIterator[httpx.AsyncClient]:
    context = Context(
        clock=hub.clock,
        members=hub.members,
        tokens=NamedTokens(),  # type: ignore[arg-type]
        coordination=MemoryCoordination(hub.clock),
        metrics=NoMetrics(),
        settings=ApiSettings(),
        pull=hub.pull,
        acknowledge=hub.acknowledge,
    )
    app = FastAPI()
    app.state.context = context
    problems.install(app)
    app.add_middleware(Limits, context=context)
    app.include_router(feed.router)
    app.include_router(acks.router)
    transport = httpx.ASGITransport(app)
    headers = {"authorization": "Bearer subscriber:sub-a"}
    async with httpx.AsyncClient(transport=transport, base_url="http://hub", headers=headers) as client:
        yield client


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    said: dict[str, Any] = answer.json()
    assert said["code"] == code
    return said


async def test_a_page_a_commit_and_an_answer(hub: World, api: httpx.AsyncClient) -> None:
    """The whole life of a chunk for a pulling subscriber, in four requests."""
    chunk = await hub.publish("a", EVEN, 3)
    answer = await api.get("/v1/feed", params={"subscription_id": "sub_a"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    page = answer.json()
    assert page["events"] == [json.loads(hub.bodies[chunk])] and page["more"] is False
    assert hub.bodies[chunk] in answer.content
    commit = {"subscription_id": "sub_a", "cursor": page["cursor"]}
    assert (await api.post("/v1/feed/commit", json=commit)).json() == {"committed": True, "receipts": 1}
    assert (await api.post("/v1/feed/commit", json=commit)).json() == {"committed": False, "receipts": 0}
    said = {
        "subscription_id": "sub_a",
        "answers": [
            {
                "chunk_id": chunk,
                "default": "no_account",
                "exceptions": [
                    {"disposition": "unbound", "rows": [0]},
                    {"disposition": "held_funds", "numbers": [f"+86{EVEN + 2}"], "review_at": "2026-03-01T00:00:00Z"},
                ],
            }
        ],
    }
    for new in (True, False):
        answer = await api.post("/v1/acks", json=said)
        assert answer.status_code == 200 and answer.json() == {"results": [{"chunk_id": chunk, "new": new}]}
    assert (await hub.ledger.standings([(chunk, 3)], ["sub_a"]))[0].codes.tolist() == [1, 2, 6]


async def test_cursors_that_cannot_be_used_are_told_apart(hub: World, api: httpx.AsyncClient) -> None:
    """Forged 400, somebody else's 404, of another log 410, set back 400: each with its own words."""
    theirs = cursors.encode(FeedCursor("sub_b", hub.log.log_id, {(Lane.live, 0): Stretch(0, 0)}), KEY)
    gone = cursors.encode(FeedCursor("sub_a", "log_gone", {(Lane.live, 0): Stretch(0, 0)}), KEY)
    await hub.publish("a", EVEN)
    first = (await api.get("/v1/feed", params={"subscription_id": "sub_a"})).json()["cursor"]
    await api.post("/v1/feed/commit", json={"subscription_id": "sub_a", "cursor": first})
    await hub.publish("b", EVEN + 10)
    second = (await api.get("/v1/feed", params={"subscription_id": "sub_a", "cursor": first})).json()["cursor"]
    await hub.ledger.rewind("sub_a", [Cursor("sub_a", p, lane, 0, 0) for p in (0, 1) for lane in Lane])
    for cursor, status, code in (
        ("x" * 100, 400, "cursor_malformed"),
        (theirs, 404, "not_found"),
        (gone, 410, "cursor_expired"),
        (second, 400, "cursor_invalid"),
    ):
        refused(await api.get("/v1/feed", params={"subscription_id": "sub_a", "cursor": cursor}), status, code)
        commit = {"subscription_id": "sub_a", "cursor": cursor}
        refused(await api.post("/v1/feed/commit", json=commit), status, code)


async def test_somebody_elses_subscription_looks_unknown(hub: World, api: httpx.AsyncClient) -> None:
    """With A's token nothing of B can be read, committed or answered, nor can its existence be told."""
    chunk = await hub.publish("a", EVEN)
    for whose in ("sub_b", "sub_nobody"):
        refused(await api.get("/v1/feed", params={"subscription_id": whose}), 404, "not_found")
        refused(await api.get(f"/v1/chunks/{chunk}", params={"subscription_id": whose}), 404, "not_found")
        body: dict[str, Any] = {"subscription_id": whose, "cursor": "x"}
        refused(await api.post("/v1/feed/commit", json=body), 404, "not_found")
        body = {"subscription_id": whose, "answers": [{"chunk_id": chunk, "default": "unbound"}]}
        refused(await api.post("/v1/acks", json=body), 404, "not_found")
    assert await hub.ledger.standings([(chunk, 1)], ["sub_b"]) == []


async def test_a_chunk_behind_a_pointer(hub: World, api: httpx.AsyncClient) -> None:
    """The stored bytes with their own media type; 404 for ids that are not addressed to the caller."""
    chunk = await hub.publish("a", EVEN, 5)
    answer = await api.get(f"/v1/chunks/{chunk}", params={"subscription_id": "sub_push"})
    assert answer.content == hub.bodies[chunk]
    assert answer.headers["content-type"] == "application/cloudevents+json"
    refused(await api.get("/v1/chunks/evt_unknown", params={"subscription_id": "sub_push"}), 404, "not_found")


async def test_scopes_and_tokens_are_needed(hub: World, api: httpx.AsyncClient) -> None:
    """No token 401; a carrier's token 403; neither touches anything."""
    for path in ("/v1/feed?subscription_id=sub_a", "/v1/chunks/evt_1234?subscription_id=sub_a"):
        refused(await api.get(path, headers={"authorization": "Basic x"}), 401, "invalid_token")
        refused(await api.get(path, headers={"authorization": "Bearer carrier:cmcc"}), 403, "insufficient_scope")
    body = {"subscription_id": "sub_a", "answers": [{"chunk_id": "evt_1234", "default": "unbound"}]}
    refused(
        await api.post("/v1/acks", json=body, headers={"authorization": "Bearer carrier:cmcc"}),
        403,
        "insufficient_scope",
    )


@pytest.mark.parametrize(
    "query",
    [
        {"max_numbers": 0},
        {"max_numbers": 1_000_001},
        {"max_bytes": 999},
        {"max_bytes": 16_000_001},
        {"wait_seconds": -1},
        {"wait_seconds": 30.1},
        {"wait_seconds": "nan"},
        {"wait_seconds": "inf"},
        {"cursor": "x" * 4097},
        {"subscription_id": "../../etc"},
        {"subscription_id": ""},
    ],
)
async def test_limits_of_the_feed_are_stated_and_kept(api: httpx.AsyncClient, query: dict[str, Any]) -> None:
    """Whatever lies outside the documented limits is refused before anything is read."""
    refused(await api.get("/v1/feed", params={"subscription_id": "sub_a"} | query), 422, "invalid_query")


@pytest.mark.parametrize(
    ("answers", "code"),
    [
        ([], "invalid_request"),
        ([{"chunk_id": "evt_x", "default": "deleted"}], "invalid_request"),
        ([{"chunk_id": "evt_x", "default": "unbound", "number": "13800000000"}], "invalid_request"),
        ([{"chunk_id": "CHUNK"}], "invalid_request"),
        ([{"chunk_id": "CHUNK", "default": "held_debt"}], "invalid_request"),
        ([{"chunk_id": "CHUNK", "exceptions": [{"disposition": "unbound", "rows": [True]}]}], "invalid_request"),
        ([{"chunk_id": "CHUNK", "exceptions": [{"disposition": "unbound", "rows": [1]}]}], "invalid_request"),
        (
            [{"chunk_id": "CHUNK", "exceptions": [{"disposition": "unbound", "numbers": ["13912345678"]}]}],
            "invalid_request",
        ),
        ([{"chunk_id": "CHUNK", "default": "held_debt", "review_at": "tomorrow"}], "invalid_request"),
    ],
)
async def test_a_wrong_answer_is_a_problem_that_names_the_place(
    hub: World, api: httpx.AsyncClient, answers: list[dict[str, Any]], code: str
) -> None:
    """422 with a pointer, no number in it, and nothing recorded."""
    chunk = await hub.publish("a", EVEN)
    for one in answers:
        one["chunk_id"] = one["chunk_id"].replace("CHUNK", chunk).replace("evt_x", "evt_xxxx")
    said = refused(await api.post("/v1/acks", json={"subscription_id": "sub_a", "answers": answers}), 422, code)
    assert said["errors"][0]["pointer"].startswith("/answers")
    assert "13912345678" not in json.dumps(said) and "13800000000" not in json.dumps(said)
    assert await hub.ledger.answers_of("sub_a", chunk) == []


async def test_a_paused_subscription_has_no_feed(hub: World, api: httpx.AsyncClient) -> None:
    """A pushed or paused subscription is a conflict that says why."""
    said = refused(await api.get("/v1/feed", params={"subscription_id": "sub_push"}), 409, "rule_violated")
    assert "pushed" in said["detail"]
