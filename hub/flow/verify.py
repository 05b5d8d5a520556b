"""Do log, number index and ledger tell the same story? The log is judged anew from its beginning; nothing is changed.

In: the three, and an empty index to fold the log into. Out: findings, of which a bad one names the first place where
something differs. Guaranteed: compared is only what stood before the verification began, so a hub may run meanwhile;
only its index is its own (``index`` is None then). The cost is that of folding the log twice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hub.domain.batches import Batch, BatchState
from hub.flow.fold import Fold
from hub.ports.codec import Codec
from hub.ports.ledger import CatalogueEntry, Cursor, Ledger
from hub.ports.log import EventLog, Header, Position, Record
from hub.ports.metrics import Metrics
from hub.ports.number_index import NumberIndex

_ALL_BATCHES = 1_000_000
_PAGE_RECORDS, _PAGE_BYTES = 128, 4_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """``what`` was compared, whether it is ``good``, and how it was ``said``, for people."""

    what: str
    good: bool
    said: str


@dataclass(frozen=True, slots=True)
class _Before:
    """What the ledger said before the log was looked at: everything in it must be borne out by the log."""

    owner: str
    cursors: list[Cursor]
    listed: dict[int, int]
    batches: list[Batch]


class Verify:
    def __init__(
        self,
        log: EventLog,
        ledger: Ledger,
        codec: Codec,
        metrics: Metrics,
        *,
        fresh: NumberIndex,
        index: NumberIndex | None,
    ) -> None:
        self._log, self._ledger, self._codec = log, ledger, codec
        self._fresh, self._index = fresh, index
        self._fold = Fold(log, fresh, codec, metrics)
        self._differing: dict[str, list[str]] = {"index": [], "catalogue": []}
        self._kinds: Counter[str] = Counter()
        self._by_batch: dict[str, list[int]] = {}  # batch id -> numbers, chunks
        self._compared = self._listed = 0

    async def run(self) -> list[Finding]:
        """Raises Unavailable, PositionExpired when the log's beginning is not kept any more."""
        before = await self._look()
        starts, ends = await self._log.starts(), await self._log.ends()
        folding = asyncio.create_task(self._fold.run())
        try:
            caught = asyncio.create_task(self._fold.catch_up())
            await asyncio.wait([folding, caught], return_when=asyncio.FIRST_COMPLETED)
            if folding.done():
                caught.cancel()
                folding.result()  # raises why it ended
        finally:
            folding.cancel()
            await asyncio.gather(folding, return_exceptions=True)
        for partition, end in enumerate(ends):
            await self._read(partition, starts[partition], end, before)
        return [
            self._of_log(starts, ends),
            self._of_index(ends),
            self._of_positions(before, starts, ends),
            self._of_catalogue(before),
            self._of_batches(before),
        ]

    async def _look(self) -> _Before:
        return _Before(
            await self._ledger.belongs_to(self._log.log_id),
            await self._ledger.cursors(),
            await self._ledger.catalogue_positions(),
            await self._ledger.batches(state=BatchState.committed.value, limit=_ALL_BATCHES),
        )

    async def _read(self, partition: int, offset: int, end: int, before: _Before) -> None:
        """Hold every record against the index and the catalogue."""
        known = self._index.position_of(partition) if self._index is not None else 0
        while offset < end:
            page = await self._log.read(partition, offset, max_records=_PAGE_RECORDS, max_bytes=_PAGE_BYTES)
            if not page:
                break
            for record in page:
                visible = self._fold.is_visible(record.position)
                self._kinds["chunks" if visible else self._why_not(record)] += 1
                if self._index is not None and record.offset < known:
                    await asyncio.to_thread(self._hold_against_index, self._index, record, visible, known)
                if visible:
                    self._count(record)
                    if record.offset < before.listed.get(partition, 0):
                        self._hold_against_entry(record, await self._ledger.chunk(record.record_id))
            offset = page[-1].offset + 1

    def _why_not(self, record: Record) -> str:
        """Why a record is no event."""
        if record.headers.get(Header.kind) != "chunk":
            return "barriers"
        try:
            self._codec.decode(record.body)
        except ValueError:
            return "unreadable"
        return "void or repeated"

    def _hold_against_index(self, index: NumberIndex, record: Record, visible: bool, known: int) -> None:
        if index.is_skipped(record.position) is visible:
            taken = "skips" if visible else "has taken"
            self._differ("index", record.position, f"it {taken} a record that is {'good' if visible else 'void'}")
        if not visible or known != self._fresh.position_of(record.partition):
            return  # an index that is behind has older states, and catches up by itself
        numbers = self._codec.decode(record.body).numbers
        self._compared += len(numbers)
        mine, its = self._fresh.lookup(record.partition, numbers), index.lookup(record.partition, numbers)
        wrong = int(np.count_nonzero(mine != its))
        if wrong:
            self._differ("index", record.position, f"{wrong:,} numbers have another state in it")

    def _count(self, record: Record) -> None:
        if (batch := record.headers.get(Header.batch)) is not None:
            sums = self._by_batch.setdefault(batch, [0, 0])
            sums[0] += int(record.headers[Header.count])
            sums[1] += 1

    def _hold_against_entry(self, record: Record, entry: CatalogueEntry | None) -> None:
        self._listed += 1
        if entry is None:
            self._differ("catalogue", record.position, "a chunk is not listed")
            return
        headers = record.headers
        said = (entry.position, entry.event_type.value, entry.count, entry.carrier_id, entry.batch_id)
        meant = (record.position, headers[Header.type], int(headers[Header.count]), headers[Header.carrier],
                 headers.get(Header.batch))  # fmt: skip
        if said != meant:
            self._differ("catalogue", record.position, "a chunk is listed as something else")

    def _differ(self, what: str, position: Position, how: str) -> None:
        self._differing[what].append(f"partition {position.partition}, offset {position.offset}: {how}")

    # ---- findings

    def _of_log(self, starts: Sequence[int], ends: Sequence[int]) -> Finding:
        said = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self._kinds.items())) or "empty"
        missing = sum(ends) - sum(starts) - sum(self._kinds.values())
        if missing:
            said += f"; {missing:,} offsets hold no record"
        return Finding(
            "log", not missing and "unreadable" not in self._kinds, f"{said}; {self._fresh.count():,} numbers"
        )

    def _of_index(self, ends: Sequence[int]) -> Finding:
        if self._index is None:
            return Finding("number index", True, "not looked at: a hub runs on this data directory")
        differing = self._differing["index"]
        if differing:
            return Finding("number index", False, f"{_first(differing)}; numhub rebuild makes it anew")
        behind = [self._fresh.position_of(p) - self._index.position_of(p) for p in range(len(ends))]
        if any(each < 0 for each in behind):
            return Finding("number index", False, "it is ahead of the log; numhub rebuild makes it anew")
        if any(behind):
            return Finding("number index", True, f"agrees; {sum(behind):,} records behind, which the next start folds")
        return Finding("number index", True, f"agrees, {self._compared:,} states compared")

    def _of_positions(self, before: _Before, starts: Sequence[int], ends: Sequence[int]) -> Finding:
        if before.owner != self._log.log_id:
            return Finding("ledger's positions", False, f"the ledger belongs to another log ({before.owner})")
        wrong = [
            f"subscription {cursor.subscription_id} stands at {cursor.offset} of partition {cursor.partition}"
            for cursor in before.cursors
            if not starts[cursor.partition] <= cursor.offset <= ends[cursor.partition]
        ]
        wrong += [f"the catalogue is at {at} of partition {p}" for p, at in before.listed.items() if at > ends[p]]
        if wrong:
            return Finding("ledger's positions", False, f"{_first(wrong)}, where the log has nothing")
        return Finding("ledger's positions", True, f"{len(before.cursors):,} cursors stand inside the log")

    def _of_catalogue(self, before: _Before) -> Finding:
        if differing := self._differing["catalogue"]:
            return Finding("ledger's catalogue", False, f"{_first(differing)}; numhub rebuild lists it anew")
        said = f"{self._listed:,} chunks are listed as they stand in the log"
        if more := self._kinds["chunks"] - self._listed:
            said += f"; {more:,} are still to be listed"
        return Finding("ledger's catalogue", True, said)

    def _of_batches(self, before: _Before) -> Finding:
        wrong = [
            f"batch {batch.batch_id}: {batch.rows_accepted:,} rows in {batch.chunks:,} chunks were accepted, "
            f"the log has {found[0]:,} in {found[1]:,}"
            for batch in before.batches
            if (batch.rows_accepted, batch.chunks) != tuple(found := self._by_batch.get(batch.batch_id, [0, 0]))
        ]
        if wrong:
            return Finding("batches", False, _first(wrong))
        rows = sum(batch.rows_accepted for batch in before.batches)
        return Finding("batches", True, f"{len(before.batches):,} batches, all {rows:,} accepted rows are in the log")


def _first(differing: Sequence[str]) -> str:
    more = f" (and {len(differing) - 1:,} more)" if len(differing) > 1 else ""
    return differing[0] + more
