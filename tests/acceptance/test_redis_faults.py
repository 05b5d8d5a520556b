"""Redis is emptied, killed and silent in the middle of the night's file: the story ends the same."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from numhub_client import Retry

from hub.app.local import LocalRedis
from tests.acceptance.test_bulk_renewal import the_night
from tests.contracts.kafka_world import ANY_TIME, delete_topic, make_topic

SILENCE, DEATH = 10.0, 3.0  # seconds
PERSISTENT = Retry(attempts=60, first=0.05, longest=0.5)
"""Of clients whose token ends while Redis is away: who may come in cannot be told then (503), and they come again."""


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_redis_flushed_killed_and_silent_changes_nothing(
    kafka_bootstrap: str, postgres_url: str, make_redis: Callable[..., LocalRedis], tmp_path: Path
) -> None:
    """FLUSHALL after the intake, kill -9 before the late app comes back, ten seconds of silence over the release: every
    number, answer, verdict and figure is what it is without."""
    server, prefix = make_redis(), f"redis-{secrets.token_hex(4)}."
    await make_topic(kafka_bootstrap, f"{prefix}log", 8, max_message_bytes="4194304", **ANY_TIME)
    stack = {
        "kafka_bootstrap": kafka_bootstrap,
        "kafka_topic_prefix": prefix,
        "ledger_url": postgres_url,
        "redis_url": server.url,
    }
    done: list[str] = []
    mending: list[asyncio.Task[None]] = []

    async def start_again() -> None:
        await asyncio.sleep(DEATH)
        await asyncio.to_thread(server.start)
        done.append("restarted")

    async def wake_up() -> None:
        await asyncio.sleep(SILENCE)
        server.resume()
        done.append("woken")

    async def between(chapter: int) -> None:
        if chapter == 1:
            with redis.Redis.from_url(server.url) as client:
                assert client.flushall()
            done.append("flushed")
        elif chapter == 2:
            server.kill()
            done.append("killed")
            mending.append(asyncio.create_task(start_again()))
        elif chapter == 3:
            await mending[0]
            server.pause()
            done.append("silent")
            mending.append(asyncio.create_task(wake_up()))

    try:
        await the_night(tmp_path, stack, between, retry=PERSISTENT)
    finally:
        for task in mending:
            await task
    assert done == ["flushed", "killed", "restarted", "silent", "woken"]
    await delete_topic(kafka_bootstrap, f"{prefix}log")
