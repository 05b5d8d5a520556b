"""Whose subscription is this, and was this chunk addressed to it? Everything else looks like an unknown id."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hub.domain.errors import NotFound
from hub.domain.parties import Subscription
from hub.flow.barrier import caught_up
from hub.flow.fold import Fold
from hub.flow.members import Members
from hub.flow.reader import Readable, Reader
from hub.ports.clock import Clock
from hub.ports.ledger import Ledger
from hub.ports.log import Header, Position
from hub.ports.number_index import NumberIndex

REMEMBERED: Final = 16_384  # chunks whose place is kept in memory
CATCH_UP_SECONDS: Final = 2.0


def own_subscription(members: Members, party_id: str, subscription_id: str) -> Subscription:
    """The caller's own subscription. Raises NotFound for an unknown one and for somebody else's alike."""
    found = members.snapshot.subscriptions.get(subscription_id)
    if found is None or found.subscriber_id != party_id:
        raise NotFound
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """What is known of a chunk without its body."""

    position: Position
    headers: Mapping[str, str]
    count: int


class Addressed:
    """Finds chunks by id, and tells whether they were addressed to a subscription."""

    def __init__(
        self, reader: Reader, fold: Fold, index: NumberIndex, ledger: Ledger, members: Members, clock: Clock
    ) -> None:
        self._reader, self._fold, self._index = reader, fold, index
        self._ledger, self._members, self._clock = ledger, members, clock
        self._places: OrderedDict[str, Place] = OrderedDict()

    async def to_read(self, subscription: Subscription, chunk_id: str) -> Readable:
        """The chunk, if this subscription is entitled to it **now**. Raises NotFound."""
        place = await self.place(chunk_id)
        if not self._members.entitled(subscription, place.headers, self._clock.now()):
            raise NotFound
        return await self.readable(chunk_id, place.position)

    async def to_answer(self, subscription: Subscription, chunk_id: str) -> Place:
        """Where the chunk stands, if it is or was addressed to this subscription. Raises NotFound.

        Who has a receipt may answer after the agreement has ended; who has none yet may answer before it is recorded.
        """
        place = await self.place(chunk_id)
        if self._members.entitled(subscription, place.headers, self._clock.now()):
            return place
        whose = subscription.subscription_id
        if chunk_id not in await self._ledger.receipts_of(whose, [chunk_id]):
            raise NotFound
        return place

    async def place(self, chunk_id: str) -> Place:
        """Raises NotFound unless an accepted chunk of this very id stands in the log."""
        known = self._places.get(chunk_id)
        if known is not None:
            self._places.move_to_end(chunk_id)
            return known
        position = self._index.find(chunk_id)
        if position is None or position.offset >= self._fold.position(position.partition):
            # Perhaps appended through another process a moment ago, or the index is just ahead of what readers see.
            await caught_up(self._fold, CATCH_UP_SECONDS)
            position = self._index.find(chunk_id)
        if position is None:
            raise NotFound
        record = (await self.readable(chunk_id, position)).record
        found = Place(position, record.headers, int(record.headers[Header.count]))
        self._places[chunk_id] = found
        if len(self._places) > REMEMBERED:
            self._places.popitem(last=False)
        return found

    async def readable(self, chunk_id: str, position: Position) -> Readable:
        """The record at ``position``, whose id must be ``chunk_id``: an index may name another in rare cases."""
        found, _ = await self._reader.read(position.partition, position.offset, 1)
        if not found or found[0].record.position != position or found[0].record.record_id != chunk_id:
            raise NotFound
        return found[0]
