"""The writer: in doubt means again under the same id, and the answer is the fold's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from hub.adapters.columns import ColumnIndex
from hub.adapters.sqlite.log import SqliteLog
from hub.adapters.system.clock import ManualClock
from hub.domain.errors import AppendInDoubt, LogUnavailable
from hub.domain.events import Lane
from hub.flow.append import DEADLINE_SECONDS, Writer
from hub.flow.fold import Fold
from hub.ports.log import NewRecord, Position
from tests.making import CODEC, FIRST, CountingMetrics, make_chunk, make_record, running


class MoodyLog(SqliteLog):
    """A log whose appends fail as scripted: ``after`` the commit (in doubt), or ``before`` it."""

    moods: list[str]

    async def append(self, records: Sequence[NewRecord]) -> list[Position]:
        mood = self.moods.pop(0) if self.moods else "well"
        if mood == "before":
            raise LogUnavailable
        if mood == "lost":
            raise AppendInDoubt
        if mood == "hangs":
            await asyncio.Event().wait()
        positions = await super().append(records)
        if mood == "after":
            raise AppendInDoubt
        return positions


class World:
    def __init__(self, where: Path) -> None:
        self.log = MoodyLog(where / "log.db")
        self.log.moods = []
        self.index = ColumnIndex(where / "index", 8, self.log.log_id)
        self.metrics = CountingMetrics()
        self.fold = Fold(self.log, self.index, CODEC, self.metrics)
        self.clock = ManualClock(auto=True)
        self.writer = Writer(self.log, self.fold, self.clock, self.metrics)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    async with running(world.fold):
        yield world
    await world.log.close()
    world.index.close()


async def test_a_verdict_per_record(world: World) -> None:
    """Accepted, void, and accepted earlier under the same id; numbers are counted once, when accepted."""
    a = make_record(make_chunk("a", [FIRST, FIRST + 1], lane=Lane.live))
    b = make_record(make_chunk("b", [FIRST + 1], lane=Lane.live))
    assert await world.writer.append([a, b]) == [True, False]
    assert await world.writer.append([a]) == [True]
    assert world.metrics.counts["numhub_records_appended_total", "live"] == 3


@pytest.mark.parametrize("moods", [["after"], ["lost"], ["after", "after", "lost"]])
async def test_in_doubt_is_settled_by_appending_again(world: World, moods: list[str]) -> None:
    """Whether or not the first tries reached the log, the record is accepted and visible exactly once."""
    world.log.moods = list(moods)
    record = make_record(make_chunk("a", [FIRST]))
    assert await world.writer.append([record]) == [True]
    (end, *_) = await world.fold.catch_up()
    assert end == 1 + moods.count("after")
    assert [world.fold.is_visible(Position(0, offset)) for offset in range(end)] == [True] + [False] * (end - 1)


async def test_an_unavailable_log_passes_through(world: World) -> None:
    """Certainly nothing was appended: the caller hears so at once."""
    world.log.moods = ["before"]
    with pytest.raises(LogUnavailable):
        await world.writer.append([make_record(make_chunk("a", [FIRST]))])
    assert await world.log.ends() == [0] * 8


async def test_unavailable_after_a_doubt_is_still_a_doubt(world: World) -> None:
    """The try before may have reached the log: nobody is told that nothing was appended."""
    world.log.moods = ["after", "before"]
    with pytest.raises(AppendInDoubt):
        await world.writer.append([make_record(make_chunk("a", [FIRST]))])


async def test_doubt_ends_with_the_deadline(world: World) -> None:
    """A log that never answers clearly: AppendInDoubt after the deadline, not for ever."""
    world.log.moods = ["lost"] * 10_000
    with pytest.raises(AppendInDoubt):
        await world.writer.append([make_record(make_chunk("a", [FIRST]))])
    assert DEADLINE_SECONDS - 1 <= world.clock.monotonic() <= DEADLINE_SECONDS


async def test_a_hanging_log_is_left_at_the_deadline(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer at all is a doubt too."""
    monkeypatch.setattr("hub.flow.append.DEADLINE_SECONDS", 0.05)
    world.log.moods = ["hangs"]
    with pytest.raises(AppendInDoubt):
        await world.writer.append([make_record(make_chunk("a", [FIRST]))])


async def test_a_fold_that_stands_still_leaves_a_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appended but not judged in time: the caller's repeat settles it."""
    monkeypatch.setattr("hub.flow.append.DEADLINE_SECONDS", 0.1)
    world = World(tmp_path)
    record = make_record(make_chunk("a", [FIRST]))
    with pytest.raises(AppendInDoubt):
        await world.writer.append([record])
    monkeypatch.setattr("hub.flow.append.DEADLINE_SECONDS", 20)
    async with running(world.fold):
        assert await world.writer.append([record]) == [True]
    await world.log.close()
    world.index.close()
