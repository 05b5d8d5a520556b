"""Pages, cursors and commits of the pull feed, over a real log, index and ledger."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from hub.domain.errors import CursorError, CursorMalformed, NotFound, PositionExpired, RuleError
from hub.domain.events import EventType, Lane
from hub.domain.parties import SubscriptionState
from hub.flow import cursors
from hub.flow.cursors import FeedCursor, Stretch
from hub.flow.pull import Page
from hub.ports.ledger import Cursor
from tests.feed_world import KEY, START, World, replace, world

EVEN, ODD = 13_800_000_000, 13_800_010_000  # blocks of partitions 0 and 1


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


def ids(page: Page) -> list[str]:
    return [json.loads(event)["id"] for event in page.events]


async def test_a_page_holds_the_stored_bytes_live_lane_first(hub: World) -> None:
    """Both partitions and lanes in one page, live before bulk, every event byte for byte as stored."""
    bulk = [await hub.publish("a", EVEN, 50), await hub.publish("b", ODD, 50)]
    live = [await hub.publish("c", EVEN + 100, lane=Lane.live), await hub.publish("d", ODD + 100, lane=Lane.live)]
    page = await hub.pull.page(hub.subscription("sub_a"))
    assert ids(page) == live + bulk and not page.more
    assert page.events == [hub.bodies[chunk_id] for chunk_id in live + bulk]
    said = json.loads(page.body())
    assert said == {"cursor": page.cursor, "events": [json.loads(event) for event in page.events], "more": False}
    assert all(event in page.body() for event in page.events)


async def test_reading_moves_nothing_and_a_commit_moves_everything(hub: World) -> None:
    """Without a commit the same page comes again; the commit writes one receipt per chunk and moves the cursors."""
    chunks = [await hub.publish(name, EVEN + 100 * place) for place, name in enumerate("abc")]
    mine = hub.subscription("sub_a")
    page = await hub.pull.page(mine)
    assert await hub.pull.page(mine) == page
    assert await hub.received("sub_a", chunks) == set()
    assert await hub.pull.commit(mine, page.cursor) == (True, 3)
    assert await hub.received("sub_a", chunks) == set(chunks)
    receipt = (await hub.ledger.receipts_of("sub_a", chunks))[chunks[1]]
    assert (receipt.via, receipt.position, receipt.received_at) == ("pull", hub.position(chunks[1]), START)
    after = await hub.pull.page(mine)
    assert after.events == [] and not after.more
    assert await hub.pull.commit(mine, page.cursor) == (False, 0)
    assert await hub.pull.commit(mine, after.cursor) == (False, 0)
    assert await hub.received("sub_b", chunks) == set()


async def test_limits_cut_a_page_but_never_to_nothing(hub: World) -> None:
    """max_numbers and max_bytes end a page before the chunk that would pass them; the first chunk always comes."""
    chunks = [await hub.publish(name, EVEN + 1000 * place, 100) for place, name in enumerate("abcd")]
    mine = hub.subscription("sub_a")
    page = await hub.pull.page(mine, max_numbers=250)
    assert ids(page) == chunks[:2] and page.more
    rest = await hub.pull.page(mine, page.cursor, max_bytes=1_000)
    assert ids(rest) == chunks[2:3] and rest.more
    last = await hub.pull.page(mine, rest.cursor, max_numbers=1)
    assert ids(last) == chunks[3:] and not last.more
    assert await hub.pull.commit(mine, last.cursor) == (True, 4)


@pytest.mark.parametrize("commits_after", [1, 2, 3, 7])
async def test_pages_fetched_ahead_of_their_commits_lose_and_repeat_nothing(hub: World, commits_after: int) -> None:
    """However far reading runs ahead of committing, every chunk comes once and gets its receipt."""
    chunks = [
        await hub.publish(f"c{n}", (EVEN, ODD)[n % 2] + 10 * n, lane=(Lane.bulk, Lane.live)[n % 3 == 0])
        for n in range(20)
    ]
    mine = hub.subscription("sub_a")
    cursor, waiting, got = None, [], []
    while True:
        page = await hub.pull.page(mine, cursor, max_numbers=3)
        got += ids(page)
        cursor = page.cursor
        waiting.append(cursor)
        if len(waiting) > commits_after:
            assert (await hub.pull.commit(mine, waiting.pop(0))).moved
        if not page.more:
            break
    for left in waiting:
        await hub.pull.commit(mine, left)
    assert sorted(got) == sorted(chunks) and len(set(got)) == len(got)
    assert await hub.received("sub_a", chunks) == set(chunks)
    assert (await hub.pull.page(mine)).events == []


async def test_only_what_is_addressed_to_the_subscription_comes(hub: World) -> None:
    """Event types, lanes and target apps are judged on headers; what is passed over is passed for good."""
    mine = await hub.change(
        replace(
            hub.subscription("sub_a"),
            event_types=frozenset({EventType.deactivated}),
            lanes=frozenset({Lane.live}),
        )
    )
    wanted = await hub.publish("a", EVEN, lane=Lane.live)
    await hub.publish("b", EVEN + 10)
    await hub.publish("c", EVEN, lane=Lane.live, event=EventType.restored, seq=2)
    await hub.publish("d", EVEN + 20, lane=Lane.live, apps="app-x,app-sub-b")
    named = await hub.publish("e", EVEN + 30, lane=Lane.live, apps="app-x,app-sub-a")
    page = await hub.pull.page(mine)
    assert ids(page) == [wanted, named]
    assert await hub.pull.commit(mine, page.cursor) == (True, 2)


async def test_void_records_are_never_handed_out(hub: World) -> None:
    """A record the fold calls void or repeated is in no page and gets no receipt."""
    good = await hub.publish("a", EVEN)
    await hub.publish("void", EVEN, seq=5)
    await hub.publish("a", EVEN)
    page = await hub.pull.page(hub.subscription("sub_a"))
    assert ids(page) == [good]
    assert await hub.pull.commit(hub.subscription("sub_a"), page.cursor) == (True, 1)


async def test_a_long_poll_returns_with_the_first_event(hub: World) -> None:
    """A waiting page comes as soon as a chunk for it is folded; one for somebody else does not end the wait."""
    mine = await hub.change(replace(hub.subscription("sub_a"), event_types=frozenset({EventType.deactivated})))
    waiting = asyncio.create_task(hub.pull.page(mine, wait_seconds=20))
    await asyncio.sleep(0.05)
    await hub.publish("x", EVEN, event=EventType.release_scheduled)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    chunk = await hub.publish("a", ODD, lane=Lane.live)
    page = await asyncio.wait_for(waiting, 30)
    assert ids(page) == [chunk]
    assert await hub.pull.commit(mine, page.cursor) == (True, 1)


async def test_a_long_poll_without_events_ends_empty(hub: World) -> None:
    """At the end of its time a page is empty, and its cursor may be used to go on."""
    page = await hub.pull.page(hub.subscription("sub_a"), wait_seconds=0.05)
    assert page.events == [] and not page.more
    chunk = await hub.publish("a", EVEN)
    assert ids(await hub.pull.page(hub.subscription("sub_a"), page.cursor)) == [chunk]


@pytest.mark.parametrize("damage", ["", "x", "x" * 5000, "!" * 80, "A" * 120, "flip", "cut", "other key"])
async def test_forged_and_damaged_cursors_are_malformed(hub: World, damage: str) -> None:
    """Whatever this hub did not sign is CursorMalformed, for reading and for committing."""
    mine = hub.subscription("sub_a")
    cursor = (await hub.pull.page(mine)).cursor
    if damage == "flip":
        raw = bytearray(base64.urlsafe_b64decode(cursor + "=="))
        raw[20] ^= 1
        damage = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    elif damage == "cut":
        damage = cursor[:-4]
    elif damage == "other key":
        damage = cursors.encode(cursors.decode(cursor, KEY), b"another key" * 3)
    with pytest.raises(CursorMalformed):
        await hub.pull.page(mine, damage)
    with pytest.raises(CursorMalformed):
        await hub.pull.commit(mine, damage)


async def test_another_subscriptions_cursor_is_not_found(hub: World) -> None:
    """B's cursor in A's hand looks like nothing at all."""
    theirs = (await hub.pull.page(hub.subscription("sub_b"))).cursor
    with pytest.raises(NotFound):
        await hub.pull.page(hub.subscription("sub_a"), theirs)
    with pytest.raises(NotFound):
        await hub.pull.commit(hub.subscription("sub_a"), theirs)


async def test_a_cursor_of_another_log_is_expired(hub: World) -> None:
    """Positions of a log that was replaced mean nothing in the new one."""
    old = cursors.encode(FeedCursor("sub_a", "log-gone", {(Lane.live, 0): Stretch(0, 5)}), KEY)
    with pytest.raises(PositionExpired):
        await hub.pull.page(hub.subscription("sub_a"), old)


def test_cursors_read_back() -> None:
    """Encoding and decoding keep every part, large offsets included."""
    stretches = {(lane, p): Stretch(p * 1_000_000_007, p * 2_000_000_011) for lane in Lane for p in range(16)}
    cursor = FeedCursor("sub_0123456789abcdef", "log_1", stretches, 2**128 - 1)
    text = cursors.encode(cursor, KEY)
    assert cursors.decode(text, KEY) == cursor and len(text) < 800


async def test_a_commit_never_claims_what_was_not_handed_out(hub: World) -> None:
    """What the subscription may see changed between page and commit: refused, no receipt, and the next page has it."""
    await hub.publish("a", EVEN)
    mine = await hub.change(replace(hub.subscription("sub_a"), event_types=frozenset({EventType.restored})))
    page = await hub.pull.page(mine)
    assert page.events == []
    mine = await hub.change(replace(mine, event_types=frozenset(EventType)))
    with pytest.raises(CursorError):
        await hub.pull.commit(mine, page.cursor)
    again = await hub.pull.page(mine)
    assert len(again.events) == 1 and (await hub.pull.commit(mine, again.cursor)).receipts == 1


async def test_a_redrive_makes_cursors_of_before_unusable(hub: World) -> None:
    """After the position was set back an older chain of pages is refused; without a cursor everything comes again."""
    first = await hub.publish("a", EVEN)
    mine = hub.subscription("sub_a")
    page = await hub.pull.page(mine)
    await hub.pull.commit(mine, page.cursor)
    second = await hub.publish("b", EVEN + 10)
    ahead = await hub.pull.page(mine, page.cursor)
    assert ids(ahead) == [second]
    await hub.ledger.rewind("sub_a", [Cursor("sub_a", p, lane, 0, 0) for p in (0, 1) for lane in Lane])
    with pytest.raises(CursorError):
        await hub.pull.page(mine, ahead.cursor)
    with pytest.raises(CursorError):
        await hub.pull.commit(mine, ahead.cursor)
    again = await hub.pull.page(mine)
    assert ids(again) == [first, second] and (await hub.pull.commit(mine, again.cursor)).moved


async def test_nothing_is_handed_out_without_an_agreement_in_force(hub: World) -> None:
    """After the agreement's end a page is empty and passes over nothing; with a new one the chunk comes."""
    chunk = await hub.publish("a", EVEN)
    mine = hub.subscription("sub_a")
    hub.clock.advance(timedelta(days=400))
    page = await hub.pull.page(mine)
    assert page.events == []
    await hub.agree("sub-a", starts=hub.clock.now())
    assert ids(await hub.pull.page(mine, page.cursor)) == [chunk]


async def test_only_active_pull_subscriptions_have_a_feed(hub: World) -> None:
    """A pushed subscription, a paused and a suspended one are refused with a reason; cursors stand still."""
    with pytest.raises(RuleError, match="pushed"):
        await hub.pull.page(hub.subscription("sub_push"))
    for state in (SubscriptionState.paused, SubscriptionState.suspended):
        mine = await hub.change(replace(hub.subscription("sub_a"), state=state))
        with pytest.raises(RuleError, match=state.value):
            await hub.pull.page(mine)


async def test_single_chunks_are_readable_by_whom_they_are_addressed_to(hub: World) -> None:
    """The stored bytes, for a pushed subscription too, without a receipt; unknown, void and foreign ones are alike."""
    chunk = await hub.publish("a", EVEN, 20)
    void = await hub.publish("void", EVEN, seq=9)
    theirs = await hub.publish("b", EVEN + 50, apps="app-sub-b")
    mine = hub.subscription("sub_push")
    assert await hub.pull.chunk(mine, chunk) == hub.bodies[chunk]
    assert await hub.received("sub_push", [chunk]) == set()
    for unknown in (void, theirs, "evt_" + "0" * 32, "evt_none"):
        with pytest.raises(NotFound):
            await hub.pull.chunk(mine, unknown)
    with pytest.raises(NotFound):
        await hub.pull.chunk(replace(mine, state=SubscriptionState.suspended), chunk)
