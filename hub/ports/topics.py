"""Topics of the parties: what carriers publish with their own producer, and what the hub tells carriers and regulators.

Apart from the log. A carrier's topic is read from a position that the hub keeps itself; what is published is sent
again until the broker has it, so a reader may see a message twice and knows it by its key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class TopicNames:
    """How the parties' topics are called. Their ACLs are what tells the hub who wrote and who may read."""

    prefix: str

    def ingress(self, carrier_id: str) -> str:
        """Written by the carrier, read by the hub."""
        return f"{self.prefix}ingress.{carrier_id}"

    def rejects(self, carrier_id: str) -> str:
        """What became of each record of the carrier's; written by the hub, read by the carrier."""
        return f"{self.prefix}rejects.{carrier_id}"

    def answers(self, carrier_id: str | None = None) -> str:
        """What subscribers answered: per app class for one carrier, or per subscription for regulators (None)."""
        return f"{self.prefix}answers" + (f".{carrier_id}" if carrier_id else "")


@dataclass(frozen=True, slots=True)
class SentRecord:
    """One record of a carrier's topic as it stands there. ``size``: bytes of key, value and headers together.

    ``damaged``: its frame cannot be read (a header name that is no UTF-8, say), so nothing else is known of it."""

    partition: int
    offset: int
    size: int
    value: bytes | None = field(repr=False)
    headers: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class Stretch:
    """What came of one partition. ``next_offset``: where to read on; places between the records may be empty."""

    partition: int
    records: tuple[SentRecord, ...]
    next_offset: int


@dataclass(frozen=True, slots=True)
class TopicState:
    """``topic_id`` changes when a topic is deleted and made again. ``first`` and ``ends``: offsets per partition."""

    topic_id: str
    first: Mapping[int, int]
    ends: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Publication:
    """A message for a party. ``key`` is the same whenever the same thing is told again."""

    topic: str
    key: str
    headers: Mapping[str, str]
    value: bytes = field(repr=False)


class TopicReader(Protocol):
    """Follows one topic; what it holds in memory is bounded, whatever waits in the topic."""

    async def state(self) -> TopicState | None:
        """None if there is no such topic. Raises Unavailable."""
        ...

    async def read(self, topic_id: str, positions: Mapping[int, int], *, within: float) -> list[Stretch]:
        """Committed records of this very topic from ``positions`` (partition -> next offset) on: some 1 MB of each
        partition at most, and one record at least, however large. Empty when none came ``within`` seconds.

        Raises PositionExpired when a position does not exist (any more, or yet), or the topic is another one now;
        Unavailable.
        """
        ...

    async def close(self) -> None: ...


class Topics(Protocol):
    async def reader(self, topic: str) -> TopicReader:
        """Raises Unavailable."""
        ...

    async def publish(self, messages: Sequence[Publication]) -> None:
        """Durable on return, in the order given per key. Raises Unavailable: then some may have been taken; publish
        all of them again."""
        ...

    async def close(self) -> None: ...
