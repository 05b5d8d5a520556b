"""The barrier before a judgement."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hub.domain.errors import Unavailable
from hub.domain.events import EventType
from hub.flow.barrier import caught_up
from hub.flow.ingest.events import Item
from tests.intake_world import DAY, NOW_EPOCH, Intake, open_intake

OWN = 13_800_138_000


async def test_a_fold_that_is_behind_for_too_long_asks_the_caller_to_come_back() -> None:
    """Not knowing is no refusal: it is Unavailable, which is retriable."""

    async def for_ever() -> list[int]:
        await asyncio.Event().wait()
        return []

    slow: Any = SimpleNamespace(catch_up=for_ever)
    with pytest.raises(Unavailable):
        await caught_up(slow, within=0.01)


async def test_a_hub_that_has_just_started_judges_by_what_its_log_holds(tmp_path: Path) -> None:
    """After a crash that lost the index's memory: the next event of a number is taken, not refused by its old state;
    a repeated key finds its own trace."""
    ended = Item(OWN, EventType.deactivated, NOW_EPOCH - DAY)
    async with open_intake(tmp_path / "hub") as intake:
        [first] = await intake.events.publish("cmcc", "one", [ended])
    for name in ("index",):
        for file in (tmp_path / "hub" / name).rglob("*"):
            if file.is_file():
                file.unlink()  # as if nothing had been written down before the kill
    async with open_intake(tmp_path / "hub") as intake:
        assert fold_is_behind(intake)
        [back] = await intake.events.publish("cmcc", "two", [Item(OWN, EventType.restored, NOW_EPOCH)])
        assert back.refusal is None
    async with open_intake(tmp_path / "hub") as intake:
        assert await intake.events.publish("cmcc", "one", [ended]) == [first]
        assert len(await intake.records()) == 2


def fold_is_behind(intake: Intake) -> bool:
    return sum(intake.fold.positions()) == 0
