"""Accepted means folded: succession, repeats, void and unreadable records, and how states follow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.adapters.columns import ColumnIndex
from hub.adapters.sqlite.log import SqliteLog
from hub.domain.events import EventType
from hub.domain.lifecycle import Phase, is_successor
from hub.flow.fold import Fold
from hub.flow.succession import judge, next_states
from hub.ports.log import Header, NewRecord, Position, Record
from hub.ports.number_index import STATE
from tests.making import CODEC, FIRST, T0, CountingMetrics, make_chunk, make_record, record_id, running

# -- the pure part

_rows = st.lists(
    st.tuples(st.integers(0, 255), st.integers(0, 65_535), st.integers(0, 255), st.integers(0, 65_535)),
    min_size=1,
    max_size=5,
)
_near = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2), st.integers(0, 3)), min_size=1, max_size=5
)


@given(_rows | _near)
def test_a_chunk_is_judged_row_by_row_as_the_domain_says(rows: list[tuple[int, int, int, int]]) -> None:
    """Accepted exactly when is_successor holds for every row, up to the ends of the number ranges."""
    before = np.zeros(len(rows), STATE)
    before["generation"], before["seq"] = [row[0] for row in rows], [row[1] for row in rows]
    chunk = make_chunk(
        "a", range(FIRST, FIRST + len(rows)), generation=[row[2] for row in rows], seq=[row[3] for row in rows]
    )
    assert judge(before, chunk) is all(is_successor(*row) for row in rows)


BEFORE = {"generation": 1, "seq": 3, "carrier": 9, "ended_at": 11, "holder_since": 22, "duty": 33}
C = T0  # the cutoff of the event

EFFECTS = [
    (EventType.deactivated, Phase.frozen, {"ended_at": C}),
    (EventType.restored, Phase.active, {"ended_at": 0, "duty": 0}),
    (EventType.release_scheduled, Phase.clearing, {"ended_at": C, "duty": 8}),
    (EventType.release_cancelled, Phase.frozen, {"duty": 0}),
    (EventType.released, Phase.released, {}),
    (EventType.reassigned, Phase.active, {"ended_at": 0, "duty": 0, "holder_since": C}),
    (EventType.owner_transferred, Phase.active, {"ended_at": 0, "duty": 0, "holder_since": C}),
    (EventType.renewal_requested, Phase.active, {"holder_since": C}),
]


@pytest.mark.parametrize(("event", "phase", "changes"), EFFECTS)
def test_what_each_event_leaves_behind(event: EventType, phase: Phase, changes: dict[str, int]) -> None:
    """Phase, carrier, generation and seq always; dates and duty as the event says; the rest stays, the input too."""
    before = np.zeros(2, STATE)
    for name, value in BEFORE.items():
        before[name] = value
    untouched = before.copy()
    chunk = make_chunk("a", [FIRST, FIRST + 1], event, generation=[1, 2], seq=[4, 1])
    after = next_states(before, chunk, 5, offset=7)
    expected = {**BEFORE, "carrier": 5, "phase": phase, **changes}
    for name in ("carrier", "phase", "ended_at", "holder_since", "duty"):
        assert after[name].tolist() == [expected[name]] * 2, name
    assert (after["generation"].tolist(), after["seq"].tolist()) == ([1, 2], [4, 1])
    assert (before == untouched).all()


def test_a_renewal_in_generation_zero_keeps_the_first_date_known() -> None:
    """Unknown date: taken. Known date of generation 0: kept."""
    before = np.zeros(2, STATE)
    before["seq"], before["holder_since"] = 1, [0, 22]
    chunk = make_chunk("a", [FIRST, FIRST + 1], EventType.renewal_requested, seq=2)
    assert next_states(before, chunk, 1, 0)["holder_since"].tolist() == [C, 22]


# -- following a log


class World:
    def __init__(self, where: Path) -> None:
        self.where = where
        self.log = SqliteLog(where / "log.db")
        self.index = ColumnIndex(where / "index", 8, self.log.log_id)
        self.metrics = CountingMetrics()
        self.fold = self.new_fold()

    def new_fold(self) -> Fold:
        return Fold(self.log, self.index, CODEC, self.metrics)

    def known(self, *numbers: int) -> list[tuple[int, int, int]]:
        """(generation, seq, phase) per number."""
        found = [self.index.lookup(n // 10_000 % 8, np.array([n], np.int64))[0] for n in numbers]
        return [(int(s["generation"]), int(s["seq"]), int(s["phase"])) for s in found]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    yield world
    await world.log.close()
    world.index.close()


async def test_what_succeeds_is_accepted_and_what_does_not_is_void_as_a_whole(world: World) -> None:
    """One row that was taken meanwhile voids its whole record; nothing of it shows anywhere."""
    first = make_record(make_chunk("first", [FIRST, FIRST + 1]))
    clash = make_record(make_chunk("clash", [FIRST + 1, FIRST + 2]))
    behind = make_record(make_chunk("behind", [FIRST + 2], EventType.deactivated))
    positions = await world.log.append([first, clash, behind])
    async with running(world.fold) as fold:
        verdicts = [await fold.verdict(r.record_id, p) for r, p in zip((first, clash, behind), positions, strict=True)]
    assert verdicts == [True, False, True]
    assert [fold.is_visible(p) for p in positions] == [True, False, True]
    assert world.known(FIRST, FIRST + 1, FIRST + 2) == [(0, 1, 2)] * 3
    assert world.metrics.counts["numhub_records_void_total", "void"] == 1


async def test_a_repeat_is_not_seen_but_its_writer_hears_yes(world: World) -> None:
    """The same id again, at once and after later events: accepted earlier, visible once, state unchanged."""
    a = make_record(make_chunk("a", [FIRST]))
    b = make_record(make_chunk("b", [FIRST], EventType.release_scheduled, seq=2))
    positions = await world.log.append([a, a, b, a])
    async with running(world.fold) as fold:
        assert [await fold.verdict(a.record_id, positions[i]) for i in (0, 1, 3)] == [True, True, True]
    assert [fold.is_visible(p) for p in positions] == [True, False, True, False]
    assert world.known(FIRST) == [(0, 2, Phase.clearing)]
    assert world.metrics.counts["numhub_records_void_total", "repeated"] == 2


async def test_a_hash_that_names_another_record_is_no_acceptance(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ids with one hash: the verdict looks at the record itself."""
    monkeypatch.setattr("hub.adapters.columns.index._hash", lambda _: 42)
    a, b = make_record(make_chunk("a", [FIRST])), make_record(make_chunk("b", [FIRST]))
    positions = await world.log.append([a, b])
    async with running(world.fold) as fold:
        assert await fold.verdict(a.record_id, positions[0])
        assert not await fold.verdict(b.record_id, positions[1])


def _wrong_records() -> dict[str, NewRecord]:
    good = make_record(make_chunk("wrong", [FIRST, FIRST + 1]))

    def with_header(name: str, value: str) -> NewRecord:
        return replace(good, headers={**good.headers, name: value})

    return {
        "no zstd": replace(good, body=b"rubbish"),
        "cut": replace(good, body=good.body[:-4]),
        "another id": replace(good, record_id=record_id("other")),
        "another type": with_header(Header.type, "restored"),
        "another lane": with_header(Header.lane, "live"),
        "another count": with_header(Header.count, "3"),
        "no carrier": with_header(Header.carrier_no, ""),
        "carrier out of range": with_header(Header.carrier_no, "65536"),
        "another partition": replace(good, partition=3),
        "numbers of two partitions": replace(make_record(make_chunk("wrong", [FIRST, FIRST + 10_000]))),
    }


@pytest.mark.parametrize("name", _wrong_records())
async def test_an_unreadable_record_is_void_and_loud(world: World, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is skipped on every node alike, an error is logged without a number, and the fold goes on behind it."""
    wrong = _wrong_records()[name]
    good = replace(make_record(make_chunk("good", [FIRST])), partition=0)
    position, _ = await world.log.append([wrong, good])
    with caplog.at_level(logging.ERROR):
        async with running(world.fold) as fold:
            assert not await fold.verdict(wrong.record_id, position)
            await fold.catch_up()
    assert not fold.is_visible(position)
    assert "fold.record_unreadable" in caplog.messages
    assert str(FIRST)[:7] not in caplog.text
    assert world.known(FIRST, FIRST + 1) == [(0, 1, 2), (0, 0, 0)]
    assert world.metrics.counts["numhub_records_void_total", "unreadable"] == 1


async def test_a_barrier_is_passed_and_never_shown(world: World) -> None:
    """A record of another kind moves the position and nothing else."""
    (position,) = await world.log.append([NewRecord(2, "barrier_1", {Header.kind: "barrier"}, b"")])
    async with running(world.fold) as fold:
        await fold.catch_up()
    assert fold.position(2) == 1
    assert not fold.is_visible(position)


async def test_catching_up_is_a_barrier(world: World) -> None:
    """Everything appended before the call is folded when it returns, whoever appended it."""
    other = SqliteLog(world.where / "log.db")
    async with running(world.fold) as fold:
        for round_ in range(5):
            chunks = [make_chunk(f"{round_}-{p}", [FIRST + p * 10_000 + round_]) for p in range(8)]
            await other.append([make_record(chunk) for chunk in chunks])
            assert await fold.catch_up() == [round_ + 1] * 8
            assert world.index.count() == 8 * (round_ + 1)
    await other.close()


async def test_subscribers_hear_of_visible_records_in_order(world: World) -> None:
    """Big and small, accepted ones only, each once; one failing subscriber does not silence the others."""
    heard: list[Record] = []

    def fail(partition: int, records: list[Record]) -> None:
        raise RuntimeError("subscriber")

    world.fold.subscribe(fail)
    stop = world.fold.subscribe(lambda partition, records: heard.extend(records))
    records = []
    for i in range(50):
        numbers = range(FIRST + i * 100, FIRST + i * 100 + (90 if i % 9 == 0 else 1))
        records.append(make_record(make_chunk(f"r{i}", numbers)))
        if i % 5 == 0:
            records.append(records[-1])
    big = make_record(make_chunk("big", range(FIRST + 6_000, FIRST + 9_999)))
    async with running(world.fold) as fold:
        await world.log.append([*records, big])
        await fold.catch_up()
        stop()
        await world.log.append([make_record(make_chunk("unheard", [FIRST + 9_999]))])
        await fold.catch_up()
    assert [r.record_id for r in heard] == [*(record_id(f"r{i}") for i in range(50)), big.record_id]
    assert [r.offset for r in heard] == sorted(r.offset for r in heard)


async def test_waiting_for_something_new(world: World) -> None:
    """Returns when some partition is folded beyond, or when the time is up."""
    async with running(world.fold) as fold:
        await fold.wait_beyond(fold.positions(), within=0.01)
        waiting = asyncio.create_task(fold.wait_beyond(fold.positions(), within=30))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await world.log.append([make_record(make_chunk("a", [FIRST + 50_000]))])
        await asyncio.wait_for(waiting, 10)
        await asyncio.wait_for(fold.wait_beyond([0] * 8, within=30), 10)


async def test_a_deleted_index_comes_back_the_same(world: World, tmp_path: Path) -> None:
    """Fold, delete, fold again: same states, same skipped records, same ids, and the same from a stopped half."""
    random = np.random.default_rng(5)
    numbers = [FIRST + int(n) for n in random.integers(0, 200_000, 12)]
    seqs = dict.fromkeys(numbers, 0)
    records = []
    for i in range(120):
        number = numbers[int(random.integers(len(numbers)))]
        guess = seqs[number] + int(random.integers(0, 3))
        seqs[number] += guess == seqs[number] + 1
        event = list(EventType)[int(random.integers(8))]
        records.append(make_record(make_chunk(f"r{i}", [number], event, seq=guess, at=T0 + i)))
    async with running(world.fold) as fold:
        await world.log.append(records[:60])
        await fold.catch_up()
        world.index.flush()
        await world.log.append(records[60:])
        ends = await fold.catch_up()
    for directory, half in (("rebuilt", False), ("half", True)):
        again = ColumnIndex(tmp_path / directory, 8, world.log.log_id)
        async with running(Fold(world.log, again, CODEC, CountingMetrics())) as refold:
            await refold.catch_up()
        if half:
            again.close()
            again = ColumnIndex(tmp_path / directory, 8, world.log.log_id)
        for number in numbers:
            partition, needle = number // 10_000 % 8, np.array([number], np.int64)
            assert again.lookup(partition, needle)[0] == world.index.lookup(partition, needle)[0]
        places = [Position(p, o) for p, end in enumerate(ends) for o in range(end)]
        assert [again.is_skipped(p) for p in places] == [world.index.is_skipped(p) for p in places]
        assert [again.find(r.record_id) for r in records] == [world.index.find(r.record_id) for r in records]
        assert again.count() == world.index.count()
        again.close()


async def test_an_index_that_does_not_fit_the_log_is_rebuilt(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An older copy of the log came back and went another way: the index of the lost future is not believed."""
    async with running(world.fold) as fold:
        await world.log.append([make_record(make_chunk("lost", [FIRST]))])
        await fold.catch_up()
    other = SqliteLog(tmp_path / "other.db")
    await other.append([make_record(make_chunk("kept", [FIRST + 5])), make_record(make_chunk("kept2", [FIRST + 6]))])
    with caplog.at_level(logging.ERROR):
        async with running(Fold(other, world.index, CODEC, CountingMetrics())) as fold:
            await fold.catch_up()
            while world.index.position_of(0) < 2:
                await asyncio.sleep(0)
    assert "fold.index_does_not_fit_log" in caplog.messages
    assert world.known(FIRST, FIRST + 5) == [(0, 0, 0), (0, 1, 2)]
    await other.close()
