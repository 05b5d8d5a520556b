"""The pull feed: pages from a cursor, then a commit, which is the receipt.

A page merges all partitions and lanes of a subscription, the live lane first. Reading changes nothing; only a commit
moves the subscription's position. Stored bytes are handed out as written.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from hub.domain.errors import CursorError, NotFound, PositionExpired, RuleError
from hub.domain.events import Lane
from hub.domain.parties import Subscription, SubscriptionState
from hub.flow import cursors
from hub.flow.addressed import Addressed
from hub.flow.cursors import FeedCursor, Strand, Stretch
from hub.flow.fold import Fold
from hub.flow.members import Members
from hub.flow.paging import Page, Reading, Wanted
from hub.flow.reader import Readable, Reader
from hub.ports.clock import Clock
from hub.ports.ledger import Cursor, Ledger, Receipt
from hub.ports.log import EventLog
from hub.ports.number_index import NumberIndex

MAX_NUMBERS, DEFAULT_NUMBERS = 1_000_000, 100_000
MIN_BYTES, MAX_BYTES, DEFAULT_BYTES = 1_000, 16_000_000, 4_000_000
MAX_WAIT_SECONDS: Final = 30.0
_AT_ONCE: Final = 64  # records per read


class Committed(NamedTuple):
    moved: bool
    receipts: int


class Pull:
    """``cursor_key`` signs cursors; the same for all processes of a hub, and kept over restarts."""

    def __init__(
        self,
        reader: Reader,
        fold: Fold,
        ledger: Ledger,
        members: Members,
        clock: Clock,
        cursor_key: bytes,
        log: EventLog,
        index: NumberIndex,
    ) -> None:
        if len(cursor_key) < 16:
            raise ValueError("the cursor key needs 16 bytes or more")
        self._log, self._reader, self._fold, self._ledger = log, reader, fold, ledger
        self._members, self._clock, self._key = members, clock, cursor_key
        self._addressed = Addressed(reader, fold, index, ledger, members, clock)

    async def page(
        self,
        subscription: Subscription,
        cursor: str | None = None,
        *,
        max_numbers: int = DEFAULT_NUMBERS,
        max_bytes: int = DEFAULT_BYTES,
        wait_seconds: float = 0.0,
    ) -> Page:
        """From ``cursor``, or from the committed position: at least one chunk if there is one, however large.

        Waits up to ``wait_seconds`` for the first. Raises RuleError for a subscription that is not pulled or not
        active, CursorMalformed, NotFound (another subscription's cursor), PositionExpired, CursorError (see `_chain`).
        """
        if subscription.mode.pushes:
            raise RuleError("This subscription is pushed to its endpoint; only a pull subscription has a feed.")
        if subscription.state is not SubscriptionState.active:
            raise RuleError(f"The subscription is {subscription.state.value}; nothing is handed out.")
        committed = await self._committed(subscription)
        chain = await self._chain(subscription, committed, cursor)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + min(wait_seconds, MAX_WAIT_SECONDS)
        while True:
            seen = [self._fold.position(partition) for partition in range(self._log.partitions)]
            reading = Reading(dict(chain.stretches), chain.handed_out, max_numbers, max_bytes)
            if self._members.may_deliver(subscription, self._clock.now()):
                await self._read(subscription, reading)
            left = deadline - loop.time()
            if reading.events or reading.full or left <= 0:
                break
            chain = FeedCursor(chain.subscription_id, chain.log_id, reading.stretches, reading.handed_out)
            await self._fold.wait_beyond(seen, left)
            current = self._members.snapshot.subscriptions.get(subscription.subscription_id)
            if current is None:
                raise NotFound
            subscription = current
            if subscription.state is not SubscriptionState.active:
                break
        reached = FeedCursor(chain.subscription_id, chain.log_id, reading.stretches, reading.handed_out)
        return Page(cursors.encode(reached, self._key), reading.events, reading.full)

    async def commit(self, subscription: Subscription, cursor: str) -> Committed:
        """Everything up to ``cursor`` has arrived: receipts and positions, in one transaction.

        An older cursor changes nothing. Raises like `page`, and CursorError when the chunks between cannot be named
        with certainty any more (the position was set back, or what the subscription may see has changed): nothing is
        recorded then, and the next page starts at the committed position.
        """
        reached = self._verified(subscription, cursor)
        committed = await self._committed(subscription)
        ahead = {
            strand: stretch
            for strand, stretch in reached.stretches.items()
            if strand in committed and stretch.offset > committed[strand].offset
        }
        if not ahead:
            return Committed(False, 0)
        self._not_set_back(reached, committed)
        now = self._clock.now()
        receipts: list[Receipt] = []
        handed_out = 0
        async for strand, readable in self._walk(subscription, reached, now):
            record = readable.record
            handed_out = cursors.sum_of(handed_out, record.record_id)
            if strand in ahead and record.offset >= committed[strand].offset:
                whose, what = subscription.subscription_id, record.record_id
                receipts.append(Receipt(whose, what, record.position, now, 1, "pull"))
        if handed_out != reached.handed_out:
            raise _changed()
        moved = [
            Cursor(subscription.subscription_id, partition, lane, committed[lane, partition].start, stretch.offset)
            for (lane, partition), stretch in ahead.items()
        ]
        await self._ledger.deliver(receipts=receipts, cursors=moved)
        return Committed(True, len(receipts))

    async def chunk(self, subscription: Subscription, chunk_id: str) -> bytes:
        """The stored bytes of one chunk: parked ones, and what a pointer webhook points to. Raises NotFound.

        No receipt: a pointer's webhook had one already.
        """
        if subscription.state not in (SubscriptionState.active, SubscriptionState.paused):
            raise NotFound
        return (await self._addressed.to_read(subscription, chunk_id)).plain()

    # -- inside ------------------------------------------------------------------------------------------------------

    async def _read(self, subscription: Subscription, reading: Reading) -> None:
        wanted = Wanted(self._members, subscription, self._clock.now())
        for strand in sorted(reading.stretches, key=lambda strand: (strand[0] is not Lane.live, strand[1])):
            lane, partition = strand
            if lane not in subscription.lanes:
                continue
            base, offset = reading.stretches[strand]
            while not reading.full:
                found, further = await self._reader.read(partition, offset, _AT_ONCE)
                if further == offset:
                    break
                offset = further
                for readable in found:
                    record = readable.record
                    if wanted.judge(lane, record.headers) and not reading.take(readable):
                        offset = record.offset
                        break
                reading.looked_at(len(found))
            reading.stretches[strand] = Stretch(base, offset)
            if reading.full:
                return
            await asyncio.sleep(0)

    async def _walk(
        self, subscription: Subscription, reached: FeedCursor, now: datetime
    ) -> AsyncIterator[tuple[Strand, Readable]]:
        """The chunks addressed to the subscription within the cursor's stretches, as judged now."""
        wanted = Wanted(self._members, subscription, now)
        for strand, (base, end) in reached.stretches.items():
            lane, partition = strand
            offset = base
            while offset < end:
                found, further = await self._reader.read(partition, offset, min(_AT_ONCE, end - offset))
                if further == offset:
                    raise _changed()  # this process has folded less than the one that gave the cursor out
                for readable in found:
                    if readable.record.offset < end and wanted.judge(lane, readable.record.headers):
                        yield strand, readable
                offset = further
                await asyncio.sleep(0)

    async def _committed(self, subscription: Subscription) -> dict[Strand, Cursor]:
        stored = await self._ledger.cursors(subscription.subscription_id)
        return {(cursor.lane, cursor.partition): cursor for cursor in stored}

    async def _chain(
        self, subscription: Subscription, committed: Mapping[Strand, Cursor], text: str | None
    ) -> FeedCursor:
        """Where to read on, and since where the chunks handed out are accounted for: never beyond what is committed."""
        whose, log_id = subscription.subscription_id, self._log.log_id
        fresh = {strand: Stretch(cursor.offset, cursor.offset) for strand, cursor in committed.items()}
        if text is None:
            return FeedCursor(whose, log_id, fresh)
        given = self._verified(subscription, text)
        stretches = fresh | {strand: s for strand, s in given.stretches.items() if strand in committed}
        if all(stretch.offset <= committed[strand].offset for strand, stretch in stretches.items()):
            return FeedCursor(whose, log_id, {strand: Stretch(s.offset, s.offset) for strand, s in stretches.items()})
        self._not_set_back(given, committed)
        if all(stretch.base >= committed[strand].offset for strand, stretch in stretches.items()):
            return FeedCursor(whose, log_id, stretches, given.handed_out)
        # Some of it was committed meanwhile: account only for the rest, so that the stretches do not grow for ever.
        before = rest = 0
        shorter = {
            strand: Stretch(min(max(base, committed[strand].offset), offset), offset)
            for strand, (base, offset) in stretches.items()
        }
        async for strand, readable in self._walk(subscription, given, self._clock.now()):
            before = cursors.sum_of(before, readable.record.record_id)
            if strand in shorter and readable.record.offset >= shorter[strand].base:
                rest = cursors.sum_of(rest, readable.record.record_id)
        if before != given.handed_out:
            raise _changed()
        return FeedCursor(whose, log_id, shorter, rest)

    def _verified(self, subscription: Subscription, text: str) -> FeedCursor:
        given = cursors.decode(text, self._key)
        if given.subscription_id != subscription.subscription_id:
            raise NotFound
        if given.log_id != self._log.log_id:
            raise PositionExpired
        return given

    def _not_set_back(self, given: FeedCursor, committed: Mapping[Strand, Cursor]) -> None:
        for strand, stretch in given.stretches.items():
            if strand in committed and stretch.base > committed[strand].offset:
                raise CursorError("The committed position was set back; continue without a cursor.")


def _changed() -> CursorError:
    return CursorError("What this cursor covers has changed; continue without a cursor from the committed position.")
