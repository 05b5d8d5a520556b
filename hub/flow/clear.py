"""Clearance: may these numbers be sold again?

In: a carrier and its numbers, or one of its batches. Out: go, go with exceptions or wait, per number, and a record of
the judgement in the ledger. Guaranteed (RELIABILITY.md S9 to S12): everything accepted before the call counts, for the
fold is caught up first; silence and time never count as an answer; an answer to an older generation or to a release
that was called off never counts, because only the record that the number's present state points to is looked at; a
withdrawal that lands while the judgement runs is seen, because the states are read again after the answers.
Who must answer: see `hub.flow.mandatory`. The rule: `hub.domain.clearance`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from hub.domain.batches import BatchState
from hub.domain.clearance import WaitReason
from hub.domain.errors import BatchConflict, NotFound, Unavailable
from hub.domain.lifecycle import Phase, earliest_release_epoch
from hub.domain.numbers import BLOCK_SIZE
from hub.flow.fold import Fold
from hub.flow.judge import GO, WAIT, WITH_EXCEPTIONS, Columns, Voice, judge_answers
from hub.flow.mandatory import Frame, Mandatory
from hub.flow.members import Members
from hub.flow.reader import Reader
from hub.flow.tally import BatchClearance, BatchTally, Clearance
from hub.ports.clock import Clock
from hub.ports.codec import Chunk, Codec
from hub.ports.ledger import CatalogueEntry, ChunkStanding, ClearanceRecord, Ledger
from hub.ports.log import EventLog, Header, Position, Record
from hub.ports.metrics import Metrics
from hub.ports.number_index import NumberIndex, Numbers, States

TRIES = 5
"""How often a judgement is repeated because the world changed under it, before the caller is told to come back."""

_RESTLESS = "The directory, the waivers or the answers keep changing; repeat in a moment."

CATALOGUE_WITHIN = 10.0
"""Seconds a batch's clearance waits for the catalogue to list everything up to the fold."""

CELLS = 8_000_000
"""Answers (numbers x subscriptions) judged at a time: bounds memory whatever a batch's size."""

ROWS_AT_ONCE = 500_000

_FREEZE = np.uint16(WaitReason.freeze.bit)
_BY_PHASE = np.zeros(256, np.uint16)
_BY_PHASE[Phase.unknown] = WaitReason.unknown_number.bit
_BY_PHASE[Phase.active] = WaitReason.withdrawn.bit
_BY_PHASE[Phase.frozen] = WaitReason.not_scheduled.bit
_BY_PHASE[Phase.released] = WaitReason.already_released.bit

Intp = npt.NDArray[np.intp]
P = ParamSpec("P")
R = TypeVar("R")


@dataclass(slots=True)
class _Duty:
    """A release_scheduled record and those of its rows that are asked about."""

    record: Record
    chunk: Chunk
    voices: list[Voice]
    asked: Intp  # places among the numbers judged
    rows: Intp  # their rows in the chunk


class Clear:
    def __init__(
        self,
        ledger: Ledger,
        fold: Fold,
        index: NumberIndex,
        log: EventLog,
        reader: Reader,
        codec: Codec,
        members: Members,
        clock: Clock,
        metrics: Metrics | None = None,
    ) -> None:
        self._metrics = metrics
        self._ledger, self._fold, self._index, self._reader = ledger, fold, index, reader
        self._codec, self._members, self._clock = codec, members, clock
        self._partitions = log.partitions
        self._mandatory = Mandatory(ledger, log.partitions)

    # ---- what can be asked

    async def numbers(self, carrier_id: str, numbers: Numbers) -> Clearance:
        """Judge ``numbers`` (any order; 0 stands for one that could not be read) and record the judgement."""
        partitions = _partition(numbers[numbers != 0], self._partitions)
        positions = await self._fold.catch_up(proven=set(partitions.tolist()))
        nos = self._nos(carrier_id)
        for _ in range(TRIES):
            frame = await self._frame()
            columns, waivers = await self._judge(frame, nos, numbers)
            record = await self._record(carrier_id, None, frame, positions, columns.counts(), waivers)
            if record is not None:
                return Clearance(record, columns)
        raise Unavailable(_RESTLESS)

    async def cleared(self, carrier_id: str, numbers: Numbers) -> npt.NDArray[np.bool_]:
        """Which of ``numbers`` may be released now (go, or go with exceptions); for the intake of ``released``."""
        clearance = await self.numbers(carrier_id, numbers)
        free: npt.NDArray[np.bool_] = clearance.columns.verdict != WAIT
        return free

    async def batch(self, carrier_id: str, batch_id: str, detail: str = "none") -> BatchClearance:
        """Judge every accepted number of a committed batch. ``detail``: none, not_go (waiting or with exceptions), all.

        Raises NotFound for another carrier's batch, BatchConflict before it is committed, Unavailable if the catalogue
        does not catch up in time.
        """
        batch = await self._ledger.batch(batch_id)
        if batch is None or carrier_id not in (batch.carrier_id, batch.acting_for):
            raise NotFound
        if batch.state is not BatchState.committed:
            raise BatchConflict("The batch is not committed yet; clearance is judged on committed batches.")
        positions = await self._fold.catch_up(proven=True)
        await self._catalogued(positions)
        entries = sorted(await self._ledger.chunks_of_batch(batch_id), key=lambda entry: entry.position)
        nos = self._nos(carrier_id)
        for _ in range(TRIES):
            frame = await self._frame()
            found = BatchTally(detail)
            for some in _slices(entries):
                numbers, generations = await self._numbers_of(some)
                columns, waivers = await self._judge(frame, nos, numbers)
                await asyncio.to_thread(self._sold_meanwhile, columns, generations)
                found.add(columns, waivers)
            record = await self._record(carrier_id, batch_id, frame, positions, found.counts(), found.waivers)
            if record is not None:
                return found.result(record)
        raise Unavailable(_RESTLESS)

    # ---- the judgement

    async def _judge(self, frame: Frame, nos: npt.NDArray[np.uint16], numbers: Numbers) -> tuple[Columns, set[str]]:
        """Judge against states that were the same before and after the answers were read."""
        columns, waivers = Columns.waiting(numbers), set[str]()
        rows = np.arange(len(numbers))
        for _ in range(TRIES):
            some = columns.take(rows)
            states = await _off_loop(len(rows), self._lookup, some.numbers)
            clearing = self._by_state(frame, nos, some, states)
            waivers |= await self._by_answers(frame, some, states, clearing)
            after = await _off_loop(len(rows), self._lookup, some.numbers[clearing])
            columns.put(rows, some)
            moved = clearing[after != states[clearing]]
            if not len(moved):
                return columns, waivers
            rows = rows[moved]
        raise Unavailable("The numbers keep changing; repeat in a moment.")

    def _by_state(self, frame: Frame, nos: npt.NDArray[np.uint16], columns: Columns, states: States) -> Intp:
        """Settle everything that the number's own state settles; returns the places of those in clearing."""
        phase = np.where(np.isin(states["carrier"], nos), states["phase"], np.uint8(Phase.unknown))
        columns.verdict[:], columns.until[:] = WAIT, 0
        columns.reasons[:] = _BY_PHASE[phase]
        columns.reasons[columns.numbers == 0] = WaitReason.invalid_number.bit
        columns.classes[:] = 0
        resting = (phase == Phase.frozen) | (phase == Phase.clearing)
        ended = states["ended_at"].astype(np.int64)
        earliest = earliest_release_epoch(ended, frame.policy.freeze_days)  # type: ignore[arg-type]
        freezing = resting & ((ended == 0) | (earliest > frame.now.timestamp()))
        columns.reasons[freezing] |= _FREEZE
        columns.until[freezing & (ended != 0)] = earliest[freezing & (ended != 0)]  # type: ignore[index]
        return np.flatnonzero(phase == Phase.clearing)

    async def _by_answers(self, frame: Frame, columns: Columns, states: States, clearing: Intp) -> set[str]:
        """Judge the rows in clearing by what the subscribers answered; returns the waivers that counted."""
        if not len(clearing):
            return set()
        partition = _partition(columns.numbers[clearing], self._partitions)
        offset = states["duty"][clearing].astype(np.int64) - 1
        order = np.lexsort((columns.numbers[clearing], offset, partition))
        places, partition, offset = clearing[order], partition[order], offset[order]
        starts = np.flatnonzero(np.r_[True, (np.diff(partition) != 0) | (np.diff(offset) != 0)])
        await self._mandatory.learn(frame)
        waivers, block, cells = set[str](), list[_Duty](), 0
        for first, last in zip(starts.tolist(), [*starts[1:].tolist(), len(places)], strict=True):
            duty = await self._duty(
                frame, int(partition[first]), int(offset[first]), columns.numbers, places[first:last]
            )
            block.append(duty)
            cells += len(duty.chunk) * len(duty.voices)
            if cells >= CELLS:
                waivers |= await self._settle(frame, columns, states, block)
                block, cells = [], 0
        return waivers | await self._settle(frame, columns, states, block)

    async def _duty(self, frame: Frame, partition: int, offset: int, numbers: Numbers, places: Intp) -> _Duty:
        found, _ = await self._reader.read(partition, offset, 1)
        if not found or found[0].record.offset != offset:
            raise Unavailable("The record that scheduled the release cannot be read right now; repeat in a moment.")
        record = found[0].record
        frame.chunk_ids.add(record.record_id)
        chunk = await _off_loop(int(record.headers[Header.count]) * 100, self._codec.decode, record.body)
        rows = np.searchsorted(chunk.numbers, numbers[places])
        return _Duty(record, chunk, self._mandatory.voices(frame, record), places, rows)

    async def _settle(self, frame: Frame, columns: Columns, states: States, block: Sequence[_Duty]) -> set[str]:
        if not block:
            return set()
        asked: dict[tuple[str, ...], list[_Duty]] = {}
        for duty in block:
            asked.setdefault(tuple(voice.subscription_id for voice in duty.voices), []).append(duty)
        waivers = set[str]()
        for subscription_ids, duties in asked.items():
            chunks = [(duty.record.record_id, len(duty.chunk)) for duty in duties]
            said = await self._ledger.standings(chunks, subscription_ids) if subscription_ids else []
            cells = sum(len(duty.asked) for duty in duties) * (1 + len(subscription_ids))
            waivers |= await _off_loop(cells, self._settle_block, frame, columns, states, duties, said)
        return waivers

    def _settle_block(
        self, frame: Frame, columns: Columns, states: States, duties: Sequence[_Duty], said: Sequence[ChunkStanding]
    ) -> set[str]:
        by_chunk: dict[str, dict[str, npt.NDArray[np.uint8]]] = {}
        for standing in said:
            by_chunk.setdefault(standing.chunk_id, {})[standing.subscription_id] = standing.codes
        waivers = set[str]()
        for duty in duties:
            answers = by_chunk.get(duty.record.record_id, {})
            rows = np.minimum(duty.rows, len(duty.chunk) - 1)
            meant = (duty.chunk.numbers[rows] == columns.numbers[duty.asked]) & (
                duty.chunk.generation[rows] == states["generation"][duty.asked]
            )
            columns.reasons[duty.asked[~meant]] |= np.uint16(WaitReason.answers_pending.bit)
            codes = np.zeros((len(duty.voices), len(duty.asked)), np.uint8)
            for place, voice in enumerate(duty.voices):
                if (given := answers.get(voice.subscription_id)) is not None:
                    codes[place] = given[rows]
            now = judge_answers(frame.policy.clearance, frame.policy.tiered_share, duty.voices, codes)
            columns.reasons[duty.asked] |= now.reasons
            columns.classes[duty.asked] = now.classes
            waivers |= now.silent_waivers
        judged = np.concatenate([duty.asked for duty in duties])
        free = judged[columns.reasons[judged] == 0]
        columns.verdict[free] = np.where(columns.classes[free] == 0, GO, WITH_EXCEPTIONS)
        return waivers

    def _nos(self, carrier_id: str) -> npt.NDArray[np.uint16]:
        """The caller's own number and those of the carriers it acts for, as the index knows them."""
        me = self._members.party(carrier_id)
        if me is None:
            raise NotFound
        parties = (self._members.party(party_id) for party_id in (carrier_id, *me.acting_for))
        return np.array([party.carrier_no for party in parties if party and party.carrier_no], np.uint16)

    # ---- around it

    async def _frame(self) -> Frame:
        since = await self._ledger.moment()
        await self._members.refresh()
        now = self._clock.now()
        live = (w for w in await self._ledger.waivers() if w.issued_at <= now and (not w.ends_at or now < w.ends_at))
        waivers = tuple(sorted(live, key=lambda waiver: waiver.waiver_id))
        return Frame(self._members.snapshot, self._members.policy, waivers, now, since)

    def _lookup(self, numbers: Numbers) -> States:
        """States in the order of ``numbers``; zeros for what is unknown."""
        partition = _partition(numbers, self._partitions)
        order = np.lexsort((numbers, partition))
        ordered, partition = numbers[order], partition[order]
        bounds = np.searchsorted(partition, np.arange(self._partitions + 1))
        parts = [
            self._index.lookup(p, ordered[bounds[p] : bounds[p + 1]])
            for p in range(self._partitions)
            if bounds[p] < bounds[p + 1]
        ]
        if not parts:
            return self._index.lookup(0, numbers[:0])
        found = np.concatenate(parts)
        states = np.empty_like(found)
        states[order] = found
        return states

    def _sold_meanwhile(self, columns: Columns, generations: npt.NDArray[np.uint8]) -> None:
        """A batch's number that is in use under a later generation was not withdrawn, it was sold."""
        withdrawn = np.flatnonzero(columns.reasons == WaitReason.withdrawn.bit)
        if len(withdrawn):
            later = self._lookup(columns.numbers[withdrawn])["generation"] > generations[withdrawn]
            columns.reasons[withdrawn[later]] = WaitReason.already_released.bit

    async def _numbers_of(self, entries: Sequence[CatalogueEntry]) -> tuple[Numbers, npt.NDArray[np.uint8]]:
        chunks = []
        for entry in entries:
            found, _ = await self._reader.read(entry.position.partition, entry.position.offset, 1)
            if not found or found[0].record.record_id != entry.chunk_id:
                raise Unavailable("A chunk of the batch cannot be read right now; repeat in a moment.")
            chunks.append(await _off_loop(entry.count * 100, self._codec.decode, found[0].record.body))
        numbers = np.concatenate([chunk.numbers for chunk in chunks])
        return numbers, np.concatenate([chunk.generation for chunk in chunks])

    async def _catalogued(self, positions: Sequence[int]) -> None:
        """Wait until every accepted record before ``positions`` is listed. Barriers and void records need no listing:
        the catalogue passes over them with the next record that does."""
        deadline = self._clock.monotonic() + CATALOGUE_WITHIN
        while True:
            listed = await self._ledger.catalogue_positions()
            if all(
                not any(
                    self._fold.is_visible(Position(partition, offset))
                    for offset in range(listed.get(partition, 0), position)
                )
                for partition, position in enumerate(positions)
            ):
                return
            if self._clock.monotonic() >= deadline:
                raise Unavailable("The list of the batch's chunks lags behind; repeat in a moment.")
            await self._clock.sleep(0.05)

    async def _record(
        self,
        carrier_id: str,
        batch_id: str | None,
        frame: Frame,
        positions: Sequence[int],
        counts: tuple[int, int, int],
        waivers: set[str],
    ) -> ClearanceRecord | None:
        """None if the judgement no longer holds: the world changed under it, or a waiver ended meanwhile."""
        if not frame.same_as(await self._frame()):
            return None
        cause = f"{carrier_id}|{batch_id}|{frame.now.isoformat()}|{list(positions)}|{counts}|{self._clock.monotonic()}"
        record = ClearanceRecord(
            clearance_id="clr_" + hashlib.sha256(cause.encode()).hexdigest()[:24],
            carrier_id=carrier_id,
            batch_id=batch_id,
            judged_at=frame.now,
            log_positions=tuple(positions),
            policy=frame.policy.clearance.value,
            go=counts[0],
            go_with_exceptions=counts[1],
            wait=counts[2],
            waivers=tuple(sorted(waivers)),
        )
        if not await self._ledger.record_clearance(record, since=frame.since, chunk_ids=frame.chunk_ids):
            return None
        if self._metrics is not None:
            self._metrics.count("numhub_clearances_total")
            for verdict, numbers in zip(("go", "go_with_exceptions", "wait"), counts, strict=True):
                self._metrics.count("numhub_cleared_numbers_total", numbers, verdict=verdict)
        return record


def _slices(entries: Sequence[CatalogueEntry]) -> Iterator[list[CatalogueEntry]]:
    """Whole chunks, about ROWS_AT_ONCE numbers at a time."""
    some: list[CatalogueEntry] = []
    for entry in entries:
        some.append(entry)
        if sum(e.count for e in some) >= ROWS_AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def _partition(numbers: Numbers, partitions: int) -> npt.NDArray[np.int64]:
    return (numbers // BLOCK_SIZE) % partitions


async def _off_loop(work: int, act: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run ``act`` in a thread if it is more than a moment's work (about 20,000 cells), else here and now."""
    if work > 20_000:
        return await asyncio.to_thread(act, *args, **kwargs)
    return act(*args, **kwargs)
