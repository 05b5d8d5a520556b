"""Rows whose order was withdrawn after they were published (a withdrawal wins over what is still on its way).

The body of a chunk never changes, so the rows that no longer hold are named beside it. A row is superseded when the
number moved on, and what stands now does not carry the order any more:

- by a newer generation: always; the newer event has its own order and a later cutoff;
- ``deactivated`` (soft-lock): by ``restored``, i.e. the number is active again in the same generation;
- ``release_scheduled`` (unbind): by ``restored`` or ``release_cancelled``, also when it was scheduled anew since: then
  the newer record gives the order. A later ``released`` carries it on;
- ``reassigned``, ``owner_transferred``, ``renewal_requested``: only by a newer generation; what the former holder left
  stays foreign whatever happens to the present one.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from hub.domain.events import ORDERS_UNBIND, EventType
from hub.domain.lifecycle import Phase
from hub.ports.clock import Clock
from hub.ports.codec import Chunk, Codec
from hub.ports.log import Header, Record
from hub.ports.number_index import NumberIndex, States

ORDERS = frozenset(event.value for event in ORDERS_UNBIND | {EventType.deactivated})
WITHDRAWS = frozenset(
    event.value
    for event in (
        EventType.restored,
        EventType.release_cancelled,
        EventType.reassigned,
        EventType.owner_transferred,
    )
)
"""Only these can supersede rows of an earlier record."""

FRESH_FOR = 1.0
HEADER_LIMIT = 4096
TOO_MANY = "see-feed"

_SMALL = 256  # rows; more are decoded off the loop
_KEPT = 2048


def superseded_rows(chunk: Chunk, offset: int, states: States) -> npt.NDArray[np.intp]:
    """Row numbers, ascending, of ``chunk`` (the record at ``offset``) whose order no longer holds in ``states``."""
    newer = states["generation"] > chunk.generation
    later = (states["generation"] == chunk.generation) & (states["seq"] > chunk.seq)
    phase = states["phase"]
    if chunk.event_type is EventType.deactivated:
        newer |= later & (phase == Phase.active)
    elif chunk.event_type is EventType.release_scheduled:
        other_order = (phase == Phase.clearing) & (states["duty"] != offset + 1)
        newer |= later & ((phase == Phase.active) | (phase == Phase.frozen) | other_order)
    return np.flatnonzero(newer)


def rows_text(rows: npt.NDArray[np.intp], limit: int = HEADER_LIMIT) -> str:
    """``3,17-20``; "" for none; `TOO_MANY` if that would be longer than ``limit`` characters."""
    if not len(rows):
        return ""
    breaks = np.flatnonzero(np.diff(rows) != 1)
    starts = rows[np.concatenate(([0], breaks + 1))]
    ends = rows[np.concatenate((breaks, [len(rows) - 1]))]
    if len(starts) * 2 > limit:
        return TOO_MANY
    text = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts.tolist(), ends.tolist(), strict=True))
    return text if len(text) <= limit else TOO_MANY


class Withdrawals:
    """Per record the superseded rows, worked out once for all subscribers and reused for a second.

    ``note`` tells it of every record folded; records with nothing folded behind them that withdraws cost nothing. What
    stood in the log before ``begin`` was called is taken to withdraw.
    """

    def __init__(self, index: NumberIndex, codec: Codec, clock: Clock) -> None:
        self._index = index
        self._codec = codec
        self._clock = clock
        self._last: dict[int, int] = {}  # partition -> offset of the last withdrawing record
        self._known: OrderedDict[str, tuple[int, float, str]] = OrderedDict()
        self._looking: dict[str, asyncio.Task[str]] = {}

    def begin(self, partition: int, position: int) -> None:
        self._last[partition] = position - 1

    def note(self, record: Record) -> None:
        if record.headers[Header.type] in WITHDRAWS:
            self._last[record.partition] = max(record.offset, self._last.get(record.partition, -1))

    def may_touch(self, record: Record) -> bool:
        """False: no row of ``record`` can be superseded; mostly so, and known at once."""
        return self._last.get(record.partition, -1) > record.offset and record.headers[Header.type] in ORDERS

    async def rows(self, record: Record) -> str:
        """The superseded rows of ``record`` as header text."""
        if not self.may_touch(record):
            return ""
        last = self._last[record.partition]
        known = self._known.get(record.record_id)
        if known is not None and (known[0] == last or self._clock.monotonic() < known[1]):
            return known[2]
        if int(record.headers[Header.count]) <= _SMALL:
            return self._keep(record, last, self._look(record))
        # Many lanes come to a chunk at the same moment: one of them looks, the others wait for what it sees.
        looking = self._looking.get(record.record_id)
        if looking is None:
            looking = self._looking[record.record_id] = asyncio.create_task(self._look_aside(record, last))
        return await asyncio.shield(looking)

    async def _look_aside(self, record: Record, last: int) -> str:
        try:
            return self._keep(record, last, await asyncio.to_thread(self._look, record))
        finally:
            del self._looking[record.record_id]

    def _keep(self, record: Record, last: int, text: str) -> str:
        self._known[record.record_id] = (last, self._clock.monotonic() + FRESH_FOR, text)
        if len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return text

    def _look(self, record: Record) -> str:
        chunk = self._codec.decode(record.body)
        states = self._index.lookup(record.partition, chunk.numbers)
        return rows_text(superseded_rows(chunk, record.offset, states))
