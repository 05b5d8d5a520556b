"""Lists accepted records in the ledger, following the log a moment behind the fold.

Entries and positions are committed together, so a crash neither skips nor doubles one. Whoever needs to know how far
the list has come waits for it with `wait_for`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hub.domain.errors import Unavailable
from hub.flow.catalogue import entry_of
from hub.flow.members import Members
from hub.ports.clock import Clock
from hub.ports.codec import Codec
from hub.ports.ledger import CatalogueEntry, Ledger
from hub.ports.log import Record
from hub.ports.number_plan import NumberPlan

if TYPE_CHECKING:
    from hub.flow.fold import Fold
    from hub.flow.reader import Reader

log = logging.getLogger("numhub.catalogue")

GATHER_FOR = 0.1
PAGE = 32
SMALL_BODY = 4096


class CatalogueWorker:
    def __init__(
        self,
        ledger: Ledger,
        fold: Fold,
        reader: Reader,
        codec: Codec,
        plan: NumberPlan,
        members: Members,
        clock: Clock,
        partitions: int,
    ) -> None:
        self._ledger = ledger
        self._fold = fold
        self._reader = reader
        self._codec = codec
        self._plan = plan
        self._members = members
        self._clock = clock
        self._positions = [0] * partitions
        self._more = asyncio.Event()
        self._moved = asyncio.Condition()

    @property
    def positions(self) -> list[int]:
        """Per partition the next offset to list."""
        return list(self._positions)

    async def wait_for(self, positions: Sequence[int]) -> None:
        """Return once everything before ``positions`` is listed."""
        async with self._moved:
            await self._moved.wait_for(
                lambda: all(own >= wanted for own, wanted in zip(self._positions, positions, strict=True))
            )

    async def run(self) -> None:
        """Follow the log for ever."""
        for partition, position in (await self._ledger.catalogue_positions()).items():
            self._positions[partition] = position
        forget = self._fold.subscribe(lambda _partition, _records: self._more.set())
        self._more.set()
        try:
            while True:
                await self._more.wait()
                self._more.clear()
                while listed := await self._step():
                    if listed < PAGE:  # live records, one by one: a commit for each would cost more than the record
                        await self._clock.sleep(GATHER_FOR)
        finally:
            forget()

    async def _step(self) -> int:
        """List one page of every partition; how many records that were."""
        entries: list[CatalogueEntry] = []
        positions: dict[int, int] = {}
        for partition, position in enumerate(self._positions):
            page, after = await self._reader.read(partition, position, PAGE)
            for readable in page:
                entry = await self._entry(readable.record)
                if entry is not None:
                    entries.append(entry)
            if after > position:
                positions[partition] = after
        if not positions:
            return 0
        passed = sum(after - self._positions[partition] for partition, after in positions.items())
        while True:
            try:
                await self._ledger.catalogue(entries, positions)
                break
            except Unavailable:
                log.warning("catalogue_delayed")
                await self._clock.sleep(1.0)
        async with self._moved:
            for partition, after in positions.items():
                self._positions[partition] = after
            self._moved.notify_all()
        return passed

    async def _entry(self, record: Record) -> CatalogueEntry | None:
        policy = self._members.policy
        try:
            if len(record.body) <= SMALL_BODY:
                return entry_of(record, self._codec, self._plan, policy)
            return await asyncio.to_thread(entry_of, record, self._codec, self._plan, policy)
        except (ValueError, KeyError):
            # The fold accepted it, so it could be read then: this is damage, and it must be seen, not end the list.
            log.exception("record_not_listed", extra={"partition": record.partition, "offset": record.offset})
            return None
