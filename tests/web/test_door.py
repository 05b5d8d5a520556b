"""Who gets to see the regulator's page: over ASGI, without a browser."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest

from hub.web.session import sign_link, sign_session
from tests.web_world import KEY, World, example_rows, make_world

FORM = {"content-type": "application/x-www-form-urlencoded"}


@pytest.fixture
async def world() -> World:
    return await make_world(example_rows(days=2))


@pytest.fixture
async def browser(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with visitor(world) as client:
        yield client


def visitor(world: World, base: str = "http://hub.test") -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(world.app), base_url=base)


async def enter(client: httpx.AsyncClient, ticket: str, **headers: str) -> httpx.Response:
    return await client.post("/login", data={"ticket": ticket}, headers=headers)


async def test_without_a_session_the_page_says_how_to_get_one(browser: httpx.AsyncClient) -> None:
    """A stranger gets 401, the command that makes a link, and no figure; the data are refused too."""
    page = await browser.get("/")
    assert page.status_code == 401
    assert "numhub login-link PARTY" in page.text
    assert "data-cell" not in page.text
    data = await browser.get("/dashboard/data")
    assert (data.status_code, data.json()["code"]) == (401, "unauthenticated")


async def test_a_link_opens_the_page(world: World, browser: httpx.AsyncClient) -> None:
    """The button's POST gives a session cookie and leads to the page; script and style cannot read the cookie."""
    answer = await enter(browser, world.ticket())
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith("numhub_session=")
    assert {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=28800"} <= set(cookie.split("; "))
    assert "Secure" not in cookie  # this hub is reached by plain http
    page = await browser.get("/")
    assert page.status_code == 200
    assert page.headers["cache-control"] == "no-store"


async def test_by_https_the_cookie_never_travels_in_the_clear() -> None:
    """Where the hub is reached by https the cookie is Secure and bound to this host."""
    world = await make_world(public_url="https://hub.test")
    async with visitor(world, "https://hub.test") as client:
        answer = await enter(client, world.ticket(), origin="https://hub.test")
        assert answer.headers["set-cookie"].startswith("__Host-numhub_session=")
        assert "Secure" in answer.headers["set-cookie"].split("; ")
        assert (await client.get("/")).status_code == 200


async def test_looking_at_a_link_uses_nothing_up(world: World, browser: httpx.AsyncClient) -> None:
    """A link preview that fetches the address any number of times does not burn the ticket."""
    ticket = world.ticket()
    for _ in range(3):
        shown = await browser.get("/login", params={"ticket": ticket})
        assert shown.status_code == 200
        assert "set-cookie" not in shown.headers
    assert (await enter(browser, ticket)).status_code == 303


async def test_a_link_opens_once(world: World) -> None:
    """The second use of a ticket is refused, whoever tries."""
    ticket = world.ticket()
    async with visitor(world) as first, visitor(world) as second:
        assert (await enter(first, ticket)).status_code == 303
        again = await enter(second, ticket)
        assert again.status_code == 403
        assert "set-cookie" not in again.headers
        assert (await second.get("/")).status_code == 401


async def test_bad_tickets_are_refused(world: World, browser: httpx.AsyncClient) -> None:
    """Expired, forged, damaged, missing, or made for another use: no session."""
    now = world.clock.now()
    good = world.ticket()
    for ticket in (
        sign_link(KEY, "miit", now - timedelta(minutes=11)),
        sign_link(b"another key of thirty-two bytes!", "miit", now),
        sign_session(KEY, "miit", now),
        good[:-4] + "AAAA",
        "",
        "x" * 5000,
    ):
        answer = await enter(browser, ticket)
        assert (answer.status_code, answer.headers.get("set-cookie")) == (403, None)
    assert (await browser.get("/login", params={"ticket": "forged"})).status_code == 403
    two = await browser.post("/login", content=f"ticket={good}&ticket={good}", headers=FORM)
    assert two.status_code == 403
    assert (await enter(browser, good)).status_code == 303  # none of that burned a good one


@pytest.mark.parametrize("party", ["cmcc", "bank-sunrise-ltd", "nobody"])
async def test_only_regulators_and_operators_are_let_in(world: World, browser: httpx.AsyncClient, party: str) -> None:
    """A properly signed link for a carrier, a subscriber or a stranger opens nothing."""
    assert (await enter(browser, world.ticket(party))).status_code == 403


async def test_suspension_ends_a_session(world: World, browser: httpx.AsyncClient) -> None:
    """A session is judged at every request: suspended means out, page and data alike; and no new link helps."""
    await enter(browser, world.ticket())
    assert (await browser.get("/dashboard/data")).status_code == 200
    world.directory.suspend("miit")
    await world.members.refresh()
    assert (await browser.get("/")).status_code == 401
    assert (await browser.get("/dashboard/data")).status_code == 401
    assert (await enter(browser, world.ticket())).status_code == 403


async def test_a_session_ends_by_itself_and_by_signing_out(world: World, browser: httpx.AsyncClient) -> None:
    """After eight hours the cookie is worth nothing; signing out takes it away at once."""
    await enter(browser, world.ticket())
    out = await browser.post("/logout")
    assert out.status_code == 303
    assert (await browser.get("/")).status_code == 401
    await enter(browser, world.ticket())
    world.clock.moment += timedelta(hours=8)
    assert (await browser.get("/")).status_code == 401


async def test_a_ticket_is_no_session(world: World, browser: httpx.AsyncClient) -> None:
    """Put into the cookie, a login ticket opens nothing."""
    browser.cookies.set("numhub_session", world.ticket())
    assert (await browser.get("/")).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "https://evil.test"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site", "origin": "http://hub.test"},
    ],
)
async def test_other_sites_cannot_post(world: World, browser: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """A form on another site neither signs a reader in nor out, and burns no ticket."""
    ticket = world.ticket()
    assert (await enter(browser, ticket, **headers)).status_code == 403
    assert (await enter(browser, ticket, origin="http://hub.test")).status_code == 303
    assert (await browser.post("/logout", headers=headers)).status_code == 403
    assert (await browser.get("/")).status_code == 200


async def test_pages_allow_nothing_inline_and_nothing_from_elsewhere(world: World, browser: httpx.AsyncClient) -> None:
    """Every page carries a strict policy and has no inline script or style."""
    await enter(browser, world.ticket())
    for path in ("/", "/login", f"/login?ticket={world.ticket()}"):
        page = await browser.get(path)
        policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert "unsafe" not in page.headers["content-security-policy"]
        assert "style=" not in page.text and "<style" not in page.text and "onclick" not in page.text
        assert page.text.count("<script") == page.text.count("<script src=")
        assert page.headers["x-content-type-options"] == "nosniff"


async def test_static_files_are_kept_for_good_and_come_compressed(world: World, browser: httpx.AsyncClient) -> None:
    """Style, script and the chart library: digest or version in the name, immutable, gzip where it is understood."""
    await enter(browser, world.ticket())
    page = (await browser.get("/")).text
    names = [part.split('"')[0] for part in page.split("/static/")[1:]]
    assert len(names) == 3
    for name in names:
        async with browser.stream("GET", f"/static/{name}", headers={"accept-encoding": "gzip"}) as zipped:
            raw = b"".join([part async for part in zipped.aiter_raw()])
        plain = await browser.get(f"/static/{name}", headers={"accept-encoding": "identity"})
        assert zipped.headers["content-encoding"] == "gzip"
        assert "content-encoding" not in plain.headers
        assert gzip.decompress(raw) == plain.content
        assert "immutable" in plain.headers["cache-control"]
    for missing in ("page.css", "..%2fdoor.py", "nothing.js"):
        assert (await browser.get(f"/static/{missing}")).status_code == 404


@pytest.mark.parametrize(
    ("address", "accept", "tag"),
    [
        ("/", "", "zh-CN"),
        ("/", "en-GB,en;q=0.9", "en"),
        ("/", "de, zh-TW;q=0.5, en;q=0.4", "zh-CN"),
        ("/?lang=en", "zh-CN", "en"),
        ("/?lang=xx", "en", "en"),
    ],
)
async def test_language_is_asked_for_or_the_browsers(
    browser: httpx.AsyncClient, address: str, accept: str, tag: str
) -> None:
    """The address decides, then the browser, then Chinese; the page says which language it is in."""
    page = await browser.get(address, headers={"accept-language": accept})
    assert f'<html lang="{tag}">' in page.text
    assert page.headers["content-language"] == tag


async def test_a_chosen_language_is_remembered(browser: httpx.AsyncClient) -> None:
    """Once asked for, English stays, whatever the browser prefers."""
    await browser.get("/?lang=en")
    assert '<html lang="en">' in (await browser.get("/", headers={"accept-language": "zh-CN"})).text
