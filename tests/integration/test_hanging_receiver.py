"""A receiver that never answers costs the others nothing: it occupies its own requests and no more."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from hub.domain.events import Lane
from hub.ports.sender import Response
from hub.workers.slots import Slots
from tests.dispatch_world import Got, World, make_record, make_world, number


@pytest.fixture
async def world(tmp_path: Path):
    async with make_world(tmp_path) as world:
        yield world


async def hang(got: Got) -> Response:
    await asyncio.sleep(3600)
    return Response(204)


@pytest.mark.parametrize("lane", list(Lane))
async def test_one_of_twenty_hangs_and_the_others_get_everything(world: World, lane: Lane) -> None:
    """Nineteen receive every record while the twentieth holds on to what it was sent first."""
    for place in range(20):
        await world.subscribe(f"s{place}")
    world.net.answer["https://s7/"] = hang
    records = [make_record([number(i, i % 2)], lane=lane) for i in range(24)]
    await world.publish(*records)
    healthy = [f"https://s{place}/" for place in range(20) if place != 7]
    await world.until(lambda: sum(len(world.net.at(url)) for url in healthy) == 19 * 24)
    assert all(len(set(world.net.at(url))) == 24 for url in healthy)
    assert len(world.net.at("https://s7/")) == 2  # one request per partition, and nothing behind it


async def test_many_hanging_receivers_do_not_use_up_the_shared_slots(world: World) -> None:
    """More requests hang than there are bulk slots: a slot lent for too long counts no more."""
    slots = world.dispatcher._kit.slots = Slots(limit=2, lend_for=0.02)
    for place in range(6):
        await world.subscribe(f"dead{place}")
        world.net.answer[f"https://dead{place}/"] = hang
    await world.subscribe("alive")
    records = [make_record([number(i, i % 2)]) for i in range(8)]
    await world.publish(*records)
    await world.until(lambda: len(world.net.at("https://alive/")) == 8)
    assert all(1 <= len(world.net.at(f"https://dead{place}/")) <= 2 for place in range(6))
    assert slots is world.dispatcher._kit.slots


async def test_a_live_event_passes_while_every_bulk_slot_is_taken(world: World) -> None:
    """Live lanes do not queue for bulk slots."""
    world.dispatcher._kit.slots = Slots(limit=1, lend_for=3600)
    await world.subscribe("dead")
    await world.subscribe("alive")
    world.net.answer["https://dead/"] = hang
    world.net.answer["https://alive/"] = lambda got: Response(204)
    await world.publish(make_record([number(1)]))
    await world.until(lambda: len(world.net.got) >= 1)
    live = make_record([number(2)], lane=Lane.live)
    await world.publish(live)
    await world.until(lambda: live.record_id in world.net.at("https://alive/"))
