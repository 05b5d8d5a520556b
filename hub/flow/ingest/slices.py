"""One slice of a carrier's file on its way into the log: arranged, judged, planned, appended, and sure of every row.

A slice goes through **rounds**: a number's second event in the file is judged after its first is folded. Each round
first writes its plan to disk (which rows, with which generation and seq), then appends chunks whose ids follow from
batch, slice, round and chunk number. After a crash the same plan is taken up again: a chunk whose id the index knows
is compared with what the log holds under that id, the others are appended. A chunk that turns out void, because another
writer was faster with one of its numbers, is judged row by row and appended again, shortened, under its id.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hub.domain.events import BY_NUMBER, EventType, Lane
from hub.domain.refusals import Refusal
from hub.flow.append import Writer
from hub.flow.ingest.chunks import (
    Cleared,
    Columns,
    make_record,
    partition_of_all,
    pieces,
    record_id,
    runs,
    states_of,
)
from hub.flow.ingest.judge import Claims, Judgement, judge
from hub.flow.ingest.publisher import Publisher
from hub.ports.batch_files import BatchFiles, Rows
from hub.ports.clock import Clock
from hub.ports.codec import Codec
from hub.ports.log import EventLog, NewRecord
from hub.ports.number_index import NumberIndex
from hub.ports.number_plan import NumberPlan

MAX_ROUNDS = 8
"""Events of one number within one slice; what comes after them is refused as a duplicate."""

MAX_TRIES = 5

Places = npt.NDArray[np.int64]
Plan = dict[str, npt.NDArray[Any]]

_COLUMNS = ("generation", "seq", "occurred_at", "binding_cutoff_at", "release_planned_at", "reason")


@dataclass(frozen=True, slots=True)
class Job:
    """One slice of one batch. ``rows.event`` names an event in every row; ``refusal`` grows while the slice is done."""

    batch_id: str
    number: int
    publisher: Publisher
    rows: Rows
    refusal: npt.NDArray[np.uint8] = field(repr=False)
    freeze_days: int


@dataclass(frozen=True, slots=True)
class Part:
    """One chunk of a plan: rows ``start`` to ``end`` of it."""

    name: str
    event: EventType
    partition: int
    start: int
    end: int


class Slices:
    """Takes slices into the log. Stateless between calls."""

    def __init__(
        self,
        files: BatchFiles,
        log: EventLog,
        index: NumberIndex,
        writer: Writer,
        codec: Codec,
        plan: NumberPlan,
        clock: Clock,
        cleared: Cleared,
        in_flight: int = 16,
    ) -> None:
        # chunks are appended by windows; the next one is encoded meanwhile
        self._window = max(1, in_flight // 2)
        self._files, self._log, self._index, self._writer = files, log, index, writer
        self._codec, self._numbers, self._clock, self._cleared = codec, plan, clock, cleared

    async def take_in(self, job: Job) -> int:
        """Append what is accepted, mark in ``job.refusal`` what is not; returns the number of chunks in the log.

        May be repeated after any interruption, in another process too: no row is taken in twice.
        """
        order, rank = await asyncio.to_thread(arrange, job, self._log.partitions)
        chunks = 0
        for turn in range(MAX_ROUNDS):
            places = await asyncio.to_thread(_of_turn, order, rank, turn)
            if not len(places):
                break
            chunks += await self._round(job, turn, places)
        job.refusal[order[rank >= MAX_ROUNDS]] = Refusal.duplicate.number
        return chunks

    async def _round(self, job: Job, turn: int, places: Places) -> int:
        name = f"{job.number}.{turn}"
        plan = await self._files.load_plan(job.batch_id, name)
        fresh = plan is None
        if plan is None:
            plan = await self._make_plan(job, places)
            await self._files.save_plan(job.batch_id, name, plan)
        job.refusal[plan["refused"]] = plan["refusal"]
        parts = await asyncio.to_thread(cut, job, turn, plan, self._log.partitions)
        count, open_parts = len(parts), parts
        if not fresh:
            open_parts = [part for part in parts if not await self._is_in_log(job, plan, part)]
        coming: asyncio.Task[list[NewRecord]] | None = None
        windows = [open_parts[at : at + self._window] for at in range(0, len(open_parts), self._window)]
        try:
            for at, window in enumerate(windows):
                records = await (coming or self._encode(job, plan, window))
                coming = None
                if at + 1 < len(windows):
                    coming = asyncio.create_task(self._encode(job, plan, windows[at + 1]))
                accepted = await self._writer.append(records)
                for part, done in zip(window, accepted, strict=True):
                    if not done and not await self._again(job, plan, part):
                        count -= 1
        finally:
            if coming is not None:
                coming.cancel()
        return count

    async def _make_plan(self, job: Job, places: Places) -> Plan:
        now = int(self._clock.now().timestamp())
        event, found = await asyncio.to_thread(self._judge, job, places, now)
        await self._ask_clearance(job, places, event, found)
        return await asyncio.to_thread(plan_of, places, event, found, now)

    def _judge(self, job: Job, places: Places, now: int) -> tuple[npt.NDArray[np.uint8], Judgement]:
        """Rows at ``places``, sorted by (partition, number) and unique. All of them in one go, per event type."""
        rows = job.rows
        numbers, event = rows.number[places], rows.event[places]
        states = states_of(self._index, self._log.partitions, numbers)
        holder = self._numbers.holder_of(numbers)
        claims = Claims(rows.occurred_at, rows.terminated_at, rows.release_planned_at, rows.reason).take(places)
        kinds = np.unique(event).tolist()

        def of(kind: int, some: npt.NDArray[np.bool_] | slice) -> Judgement:
            return judge(
                BY_NUMBER[kind],
                states[some],
                claims.take(some),
                holder=holder[some],
                may_publish=job.publisher.may_publish,
                carrier_no=job.publisher.carrier_no,
                now=now,
                freeze_days=job.freeze_days,
            )

        if len(kinds) == 1:
            return event, of(kinds[0], slice(None))
        whole: dict[str, npt.NDArray[Any]] = {}
        for kind in kinds:
            some = event == kind
            found = of(kind, some)
            for name in ("refusal", *_COLUMNS):
                column = getattr(found, name)
                whole.setdefault(name, np.zeros(len(places), column.dtype))[some] = column
        return event, Judgement(**whole)

    async def _ask_clearance(self, job: Job, places: Places, event: npt.NDArray[np.uint8], found: Judgement) -> None:
        asked = np.flatnonzero((event == EventType.released.number) & (found.refusal == 0))
        if len(asked):
            free = await self._cleared(job.publisher.carrier_id, job.rows.number[places[asked]])
            found.refusal[asked[~free]] = Refusal.not_cleared.number

    async def _encode(self, job: Job, plan: Plan, parts: list[Part]) -> list[NewRecord]:
        def encode() -> list[NewRecord]:
            return [self._record(job, plan, part, slice(part.start, part.end)) for part in parts]

        return await asyncio.to_thread(encode)

    def _record(self, job: Job, plan: Plan, part: Part, some: slice | Places) -> NewRecord:
        columns = Columns(numbers=job.rows.number[plan["row"][some]], **{name: plan[name][some] for name in _COLUMNS})
        reported_at = int(plan["reported_at"][0])
        return make_record(
            self._codec,
            job.publisher,
            part.name,
            part.event,
            Lane.bulk,
            part.partition,
            reported_at,
            columns,
            batch_id=job.batch_id,
        )

    async def _is_in_log(self, job: Job, plan: Plan, part: Part) -> bool:
        """After an interruption: is the chunk accepted already? Rows it was shortened by are refused."""
        position = self._index.find(part.name)
        if position is None:
            return False
        records = await self._log.read(position.partition, position.offset, max_records=1)
        if not records or records[0].record_id != part.name:
            return False
        places = plan["row"][part.start : part.end]
        numbers = (await asyncio.to_thread(self._codec.decode, records[0].body)).numbers
        gone = ~np.isin(job.rows.number[places], numbers)
        job.refusal[places[gone]] = Refusal.number_changed_meanwhile.number
        return True

    async def _again(self, job: Job, plan: Plan, part: Part) -> bool:
        """Judge a void chunk anew and append what is left of it; False if nothing is."""
        at = np.arange(part.start, part.end)
        for _ in range(MAX_TRIES):
            places = plan["row"][at]
            event, found = await asyncio.to_thread(self._judge, job, places, int(self._clock.now().timestamp()))
            await self._ask_clearance(job, places, event, found)
            good = found.refusal == 0
            job.refusal[places[~good]] = found.refusal[~good]
            if not good.any():
                return False
            at = at[good]
            for name in _COLUMNS:
                plan[name][at] = getattr(found, name)[good]
            record = await asyncio.to_thread(self._record, job, plan, part, at)
            if (await self._writer.append([record]))[0]:
                return True
        job.refusal[plan["row"][at]] = Refusal.number_changed_meanwhile.number
        return False


def _of_turn(order: Places, rank: Places, turn: int) -> Places:
    places: Places = order[rank == turn]
    return places


def plan_of(places: Places, event: npt.NDArray[np.uint8], found: Judgement, now: int) -> Plan:
    """Accepted rows by event type, since chunks are of one type; within each the order stays. Milliseconds for many."""
    good = found.refusal == 0
    kept = np.flatnonzero(good)
    kept = kept[np.argsort(event[kept], kind="stable")]
    plan: Plan = {name: getattr(found, name)[kept] for name in _COLUMNS}
    return plan | {
        "row": places[kept],
        "reported_at": np.array([now]),
        "refused": places[~good],
        "refusal": found.refusal[~good],
    }


def arrange(job: Job, partitions: int) -> tuple[Places, Places]:
    """Readable rows sorted by (partition, number, line), and for each the round in which it is judged.

    Refuses in ``job.refusal`` a row that repeats the event of the row before it for the same number.
    """
    places = np.flatnonzero(job.refusal == 0)
    if not len(places):
        return places, places
    numbers = job.rows.number[places]
    # one int64 holds it all (6 + 35 + 20 bits): sorting the key itself is several times faster than sorting by it
    key = (partition_of_all(numbers, partitions) << 35 | numbers) << 20 | places
    key.sort()
    order = key & 0xFFFFF
    same = np.zeros(len(order), bool)
    same[1:] = key[1:] >> 20 == key[:-1] >> 20
    if not same.any():
        return order, np.zeros(len(order), np.int64)
    event = job.rows.event[order]
    repeats = same.copy()
    repeats[1:] &= event[1:] == event[:-1]
    job.refusal[order[repeats]] = Refusal.duplicate.number
    order, same = order[~repeats], same[~repeats]
    counted = np.arange(len(order))
    first = np.maximum.accumulate(np.where(same, 0, counted))
    return order, counted - first


def cut(job: Job, turn: int, plan: Plan, partitions: int) -> list[Part]:
    """The chunks of a plan; the same plan always gives the same chunks and ids."""
    numbers, event = job.rows.number[plan["row"]], job.rows.event[plan["row"]]
    partition = partition_of_all(numbers, partitions)
    parts: list[Part] = []
    for start, end in runs(event, partition):
        for low, high in pieces(start, end):
            name = record_id(job.batch_id, job.number, f"{turn}.{len(parts)}" if turn else len(parts))
            parts.append(Part(name, BY_NUMBER[int(event[low])], int(partition[low]), low, high))
    return parts
