"""Holder renewal: once per key, only for a line in use, and what each app did."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from hub.domain.dispositions import Disposition
from hub.domain.errors import (
    Forbidden,
    IdempotencyMismatch,
    InvalidRequest,
    LifecycleConflict,
    NotFound,
    RuleError,
)
from hub.domain.events import EventType
from hub.domain.numbers import partition_of
from hub.domain.parties import AppClass, SubscriptionState
from hub.flow.renew import Progress, Renew, Request
from hub.ports.log import Header
from tests.judgement_world import START, World, WorldWriter

A, MINE = 13800000001, 13800010002
SINCE = START - timedelta(days=30)


@pytest.fixture
async def world() -> World:
    made = World()
    made.party("cmcc", block_holders=("cmcc",))
    made.party("cucc", block_holders=("cucc",))
    made.app("bank", AppClass.bank)
    made.app("games", AppClass.games)
    made.app("diary", AppClass.social_mail, subscribed=False)
    await made.members.refresh()
    return made


class Desk:
    def __init__(self, world: World) -> None:
        self.world, self.writer = world, WorldWriter(world)
        self.renew = self.open()

    def open(self) -> Renew:
        w = self.world
        parts = (w.ledger, w.fold, w.index, w.log, self.writer, w.reader, w.codec, w.members, w.plan, w.clock)
        w.fold.is_visible = lambda position: True  # type: ignore[attr-defined]
        return Renew(*parts)  # type: ignore[arg-type]


@pytest.fixture
def desk(world: World) -> Desk:
    return Desk(world)


def wish(number: int = A, **parts: object) -> Request:
    return replace(Request(number, SINCE, ("bank", "games"), "c" * 64), **parts)  # type: ignore[arg-type]


async def test_a_renewal_becomes_one_live_record(desk: Desk) -> None:
    """Headers name the apps; the cutoff is the holder's activation; the due date is five working days on."""
    made = await desk.renew.request("cmcc", "k1", wish())
    partition = partition_of(A, 4)
    [record] = desk.world.log.records[partition]
    assert record.headers[Header.apps] == "bank,games"
    assert record.headers[Header.lane] == "live"
    chunk = desk.world.codec.decode(record.body)
    assert chunk.binding_cutoff_at.tolist() == [int(SINCE.timestamp())]
    assert (chunk.generation.tolist(), chunk.seq.tolist()) == ([0], [1])
    assert (made.state, made.number) == ("submitted", A)
    assert [(state.app.app_id, state.progress) for state in made.apps] == [
        ("bank", Progress.queued),
        ("games", Progress.queued),
    ]
    assert made.record.due_at == datetime(2026, 6, 8, 15, 59, 59, tzinfo=UTC)
    assert not made.record.due_approximate


async def test_the_same_key_is_the_same_renewal(desk: Desk) -> None:
    """A repeat appends nothing; the key with another wish is refused."""
    first = await desk.renew.request("cmcc", "k1", wish())
    desk.world.clock.moment += timedelta(minutes=5)
    assert (await desk.renew.request("cmcc", "k1", wish())).record == first.record
    assert desk.writer.appended == 1
    with pytest.raises(IdempotencyMismatch):
        await desk.renew.request("cmcc", "k1", wish(MINE))


async def test_a_crash_between_log_and_ledger_is_healed_by_the_repeat(desk: Desk) -> None:
    """The ledger's row is made from the log's record: same due date, no second record."""
    first = await desk.renew.request("cmcc", "k1", wish())
    desk.world.ledger.all_renewals.clear()
    desk.world.clock.moment += timedelta(days=3)
    again = await desk.open().request("cmcc", "k1", wish())
    assert again.record == first.record
    assert desk.writer.appended == 1


async def test_another_key_within_a_day_cools_down(desk: Desk) -> None:
    """Also after a restart, for it is read from the log; after 24 hours it is a new wish."""
    await desk.renew.request("cmcc", "k1", wish())
    for renew in (desk.renew, desk.open()):
        with pytest.raises(RuleError) as refused:
            await renew.request("cmcc", "k2", wish())
        assert refused.value.reason_code == "renewal_cooling_down"
    await desk.renew.request("cmcc", "k3", wish(MINE))
    desk.world.clock.moment += timedelta(hours=24)
    await desk.renew.request("cmcc", "k4", wish())
    assert desk.writer.appended == 3


async def test_losing_the_race_for_the_number_is_judged_anew(desk: Desk) -> None:
    """Deactivated between judgement and append: the record is void, and the line is no longer active."""

    def lose() -> None:
        desk.writer.before = lambda: None
        desk.world.publish(EventType.deactivated, [A])

    desk.writer.before = lose
    with pytest.raises(LifecycleConflict):
        await desk.renew.request("cmcc", "k1", wish())
    assert desk.world.ledger.all_renewals == {}


@pytest.mark.parametrize("events", [[EventType.deactivated], [EventType.release_scheduled, EventType.released]])
async def test_only_a_line_in_use_is_renewed(desk: Desk, events: list[EventType]) -> None:
    """Frozen, clearing or on sale: nobody holds it."""
    for event in events:
        desk.world.publish(event, [A])
    with pytest.raises(LifecycleConflict):
        await desk.renew.request("cmcc", "k1", wish())


async def test_whose_number_it_may_be(desk: Desk) -> None:
    """The block's carrier, the carrier that reported it last, or a host for its MVNO; nobody else."""
    with pytest.raises(RuleError) as refused:
        await desk.renew.request("cucc", "k1", wish())
    assert refused.value.reason_code == "foreign_block"
    with pytest.raises(RuleError) as refused:
        await desk.renew.request("cmcc", "k1", wish(15900000001))
    assert refused.value.reason_code == "no_such_block"
    desk.world.publish(EventType.owner_transferred, [A], carrier="cucc", cutoff=SINCE)
    assert (await desk.renew.request("cucc", "k1", wish())).state == "submitted"
    with pytest.raises(Forbidden):
        await desk.renew.request("cmcc", "k2", wish(MINE, acting_for="cucc"))
    desk.world.party("mvno", block_holders=("mvno:cmcc",))
    desk.world.party("host", block_holders=("cmcc",), acting_for=("mvno",))
    await desk.world.members.refresh()
    await desk.renew.request("host", "k3", wish(16500000001, acting_for="mvno"))
    assert desk.world.log.records[partition_of(16500000001, 4)][-1].headers[Header.carrier] == "mvno"


async def test_what_is_asked_must_make_sense(desk: Desk) -> None:
    """No activation in the future, none before the holder the hub knows of, no app outside the catalogue."""
    with pytest.raises(InvalidRequest):
        await desk.renew.request("cmcc", "k1", wish(activated_at=START + timedelta(seconds=1)))
    with pytest.raises(InvalidRequest) as refused:
        await desk.renew.request("cmcc", "k1", wish(apps=("bank", "nosuch")))
    assert refused.value.details["parts"][0]["pointer"] == "/apps/1"
    desk.world.publish(EventType.owner_transferred, [A], cutoff=START - timedelta(days=2))
    with pytest.raises(LifecycleConflict):
        await desk.renew.request("cmcc", "k1", wish())


async def test_all_means_the_whole_catalogue(desk: Desk) -> None:
    """An app without a subscription is shown as not connected and is not waited for."""
    made = await desk.renew.request("cmcc", "k1", wish(apps=None))
    assert {state.app.app_id: state.progress for state in made.apps} == {
        "bank": Progress.queued,
        "diary": Progress.not_connected,
        "games": Progress.queued,
    }
    assert [app.app_id for app in desk.renew.apps()] == ["bank", "diary", "games"]


@pytest.mark.parametrize(
    ("said", "progress", "overall"),
    [
        (Disposition.unbound, Progress.clear, "completed"),
        (Disposition.no_account, Progress.clear, "completed"),
        (Disposition.rejected_cutoff, Progress.clear, "completed"),
        (Disposition.failed_retryable, Progress.sent, "submitted"),
        (Disposition.failed_final, Progress.failed, "completed_with_exceptions"),
        (Disposition.needs_holder_action, Progress.needs_holder_action, "completed_with_exceptions"),
        (Disposition.held_debt, Progress.held, "completed_with_exceptions"),
    ],
)
async def test_what_an_app_said_is_shown(desk: Desk, said: Disposition, progress: Progress, overall: str) -> None:
    """unbound and no_account look alike; a reason stands only behind what is not clear."""
    made = await desk.renew.request("cmcc", "k1", wish())
    record = desk.world.log.records[partition_of(A, 4)][-1]
    review = START + timedelta(days=60)
    desk.world.answer("sub_games", [record], Disposition.no_account)
    desk.world.answer("sub_bank", [record], said)
    desk.world.ledger.reviews[record.record_id, "sub_bank"] = review
    seen = await desk.renew.view("cmcc", made.record.renewal_id)
    bank = seen.apps[0]
    assert (bank.progress, seen.state) == (progress, overall)
    assert bank.reason == (None if progress in (Progress.clear, Progress.sent) else said)
    assert bank.review_at == (review if progress is Progress.held else None)


async def test_a_receipt_is_sent_and_no_more(desk: Desk) -> None:
    """Arrived is not answered; what is still open after the due date is overdue, also for a paused subscription."""
    made = await desk.renew.request("cmcc", "k1", wish())
    desk.world.ledger.given.add((made.record.chunk_id, "sub_bank"))
    desk.world.alter("sub_games", state=SubscriptionState.paused)
    await desk.world.members.refresh()
    seen = await desk.renew.view("cmcc", made.record.renewal_id)
    assert [state.progress for state in seen.apps] == [Progress.sent, Progress.queued]
    assert not any(state.overdue for state in seen.apps)
    desk.world.clock.moment += timedelta(days=14)
    seen = await desk.renew.view("cmcc", made.record.renewal_id)
    assert all(state.overdue for state in seen.apps)


async def test_the_least_far_subscription_of_an_app_counts(desk: Desk) -> None:
    """An app with two subscriptions is clear when both are."""
    desk.world.subscribe("bank", name="bank2")
    await desk.world.members.refresh()
    made = await desk.renew.request("cmcc", "k1", wish(apps=("bank",)))
    record = desk.world.log.records[partition_of(A, 4)][-1]
    desk.world.answer("sub_bank", [record], Disposition.unbound)
    assert (await desk.renew.view("cmcc", made.record.renewal_id)).state == "submitted"
    desk.world.answer("sub_bank2", [record], Disposition.unbound)
    assert (await desk.renew.view("cmcc", made.record.renewal_id)).state == "completed"


async def test_only_the_requesting_carrier_reads_it(desk: Desk) -> None:
    """Which apps somebody uses is sensitive."""
    made = await desk.renew.request("cmcc", "k1", wish())
    for whose, renewal_id in (("cucc", made.record.renewal_id), ("cmcc", "ren_unknown")):
        with pytest.raises(NotFound):
            await desk.renew.view(whose, renewal_id)
