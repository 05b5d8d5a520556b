"""Lists of numbers from a carrier's own topic: up to 10,000 numbers of one event, taken in as chunks of the bulk lane.

In: columns under the carrier's own id. Out: per row whether it stands in the log, and where. Guaranteed: taken in
exactly once, however often and in whatever process the list is repeated. A list makes at most one chunk per partition,
whose id follows from carrier, id and partition; so after a crash the log itself says which rows of a partition were
accepted, and nothing has to be planned on disk before (as files must, whose slices make many chunks).
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hub.domain.errors import Forbidden, IdempotencyMismatch
from hub.domain.events import EventType, Lane
from hub.domain.refusals import BY_NUMBER, Refusal
from hub.flow.append import Writer
from hub.flow.barrier import caught_up
from hub.flow.fold import Fold
from hub.flow.ingest.chunks import Cleared, Columns, make_record, partition_of_all, record_id, runs, states_of
from hub.flow.ingest.judge import Claims, Judgement, judge
from hub.flow.ingest.publisher import Publisher, publisher_for
from hub.flow.members import Members
from hub.ports.clock import Clock
from hub.ports.codec import Codec
from hub.ports.log import EventLog, Header, NewRecord
from hub.ports.metrics import Metrics
from hub.ports.number_index import NumberIndex, Numbers
from hub.ports.number_plan import NumberPlan

MAX_TRIES = 8

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class NumberList:
    """What a carrier says of many numbers, in its own order. ``refusal`` marks rows that could not be read."""

    key: str
    event_type: EventType
    numbers: Numbers = field(repr=False)
    claims: Claims = field(repr=False)
    refusal: npt.NDArray[np.uint8] = field(repr=False)
    acting_for: str | None = None

    @property
    def digest(self) -> str:
        columns = (self.numbers, self.claims.occurred_at, self.claims.terminated_at, self.claims.release_planned_at)
        digest = hashlib.sha256(f"list|{self.event_type.value}|{self.acting_for}|{len(self.numbers)}|".encode())
        for column in columns:
            digest.update(column.astype("<i8").tobytes())
        digest.update(self.claims.reason.tobytes())
        return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class ListChunk:
    """``rows``: for each number of the chunk, in the chunk's order, its row in the carrier's list."""

    chunk_id: str
    rows: Places = field(repr=False)


@dataclass(frozen=True, slots=True)
class ListVerdict:
    """``refusal`` per row (Refusal.number, 0 = accepted); every accepted row stands in one of ``chunks``."""

    refusal: npt.NDArray[np.uint8] = field(repr=False)
    chunks: tuple[ListChunk, ...] = ()
    id_reused: bool = False

    @property
    def refused(self) -> dict[Refusal, list[int]]:
        codes = np.unique(self.refusal[self.refusal != 0]).tolist()
        return {BY_NUMBER[code]: np.flatnonzero(self.refusal == code).tolist() for code in codes}


@dataclass(slots=True)
class _Part:
    """The rows of one partition. ``places`` ascend by number; ``taken``: those the log holds, once it holds the id."""

    name: str
    partition: int
    places: Places
    taken: Numbers | None = None
    good: Numbers | None = None  # as judged last


class Lists:
    """Stateless between calls."""

    def __init__(
        self,
        members: Members,
        index: NumberIndex,
        fold: Fold,
        log: EventLog,
        writer: Writer,
        codec: Codec,
        plan: NumberPlan,
        clock: Clock,
        metrics: Metrics,
        cleared: Cleared,
    ) -> None:
        self._members, self._index, self._fold, self._log, self._writer = members, index, fold, log, writer
        self._codec, self._plan, self._clock, self._metrics, self._cleared = codec, plan, clock, metrics, cleared

    async def take_in(self, caller_id: str, said: NumberList) -> ListVerdict:
        """Judge, append and fold. Raises Forbidden (the caller is no carrier), Unavailable (repeat the same list)."""
        refusal, digest = said.refusal.copy(), said.digest
        refusal[(said.numbers == 0) & (refusal == 0)] = Refusal.invalid_number.number
        if said.event_type is EventType.renewal_requested:  # needs a holder's consent, which a list cannot carry
            refusal[refusal == 0] = Refusal.invalid_value.number
        publisher = self._publisher(caller_id, said.acting_for)
        if publisher is None:
            refusal[refusal == 0] = Refusal.not_acting_for.number
        await caught_up(self._fold)  # or the states, and what an earlier run appended, might be missed
        try:
            # every id the list could have used before, whichever rows it had then
            for partition in range(self._log.partitions):
                await self._held(record_id(caller_id, said.key, f"list {partition}"), digest)
            if publisher is not None:
                parts = self._parts(caller_id, said, refusal)
                await self._append(said, publisher, parts, refusal, digest)
            else:
                parts = []
        except IdempotencyMismatch:
            return ListVerdict(refusal, id_reused=True)
        chunks = [self._settle(said, part, refusal) for part in parts if part.taken is not None]
        for code, count in zip(*np.unique(refusal[refusal != 0], return_counts=True), strict=True):
            self._metrics.count("numhub_rows_refused_total", int(count), reason=BY_NUMBER[int(code)].value)
        return ListVerdict(refusal, tuple(chunks))

    def _publisher(self, caller_id: str, acting_for: str | None) -> Publisher | None:
        own = publisher_for(self._members, self._plan, caller_id, None)
        if acting_for is None:
            return own
        try:
            return publisher_for(self._members, self._plan, caller_id, acting_for)
        except Forbidden:
            return None

    def _parts(self, caller_id: str, said: NumberList, refusal: npt.NDArray[np.uint8]) -> list[_Part]:
        """Readable rows by partition, sorted by number; a number's second row is refused in ``refusal``."""
        places = np.flatnonzero(refusal == 0)
        if not len(places):
            return []
        numbers = said.numbers[places]
        partition = partition_of_all(numbers, self._log.partitions)
        order = np.lexsort((places, numbers, partition))
        places, numbers, partition = places[order], numbers[order], partition[order]
        again = np.zeros(len(places), bool)
        again[1:] = numbers[1:] == numbers[:-1]
        refusal[places[again]] = Refusal.duplicate.number
        places, partition = places[~again], partition[~again]
        found = []
        for start, end in runs(partition):
            no = int(partition[start])
            found.append(_Part(record_id(caller_id, said.key, f"list {no}"), no, places[start:end]))
        return found

    async def _held(self, name: str, digest: str) -> Numbers | None:
        """The numbers the log accepted under this id. Raises IdempotencyMismatch if that was another content."""
        position = self._index.find(name)
        if position is None:
            return None
        records = await self._log.read(position.partition, position.offset, max_records=1)
        if not records or records[0].record_id != name:
            return None
        if records[0].headers.get(Header.request_digest) != digest:
            raise IdempotencyMismatch
        return (await asyncio.to_thread(self._codec.decode, records[0].body)).numbers

    async def _append(
        self, said: NumberList, publisher: Publisher, parts: list[_Part], refusal: npt.NDArray[np.uint8], digest: str
    ) -> None:
        """Until each part is in the log or has nothing to put there. Each is read back: should an earlier try, given
        up in doubt, have come first with other rows, then it is those that count."""
        for part in parts:
            part.taken = await self._held(part.name, digest)
        left = parts
        for _ in range(MAX_TRIES):
            records: list[NewRecord] = []
            trying: list[_Part] = []
            for part in left:
                record = await self._judged(said, publisher, part, refusal, digest)
                if record is not None and part.taken is None:
                    records.append(record)
                    trying.append(part)
            if not trying:
                return
            accepted = await self._writer.append(records)
            left = []
            for part, done in zip(trying, accepted, strict=True):
                if done:
                    held = await self._held(part.name, digest)
                    part.taken = part.good if held is None else held
                else:
                    left.append(part)
            if not left:
                return
        for part in left:
            refusal[part.places] = Refusal.number_changed_meanwhile.number

    async def _judged(
        self, said: NumberList, publisher: Publisher, part: _Part, refusal: npt.NDArray[np.uint8], digest: str
    ) -> NewRecord | None:
        """The chunk of what is good, and ``refusal`` of the part's rows set anew; None if nothing is."""
        now = int(self._clock.now().timestamp())
        numbers = said.numbers[part.places]
        found = await asyncio.to_thread(self._judge, said, publisher, part.places, now)
        if said.event_type is EventType.released and len(asked := np.flatnonzero(found.refusal == 0)):
            free = await self._cleared(publisher.carrier_id, numbers[asked])
            found.refusal[asked[~free]] = Refusal.not_cleared.number
        refusal[part.places] = found.refusal
        good = np.flatnonzero(found.refusal == 0)
        if not len(good) or part.taken is not None:
            return None
        part.good = numbers[good]
        columns = Columns(
            numbers=part.good,
            generation=found.generation[good],
            seq=found.seq[good],
            occurred_at=found.occurred_at[good],
            binding_cutoff_at=found.binding_cutoff_at[good],
            release_planned_at=found.release_planned_at[good],
            reason=found.reason[good],
        )
        event, place = said.event_type, part.partition
        return await asyncio.to_thread(
            make_record, self._codec, publisher, part.name, event, Lane.bulk, place, now, columns, request_digest=digest
        )

    def _judge(self, said: NumberList, publisher: Publisher, places: Places, now: int) -> Judgement:
        numbers = said.numbers[places]
        return judge(
            said.event_type,
            states_of(self._index, self._log.partitions, numbers),
            said.claims.take(places),
            holder=self._plan.holder_of(numbers),
            may_publish=publisher.may_publish,
            carrier_no=publisher.carrier_no,
            now=now,
            freeze_days=self._members.policy.freeze_days,
        )

    def _settle(self, said: NumberList, part: _Part, refusal: npt.NDArray[np.uint8]) -> ListChunk:
        """What the log holds is accepted, whatever was judged last; the rest of the part is not."""
        assert part.taken is not None
        inside = np.isin(said.numbers[part.places], part.taken)
        outside = part.places[~inside]
        refusal[outside[refusal[outside] == 0]] = Refusal.number_changed_meanwhile.number
        refusal[part.places[inside]] = 0
        return ListChunk(part.name, part.places[inside])
