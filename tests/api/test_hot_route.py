"""Hot routes answer exactly like ordinary ones; they only get there with less work."""

from __future__ import annotations

from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Request

from hub.api import problems
from hub.api.hot import HotRoute
from hub.api.strict import StrictRoute
from hub.domain.errors import Forbidden
from hub.wire.check import CheckItem


async def caller(request: Request) -> str:
    if "x-caller" not in request.headers:
        raise Forbidden
    return request.headers["x-caller"]


async def echo(body: CheckItem, who: Annotated[str, Depends(caller)]) -> CheckItem:
    return CheckItem(number=body.number + who, since=body.since)


def client(route_class: type[StrictRoute] | type[HotRoute]) -> httpx.AsyncClient:
    app, router = FastAPI(), APIRouter(route_class=route_class)
    router.post("/echo", status_code=202)(echo)
    app.include_router(router)
    problems.install(app, "http://hub/.well-known/oauth-protected-resource")
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hub", headers={"x-caller": "9"})


@pytest.mark.parametrize(
    "body",
    [
        b'{"number": "1380013800", "since": "2026-01-01"}',
        b'{"number": 1, "since": "2026-01-01"}',
        b'{"number": "1", "since": "2026"}',
        b'{"since": "2026-01-01", "more": 1}',
        b'{"number": "1", "number": "2", "since": "2026-01-01"}',
        b"[]",
        b"null",
        b"{",
        b"",
    ],
)
async def test_good_and_bad_bodies_get_the_same_answer(body: bytes) -> None:
    """Status, media type and every word are those of an ordinary route."""
    answers = []
    for route_class in (StrictRoute, HotRoute):
        async with client(route_class) as http:
            answers.append(await http.post("/echo", content=body, headers={"content-type": "application/json"}))
    ordinary, hot = answers
    assert (hot.status_code, hot.json()) == (ordinary.status_code, ordinary.json())
    assert hot.headers["content-type"] == ordinary.headers["content-type"]


async def test_who_is_not_let_in_is_not_read() -> None:
    """The caller is judged before the body, so a stranger learns nothing about what a body should be."""
    async with client(HotRoute) as http:
        del http.headers["x-caller"]
        answer = await http.post("/echo", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 403


def test_an_endpoint_that_needs_more_is_refused_when_it_is_made() -> None:
    """A query parameter would silently never be read: the route is not made."""
    router = APIRouter(route_class=HotRoute)

    async def wants_more(body: CheckItem, page: int) -> CheckItem:
        return body

    with pytest.raises(TypeError, match="cannot read"):
        router.post("/more")(wants_more)
