"""The whole hub on a broker of its own that goes away, comes back, or comes back as another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from numhub_client import AsyncClient, Retry
from numhub_client.errors import Unavailable

from hub.app.local.kafka import LocalKafka
from hub.app.settings import Settings
from hub.app.wiring import build
from hub.domain.errors import LogReplaced
from hub.domain.parties import AppClass
from hub.flow import matching
from tests.contracts.kafka_world import ANY_TIME, delete_topic, make_topic
from tests.factories import HUB, TODAY, App, Town, event, town, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

N = 13_800_000_000


@pytest.fixture
async def kafka(make_kafka: Callable[..., LocalKafka]) -> AsyncIterator[LocalKafka]:
    local = make_kafka()
    await make_topic(local.bootstrap, "k.log", 4, **ANY_TIME)
    yield local


def settings(kafka: LocalKafka) -> dict[str, Any]:
    return {"kafka_bootstrap": kafka.bootstrap, "kafka_topic_prefix": "k."}


def impatient(place: Town, party_id: str) -> AsyncClient:
    """A client that shows each refusal."""
    client = AsyncClient(HUB, place.keys[party_id], transport=place.transport, timeout=60, retry=Retry(attempts=1))
    place.clients[f"{party_id}, impatient"] = client
    return client


async def ready(place: Town) -> httpx.Response:
    async with httpx.AsyncClient(transport=place.transport, base_url=HUB) as asking:
        return await asking.get("/health/ready")


async def received(app: App, numbers: set[int], within: float = 60.0) -> None:
    await until(lambda: set(app.numbers("deactivated")) >= numbers, within)


async def test_a_broker_killed_under_the_hub_and_back(kafka: LocalKafka, tmp_path: Path) -> None:
    """While it is away: 503 with a time to come back, no clearance, not ready. Back again: the same request under the
    same key is one event, by itself, in the process that never stopped."""
    async with town(tmp_path / "hub", **settings(kafka)) as place:
        await place.carrier("cmcc")
        app = await place.app("mail", AppClass.social_mail)
        client = impatient(place, "cmcc")
        await client.events.publish([event(N, "deactivated", TODAY)])
        await received(app, {N})
        await asyncio.to_thread(kafka.kill)
        began = time.monotonic()
        for act in (
            lambda: client.events.publish([event(N + 1, "deactivated", TODAY)], idempotency_key="one"),
            lambda: client.clearance.numbers([str(N)]),
        ):
            with pytest.raises(Unavailable) as told:
                await act()
            assert told.value.status == 503
            assert told.value.retry_after is not None
        assert time.monotonic() - began < 45
        assert (await ready(place)).status_code == 503
        await asyncio.to_thread(kafka.start)
        for _ in range(60):
            try:
                [result] = (
                    await client.events.publish([event(N + 1, "deactivated", TODAY)], idempotency_key="one")
                ).results
                break
            except Unavailable:
                await asyncio.sleep(0.5)
        assert result.accepted
        await received(app, {N, N + 1})
        assert (await ready(place)).status_code == 200
        [verdict] = (await client.clearance.numbers([str(N)])).numbers
        assert verdict.verdict == "wait"
        # What was delivered late makes the hub push publishers back for a moment (429): the patient client waits.
        again = await place.clients["cmcc"].events.publish([event(N + 1, "deactivated", TODAY)], idempotency_key="one")
        assert again.results[0].event_id == result.event_id
        assert app.numbers("deactivated") == [N, N + 1]


async def test_a_log_made_anew_stops_the_hub_until_somebody_accepts_it(kafka: LocalKafka, tmp_path: Path) -> None:
    """The topic is deleted and made again under a running hub: the process ends with the reason, the next one does not
    start beside the old ledger, and `rebuild --log-replaced` lets it go on with everything of the new log."""
    home = tmp_path / "hub"
    async with town(home, **settings(kafka)) as place:
        carrier = await place.carrier("cmcc")
        app = await place.app("mail", AppClass.social_mail)
        await carrier.events.publish([event(N + i * 10_000, "deactivated", TODAY) for i in range(8)])
        await received(app, {N + i * 10_000 for i in range(8)})
        await until(lambda: all(place.hub.fold.position(p) > 0 for p in range(4)), 20)
        await delete_topic(kafka.bootstrap, "k.log")
        await make_topic(kafka.bootstrap, "k.log", 4, **ANY_TIME)
        await asyncio.wait_for(_failed(place), 30)
        assert isinstance(_innermost(place.hub.supervisor.failure), LogReplaced)
        with pytest.raises(Unavailable):
            await impatient(place, "cmcc").events.publish([event(N + 5, "deactivated", TODAY)])
    with pytest.raises(LogReplaced, match="--log-replaced"):
        async with town(home, **settings(kafka)):
            pass
    hub = await build(Settings(data_dir=home, **settings(kafka)))
    try:
        assert await matching.start_over(hub.ledger, hub.log) > 0
    finally:
        await hub.close()
    async with town(home, **settings(kafka)) as place:
        carrier = await place.carrier("cucc")
        app = await place.app("bank", AppClass.bank)
        [result] = (await carrier.events.publish([event(N, "deactivated", TODAY)])).results
        assert result.accepted
        await received(app, {N})


async def _failed(place: Town) -> None:
    while place.hub.supervisor.failure is None:
        await asyncio.sleep(0.05)


def _innermost(error: BaseException | None) -> BaseException | None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
