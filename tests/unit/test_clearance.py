"""Clearance: only answers, the freeze and signed waivers clear a number; the world may move while it is judged."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.domain.batches import BatchState
from hub.domain.clearance import CLASSES, Verdict, Voice, WaitReason, judge
from hub.domain.dispositions import BY_NUMBER, Disposition, Standing
from hub.domain.errors import BatchConflict, NotFound, Unavailable
from hub.domain.events import EventType, Lane
from hub.domain.parties import AppClass, SubscriptionState
from hub.domain.policies import ClearancePolicy
from hub.flow import judge as columns
from hub.flow.clear import Clear
from hub.flow.tally import Clearance
from hub.ports.log import Header, Record
from tests.judgement_world import CREATED, PARTITIONS, START, World

A, B, C = 13800000001, 13800010002, 13800020003  # of three partitions


@pytest.fixture
def world() -> World:
    made = World()
    made.party("cmcc", block_holders=("cmcc",))
    made.party("cucc")
    made.app("bank", AppClass.bank)
    made.app("games", AppClass.games)
    return made


def clear_of(world: World) -> Clear:
    parts = (world.ledger, world.fold, world.index, world.log, world.reader, world.codec, world.members, world.clock)
    return Clear(*parts)  # type: ignore[arg-type]


async def ask(world: World, *numbers: int, carrier: str = "cmcc") -> Clearance:
    await world.members.refresh()
    return await clear_of(world).numbers(carrier, np.array(numbers, np.int64))


def told(clearance: Clearance, place: int = 0) -> tuple[str, tuple[str, ...], tuple[str, ...]]:
    found = clearance.columns
    return (
        Verdict(int(found.verdict[place])).name,
        columns.reason_names(int(found.reasons[place])),
        columns.class_names(int(found.classes[place])),
    )


# ---- the rule itself


VOICES = st.lists(
    st.tuples(st.sampled_from(list(AppClass)), st.sampled_from([0, *BY_NUMBER]), st.booleans()), max_size=12
)


@given(VOICES, st.sampled_from(list(ClearancePolicy)), st.sampled_from([0.0, 0.5, 0.8, 1.0]))
def test_columns_say_what_the_rule_for_one_number_says(
    voices: list[tuple[AppClass, int, bool]], policy: ClearancePolicy, share: float
) -> None:
    """The vectorised form and the plain one agree on verdict, reasons and classes."""
    standings = [BY_NUMBER[code].standing if code else Standing.pending for _, code, _ in voices]
    one = judge(policy, share, [Voice(c, s, w) for (c, _, w), s in zip(voices, standings, strict=True)])
    many = columns.judge_answers(
        policy,
        share,
        [columns.Voice(f"s{n}", c, ("w",) if w else ()) for n, (c, _, w) in enumerate(voices)],
        np.array([[code] * 3 for _, code, _ in voices], np.uint8).reshape(len(voices), 3),
    )
    assert [columns.reason_names(int(bits)) for bits in many.reasons] == [
        tuple(r.value for r in WaitReason if r in one.reasons)
    ] * 3
    assert columns.class_names(int(many.classes[0])) == tuple(sorted(c.value for c in one.app_classes))


@given(VOICES, st.sampled_from(list(ClearancePolicy)), st.integers(0, 11))
def test_one_more_silence_never_helps(
    voices: list[tuple[AppClass, int, bool]], policy: ClearancePolicy, place: int
) -> None:
    """Taking an answer away never turns wait into go: silence counts for nothing."""
    if not voices:
        return
    heard = [Voice(c, BY_NUMBER[code].standing if code else Standing.pending, w) for c, code, w in voices]
    silent = list(heard)
    lost = silent[place % len(silent)]
    silent[place % len(silent)] = Voice(lost.app_class, Standing.pending, lost.waived)
    if judge(policy, 0.8, heard).verdict is Verdict.wait:
        assert judge(policy, 0.8, silent).verdict is Verdict.wait


def test_places_of_classes_and_reasons_are_fixed() -> None:
    """They are bits in columns, so their order must not change."""
    assert [c.value for c in CLASSES][:3] == ["bank", "securities_fund", "payment"]
    assert [r.bit for r in WaitReason] == [1, 2, 4, 8, 16, 32, 64, 128]


# ---- over the hub


async def test_all_answered_and_rested_is_go(world: World) -> None:
    """Every app final, freeze over: go; the judgement is in the ledger with its log positions."""
    records = world.publish(EventType.release_scheduled, [A, B])
    world.answer("sub_bank", records, Disposition.no_account, n13800000001=Disposition.unbound)
    world.answer("sub_games", records, Disposition.no_account)
    clearance = await ask(world, B, A)
    assert [told(clearance, n)[0] for n in (0, 1)] == ["go", "go"]
    assert world.ledger.clearances == [clearance.record]
    assert clearance.record.log_positions == tuple(await world.log.ends())
    assert (clearance.record.go, clearance.record.wait) == (2, 0)
    assert world.fold.caught_up == 1


async def test_silence_waits_and_names_no_date(world: World) -> None:
    """A tier-1 app that has not answered keeps the number, however long ago it was told."""
    records = world.publish(EventType.release_scheduled, [A])
    world.answer("sub_games", records, Disposition.unbound)
    world.clock.moment += timedelta(days=800)
    clearance = await ask(world, A)
    assert told(clearance) == ("wait", ("answers_pending",), ())
    assert clearance.columns.until[0] == 0


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (Disposition.rejected_cutoff, ("go", (), ())),
        (Disposition.already_rebound, ("go", (), ())),
        (Disposition.held_funds, ("go_with_exceptions", (), ("bank",))),
        (Disposition.needs_holder_action, ("go_with_exceptions", (), ("bank",))),
        (Disposition.soft_locked, ("wait", ("answers_pending",), ())),
        (Disposition.failed_retryable, ("wait", ("answers_pending",), ())),
        (Disposition.failed_final, ("wait", ("answers_failed",), ("bank",))),
    ],
)
async def test_each_disposition_of_a_tier_1_app(world: World, said: Disposition, expected: tuple) -> None:
    """What DOMAIN.md section 6 says of each."""
    records = world.publish(EventType.release_scheduled, [A])
    world.answer("sub_games", records, Disposition.no_account)
    world.answer("sub_bank", records, said)
    assert told(await ask(world, A)) == expected


async def test_only_the_number_that_is_held_is_an_exception(world: World) -> None:
    """Answers are judged row by row of the chunk."""
    numbers = [A, A + 1, A + 2]
    records = world.publish(EventType.release_scheduled, numbers)
    world.answer("sub_games", records, Disposition.no_account)
    world.answer("sub_bank", records, Disposition.no_account, n13800000002=Disposition.held_legal)
    clearance = await ask(world, *numbers)
    assert [told(clearance, n)[0] for n in range(3)] == ["go", "go_with_exceptions", "go"]


async def test_the_freeze_decides_even_when_all_have_answered(world: World) -> None:
    """90 full days in China: one second before midnight it waits until then, at midnight it goes."""
    world.directory.change(policy={"clearance": "open"})
    cutoff = START - timedelta(days=60)
    world.publish(EventType.release_scheduled, [A], cutoff=cutoff)
    clearance = await ask(world, A)
    assert told(clearance) == ("wait", ("freeze",), ())
    ends = int(clearance.columns.until[0])
    world.clock.moment += timedelta(seconds=ends - START.timestamp() - 1)
    assert told(await ask(world, A))[0] == "wait"
    world.clock.moment += timedelta(seconds=1)
    assert told(await ask(world, A))[0] == "go"
    assert (ends + 8 * 3600) % 86400 == 0
    assert ends - cutoff.timestamp() > 90 * 86400


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        ([], "unknown_number"),
        ([EventType.deactivated], "not_scheduled"),
        ([EventType.release_scheduled, EventType.restored], "withdrawn"),
        ([EventType.release_scheduled, EventType.release_cancelled], "not_scheduled"),
        ([EventType.release_scheduled, EventType.released], "already_released"),
    ],
)
async def test_where_the_number_stands(world: World, events: list[EventType], reason: str) -> None:
    """Only a number in clearing can go."""
    for event in events:
        world.publish(event, [A])
    assert told(await ask(world, A)) == ("wait", (reason,), ())


async def test_somebody_elses_number_looks_like_an_unknown_one(world: World) -> None:
    """A carrier learns nothing of another carrier's number; a host carrier asks for its MVNO's."""
    world.directory.change(policy={"clearance": "open"})
    world.party("mvno")
    world.party("host", acting_for=("mvno",))
    world.publish(EventType.release_scheduled, [A], carrier="mvno")
    assert told(await ask(world, A, carrier="cucc")) == told(await ask(world, B, carrier="cucc"))
    assert told(await ask(world, A, carrier="host"))[0] == "go"
    assert told(await ask(world, A, carrier="mvno"))[0] == "go"


async def test_an_unreadable_number_is_told_apart(world: World) -> None:
    """0 stands for a text that is no number; the others are judged."""
    clearance = await ask(world, 0, A)
    assert [told(clearance, n)[1] for n in (0, 1)] == [("invalid_number",), ("unknown_number",)]


async def test_an_answer_to_the_cancelled_round_counts_for_nothing(world: World) -> None:
    """Scheduled, answered, cancelled, scheduled again: the new record must be answered anew."""
    first = world.publish(EventType.release_scheduled, [A])
    for subscription in ("sub_bank", "sub_games"):
        world.answer(subscription, first, Disposition.unbound)
    world.publish(EventType.release_cancelled, [A])
    again = world.publish(EventType.release_scheduled, [A])
    assert told(await ask(world, A)) == ("wait", ("answers_pending",), ())
    for subscription in ("sub_bank", "sub_games"):
        world.answer(subscription, again, Disposition.unbound)
    assert told(await ask(world, A))[0] == "go"


async def test_an_answer_for_the_older_generation_counts_for_nothing(world: World) -> None:
    """Sold, given to a new holder, given up again: the old answers clear nothing."""
    first = world.publish(EventType.release_scheduled, [A])
    for subscription in ("sub_bank", "sub_games"):
        world.answer(subscription, first, Disposition.unbound)
    for event in (EventType.released, EventType.reassigned, EventType.deactivated, EventType.release_scheduled):
        world.publish(event, [A])
    assert world.index.states[A]["generation"] == 1
    assert told(await ask(world, A)) == ("wait", ("answers_pending",), ())


# ---- who must answer


@pytest.mark.parametrize("state", [SubscriptionState.paused, SubscriptionState.suspended, SubscriptionState.unproven])
async def test_standing_still_excuses_nobody(world: World, state: SubscriptionState) -> None:
    """A subscription that was paused, suspended or must prove its endpoint again is still waited for."""
    records = world.publish(EventType.release_scheduled, [A])
    world.answer("sub_games", records, Disposition.no_account)
    world.alter("sub_bank", state=state)
    world.ledger.opened = [replace(c, offset=1) if c.subscription_id == "sub_bank" else c for c in world.ledger.opened]
    assert told(await ask(world, A))[0] == "wait"


async def test_an_endpoint_that_never_proved_itself_owes_nothing(world: World) -> None:
    """Nothing was ever offered to it, so its silence says nothing; its first proof makes it count."""
    records = world.publish(EventType.release_scheduled, [A])
    for subscription in ("sub_bank", "sub_games"):
        world.answer(subscription, records, Disposition.no_account)
    world.app("payer", AppClass.payment)
    world.alter("sub_payer", state=SubscriptionState.unproven)
    assert told(await ask(world, A))[0] == "go"
    world.alter("sub_payer", state=SubscriptionState.active)
    assert told(await ask(world, A))[0] == "wait"


async def test_a_suspended_subscriber_is_still_waited_for(world: World) -> None:
    """Suspending a party stops delivery to it; only a waiver stops waiting for it."""
    records = world.publish(EventType.release_scheduled, [A])
    world.answer("sub_games", records, Disposition.no_account)
    parties = dict(world.directory.current.parties)
    parties["of-bank"] = replace(parties["of-bank"], suspended=True)
    world.directory.change(parties=parties)
    assert told(await ask(world, A))[0] == "wait"


async def test_those_who_came_later_were_never_asked(world: World) -> None:
    """A subscription whose cursor begins behind the record, or which does not take such events, owes nothing."""
    records = world.publish(EventType.release_scheduled, [A])
    world.app("late", AppClass.payment, start=1)
    world.app("other", AppClass.payment)
    world.alter("sub_other", event_types=frozenset({EventType.deactivated}))
    for subscription in ("sub_bank", "sub_games"):
        world.answer(subscription, records, Disposition.no_account)
    assert told(await ask(world, A))[0] == "go"


async def test_a_lane_exchanged_for_another_is_not_forgotten(world: World) -> None:
    """A subscription that gives up one lane and takes another has as many cursors as before: they are looked up."""
    world.app("payer", AppClass.payment)
    every = list(world.ledger.opened)
    world.ledger.opened = [c for c in every if c.subscription_id != "sub_payer" or c.lane is Lane.live]
    world.alter("sub_payer", lanes=frozenset({Lane.live}))
    clear = clear_of(world)

    async def ask_again(number: int) -> str:
        await world.members.refresh()
        return told(await clear.numbers("cmcc", np.array([number], np.int64)))[0]

    records = world.publish(EventType.release_scheduled, [A])
    for subscription in ("sub_bank", "sub_games"):
        world.answer(subscription, records, Disposition.no_account)
    assert await ask_again(A) == "go"
    world.ledger.opened = every
    world.alter("sub_payer", lanes=frozenset({Lane.bulk}))
    records = world.publish(EventType.release_scheduled, [B])
    for subscription in ("sub_bank", "sub_games"):
        world.answer(subscription, records, Disposition.no_account)
    assert await ask_again(B) == "wait"


async def test_an_ended_agreement_ends_the_duty(world: World) -> None:
    """Nothing is delivered without an agreement, so nothing is owed."""
    records = world.publish(EventType.release_scheduled, [A])
    world.answer("sub_games", records, Disposition.no_account)
    agreements = world.directory.current.agreements
    ended = tuple(replace(a, ends_at=START) if a.subscriber_id == "of-bank" else a for a in agreements)
    world.directory.change(agreements=ended)
    assert told(await ask(world, A))[0] == "go"


async def test_a_deleted_subscription_owes_nothing(world: World) -> None:
    """Deleted ones are left out of the directory."""
    records = world.publish(EventType.release_scheduled, [A])
    world.answer("sub_games", records, Disposition.no_account)
    left = {k: v for k, v in world.directory.current.subscriptions.items() if k != "sub_bank"}
    world.directory.change(subscriptions=left)
    assert told(await ask(world, A))[0] == "go"


async def test_tiered_needs_all_of_tier_1_and_a_share_of_the_rest(world: World) -> None:
    """Of five other apps four must be final at 80 %; a strict policy needs all."""
    for n in range(4):
        world.app(f"shop{n}", AppClass.e_commerce)
    records = world.publish(EventType.release_scheduled, [A])
    world.answer("sub_bank", records, Disposition.unbound)
    for who in ("sub_games", "sub_shop0", "sub_shop1"):
        world.answer(who, records, Disposition.no_account)
    assert told(await ask(world, A)) == ("wait", ("answers_pending",), ())
    world.answer("sub_shop2", records, Disposition.held_debt)
    assert told(await ask(world, A)) == ("go_with_exceptions", (), ("e_commerce",))
    world.directory.change(policy={"clearance": "strict"})
    assert told(await ask(world, A)) == ("wait", ("answers_pending",), ("e_commerce",))


# ---- waivers


async def test_a_waiver_ends_the_waiting_and_is_listed(world: World) -> None:
    """Only the one that made a difference is listed; an ended or other batch's waiver changes nothing."""
    records = world.publish(EventType.release_scheduled, [A], batch="bat_1")
    world.answer("sub_games", records, Disposition.no_account)
    world.waive("of-bank", "bat_2")
    world.waive("of-bank", ends_at=START)
    world.waive("of-bank", issued_at=START + timedelta(days=1))
    assert told(await ask(world, A))[0] == "wait"
    counted = world.waive("of-bank", "bat_1")
    world.waive("of-games")
    clearance = await ask(world, A)
    assert told(clearance)[0] == "go"
    assert clearance.record.waivers == (counted.waiver_id,)


async def test_a_waived_subscribers_hold_still_shows(world: World) -> None:
    """A waiver ends the waiting; it does not hide what was said."""
    records = world.publish(EventType.release_scheduled, [A])
    world.answer("sub_games", records, Disposition.no_account)
    world.answer("sub_bank", records, Disposition.failed_final)
    world.waive("of-bank")
    assert told(await ask(world, A)) == ("go_with_exceptions", (), ("bank",))


# ---- races


async def test_a_withdrawal_during_the_judgement_is_seen(world: World) -> None:
    """Restored after the states were read and before the answers were: never go."""
    records = world.publish(EventType.release_scheduled, [A, B])
    for subscription in ("sub_bank", "sub_games"):
        world.answer(subscription, records, Disposition.unbound)
    left = [1]

    def restore() -> None:
        if left:
            left.pop()
            world.publish(EventType.restored, [A])

    world.ledger.before_standings = restore
    clearance = await ask(world, A, B)
    assert [told(clearance, n)[0] for n in (0, 1)] == ["wait", "go"]
    assert told(clearance)[1] == ("withdrawn",)


async def test_a_new_mandatory_app_during_the_judgement_is_seen(world: World) -> None:
    """The directory's version is compared before and after; the judgement is made again."""
    records = world.publish(EventType.release_scheduled, [A])
    for subscription in ("sub_bank", "sub_games"):
        world.answer(subscription, records, Disposition.unbound)
    left = [1]

    def join() -> None:
        if left:
            left.pop()
            world.app("payer", AppClass.payment)

    world.ledger.before_standings = join
    assert told(await ask(world, A)) == ("wait", ("answers_pending",), ())


async def test_an_answer_corrected_during_the_judgement_is_seen(world: World) -> None:
    """The ledger refuses the record of a judgement whose answers changed under it; it is made anew, and waits."""
    records = world.publish(EventType.release_scheduled, [A])
    for subscription in ("sub_bank", "sub_games"):
        world.answer(subscription, records, Disposition.unbound)
    refuse = world.ledger.record_clearance
    left = [1]

    async def correct_first(record: Any, **rest: Any) -> bool:
        if left:
            left.pop()
            world.answer("sub_bank", records, Disposition.failed_final)
            world.ledger.changes += 1
        return await refuse(record, **rest)

    world.ledger.record_clearance = correct_first  # type: ignore[method-assign]
    assert told(await ask(world, A)) == ("wait", ("answers_failed",), ("bank",))
    assert len(world.ledger.clearances) == 1


async def test_a_directory_that_never_rests_is_said_to_the_caller(world: World) -> None:
    """Rather no answer than a wrong one."""
    world.publish(EventType.release_scheduled, [A])
    world.ledger.before_standings = lambda: world.directory.change()
    with pytest.raises(Unavailable):
        await ask(world, A)
    assert world.ledger.clearances == []


# ---- batches


async def test_a_batch_is_counted_and_detailed(world: World) -> None:
    """Counts for all; detail for those not clear; the last end of a freeze."""
    world.batch("bat_1")
    records = world.publish(EventType.release_scheduled, [A, B], batch="bat_1")
    young = world.publish(EventType.release_scheduled, [C], batch="bat_1", cutoff=START - timedelta(days=89))
    for subscription in ("sub_bank", "sub_games"):
        world.answer(subscription, [*records, *young], Disposition.no_account)
    world.publish(EventType.restored, [B])
    await world.members.refresh()
    found = await clear_of(world).batch("cmcc", "bat_1", "not_go")
    assert (found.record.go, found.record.go_with_exceptions, found.record.wait) == (1, 0, 2)
    assert found.waiting_for == {"freeze": 1, "withdrawn": 1}
    assert sorted(found.columns.numbers.tolist()) == [B, C]
    assert found.wait_until > START.timestamp()
    everything = await clear_of(world).batch("cmcc", "bat_1", "all")
    assert everything.index.tolist() == [0, 1, 2]
    assert len((await clear_of(world).batch("cmcc", "bat_1")).index) == 0


async def test_a_batchs_number_that_was_sold_since_is_said_to_be_sold(world: World) -> None:
    """In use under the next generation is not the same as given back to its holder."""
    world.batch("bat_1")
    world.publish(EventType.release_scheduled, [A], batch="bat_1")
    for event in (EventType.released, EventType.reassigned):
        world.publish(event, [A])
    await world.members.refresh()
    assert (await clear_of(world).batch("cmcc", "bat_1")).waiting_for == {"already_released": 1}


async def test_a_batch_waits_for_the_catalogue(world: World) -> None:
    """A list that is not complete is not judged; after ten seconds the caller is told to come back."""
    world.batch("bat_1")
    world.publish(EventType.release_scheduled, [A], batch="bat_1")
    world.ledger.listed = dict.fromkeys(range(PARTITIONS), 0)
    await world.members.refresh()
    with pytest.raises(Unavailable):
        await clear_of(world).batch("cmcc", "bat_1")
    assert world.clock.ticks > 9


async def test_an_empty_batch_has_nothing_to_clear(world: World) -> None:
    """Zeros, and no number."""
    world.batch("bat_1")
    await world.members.refresh()
    found = await clear_of(world).batch("cmcc", "bat_1", "all")
    assert (found.record.go, found.record.wait, found.waiting_for, len(found.index)) == (0, 0, {}, 0)


async def test_foreign_and_unfinished_batches(world: World) -> None:
    """Another carrier's batch looks unknown; one still being judged conflicts."""
    world.batch("bat_1", state=BatchState.validating)
    await world.members.refresh()
    with pytest.raises(NotFound):
        await clear_of(world).batch("cucc", "bat_1")
    with pytest.raises(NotFound):
        await clear_of(world).batch("cmcc", "bat_9")
    with pytest.raises(BatchConflict):
        await clear_of(world).batch("cmcc", "bat_1")


async def test_the_gate_of_released_lets_through_what_is_clear(world: World) -> None:
    """go and go with exceptions may be sold; nothing else."""
    records = world.publish(EventType.release_scheduled, [A, B, C])
    world.answer("sub_games", records, Disposition.no_account)
    world.answer("sub_bank", records, None, n13800000001=Disposition.unbound, n13800010002=Disposition.held_funds)
    await world.members.refresh()
    mask = await clear_of(world).cleared("cmcc", np.array([A, B, C], np.int64))
    assert mask.tolist() == [True, True, False]


def test_the_world_began_before_now() -> None:
    """The fixtures' agreements are in force."""
    assert CREATED < START


async def test_a_barrier_behind_the_last_record_needs_no_listing(world: World) -> None:
    """Proving the log's end appends barriers, which no catalogue lists: they keep no batch waiting."""
    world.batch("bat_1")
    [record] = world.publish(EventType.release_scheduled, [A], batch="bat_1")
    world.ledger.listed = {record.partition: record.offset + 1}
    barrier = Record(record.partition, record.offset + 1, "bar_1", {Header.kind: "barrier"}, b"", 0)
    world.log.records[record.partition].append(barrier)
    await world.members.refresh()
    assert (await clear_of(world).batch("cmcc", "bat_1")).record.wait == 1
    assert world.clock.ticks < 1
