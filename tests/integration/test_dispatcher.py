"""The dispatcher over real log, fold and ledger: what is in the log arrives, in order, once, or is visibly parked."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from hub.domain.events import EventType, Lane
from hub.domain.parties import DeliveryMode, Role, SubscriptionState
from hub.ports.ledger import Cursor
from hub.ports.sender import Response, SendError
from hub.wire.delivery import POINTER_TYPE, SUPERSEDED_HEADER
from tests.dispatch_world import NOW, Got, World, make_record, make_world, number

RS, DEACTIVATED, RESTORED = EventType.release_scheduled, EventType.deactivated, EventType.restored


@pytest.fixture
async def world(tmp_path: Path):
    async with make_world(tmp_path) as world:
        yield world


def offsets(cursors: list[Cursor], lane: Lane) -> list[int]:
    return [cursor.offset for cursor in sorted(cursors, key=lambda c: c.partition) if cursor.lane is lane]


async def test_records_arrive_in_log_order_with_receipts_and_cursors(world: World) -> None:
    """Every record once, per lane in log order; receipts and cursors say so."""
    subscription = await world.subscribe("a")
    records = [make_record([number(i, p)], lane=lane) for i in range(6) for p in (0, 1) for lane in (Lane.bulk,)]
    records += [make_record([number(100 + i)], lane=Lane.live) for i in range(6)]
    await world.publish(*records)
    await world.until(lambda: len(world.net.got) == len(records))
    await world.quiet()
    got = world.net.at("https://a/")
    for mine in (records[:12:2], records[1:12:2], records[12:]):
        ids = [record.record_id for record in mine]
        assert [one for one in got if one in ids] == ids
    receipts = await world.ledger.receipts_of("sub_a", [record.record_id for record in records])
    assert len(receipts) == len(records)
    cursors = await world.ledger.cursors("sub_a")
    ends = await world.log.ends()
    assert offsets(cursors, Lane.bulk)[1] == ends[1]
    assert subscription.subscription_id == "sub_a"


async def test_body_and_headers_are_as_documented(world: World) -> None:
    """The stored bytes travel untouched; the id is the subscription's own for this chunk."""
    await world.subscribe("a")
    record = make_record([number(1), number(2)])
    await world.publish(record)
    await world.until(lambda: len(world.net.got) == 1)
    got = world.net.got[0]
    assert got.body == world.codec.plain(record.body)
    assert got.headers["webhook-id"].startswith("msg_")
    assert got.headers["numhub-event-type"] == "release_scheduled"
    assert got.headers["numhub-lane"] == "bulk"
    assert got.headers["content-type"] == "application/cloudevents+json"
    assert SUPERSEDED_HEADER not in got.headers


async def test_pointer_mode_sends_digest_and_address(world: World) -> None:
    """A pointer names the bytes by digest and length."""
    await world.subscribe("a", mode=DeliveryMode.webhook_pointer)
    record = make_record([number(1)])
    await world.publish(record)
    await world.until(lambda: len(world.net.got) == 1)
    event = json.loads(world.net.got[0].body)
    assert event["type"] == POINTER_TYPE
    assert event["data"]["bytes"] == len(world.codec.plain(record.body))
    assert event["data"]["url"] == f"/v1/chunks/{record.record_id}"


async def test_what_is_not_wanted_is_passed_over(world: World) -> None:
    """Types, lanes and target apps are judged by headers; the cursor moves on with the next receipt."""
    await world.subscribe("typed", types=frozenset({DEACTIVATED}))
    await world.subscribe("live", lanes=(Lane.live,))
    await world.subscribe("app", app="the-app")
    renewal = make_record([number(3)], EventType.renewal_requested, Lane.live, apps="the-app,other")
    await world.publish(make_record([number(1)]), make_record([number(2)], DEACTIVATED), renewal)
    await world.until(lambda: len(world.net.got) >= 4)
    await world.quiet()
    assert len(world.net.at("https://typed/")) == 1
    assert world.net.at("https://live/") == []
    assert renewal.record_id in world.net.at("https://app/")
    assert offsets(await world.ledger.cursors("sub_typed"), Lane.bulk)[0] == 2


async def test_killed_between_send_and_commit_the_same_bytes_come_again(world: World) -> None:
    """A receiver that took a chunk whose receipt was lost gets the same id and the same bytes again."""
    await world.subscribe("a")
    taken = asyncio.Event()

    async def take_and_hang(got: Got) -> Response:
        taken.set()
        await asyncio.sleep(3600)
        return Response(204)

    world.net.answer["https://a/"] = take_and_hang
    await world.publish(make_record([number(1)]), make_record([number(2)]))
    await taken.wait()
    await world.kill_dispatcher()
    world.net.answer.clear()
    await world.restart_dispatcher()
    await world.until(lambda: len(world.net.got) == 3)
    await world.quiet()
    first, second, third = world.net.got
    assert (first.headers["webhook-id"], first.body) == (second.headers["webhook-id"], second.body)
    assert third.chunk_id != first.chunk_id
    assert len(await world.ledger.receipts_of("sub_a", [first.chunk_id, third.chunk_id])) == 2


async def test_a_retry_holds_up_its_lane_and_no_other(world: World) -> None:
    """While one chunk waits for its retry nothing of its lane overtakes it; the other lanes go on."""
    await world.subscribe("a")
    bad = make_record([number(1)])
    world.net.answer["https://a/"] = lambda got: Response(500 if got.chunk_id == bad.record_id else 204)
    behind, beside = make_record([number(2)]), make_record([number(1, 1)])
    live = make_record([number(9)], lane=Lane.live)
    await world.publish(bad, behind, beside, live)
    await world.until(
        lambda: beside.record_id in world.net.at("https://a/") and live.record_id in world.net.at("https://a/")
    )
    await world.quiet()
    assert behind.record_id not in world.net.at("https://a/")
    rows = await world.ledger.deliveries_of("sub_a")
    assert [(row.state, row.reason) for row in rows if row.chunk_id == bad.record_id] == [("retrying", "http_500")]
    world.net.answer.clear()
    await world.advance(6)
    await world.until(lambda: behind.record_id in world.net.at("https://a/"))
    order = [one for one in world.net.at("https://a/") if one in (bad.record_id, behind.record_id)]
    assert order[-1] == behind.record_id
    assert order.count(bad.record_id) == 2


async def test_after_the_last_attempt_a_chunk_is_parked_and_redriven_on_request(world: World) -> None:
    """Parked is visible; the lane goes on; a redrive brings the same bytes and the receipt ends the parking."""
    subscription = await world.subscribe("a")
    bad = make_record([number(1)])
    world.net.answer["https://a/"] = lambda got: Response(500 if got.chunk_id == bad.record_id else 204)
    behind = make_record([number(2)])
    await world.publish(bad, behind)
    for wait in (0, 6, 331, 2):
        await world.advance(wait)
        await asyncio.sleep(0.05)
    await world.until(lambda: behind.record_id in world.net.at("https://a/"))
    await world.quiet()
    parked = await world.ledger.parked_of("sub_a")
    assert [(one.chunk_id, one.attempts, one.reason) for one in parked] == [(bad.record_id, 3, "http_500")]
    assert world.metrics.counts["numhub_parked_total"] == 1
    world.net.answer.clear()
    assert await world.redrive.parked(subscription) == 1
    await world.until(lambda: world.net.at("https://a/").count(bad.record_id) == 4)
    await world.quiet()
    assert await world.ledger.parked_of("sub_a") == []
    assert bad.record_id in await world.ledger.receipts_of("sub_a", [bad.record_id])


async def test_attempts_before_a_restart_count(world: World) -> None:
    """A restart does not give a chunk its whole schedule anew."""
    await world.subscribe("a")
    world.net.answer["https://a/"] = lambda got: Response(500)
    await world.publish(make_record([number(1)]))
    await world.until(lambda: len(world.net.got) == 1)
    await world.quiet()
    await world.kill_dispatcher()
    await world.restart_dispatcher()
    await world.until(lambda: len(world.net.got) == 2)
    await world.quiet()
    await world.advance(331)
    await world.until(lambda: len(world.net.got) == 3)
    await world.quiet()
    assert [one.attempts for one in await world.ledger.parked_of("sub_a")] == [3]


async def test_gone_suspends_the_subscription_and_keeps_the_cursor(world: World) -> None:
    """410: no further byte, state and reason in the directory, the cursor where it was."""
    await world.subscribe("a")
    world.net.answer["https://a/"] = lambda got: Response(410)
    await world.publish(make_record([number(1)]), make_record([number(2)]))
    await world.until(lambda: world.members.snapshot.subscriptions["sub_a"].state is SubscriptionState.suspended)
    await world.publish(make_record([number(3)]), make_record([number(4)], lane=Lane.live))
    await world.advance(400)
    assert len(world.net.got) == 1
    assert offsets(await world.ledger.cursors("sub_a"), Lane.bulk) == [0, 0]
    reason = world.members.snapshot.subscriptions["sub_a"].state_reason or ""
    assert reason.startswith("endpoint_gone")


async def test_retry_after_is_obeyed_and_clamped(world: World) -> None:
    """429 with an absurd Retry-After waits an hour, not ten years; the whole endpoint is left alone meanwhile."""
    await world.subscribe("a")
    world.net.answer["https://a/"] = lambda got: Response(429, retry_after=str(10 * 365 * 86_400))
    await world.publish(make_record([number(1)]))
    await world.until(lambda: len(world.net.got) == 1)
    await world.quiet()
    await world.publish(make_record([number(5, 1)]))
    await world.advance(3500)
    assert len(world.net.got) == 1
    world.net.answer.clear()
    await world.advance(200)
    await world.until(lambda: len(world.net.got) == 3)


async def test_redirects_are_failures_and_any_2xx_is_a_receipt(world: World) -> None:
    """3xx is tried again; 202 with a body is a receipt."""
    await world.subscribe("a")
    answers = iter([Response(307), Response(202, body=b"error")])
    world.net.answer["https://a/"] = lambda got: next(answers)
    record = make_record([number(1)])
    await world.publish(record)
    await world.until(lambda: len(world.net.got) == 1)
    await world.quiet()
    await world.advance(6)
    await world.until(lambda: len(world.net.got) == 2)
    await world.quiet()
    assert record.record_id in await world.ledger.receipts_of("sub_a", [record.record_id])


async def test_a_dead_endpoint_is_probed_by_one_lane_at_a_time(world: World) -> None:
    """With every lane waiting, an endpoint that refuses connections never sees two requests at once after the first."""
    await world.subscribe("a")

    async def refuse(got: Got) -> Response:
        raise SendError("connect")

    world.net.answer["https://a/"] = refuse
    await world.publish(make_record([number(1)]))
    await world.until(lambda: len(world.net.got) == 1)
    await world.quiet()
    world.net.most_out.clear()
    records = [make_record([number(20 + i, p)], lane=lane) for i, p in ((0, 0), (1, 1)) for lane in Lane]
    await world.publish(make_record([number(1, 1)]), *[r for r in records if r.partition == 1][:1])
    await world.publish(make_record([number(70)], lane=Lane.live), make_record([number(71, 1)], lane=Lane.live))
    for _ in range(30):
        await world.advance(0.5)
    assert world.net.most_out["https://a/"] == 1
    before = len(world.net.got)
    world.net.answer.clear()
    await world.advance(120)
    await world.until(lambda: len(set(world.net.at("https://a/")[before:])) == 5)


async def test_pause_stops_and_resume_goes_on_where_it_stopped(world: World) -> None:
    """Nothing leaves while paused and nothing is lost."""
    await world.subscribe("a")
    await world.publish(make_record([number(1)]))
    await world.until(lambda: len(world.net.got) == 1)
    await world.quiet()
    await world.subscriptions.pause("a", "sub_a")
    later = [make_record([number(i)]) for i in (2, 3)]
    await world.publish(*later)
    await world.advance(30)
    assert len(world.net.got) == 1
    await world.subscriptions.resume("a", "sub_a")
    await world.until(lambda: len(world.net.got) == 3)
    assert world.net.at("https://a/")[1:] == [record.record_id for record in later]


async def test_a_suspended_party_gets_no_byte_and_loses_nothing(world: World) -> None:
    """Suspension bites at the next send; after it is lifted delivery goes on from the same place."""
    await world.subscribe("a")
    party = world.members.snapshot.parties["a"]
    assert party.role is Role.subscriber
    await world.directory.put_party(replace(party, suspended=True))
    await world.members.refresh()
    record = make_record([number(1)])
    await world.publish(record, make_record([number(2)], lane=Lane.live))
    await world.advance(30)
    assert world.net.got == []
    await world.directory.put_party(party)
    await world.members.refresh()
    await world.until(lambda: len(world.net.got) == 2)


async def test_rows_withdrawn_before_the_send_are_named(world: World) -> None:
    """A release that was called off for some numbers leaves with those rows named; the body stays as it was."""
    await world.subscribe("a")
    await world.subscriptions.pause("a", "sub_a")
    order = make_record([number(i) for i in range(10)])
    await world.publish(order)
    await world.publish(make_record([number(2), number(3), number(7)], RESTORED, Lane.live, seq=2))
    await world.subscriptions.resume("a", "sub_a")
    await world.until(lambda: len(world.net.got) == 2)
    got = next(one for one in world.net.got if one.chunk_id == order.record_id)
    assert got.headers[SUPERSEDED_HEADER] == "2-3,7"
    assert got.body == world.codec.plain(order.body)


async def test_live_overtakes_a_bulk_backlog(world: World) -> None:
    """A live event arrives while bulk chunks of the same subscription still queue behind a slow receiver."""
    await world.subscribe("a")

    async def slow_bulk(got: Got) -> Response:
        if got.headers["numhub-lane"] == "bulk":
            await asyncio.sleep(0.02)
        return Response(204)

    world.net.answer["https://a/"] = slow_bulk
    bulk = [make_record([number(i)]) for i in range(30)]
    live = make_record([number(99)], lane=Lane.live)
    await world.publish(*bulk, live)
    await world.until(lambda: len(world.net.got) == 31)
    assert world.net.at("https://a/").index(live.record_id) < 10


async def test_fifty_subscriptions_read_each_chunk_once(world: World) -> None:
    """What the fold has just taken reaches everybody without another read of the log."""
    for place in range(50):
        await world.subscribe(f"s{place}")
    before = world.reader.reads
    await world.publish(*[make_record([number(i)]) for i in range(4)])
    await world.until(lambda: len(world.net.got) == 200)
    assert world.reader.reads - before <= 4


async def test_replay_by_time_sets_the_cursors_back(world: World) -> None:
    """Everything appended since the moment comes again, what came before does not."""
    subscription = await world.subscribe("a")
    old, new = make_record([number(1)]), make_record([number(2)])
    await world.publish(old)
    await world.advance(100)
    await world.publish(new)
    await world.until(lambda: len(world.net.got) == 2)
    await world.quiet()
    await world.redrive.since(subscription, NOW + timedelta(seconds=50))
    await world.until(lambda: len(world.net.got) == 3)
    assert world.net.at("https://a/")[-1] == new.record_id
    assert await world.redrive.offset_at(0, NOW - timedelta(days=1)) == 0


async def test_stop_finishes_what_is_out(world: World) -> None:
    """A stop waits for the answer of what was sent, records it, and sends nothing more."""
    await world.subscribe("a")
    sent = asyncio.Event()

    async def slow(got: Got) -> Response:
        sent.set()
        await asyncio.sleep(0.05)
        return Response(204)

    world.net.answer["https://a/"] = slow
    first = make_record([number(1)])
    await world.publish(first, make_record([number(2)]))
    await sent.wait()
    assert await world.dispatcher.stop(5.0) == 0
    assert len(world.net.got) == 1
    assert first.record_id in await world.ledger.receipts_of("sub_a", [first.record_id])


async def test_idle_lanes_save_what_they_passed_over(world: World) -> None:
    """A subscription that wants nothing of what is published does not scan it all after a restart."""
    await world.subscribe("a", types=frozenset({RESTORED}))
    await world.publish(*[make_record([number(i)]) for i in range(300)])
    async with asyncio.timeout(5):
        while offsets(await world.ledger.cursors("sub_a"), Lane.bulk)[0] != 300:
            await world.advance(6)
