"""Stories are told twice: on the embedded default, and on Kafka, PostgreSQL and Redis."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.contracts.kafka_world import ANY_TIME, delete_topic, make_topic

Stack = dict[str, Any]
"""Settings that name the engines; empty for the embedded ones."""


@pytest.fixture(params=["embedded", "services"])
async def stack(request: pytest.FixtureRequest) -> AsyncIterator[Stack]:
    if request.param == "embedded":
        yield {}
        return
    bootstrap: str = request.getfixturevalue("kafka_bootstrap")
    ledger_url: str = request.getfixturevalue("postgres_url")
    redis_url: str = request.getfixturevalue("redis_url")
    prefix = f"story-{secrets.token_hex(4)}."
    await make_topic(bootstrap, f"{prefix}log", 8, max_message_bytes="4194304", **ANY_TIME)
    yield {
        "kafka_bootstrap": bootstrap,
        "kafka_topic_prefix": prefix,
        "ledger_url": ledger_url,
        "redis_url": redis_url,
    }
    await delete_topic(bootstrap, f"{prefix}log")
