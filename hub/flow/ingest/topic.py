"""What stands in a carrier's own topic, taken in record by record: events, lists of numbers, and what cannot be read.

Records are taken in the order given, runs of single events together. One outcome per record. Everything may be
repeated: what was accepted stays accepted, under the same ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hub.domain.quarantine import Quarantine
from hub.flow.ingest.events import Events, Item, Verdict
from hub.flow.ingest.lists import Lists, ListVerdict, NumberList

RUN = 256
"""Single events judged and appended together."""


@dataclass(frozen=True, slots=True)
class SaidEvent:
    key: str
    item: Item


@dataclass(frozen=True, slots=True)
class Unreadable:
    """``key`` and ``detail`` as far as they are known; neither repeats anything else of the record."""

    reason: Quarantine
    detail: str | None = None
    key: str | None = None


Said = SaidEvent | NumberList | Unreadable
Outcome = Verdict | ListVerdict | Unreadable


@dataclass(slots=True)
class TopicIntake:
    events: Events
    lists: Lists

    async def take_in(self, carrier_id: str, said: Sequence[Said]) -> list[Outcome]:
        """Raises Forbidden (no carrier, or suspended), Unavailable (repeat all)."""
        outcomes: list[Outcome] = []
        run: list[SaidEvent] = []
        for one in said:
            if isinstance(one, SaidEvent):
                run.append(one)
                if len(run) == RUN:
                    outcomes += await self._events(carrier_id, run)
                    run = []
                continue
            outcomes += await self._events(carrier_id, run)
            run = []
            outcomes.append(one if isinstance(one, Unreadable) else await self.lists.take_in(carrier_id, one))
        return outcomes + await self._events(carrier_id, run)

    async def _events(self, carrier_id: str, run: Sequence[SaidEvent]) -> list[Verdict]:
        return await self.events.publish_each(carrier_id, [(one.key, one.item) for one in run]) if run else []
