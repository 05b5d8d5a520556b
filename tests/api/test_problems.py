"""Refusals: one shape, one catalogue, no echo, no trace."""

from __future__ import annotations

import ast
import json
import logging
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from door_world import Door, open_door

from hub.api.catalogue import CATALOGUE
from hub.api.problems import from_error
from hub.domain import errors
from hub.domain.parties import Role
from hub.wire.problems import Problem


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path) as opened:
        await opened.add("mobile", Role.carrier)
        yield opened


def _all_errors(kind: type[errors.NumhubError] = errors.NumhubError) -> list[type[errors.NumhubError]]:
    return [kind, *(found for child in kind.__subclasses__() for found in _all_errors(child))]


_NAMES = {kind.__name__ for kind in _all_errors()}


@pytest.mark.parametrize("kind", [kind for kind in _all_errors() if kind.__module__ == errors.__name__])
def test_every_error_of_the_domain_has_a_problem(kind: type[errors.NumhubError]) -> None:
    """Each error class leaves as a problem document; its code stands in the catalogue under the same status."""
    response = from_error(kind())
    body = Problem.model_validate_json(bytes(response.body))
    assert response.media_type == "application/problem+json"
    assert body.code in CATALOGUE
    assert body.status == response.status_code == CATALOGUE[body.code].status
    assert (response.status_code == 500) == (kind is errors.NumhubError)
    assert ("retry-after" in response.headers) == (response.status_code in (429, 503))
    assert ("www-authenticate" in response.headers) == (response.status_code == 401)


def test_every_code_raised_anywhere_stands_in_the_catalogue() -> None:
    """A ``code="..."`` given to an error in the hub's source has its entry."""
    raised = set()
    for file in (Path(__file__).parents[2] / "hub").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in _NAMES:
                found = [word.value for word in node.keywords if word.arg == "code"]
                raised |= {value.value for value in found if isinstance(value, ast.Constant)}
    assert len(raised) > 15
    assert raised - set(CATALOGUE) == set()


async def test_every_code_of_the_catalogue_is_explained(door: Door) -> None:
    """The type of a problem leads to a page that says what to do."""
    for code, entry in CATALOGUE.items():
        page = await door.client.get(f"/problems/{code}")
        assert page.status_code == 200
        assert code in page.text
        assert str(entry.status) in page.text
    assert (await door.client.get("/problems/nonsense")).status_code == 404


async def test_unknown_paths_and_methods_are_problems(door: Door) -> None:
    """404 and 405 have the same shape as everything else; 405 says what is allowed."""
    unknown = await door.client.get("/v1/13812345678")
    wrong = await door.client.delete("/oauth2/token")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "no_such_address")
    assert "13812345678" not in unknown.text
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert wrong.headers["allow"] == "POST"
    assert unknown.headers["content-type"] == wrong.headers["content-type"] == "application/problem+json"


async def test_an_unexpected_error_is_a_constant_500_and_is_logged(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the error's text nor a trace leaves the process; the log has both."""
    with caplog.at_level(logging.ERROR, "numhub.api"):
        answer = await door.client.get("/t/broken")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "ZeroDivisionError" not in answer.text
    assert "Traceback" not in answer.text
    assert [record.message for record in caplog.records] == ["request_failed"]
    assert "13812345678" not in answer.text


async def test_validation_says_where_and_never_what(door: Door) -> None:
    """Pointers and reasons, without the values and without names the caller made up."""
    body = {"number": 13812345678, "count": 99, "secret-13912345678": "s3cr3t"}
    answer = await door.client.post("/t/open", json=body)
    problem = Problem.model_validate_json(answer.content)
    assert (answer.status_code, problem.code) == (422, "invalid_request")
    assert {part.pointer for part in problem.errors} == {"/number", "/count", "/(unknown member)"}
    assert not any(leak in answer.text for leak in ("13812345678", "13912345678", "s3cr3t", "99"))


async def test_errors_are_listed_up_to_a_bound(door: Door) -> None:
    """A thousand mistakes give twenty parts, not a body of a megabyte."""
    body = {f"extra{place}": 1 for place in range(1000)}
    answer = await door.client.post("/t/open", json=body)
    assert len(answer.json()["errors"]) == 20
    assert len(answer.content) < 4000


async def test_every_answer_carries_the_fixed_headers(door: Door) -> None:
    """Nothing is cached, sniffed or framed, whatever the status."""
    for path in ("/health/live", "/nowhere", "/t/broken", "/jwks.json"):
        headers = (await door.client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["x-frame-options"] == "DENY"
        assert "max-age" in headers["strict-transport-security"]


async def test_openapi_shows_refusals_as_problems(door: Door) -> None:
    """The document names Problem under application/problem+json and the scopes of each operation."""
    document = (await door.client.get("/openapi.json")).json()
    operation = document["paths"]["/v1/parties"]["post"]
    content = operation["responses"]["4XX"]["content"]
    assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert operation["security"] == [{"access_token": ["parties.manage"]}]
    assert operation["responses"]["409"] == {"$ref": "#/components/responses/409.party_exists"}
    assert "HTTPValidationError" not in json.dumps(document)


async def test_a_party_over_its_rate_waits_and_others_do_not(tmp_path: Path) -> None:
    """429 with Retry-After and RateLimit for the busy party only; after the wait it goes on."""
    async with open_door(tmp_path, requests_per_second=1, rate_window=5.0) as door:
        await door.add("busy", Role.carrier)
        await door.add("calm", Role.carrier)
        busy, calm = await door.bearer("busy"), await door.bearer("calm")
        body = {"number": "13812345678", "count": 1}
        answers = [await door.client.post("/t/probe", json=body, headers=busy) for _ in range(7)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
        refused = answers[-1]
        assert refused.json()["code"] == "too_many_requests"
        assert refused.json()["retriable"] is True
        assert 1 <= int(refused.headers["retry-after"]) <= 5
        assert [answer.headers["ratelimit"].split(";t=")[0] for answer in answers] == [
            f'"party";r={left}' for left in (4, 3, 2, 1, 0, 0, 0)
        ]
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"party";q=5;w=5'}
        assert all(1 <= int(answer.headers["ratelimit"].split(";t=")[1]) <= 5 for answer in answers)
        assert len(refused.headers.get_list("ratelimit")) == 1
        stranger = await door.client.post("/t/probe", json=body)
        assert stranger.status_code == 401 and "ratelimit" not in stranger.headers  # nobody's limit
        assert (await door.client.post("/t/probe", json=body, headers=calm)).status_code == 200
        door.clock.advance(10)
        assert (await door.client.post("/t/probe", json=body, headers=busy)).status_code == 200


async def test_health_says_what_is_missing(door: Door) -> None:
    """Alive without anything; ready only while the ledger answers."""
    assert (await door.client.get("/health/live")).json() == {"status": "live"}
    assert (await door.client.get("/health/ready")).status_code == 200

    class Gone:
        async def version(self) -> int:
            raise errors.Unavailable

    door.context.directory = Gone()  # type: ignore[assignment]
    refused = await door.client.get("/health/ready")
    assert (refused.status_code, refused.json()["ledger"]) == (503, "not answering")


async def test_metrics_count_by_template_never_by_path(door: Door) -> None:
    """An id or number in a path does not become a label."""
    await door.client.get("/v1/parties/13812345678")
    await door.client.get("/13812345678")
    page = (await door.client.get("/metrics")).text
    assert 'numhub_http_requests_total{route="/v1/parties/{party_id}",status="401"} 1.0' in page
    assert 'route="unmatched",status="404"' in page
    assert "13812345678" not in page


async def test_operators_enrol_and_suspend_over_http(door: Door) -> None:
    """parties.manage enrols a carrier by its public key; nobody else may look."""
    from hub.adapters.oauth.keys import generate

    await door.add("ops", Role.operator)
    ops, mobile = await door.bearer("ops"), await door.bearer("mobile")
    private, public = generate("ES256")
    body = {"party_id": "telecom", "role": "carrier", "name": "Telecom", "keys": [public], "block_holders": ["ctcc"]}
    made = await door.client.post("/v1/parties", json=body, headers=ops)
    assert made.status_code == 201, made.text
    assert made.json()["kids"] == [private["kid"]]
    again = await door.client.post("/v1/parties", json=body, headers=ops)
    assert (again.status_code, again.json()["code"]) == (409, "party_exists")
    assert (await door.client.get("/v1/parties", headers=mobile)).status_code == 403
    stopped = await door.client.post("/v1/parties/telecom/suspend", headers=ops)
    assert stopped.json()["suspended"] is True
    assert (await door.client.get("/v1/parties/nobody", headers=ops)).status_code == 404
    for key in ({}, {"kty": "oct", "k": "abc"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, {"kty": ["EC"]}):
        refused = await door.client.post("/v1/parties/telecom/keys", json={"key": key}, headers=ops)
        assert (refused.status_code, refused.json()["code"]) == (422, "invalid_key")
