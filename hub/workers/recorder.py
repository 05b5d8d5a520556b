"""Results of many lanes on their way into the ledger, committed together.

While one commit runs, what arrives is gathered for the next. A result is handed over without a pause after the
answer it records, so cancelling the lane that waits for it loses nothing. A ledger that cannot be reached is tried
again until it can: what a receiver has taken is not sent again because of us.

Each result carries the fence (shard, epoch) under which it came about. Where the ledger finds that somebody else
delivers for that shard by now, nothing of it is recorded and those who wait get `LeaseLost`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from hub.domain.errors import Unavailable
from hub.ports.clock import Clock
from hub.ports.ledger import AttemptRecord, Cursor, Ledger, ParkedChunk, Receipt

log = logging.getLogger("numhub.recorder")

RETRY_FIRST, RETRY_MAX = 0.1, 5.0
BREATH = 32
LULL, GATHER_FOR, BUSY_FROM = 0.002, 0.008, 2
"""Where several receive, results wait for company (seconds): until none has come for a moment, or a while has passed. A
commit costs more than many deliveries, and only the next records of the same lanes wait for it."""


class LeaseLost(Exception):
    """This process no longer delivers for the subscription; its result was not recorded."""


Waiter = tuple[int, asyncio.Future[None]]
"""The shard a result belongs to, and who waits for it."""


@dataclass(slots=True)
class _Batch:
    receipts: list[Receipt] = field(default_factory=list)
    parked: list[ParkedChunk] = field(default_factory=list)
    cursors: list[Cursor] = field(default_factory=list)
    attempts: list[AttemptRecord] = field(default_factory=list)
    fences: dict[int, int] = field(default_factory=dict)
    waiters: list[Waiter] = field(default_factory=list)


class Recorder:
    def __init__(
        self, ledger: Ledger, clock: Clock, lost: Callable[[Collection[int]], None] | None, *, fenced: bool = True
    ) -> None:
        """``lost`` hears of the shards whose results were refused. ``fenced`` False: alone by construction."""
        self._ledger = ledger
        self._clock = clock
        self._lost = lost
        self._fenced = fenced
        self._next = _Batch()
        self._task: asyncio.Task[None] | None = None
        self._company = 0.0  # results committed together of late
        self._releases: set[asyncio.Task[None]] = set()

    def add(
        self,
        fence: tuple[int, int],
        *,
        receipt: Receipt | None = None,
        parked: ParkedChunk | None = None,
        cursor: Cursor | None = None,
        attempt: AttemptRecord | None = None,
    ) -> asyncio.Future[None]:
        """Hand over at once; the future is done when it is committed. It may raise LeaseLost."""
        batch = self._next
        if batch.fences.setdefault(*fence) != fence[1]:  # two epochs of one shard never travel together
            return _refused()
        if receipt is not None:
            batch.receipts.append(receipt)
        if parked is not None:
            batch.parked.append(parked)
        if cursor is not None:
            batch.cursors.append(cursor)
        if attempt is not None:
            batch.attempts.append(attempt)
        return self._committed(batch, fence[0])

    def add_cursors(self, fence: tuple[int, int], cursors: list[Cursor]) -> asyncio.Future[None]:
        if self._next.fences.setdefault(*fence) != fence[1]:
            return _refused()
        self._next.cursors.extend(cursors)
        return self._committed(self._next, fence[0])

    async def flush(self) -> None:
        """Return when everything handed over so far is committed."""
        if self._task is not None:
            await self._committed(self._next, -1)

    def _committed(self, batch: _Batch, shard: int) -> asyncio.Future[None]:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        batch.waiters.append((shard, waiter))
        if self._task is None:
            self._task = asyncio.create_task(self._commit_all(), name="recorder")
        return waiter

    async def _commit_all(self) -> None:
        try:
            while True:
                await self._gather()
                batch, self._next = self._next, _Batch()
                self._company = max(len(batch.waiters), self._company * 0.8)
                if not batch.waiters:
                    return
                try:
                    stale = await self._commit(batch)
                except Exception as error:
                    for _, waiter in batch.waiters:
                        if not waiter.done():
                            waiter.set_exception(error)
                else:
                    if stale and self._lost is not None:
                        self._lost(stale)
                    release = asyncio.create_task(_release(batch.waiters, stale), name="recorder-release")
                    self._releases.add(release)
                    release.add_done_callback(self._releases.discard)
        finally:
            self._task = None

    async def _gather(self) -> None:
        """Everything of this turn of the loop travels together; where several receive, a little more."""
        await asyncio.sleep(0)
        if self._company <= BUSY_FROM:
            return
        until = self._clock.monotonic() + GATHER_FOR
        gathered = -1
        while gathered < len(self._next.waiters) and self._clock.monotonic() < until:
            gathered = len(self._next.waiters)
            await asyncio.sleep(LULL)

    async def _commit(self, batch: _Batch) -> frozenset[int]:
        wait = RETRY_FIRST
        while True:
            try:
                return await self._ledger.deliver(
                    receipts=batch.receipts,
                    parked=batch.parked,
                    cursors=batch.cursors,
                    attempts=batch.attempts,
                    fences=batch.fences if self._fenced else None,
                )
            except Unavailable:
                log.warning("delivery_record_delayed", extra={"receipts": len(batch.receipts)})
                await self._clock.sleep(wait)
                wait = min(wait * 2, RETRY_MAX)


def _refused() -> asyncio.Future[None]:
    refused: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    refused.set_exception(LeaseLost())
    return refused


async def _release(waiters: list[Waiter], stale: frozenset[int]) -> None:
    """Let the lanes of one commit go on, some at a time: each of them has a next record to look at."""
    for place, (shard, waiter) in enumerate(waiters, start=1):
        if not waiter.done():
            if shard in stale:
                waiter.set_exception(LeaseLost())
            else:
                waiter.set_result(None)
        if place % BREATH == 0:
            await asyncio.sleep(0)
