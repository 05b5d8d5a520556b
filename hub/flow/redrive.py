"""Delivering again: a range by time, or what was parked.

A replay by time sets cursors back; subscribers recognise repeats by their id. Parked chunks are sent once more in the
background, one after the other; a chunk leaves the parking place with its receipt and not before, so a crash in between
loses nothing, and what fails again simply stays parked.

What concerns a webhook is an order in the ledger: the process that delivers for the subscription carries it out, which
need not be this one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from random import Random

from hub.domain.errors import PositionExpired, RuleError
from hub.domain.parties import Subscription
from hub.ports.clock import Clock
from hub.ports.ledger import Cursor, DeliveryRow, Ledger, RedriveOrder
from hub.ports.log import EventLog

MOST = 10_000


class Redrive:
    """``ordered`` is called after an order was stored; whatever it reaches, the order is found a little later."""

    def __init__(self, ledger: Ledger, log: EventLog, clock: Clock, random: Random) -> None:
        self._ledger = ledger
        self._log = log
        self._clock = clock
        self._random = random
        self.ordered: Callable[[], None] = lambda: None

    async def since(self, subscription: Subscription, moment: datetime) -> None:
        """Deliver again everything appended at or after ``moment``. Cursors only go back, never forth."""
        places = [await self.offset_at(partition, moment) for partition in range(self._log.partitions)]
        back = [
            Cursor(one.subscription_id, one.partition, one.lane, one.start, places[one.partition])
            for one in await self._ledger.cursors(subscription.subscription_id)
            if places[one.partition] < one.offset
        ]
        if back and subscription.mode.pushes:
            await self._order(subscription, cursors=back)
        elif back:
            await self._ledger.rewind(subscription.subscription_id, back)

    async def parked(self, subscription: Subscription, chunk_ids: Collection[str] | None = None) -> int:
        """Send parked chunks again, all or those named; returns how many were queued. Unknown ids count for nothing."""
        chunks = await self._ledger.parked_of(subscription.subscription_id, limit=MOST)
        if chunk_ids is not None:
            wanted = set(chunk_ids)
            chunks = [chunk for chunk in chunks if chunk.chunk_id in wanted]
        if not subscription.mode.pushes:
            raise RuleError("Parked chunks are sent again to webhooks only.", code="not_a_webhook")
        if chunks:
            await self._order(subscription, chunk_ids=[chunk.chunk_id for chunk in chunks])
        return len(chunks)

    async def _order(
        self, subscription: Subscription, *, cursors: Sequence[Cursor] = (), chunk_ids: Sequence[str] = ()
    ) -> None:
        order_id = f"rdo_{self._random.getrandbits(64):016x}"
        order = RedriveOrder(
            order_id, subscription.subscription_id, tuple(cursors), tuple(chunk_ids), self._clock.now()
        )
        await self._ledger.order_redrive(order)
        self.ordered()

    async def deliveries(self, subscription: Subscription, limit: int = 100) -> list[DeliveryRow]:
        """Newest first."""
        return await self._ledger.deliveries_of(subscription.subscription_id, limit=limit)

    async def offset_at(self, partition: int, moment: datetime) -> int:
        """The first offset appended at or after ``moment``; the end if there is none. Some 20 reads of one record."""
        low, high = 0, (await self._log.ends())[partition]
        wanted = moment.timestamp() * 1000
        while low < high:
            middle = (low + high) // 2
            try:
                found = await self._log.read(partition, middle, max_records=1)
            except PositionExpired:
                low = middle + 1
                continue
            if not found or found[0].appended_at_ms >= wanted:
                high = middle
            else:
                low = middle + 1
        return low
