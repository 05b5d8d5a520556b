"""The log: the one ordered home of every event."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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

    kind = "kind"  # chunk; barrier (proves an end, see EventLog.proven_ends) or gap: no event, everybody passes over it
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
        when certainly none was, PayloadTooLarge for a record beyond what the log takes (none was taken).
        """
        ...

    async def read(
        self, partition: int, offset: int, *, max_records: int = 256, max_bytes: int = 4_000_000
    ) -> list[Record]:
        """Up to ``max_records`` records from ``offset`` on; at least one if there is one, however large."""
        ...

    async def ends(self) -> list[int]:
        """Per partition the offset that the next record will get, as of after this call began.

        On several machines that is what the partition's leader believes. A leader that was cut off from its peers may
        report an end that others have moved on from: who must not miss a record asks `proven_ends`.
        """
        ...

    async def proven_ends(self, partitions: Collection[int] | None = None) -> list[int]:
        """Ends that cover every append answered, to anybody, before this call began: for linearizable reads.

        Only for ``partitions`` if given (the others read 0). May append barrier records, one for all callers that
        wait. Raises Unavailable when the end cannot be proven now.
        """
        ...

    async def starts(self) -> list[int]:
        """Per partition the first offset still kept."""
        ...

    async def wait_for_more(self, ends: Sequence[int], within: float) -> list[int]:
        """Return as soon as some partition may have grown beyond ``ends``, at the latest after ``within`` seconds:
        the ends known by then. They may lag behind `ends`, never lead."""
        ...

    async def close(self) -> None: ...
