"""Topics in memory for tests of what reads and writes them: with faults on demand, as real ones have them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hub.domain.errors import LogUnavailable, PositionExpired
from hub.ports.topics import Publication, SentRecord, Stretch, TopicState
from hub.wire.ingress import SCHEMA


@dataclass
class Topic:
    topic_id: str
    partitions: list[list[SentRecord]]
    first: dict[int, int] = field(default_factory=dict)
    start: int = 0  # offset of the first record ever: a topic made again may begin behind it


class MemoryTopics:
    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self.published: list[Publication] = []
        self.failing: set[str] = set()
        self.down = False
        self.before_publish: Any = None
        self.reads = 0

    def make(self, name: str, partitions: int = 1) -> Topic:
        self.topics[name] = Topic(f"id-{name}-{len(self.topics)}-{id(object())}", [[] for _ in range(partitions)])
        return self.topics[name]

    def send(self, name: str, value: Any, *, partition: int = 0, headers: Sequence[tuple[str, bytes]] = ()) -> int:
        """A carrier's producer; a dict travels as JSON. Returns the offset."""
        data = json.dumps(value).encode() if isinstance(value, dict) else value
        records = self.topics[name].partitions[partition]
        size = len(data or b"") + sum(len(key) + len(each) for key, each in headers)
        records.append(SentRecord(partition, len(records), size, data, tuple(headers)))
        return len(records) - 1

    def told(self, kind: str | None = None, topic: str | None = None) -> list[dict[str, Any]]:
        return [
            json.loads(message.value)
            for message in self.published
            if (kind is None or message.headers.get("kind") == kind) and topic in (None, message.topic)
        ]

    async def reader(self, topic: str) -> MemoryReader:
        return MemoryReader(self, topic)

    async def publish(self, messages: Sequence[Publication]) -> None:
        if self.down or any(message.topic in self.failing for message in messages):
            raise LogUnavailable("no broker listens there")
        if self.before_publish is not None:
            self.before_publish()
        self.published += messages

    async def close(self) -> None: ...


class MemoryReader:
    def __init__(self, world: MemoryTopics, name: str) -> None:
        self._world, self._name = world, name

    async def state(self) -> TopicState | None:
        if self._world.down:
            raise LogUnavailable("no broker listens there")
        topic = self._world.topics.get(self._name)
        if topic is None:
            return None
        ends = {place: len(records) for place, records in enumerate(topic.partitions)}
        return TopicState(topic.topic_id, {place: topic.first.get(place, 0) for place in ends}, ends)

    async def read(self, topic_id: str, positions: Mapping[int, int], *, within: float) -> list[Stretch]:
        self._world.reads += 1
        state = await self.state()
        if state is None:
            raise LogUnavailable("no such topic")
        if state.topic_id != topic_id:
            raise PositionExpired
        found = []
        for partition, at in positions.items():
            if not state.first[partition] <= at <= state.ends[partition]:
                raise PositionExpired
            records = tuple(self._world.topics[self._name].partitions[partition][at:])
            if records:
                found.append(Stretch(partition, records, state.ends[partition]))
        if not found:
            await asyncio.sleep(0.002)
        return found

    async def close(self) -> None: ...


def event(key: str, number: int | str, event_type: str = "deactivated", **more: Any) -> dict[str, Any]:
    said = {"schema": SCHEMA, "id": key, "number": str(number), "event_type": event_type}
    return said | {"occurred_at": "2026-03-01T02:00:00+08:00"} | more


def numbers(key: str, column: Sequence[int | str], event_type: str = "deactivated", **more: Any) -> dict[str, Any]:
    said = {"schema": SCHEMA, "id": key, "event_type": event_type, "numbers": list(column)}
    return said | {"shared": {"terminated_at": 1_772_294_400}} | more
