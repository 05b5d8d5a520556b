"""A topic's settings as the brokers hold them."""

from __future__ import annotations

from aiokafka import errors as kafka
from aiokafka.protocol.admin import DescribeConfigsRequest

from hub.adapters.kafka.cluster import Cluster
from hub.adapters.kafka.ends import with_leaders

_TOPIC = 2


async def topic_settings(cluster: Cluster, topic: str = "") -> dict[str, str]:
    """Names and values, defaults included; empty where this user may not look (DESCRIBE_CONFIGS on the topic)."""
    name = topic or cluster.topic

    async def once() -> dict[str, str]:
        node = next(iter(cluster.topology.brokers))
        response = await cluster.ask(node, DescribeConfigsRequest([(_TOPIC, name, None)]), "ask")
        found: dict[str, str] = {}
        for code, message, _, _, entries in response.resources:
            if code:
                error = kafka.for_code(code)
                if issubclass(error, (kafka.TopicAuthorizationFailedError, kafka.ClusterAuthorizationFailedError)):
                    return {}
                raise error(message)
            found |= {key: value for key, value, *_ in entries}
        return found

    return await with_leaders(cluster, once)
