"""Check: yes rests on an event, no on coverage, everything else is no_data."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.domain.batches import BatchState
from hub.domain.events import EventType
from hub.flow.check import Answer, Check, Checked, Reason
from hub.flow.coverage import RECENT
from hub.ports.number_index import STATE
from tests.judgement_world import World, china

A, MVNO = 13800000001, 16500000001
COVERED = china(2026, 1, 1)
NOW = china(2026, 6, 1, 12)
BASIC = ("cmcc", "cucc", "ctcc", "cbn")


def connected(*, since: datetime | None = COVERED, heard: datetime = NOW - timedelta(hours=10)) -> World:
    """All four basic carriers and an MVNO, each with one batch."""
    world = World()
    world.clock.moment = NOW.astimezone(UTC)
    for code in BASIC:
        world.party(code, block_holders=(code,), coverage_since=since)
        world.batch(f"bat_{code}", code, created_at=heard, committed_at=heard)
    world.party("moli", block_holders=("mvno:cmcc",), coverage_since=since)
    world.batch("bat_moli", "cmcc", 2, acting_for="moli", created_at=heard, committed_at=heard)
    return world


async def check_of(world: World) -> Check:
    await world.members.refresh()
    parts = (world.ledger, world.fold, world.index, world.members, world.plan, world.clock)
    return Check(*parts)  # type: ignore[arg-type]


async def ask(world: World, since: date, number: int = A) -> tuple[str, str | None]:
    check = await check_of(world)
    [one] = (await check.check([number], [since])).answers
    many = (await check.check([number] * 40, [since] * 40)).answers
    assert many == [one] * 40  # the columns say what the scalar path says
    return one.answer.name, one.reason.value if one.reason else None


# ---- the table of STANDARDS.md section 3


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        (date(2026, 2, 1), ("yes", "ended")),
        (date(2026, 2, 25), ("yes", "ended")),
        (date(2026, 2, 26), ("yes", "gap")),
        (date(2026, 6, 1), ("yes", "gap")),
        (date(2026, 6, 2), ("no_data", "future_date")),
    ],
)
@pytest.mark.parametrize("event", [EventType.deactivated, EventType.release_scheduled])
async def test_a_line_that_ended(since: date, expected: tuple, event: EventType) -> None:
    """Ended on 2026-02-25 at 23:59 in China: yes for every day up to today; behind it nobody has it."""
    world = connected()
    world.publish(event, [A], cutoff=china(2026, 2, 26) - timedelta(minutes=1))
    assert await ask(world, since) == expected


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        (date(2026, 2, 1), ("yes", "reassigned")),
        (date(2026, 4, 20), ("yes", "reassigned")),
        (date(2026, 4, 21), ("no", None)),
        (date(2026, 5, 1), ("no", None)),
    ],
)
async def test_a_new_holder(since: date, expected: tuple) -> None:
    """Transferred on 2026-04-21 at 00:00 in China: the day itself is the new holder's; both sides of midnight."""
    world = connected()
    world.publish(EventType.owner_transferred, [A], cutoff=china(2026, 4, 21))
    assert await ask(world, since) == expected


async def test_restored_is_as_if_nothing_had_happened() -> None:
    """The same holder has it back: no."""
    world = connected()
    world.publish(EventType.deactivated, [A], cutoff=china(2026, 2, 25))
    world.publish(EventType.restored, [A])
    assert await ask(world, date(2026, 2, 1)) == ("no", None)


async def test_never_heard_of() -> None:
    """No event: no where the day is covered, no_data before; both sides of the first covered day."""
    world = connected()
    assert await ask(world, date(2026, 1, 1)) == ("no", None)
    assert await ask(world, date(2025, 12, 31)) == ("no_data", "before_coverage")
    check = await check_of(world)
    [checked] = (await check.check([A], [date(2026, 3, 1)])).answers
    assert checked.coverage_since == date(2026, 1, 1)


async def test_a_yes_needs_no_coverage() -> None:
    """An event that is known is known, however little else is."""
    world = World()
    world.party("cmcc", block_holders=("cmcc",))
    world.publish(EventType.deactivated, [A], cutoff=china(2026, 2, 25))
    world.clock.moment = NOW
    assert await ask(world, date(2026, 2, 1)) == ("yes", "ended")
    assert await ask(world, date(2026, 2, 1), A + 1) == ("no_data", "no_coverage")


async def test_what_is_no_number_or_no_block() -> None:
    """0 stands for an unreadable number; a block that was never issued has no coverage."""
    assert await ask(connected(), date(2026, 2, 1), 0) == ("no_data", "invalid_number")
    assert await ask(connected(), date(2026, 2, 1), 15900000001) == ("no_data", "no_coverage")


# ---- coverage


async def test_a_carrier_that_joined_at_noon_covers_from_the_next_day() -> None:
    """Half a day is no day."""
    world = connected()
    parties = world.directory.current.parties
    later = replace(parties["cbn"], coverage_since=china(2026, 3, 5, 12))
    world.directory.change(parties={**parties, "cbn": later})
    assert await ask(world, date(2026, 3, 5)) == ("no_data", "before_coverage")
    assert await ask(world, date(2026, 3, 6)) == ("no", None)


@pytest.mark.parametrize("missing", BASIC)
async def test_every_basic_carrier_is_needed(missing: str) -> None:
    """Numbers are ported between them, so one that is not connected could have served any number."""
    world = connected()
    parties = {name: party for name, party in world.directory.current.parties.items() if name != missing}
    world.directory.change(parties=parties)
    assert await ask(world, date(2026, 3, 1)) == ("no_data", "no_coverage")


async def test_an_mvnos_block_needs_the_mvno() -> None:
    """With it no, without it no_data; a basic carrier's block does not need it."""
    world = connected()
    assert await ask(world, date(2026, 3, 1), MVNO) == ("no", None)
    parties = {name: party for name, party in world.directory.current.parties.items() if name != "moli"}
    world.directory.change(parties=parties)
    assert await ask(world, date(2026, 3, 1), MVNO) == ("no_data", "no_coverage")
    assert await ask(world, date(2026, 3, 1)) == ("no", None)


async def test_a_silent_carrier_makes_it_stale() -> None:
    """More than 26 hours without a batch; an empty batch would have done."""
    world = connected(heard=NOW - timedelta(hours=27))
    assert await ask(world, date(2026, 3, 1)) == ("no_data", "stale")
    for code in BASIC:
        world.batch(f"bat_{code}_2", code, 3 if code == "cmcc" else 2, declared_rows=0)
    assert await ask(world, date(2026, 3, 1)) == ("no", None)
    assert await ask(world, date(2026, 3, 1), MVNO) == ("no_data", "stale")


async def test_a_host_does_not_report_for_itself_with_its_mvnos_file() -> None:
    """The file of the MVNO says nothing of the host's own numbers."""
    world = connected(heard=NOW - timedelta(hours=27))
    for seq, code in ((2, "cucc"), (2, "ctcc"), (2, "cbn")):
        world.batch(f"bat_{code}_2", code, seq)
    world.batch("bat_host_2", "cmcc", 3, acting_for="moli")
    assert await ask(world, date(2026, 3, 1)) == ("no_data", "stale")


@pytest.mark.parametrize("state", [None, BatchState.failed, BatchState.uploading])
async def test_a_gap_in_a_carriers_batches(state: BatchState | None) -> None:
    """Missing, failed or unfinished with a later one committed: what it held is not known."""
    world = connected()
    world.batch("bat_3", "cucc", 3)
    if state is not None:
        world.batch("bat_2", "cucc", 2, state=state, committed_at=None)
    assert await ask(world, date(2026, 3, 1)) == ("no_data", "no_coverage")
    world.batch("bat_2", "cucc", 2)
    assert await ask(world, date(2026, 3, 1)) == ("no", None)


async def test_a_carriers_batches_are_counted_from_one() -> None:
    """Who knows what number 1 held? A batch from before the coverage began tells where to count from, too."""
    world = connected()
    world.batch("bat_cucc", "cucc", 7)
    assert await ask(world, date(2026, 3, 1)) == ("no_data", "no_coverage")
    world.batch("bat_old", "cucc", 6, created_at=COVERED - timedelta(days=1))
    assert await ask(world, date(2026, 3, 1)) == ("no", None)


async def test_a_batch_in_the_making_is_no_gap() -> None:
    """The newest one is allowed to take its time."""
    world = connected()
    world.batch("bat_2", "cucc", 2, state=BatchState.uploading, committed_at=None)
    assert await ask(world, date(2026, 3, 1)) == ("no", None)


async def test_a_long_history_is_read_once_and_still_judged_whole() -> None:
    """Beyond the newest batches the earlier finding is trusted; a gap in what is new is still found."""
    world = connected()
    for seq in range(2, 2 * RECENT):
        world.batch(f"bat_{seq}", "cucc", seq, created_at=NOW + timedelta(seconds=seq), committed_at=NOW)
    check, limits = await check_of(world), []
    batches = world.ledger.batches

    async def counted(carrier_id: str, *, limit: int = 100) -> list:
        limits.append(limit)
        return await batches(carrier_id, limit=limit)

    world.ledger.batches = counted  # type: ignore[method-assign]
    for _ in range(3):
        assert (await check.check([A], [date(2026, 3, 1)])).answers[0].answer is Answer.no
        world.clock.ticks += 60
    assert sum(limit > RECENT for limit in limits) == 1
    world.batch("bat_x", "cucc", 2 * RECENT + 1, created_at=NOW + timedelta(days=1))
    assert (await check.check([A], [date(2026, 3, 1)])).answers[0].reason is Reason.no_coverage


async def test_a_no_is_as_of_the_quietest_carriers_last_report() -> None:
    """Not as of now: what it did not report yet cannot be in the answer."""
    world = connected()
    quiet = NOW - timedelta(hours=20)
    world.batch("bat_cbn", "cbn", 1, created_at=quiet, committed_at=quiet)
    check = await check_of(world)
    assert (await check.check([A], [date(2026, 3, 1)])).as_of == quiet
    assert (await check.check([A], [date(2025, 3, 1)])).as_of == NOW


# ---- the trap, as a property

DAYS = 12
FIRST = COVERED
Story = list[tuple[int, int, EventType]]  # (carrier, day, event)


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[int, Story], list[tuple]]:
    numbers = {}
    for n in range(draw(st.integers(1, 4))):
        story: Story = []
        own = draw(st.integers(0, 4))
        for day in sorted(draw(st.sets(st.integers(0, DAYS - 1), max_size=3))):
            carrier = 4 if own == 4 else draw(st.integers(0, 3))  # ported among the basic four
            kinds = [EventType.deactivated, EventType.restored, EventType.owner_transferred]
            story.append((carrier, day, draw(st.sampled_from(kinds))))
        numbers[(MVNO if own == 4 else A) + n] = story
    day = st.integers(0, DAYS - 1)
    withheld = st.one_of(
        st.tuples(st.just("carrier"), st.integers(0, 4)),
        st.tuples(st.just("window"), st.integers(0, 4), day, day),
        st.tuples(st.just("failed"), st.integers(0, 4), day),
        st.tuples(st.just("coverage"), st.integers(0, 4), day),
    )
    return numbers, draw(st.lists(withheld, max_size=3))


def build(numbers: dict[int, Story], withheld: list[tuple]) -> World:
    """Every carrier reports at 22:00 of every day what happened to its numbers that day; but for what is withheld."""
    world = World()
    world.clock.moment = FIRST + timedelta(days=DAYS - 1, hours=23)
    gone, lost, failed, later = set(), set(), set(), {}
    for what in withheld:
        match what:
            case ("carrier", carrier):
                gone.add(carrier)
            case ("window", carrier, first, last):
                lost |= {(carrier, day) for day in range(first, last + 1)}
            case ("failed", carrier, day):
                failed.add((carrier, day))
            case ("coverage", carrier, day):
                later[carrier] = day
    for carrier, code in enumerate((*BASIC, "mvno:cmcc")):
        if carrier in gone:
            continue
        since = FIRST + timedelta(days=later.get(carrier, 0))
        world.party(f"c{carrier}", block_holders=(code,), coverage_since=since)
        for day in range(DAYS):
            at = FIRST + timedelta(days=day, hours=22)
            if (carrier, day) in failed:
                state = {"state": BatchState.failed, "committed_at": None}
                world.batch(f"b{carrier}_{day}", f"c{carrier}", day + 1, created_at=at, **state)
            elif (carrier, day) not in lost:
                world.batch(f"b{carrier}_{day}", f"c{carrier}", day + 1, created_at=at, committed_at=at)
    for number, story in numbers.items():
        state = np.zeros((), STATE)
        for carrier, day, event in story:
            if carrier in gone or (carrier, day) in lost | failed:
                continue
            at = int((FIRST + timedelta(days=day, hours=12)).timestamp())
            if event is EventType.deactivated:
                state["phase"], state["ended_at"] = 2, at
            else:
                state["phase"], state["ended_at"] = 1, 0
                if event is EventType.owner_transferred:
                    state["holder_since"] = at
        world.index.states[number] = state
    return world


def answers(numbers: dict[int, Story], withheld: list[tuple]) -> list[tuple[Checked, datetime]]:
    async def all_of_them() -> list[tuple[Checked, datetime]]:
        check = await check_of(build(numbers, withheld))
        found = []
        for number in numbers:
            for day in range(-1, DAYS):
                one = await check.check([number], [(FIRST + timedelta(days=day)).date()])
                found.append((one.answers[0], one.as_of))
        return found

    return asyncio.run(all_of_them())


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_withholding_never_turns_an_answer_into_no(world: tuple[dict[int, Story], list[tuple]]) -> None:
    """Take away any carrier, window, batch or coverage: yes may become no_data, nothing becomes no.

    The one exception is what a carrier has not reported *yet* and is not late with: then the answer says that it is as
    of an earlier moment than the events it does not know.
    """
    numbers, withheld = world
    flat = [(number, day) for number in numbers for day in range(-1, DAYS)]
    for (number, _), (before, _), (after, as_of) in zip(
        flat, answers(numbers, []), answers(numbers, withheld), strict=True
    ):
        if after.answer is Answer.no and before.answer is not Answer.no:
            newest = [FIRST + timedelta(days=day, hours=22) for _, day, _ in numbers[number]]
            assert as_of < max(newest), (number, before, after, withheld)


@settings(max_examples=60, deadline=None)
@given(worlds(), st.lists(st.tuples(st.integers(0, 5), st.integers(-3, DAYS + 3)), min_size=17, max_size=60))
def test_columns_say_what_the_scalar_path_says(
    world: tuple[dict[int, Story], list[tuple]], asked: list[tuple[int, int]]
) -> None:
    """A call with many numbers answers each as a call with one would."""
    known = [0, 15900000001, A, A + 1, MVNO, MVNO + 1]
    numbers = [known[place] for place, _ in asked]
    since = [(FIRST + timedelta(days=day)).date() for _, day in asked]

    async def both() -> None:
        check = await check_of(build(*world))
        single = [(await check.check([n], [d])).answers[0] for n, d in zip(numbers, since, strict=True)]
        assert (await check.check(numbers, since)).answers == single

    asyncio.run(both())
