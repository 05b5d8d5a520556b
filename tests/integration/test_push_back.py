"""Publishers of live events are pushed back while the hub cannot deliver what it accepts."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.domain.errors import TooManyRequests
from hub.domain.events import EventType, Lane
from hub.flow.ingest.events import Item
from tests.dispatch_world import make_record, make_world, number
from tests.intake_world import NOW, open_intake

AN_ITEM = Item(13_800_000_001, EventType.deactivated, int(NOW.timestamp()) - 60)


async def test_a_late_live_lane_pushes_publishers_back(tmp_path: Path) -> None:
    """Nothing is taken in, the caller hears when to come back, and does then under the same key."""
    async with open_intake(tmp_path / "home") as intake:
        lag = 7.2
        intake.events._lag, intake.events._lag_limit = lambda: lag, 5.0
        with pytest.raises(TooManyRequests) as pushed_back:
            await intake.events.publish("cmcc", "key", [AN_ITEM])
        assert pushed_back.value.details["retry_after"] == 1 and sum(await intake.log.ends()) == 0
        lag = 4.9
        (verdict,) = await intake.events.publish("cmcc", "key", [AN_ITEM])
        assert verdict.refusal is None and sum(await intake.log.ends()) == 1


async def test_no_limit_means_never(tmp_path: Path) -> None:
    """0 switches it off."""
    async with open_intake(tmp_path / "home") as intake:
        intake.events._lag, intake.events._lag_limit = lambda: 1e6, 0.0
        (verdict,) = await intake.events.publish("cmcc", "key", [AN_ITEM])
        assert verdict.refusal is None


async def test_the_lag_is_measured_on_real_deliveries(tmp_path: Path) -> None:
    """Nothing waits: nothing is late. A receiver that hangs by itself makes nobody late but itself."""
    async with make_world(tmp_path) as world:
        await world.subscribe("a")
        assert world.dispatcher.live_lag() is None
        await world.publish(make_record([number(1)], lane=Lane.live))
        await world.until(lambda: len(world.net.got) == 1)
        await world.quiet()
        await world.advance(0.2)  # an answer stands for a tenth of a second
        (runner,) = world.dispatcher._runners.values()
        assert runner.live_at > float("-inf") and runner.live_appended > 0
        assert world.dispatcher.live_lag() == 0.0
