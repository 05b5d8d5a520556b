"""Small stories, each told over HTTP through the client: what happens to one number, one app, one carrier."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import date, timedelta
from pathlib import Path

import pytest
from numhub_client.errors import Forbidden, NotFound, SignatureInvalid, TokenRefused

from hub.domain.parties import AppClass
from tests.acceptance.conftest import Stack
from tests.factories import TODAY, Town, event, holds, night_file, silent, town, until

N = 13_800_000_000
MVNO = 17_030_000_000
CONSENT = "0" * 64
LONG_AGO = TODAY - timedelta(days=100)


@pytest.fixture
async def place(tmp_path: Path, stack: Stack) -> AsyncIterator[Town]:
    async with town(tmp_path, **stack) as opened:
        yield opened


async def test_one_key_press_is_followed_to_its_end(place: Town) -> None:
    """The new holder's request reaches the chosen apps only, is due in five working days, and is completed, with what
    an app could not do by itself named."""
    carrier = await place.carrier("cmcc")
    mail = await place.app("mail", AppClass.social_mail, handle=holds({N: "unbound"}))
    bank = await place.app("bank", AppClass.bank, handle=silent)
    games = await place.app("games", AppClass.games)
    pressed = await carrier.renewals.request(
        str(N), activated_at=TODAY - timedelta(days=2), apps=["mail", "bank"], consent_sha256=CONSENT
    )
    assert pressed.state == "submitted" and pressed.number == "138****0000"
    assert pressed.due_at.date() == date(2026, 6, 8)  # a Monday's key, five working days
    await place.quiet([mail, bank], "renewal_requested", 1)
    seen = await carrier.renewals.get(pressed.renewal_id)
    assert {app.app_id: app.state for app in seen.apps} == {"mail": "clear", "bank": "sent"}
    await bank.client.acks.answer(bank.subscription_id, bank.got[0].chunk_id, default="needs_holder_action")
    done = await carrier.renewals.wait(pressed.renewal_id, within=5)
    assert done.state == "completed_with_exceptions"
    assert {app.app_id: app.state for app in done.apps} == {"mail": "clear", "bank": "needs_holder_action"}
    assert not games.got
    with pytest.raises(NotFound):
        await (await place.carrier("cucc")).renewals.get(pressed.renewal_id)


async def test_a_line_given_back_before_delivery_is_never_unbound(place: Town) -> None:
    """The app is down while a release is scheduled and called off: when it is back, the order comes marked as
    withdrawn, and clearance does not let the number go."""
    carrier = await place.carrier("cmcc")
    unbound: list[int] = []
    app = await place.app("mail", AppClass.social_mail, handle=holds({N: "unbound", N + 1: "unbound"}))
    plain = app.handle

    def handle(chunk):  # type: ignore[no-untyped-def]
        unbound.extend(row.number for row in chunk.rows() if row.orders_unbind)
        return plain(chunk)

    app.handle = handle
    app.up = False
    await carrier.batches.upload(night_file([(N, LONG_AGO), (N + 1, LONG_AGO)]), format="csv", batch_seq=1)
    await until(lambda: app.attempts > 0)
    back = await carrier.events.publish([event(N, "restored", place.clock.now())])
    assert back.accepted == 1
    app.up = True
    await place.later(timedelta(minutes=6))
    await place.quiet([app], "restored", 1)
    await place.quiet([app], "release_scheduled", 2)
    assert unbound == [N + 1]
    told = await carrier.clearance.numbers([str(N), str(N + 1)])
    assert [(each.verdict, each.reasons) for each in told.numbers] == [("wait", ("withdrawn",)), ("go", ())]


async def test_a_suspended_party_gets_nothing_and_may_do_nothing(place: Town) -> None:
    """Within a second of its suspension no body is sent and no token is good; taken back, it misses nothing."""
    carrier = await place.carrier("cmcc")
    app = await place.app("shop", AppClass.e_commerce)
    await carrier.events.publish([event(N, "deactivated", TODAY)])
    await place.quiet([app], "deactivated", 1)
    await place.hub.enrol.suspend("shop-co")
    place.clock.advance(1)
    posts = place.street.posts
    await carrier.events.publish([event(N + 1, "deactivated", TODAY)])
    await place.later(timedelta(minutes=5))
    assert place.street.posts == posts and app.numbers("deactivated") == [N]
    with pytest.raises(TokenRefused):
        await app.client.subscriptions.list()
    await place.hub.enrol.resume("shop-co")
    await place.quiet([app], "deactivated", 2)
    assert app.numbers("deactivated") == [N, N + 1]


async def test_a_pause_loses_nothing_and_a_redrive_brings_it_again(place: Town) -> None:
    """Paused, cursors stand still; resumed, everything comes in its order, once; a replay by time repeats it under the
    same ids."""
    carrier = await place.carrier("cmcc")
    app = await place.app("shop", AppClass.e_commerce)
    subscriptions, mine = app.client.subscriptions, app.subscription_id
    assert (await subscriptions.pause(mine)).state == "paused"
    ids = []
    for kind in ("deactivated", "restored", "deactivated"):
        [result] = (await carrier.events.publish([event(N, kind, place.clock.now())])).results
        ids.append(result.event_id)
    await place.later(timedelta(hours=1))
    assert not app.got
    await subscriptions.resume(mine)
    await until(lambda: len(app.got) == 3)
    assert [got.chunk_id for got in app.got] == ids
    before = place.clock.now()
    assert {one.state for one in await subscriptions.deliveries(mine)} == {"received"}
    await subscriptions.redrive(mine, since=TODAY - timedelta(days=1))
    await until(lambda: len(app.got) == 6)
    assert [got.chunk_id for got in app.got[3:]] == ids
    assert [got.body for got in app.got[3:]] == [got.body for got in app.got[:3]]
    assert all(got.at >= before for got in app.got[3:])


async def test_what_was_parked_comes_after_a_redrive(place: Town) -> None:
    """An app that fails for days finds its events parked and visible, and gets them when it asks."""
    carrier = await place.carrier("cmcc")
    app = await place.app("shop", AppClass.e_commerce)
    app.status = 500
    [sent] = (await carrier.events.publish([event(N, "deactivated", TODAY)])).results
    await place.later(timedelta(days=4), steps=120)
    assert (await app.client.subscriptions.get(app.subscription_id)).parked == 1
    [parked] = await app.client.subscriptions.deliveries(app.subscription_id)
    assert (parked.chunk_id, parked.state, parked.reason) == (sent.event_id, "parked", "http_500")
    app.status = None
    assert await app.client.subscriptions.redrive(app.subscription_id, parked=True) == 1
    await place.quiet([app], "deactivated", 1)
    async with asyncio.timeout(20):  # the receipt that empties the parking place follows the app's 2xx
        while (await app.client.subscriptions.get(app.subscription_id)).parked:
            await asyncio.sleep(0.01)


async def test_a_secret_is_changed_without_a_gap(place: Town) -> None:
    """During the overlap every request carries both signatures, so old and new receivers accept it; then only the
    new secret counts."""
    carrier = await place.carrier("cmcc")
    app = await place.app("shop", AppClass.e_commerce)
    old = app.receiver
    await carrier.events.publish([event(N, "deactivated", TODAY)])
    await place.quiet([app], "deactivated", 1)
    made = await app.client.subscriptions.rotate(app.subscription_id, overlap_seconds=3600)
    await carrier.events.publish([event(N + 1, "deactivated", TODAY)])
    await place.quiet([app], "deactivated", 2)  # with the old secret still
    assert made.secret is not None
    app.trust(made.secret.key)
    await carrier.events.publish([event(N + 2, "deactivated", TODAY)])
    await place.quiet([app], "deactivated", 3)
    await place.later(timedelta(hours=2))
    await carrier.events.publish([event(N + 3, "deactivated", place.clock.now())])
    await place.quiet([app], "deactivated", 4)
    assert [got.signatures for got in app.got] == [1, 2, 2, 1]
    assert old is not None and app.last is not None
    with pytest.raises(SignatureInvalid):
        old.open(*app.last)


async def test_an_mvno_publishes_through_its_host(place: Town) -> None:
    """A host carrier sends the MVNO's file; a stranger may not; both may ask for clearance, others see nothing."""
    mvno = await place.carrier("mvno-a", block_holders=("mvno:cmcc",))
    host = await place.carrier("cmcc", block_holders=("cmcc",), acting_for=("mvno-a",))
    stranger = await place.carrier("cucc", block_holders=("cucc",))
    app = await place.app("shop", AppClass.e_commerce)
    rows = night_file([(MVNO, LONG_AGO), (MVNO + 1, LONG_AGO), (N, LONG_AGO)])
    batch = await host.batches.upload(rows, format="csv", batch_seq=1, acting_for="mvno-a")
    assert (batch.rows_accepted, batch.acting_for) == (2, "mvno-a")
    assert [row.reason for row in await host.batches.result(batch.batch_id)] == ["foreign_block"]
    with pytest.raises(Forbidden):
        await stranger.batches.upload(rows, format="csv", batch_seq=1, acting_for="mvno-a")
    await place.quiet([app], "release_scheduled", 2)
    for asking in (host, mvno):
        assert (await asking.clearance.batch(batch.batch_id)).go == 2
    assert [each.verdict for each in (await mvno.clearance.numbers([str(MVNO)])).numbers] == ["go"]
    with pytest.raises(NotFound):
        await stranger.clearance.batch(batch.batch_id)
    hidden = await stranger.clearance.numbers([str(MVNO)])
    assert [each.reasons for each in hidden.numbers] == [("unknown_number",)]


async def test_check_never_says_no_for_lack_of_data(place: Town) -> None:
    """Before every basic carrier has reported: no data. After their (empty) nights: no for a calm number, yes for one
    that ended. A day of silence later: no data again, and still yes."""
    carriers = {name: await place.carrier(name, block_holders=(name,)) for name in ("cmcc", "cucc", "ctcc", "cbn")}
    shop = await place.app("shop", AppClass.e_commerce)
    cmcc = carriers["cmcc"]
    since = (TODAY - timedelta(days=300)).date()
    assert (await shop.client.check.one(str(N + 5), since)).answer == "no_data"
    await cmcc.batches.upload(night_file([(N, LONG_AGO)]), format="csv", batch_seq=1)
    for name, client in carriers.items():
        if name != "cmcc":
            nothing = await client.batches.empty(batch_seq=1)
            assert (nothing.state, nothing.rows_accepted, nothing.chunks) == ("committed", 0, 0)
    await place.later(timedelta(seconds=10))
    answers = await shop.client.check.many([(str(N), since), (str(N + 5), since), ("12345", since)])
    assert [(each.answer, each.reason) for each in answers] == [
        ("yes", "ended"),
        ("no", None),
        ("no_data", "invalid_number"),
    ]
    before_cover = (TODAY - timedelta(days=1500)).date()
    assert (await shop.client.check.one(str(N + 5), before_cover)).answer == "no_data"
    await place.later(timedelta(days=2))
    again = await shop.client.check.many([(str(N), since), (str(N + 5), since)])
    assert [each.answer for each in again] == ["yes", "no_data"]


async def test_a_waiver_is_a_signed_and_listed_act(place: Town) -> None:
    """A silent bank holds a number up; the regulator's signed word takes it out of those who are waited for, for that
    batch only, and every clearance that used it says so."""
    carrier, regulator = await place.carrier("cmcc"), await place.regulator()
    bank = await place.app("bank", AppClass.bank, handle=silent)
    first = await carrier.batches.upload(night_file([(N, LONG_AGO)]), format="csv", batch_seq=1)
    second = await carrier.batches.upload(night_file([(N + 1, LONG_AGO)]), format="csv", batch_seq=2)
    await place.quiet([bank], "release_scheduled", 2)
    assert (await carrier.clearance.batch(first.batch_id)).waiting_for == {"answers_pending": 1}
    waiver = await regulator.waivers.sign_and_put(
        "bank-co", person="Li", reason="in liquidation", batch_id=first.batch_id, key=place.keys["regulator"]
    )
    told = await carrier.clearance.batch(first.batch_id)
    assert (told.go, told.waivers) == (1, (waiver.waiver_id,))
    assert (await carrier.clearance.batch(second.batch_id)).wait == 1
    assert await regulator.waivers.list() == [waiver]
    sold = await carrier.events.publish([event(N, "released", place.clock.now())])
    assert sold.accepted == 1


async def test_races_at_the_same_number_end_with_one_truth(place: Town) -> None:
    """Two carriers claim one number at the same moment: one is accepted, the other hears whose it is."""
    one, two = await place.carrier("cmcc"), await place.carrier("cucc")
    app = await place.app("shop", AppClass.e_commerce)
    said = await asyncio.gather(*(each.events.publish([event(N, "deactivated", TODAY)]) for each in (one, two)))
    results = sorted((each.results[0] for each in said), key=lambda result: not result.accepted)
    assert [result.reason for result in results] == [None, "claimed_by_other"]
    await place.quiet([app], "deactivated", 1)
    assert [got.chunk_id for got in app.got] == [results[0].event_id]
