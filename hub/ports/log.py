"""The log: the one ordered home of every event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol


class Position(NamedTuple):
    """Names a record; ``offset`` counts from 0 within its partition."""

    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class NewRecord:
    """What a writer wants appended. ``record_id`` is deterministic: a retry carries the same id and the same bytes.

    ``headers`` are small text facts by which readers judge a record without its body (names: `Header`). ``body`` is
    the zstd-compressed CloudEvent, written once and delivered as written; empty for a barrier.
    """

    partition: int
    record_id: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Record:
    partition: int
    offset: int
    record_id: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    appended_at_ms: int

    @property
    def position(self) -> Position:
        return Position(self.partition, self.offset)


class Header:
    """Header names. Values are text; lists are joined by commas."""

    kind = "kind"  # chunk
    type = "type"  # EventType
    lane = "lane"  # Lane
    carrier = "carrier"  # party id of the carrier whose numbers these are
    carrier_no = "carrier_no"
    count = "count"
    reported_at = "reported_at"  # epoch seconds
    batch = "batch"  # batch id, bulk lane only
    apps = "apps"  # target apps of a holder renewal; absent = everybody entitled
    request_digest = "request_digest"  # sha256 of the carrier's request: finds a key reused for something else
    renewal = "renewal"  # renewal id


class EventLog(Protocol):
    """An append-only log of a fixed number of partitions.

    A position names one record; reading from an offset yields that record first. At the end a read yields nothing.
    Below retention it raises PositionExpired. Order holds within a partition; nothing is promised between partitions.
    A record may stand in the log twice (an append in doubt that was repeated); telling so is the fold's business.
    """

    log_id: str  # made at creation; another id means another log, and no position of the old one is valid
    partitions: int

    async def append(self, records: Sequence[NewRecord]) -> list[Position]:
        """Append, durable on return, in the order given within each partition.

        Raises AppendInDoubt when it is unknown whether some were taken (append the same records again), LogUnavailable
        when certainly none was.
        """
        ...

    async def read(
        self, partition: int, offset: int, *, max_records: int = 256, max_bytes: int = 4_000_000
    ) -> list[Record]:
        """Up to ``max_records`` records from ``offset`` on; at least one if there is one, however large."""
        ...

    async def ends(self) -> list[int]:
        """Per partition the offset that the next record will get, as of after this call began."""
        ...

    async def wait_for_more(self, ends: Sequence[int], within: float) -> None:
        """Return as soon as some partition may have grown beyond ``ends``, at the latest after ``within`` seconds."""
        ...

    async def close(self) -> None: ...
