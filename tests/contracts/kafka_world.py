"""Topics for tests, by Kafka's own admin requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic, RecordsToDelete

ANY_TIME = {"retention_ms": "-1", "message_timestamp_after_max_ms": str(2**63 - 1)}
"""Settings of a topic whose records a manual clock stamps: years ago they would expire, hence they would be refused."""


@asynccontextmanager
async def admin(bootstrap: str) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    try:
        yield client
    finally:
        await client.close()


async def make_topic(bootstrap: str, topic: str, partitions: int, replicas: int = 1, **configs: str) -> None:
    """Make it if it is not there."""
    settings = {name.replace("_", "."): value for name, value in configs.items()}
    async with admin(bootstrap) as client:
        response = await client.create_topics([NewTopic(topic, partitions, replicas, topic_configs=settings)])
        code = response.topic_errors[0][1]
        assert code in (0, 36), response
        for _ in range(100):  # brokers learn of it one after the other
            (found,) = await client.describe_topics([topic])
            if not found["error_code"] and all(each["leader"] >= 0 for each in found["partitions"]):
                return
            await asyncio.sleep(0.05)
        raise AssertionError(f"{topic} has no leaders: {found}")


async def delete_topic(bootstrap: str, topic: str) -> None:
    async with admin(bootstrap) as client:
        response = await client.delete_topics([topic])
        assert response.topic_error_codes[0][1] == 0, response


async def delete_records(bootstrap: str, topic: str, partition: int, before: int) -> None:
    async with admin(bootstrap) as client:
        await client.delete_records({TopicPartition(topic, partition): RecordsToDelete(before)})
