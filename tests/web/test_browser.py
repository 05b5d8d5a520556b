"""The regulator's page in a real browser, at phone and desk width."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvicorn
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from hub.web import regulator
from tests.web_world import EVIL, World, example_rows, example_waivers, make_world

pytestmark = pytest.mark.chromium

EVERY_MS = 200
DESK, PHONE = 1440, 390


@dataclass
class Site:
    """The page on a real socket."""

    world: World
    url: str

    def link(self, party_id: str = "miit") -> str:
        return self.url + self.world.link(party_id)

    def renew(self) -> None:
        """The figures and the directory as they were at first."""
        rows = example_rows(days=12)
        rows["provinces"].append({"province": EVIL, "numbers": 77})
        self.world.ledger.rows = rows
        self.world.ledger.signed = example_waivers()


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as patch, socket.socket() as listening:
        patch.setattr(regulator, "REFRESH_MS", EVERY_MS)
        listening.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        world = asyncio.run(make_world(example_rows(days=12), public_url=url))
        config = uvicorn.Config(world.app, log_level="error", lifespan="off", ws="none", loop="asyncio")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield Site(world, url)
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def site(served: Site) -> Site:
    served.renew()
    return served


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    options = ["--no-sandbox", "--disable-gpu", "--no-proxy-server", "--disable-background-networking"]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=chromium, args=options)
        yield opened
        opened.close()


@dataclass
class Heard:
    """What a page said and asked for while it was open."""

    console: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def opened(browser: Browser, width: int = DESK, locale: str = "zh-CN", **options: Any) -> Iterator[tuple[Page, Heard]]:
    context = browser.new_context(viewport={"width": width, "height": 900}, locale=locale, **options)
    context.set_default_timeout(8000)
    page, heard = context.new_page(), Heard()
    page.on("console", lambda said: heard.console.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: heard.console.append(str(error)))
    page.on("dialog", lambda dialog: (heard.dialogs.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: heard.requests.append(request.url))
    yield page, heard
    context.close()


@pytest.fixture(scope="module")
def desk(served: Site, browser: Browser) -> Iterator[tuple[Page, Heard]]:
    """One signed-in page at desk width that several tests share: it renews itself, as it would all day."""
    with opened(browser) as (page, heard):
        sign_in(page, served)
        yield page, heard


def sign_in(page: Page, site: Site, party_id: str = "miit") -> None:
    page.goto(site.link(party_id))
    page.get_by_role("button").click()
    page.wait_for_url(site.url + "/")


def cell(page: Page, name: str) -> Locator:
    return page.locator(f"[data-cell='{name}']").first


def rows_of(page: Page, table: str) -> Locator:
    return page.locator(f"table[data-table={table}] tbody tr")


def drawn(page: Page) -> None:
    expect(page.locator("figure .main-svg .subplot")).to_have_count(4)


def published(site: Site) -> str:
    return f"{sum(row['numbers'] for row in site.world.ledger.rows['published']):,}"


def test_a_link_opens_the_page_once(site: Site, browser: Browser) -> None:
    """Link and button lead to the page; the same link again is refused with a word why."""
    context = browser.new_context(java_script_enabled=False, locale="en-US")  # signing in needs no script
    page, link = context.new_page(), site.link()
    page.goto(link)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(site.url + "/")
    page.goto(link)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("was used before")
    context.close()


def test_before_the_script_runs_everything_is_there(site: Site, browser: Browser) -> None:
    """Without JavaScript the same figures stand in numbers and open tables."""
    context = browser.new_context(java_script_enabled=False, locale="en-US", viewport={"width": DESK, "height": 900})
    page = context.new_page()
    sign_in(page, site)
    expect(cell(page, "published")).to_have_text(published(site))
    for name in ("days", "mix", "classes", "provinces"):
        expect(page.locator(f"table[data-table={name}]")).to_be_visible()
    context.close()


def test_the_page_shows_the_figures_given(site: Site, desk: tuple[Page, Heard]) -> None:
    """Numbers, tables and four charts; nothing is complained of, nothing is fetched from elsewhere."""
    page, heard = desk
    received = sum(row["numbers_received"] for row in site.world.ledger.rows["delivery"])
    expect(cell(page, "published")).to_have_text(published(site))
    expect(cell(page, "delivered")).to_have_text(f"{received:,}")
    expect(cell(page, "watermark")).to_contain_text("日志位置 1,234")
    expect(rows_of(page, "late")).to_contain_text(["8 天 7 小时", "1 天 6 小时"])
    expect(rows_of(page, "waivers")).to_have_count(2)
    drawn(page)
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    # every card with figures says up to where they were counted
    assert page.locator("main .card:not(.welcome)").count() == page.locator("main .card .asof").count()
    assert heard.console == []
    assert {url for url in heard.requests if not url.startswith((site.url, "data:"))} == set()


def test_figures_renew_without_a_reload(site: Site, desk: tuple[Page, Heard]) -> None:
    """New numbers, table rows and their absence appear while the page stays the same page."""
    page, heard = desk
    expect(rows_of(page, "events")).to_have_count(5)
    page.evaluate("window.stayed = true")
    rows = site.world.ledger.rows
    more = {"carrier_id": "cbn", "event_type": "reassigned", "lane": "live", "day": "2026-03-20"}
    rows["published"].append({**more, "chunks": 1, "numbers": 1_000_000})
    rows["open"] = []
    site.world.ledger.signed = []
    expect(cell(page, "published")).to_have_text(published(site))
    expect(rows_of(page, "events")).to_have_count(6)
    expect(rows_of(page, "late")).to_have_text(["没有逾期"])
    expect(cell(page, "waivers")).to_have_text("0")
    assert page.evaluate("window.stayed") is True
    assert heard.console == []


def test_names_are_shown_as_text(site: Site, desk: tuple[Page, Heard]) -> None:
    """A carrier, an app, a signatory and a region called <script>: seen as written, in what the server wrote, in what
    the script wrote, and in charts; nothing of it runs."""
    page, heard = desk
    for table in ("carriers", "apps", "late", "waivers", "provinces"):
        expect(page.locator(f"table[data-table={table}]")).to_contain_text(EVIL)
    written = page.request.get(site.url + "/").text()
    assert EVIL not in written and "&lt;script&gt;alert(1)" in written
    drawn(page)
    assert page.locator("body script, body img").count() == 0
    assert heard.dialogs == []
    assert heard.console == []


def test_before_the_first_batch_the_page_says_so(site: Site, desk: tuple[Page, Heard]) -> None:
    """No data yet: a friendly word instead of empty charts, which leaves as soon as there is something."""
    page, heard = desk
    full, site.world.ledger.rows = site.world.ledger.rows, {name: [] for name in site.world.ledger.rows}
    expect(page.locator("[data-welcome]")).to_be_visible()
    expect(page.locator("[data-nothing]:visible")).to_have_count(4)
    expect(cell(page, "published")).to_have_text("0")
    site.world.ledger.rows = full
    expect(page.locator("[data-welcome]")).to_be_hidden()
    expect(page.locator("figure:visible")).to_have_count(4)
    assert heard.console == []


def test_on_a_phone_in_both_languages(site: Site, browser: Browser) -> None:
    """At 390 pixels nothing sticks out and wide tables scroll inside their frame; one click changes the language of
    texts, charts and updates, and it is remembered."""
    with opened(browser, PHONE, color_scheme="dark") as (page, heard):
        sign_in(page, site)
        fits(page)
        expect(page.get_by_role("heading", name="从发布到放号")).to_be_visible()
        page.get_by_role("link", name="English").click()
        expect(page.locator("html")).to_have_attribute("lang", "en")
        expect(page.get_by_role("heading", name="From publication to release")).to_be_visible()
        fits(page)
        expect(page.locator("[data-chart=provinces]")).to_contain_text("Guangdong")
        site.world.ledger.rows["open"][0]["overdue_chunks"] = 4321
        expect(rows_of(page, "late").first).to_contain_text("4,321")
        expect(rows_of(page, "late").first).to_contain_text("8 d 7 h")
        assert 'lang="en"' in page.request.get(site.url + "/").text()
    assert heard.console == []


def fits(page: Page) -> None:
    drawn(page)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE
    assert page.locator(".scroll").first.evaluate("frame => frame.scrollWidth > frame.clientWidth")
    cards = "cards => Math.max(...cards.map(card => card.getBoundingClientRect().right))"
    assert page.locator(".card:visible").evaluate_all(cards) <= PHONE


def test_a_broken_connection_and_an_ended_session_are_told(site: Site, desk: tuple[Page, Heard]) -> None:
    """When updates fail the figures stay and the page says so; when the session is gone it asks for a new link."""
    page, _ = desk
    expect(cell(page, "published")).to_have_text(published(site))
    page.route("**/dashboard/data*", lambda route: route.abort())
    expect(page.locator("[data-state]")).to_contain_text("连接中断")
    expect(cell(page, "published")).to_have_text(published(site))
    page.unroute("**/dashboard/data*")
    expect(page.locator("[data-state]")).to_have_text("实时更新")
    page.context.clear_cookies()
    expect(page.locator("[data-state]")).to_contain_text("会话已结束")
