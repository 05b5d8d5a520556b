"""The catalogue: accepted records listed in the ledger, so that receipts and answers can be counted against them.

Derived from the log and from nothing else; the only thing read from a body is which provinces its numbers are at home
in, and until when a holder's renewal is due.
"""

from __future__ import annotations

from datetime import timedelta

import numpy as np

from hub.domain.events import EventType, Lane
from hub.domain.lifecycle import from_epoch
from hub.domain.policies import Policy
from hub.ports.codec import Chunk, Codec
from hub.ports.ledger import CatalogueEntry
from hub.ports.log import Header, Record
from hub.ports.number_plan import NumberPlan

HOLDER_CHANGED_WITHIN = timedelta(days=5)
"""To answer ``reassigned`` and ``owner_transferred``: as quickly as a holder's own request."""

UNKNOWN_PROVINCE = "unknown"


def answer_within(event_type: EventType, policy: Policy) -> timedelta:
    """How long subscribers have to answer an event of this type."""
    match event_type:
        case EventType.release_scheduled:
            return policy.answer_within
        case EventType.reassigned | EventType.owner_transferred | EventType.renewal_requested:
            return HOLDER_CHANGED_WITHIN
        case _:
            return policy.soft_lock_within


def count_provinces(chunk: Chunk, plan: NumberPlan) -> dict[str, int]:
    """Numbers of the chunk by province name; places the plan does not know are counted as `UNKNOWN_PROVINCE`."""
    counts = np.bincount(plan.province_of(chunk.numbers), minlength=len(plan.provinces))
    return {plan.provinces[place] or UNKNOWN_PROVINCE: int(counts[place]) for place in np.flatnonzero(counts)}


def entry_of(record: Record, codec: Codec, plan: NumberPlan, policy: Policy) -> CatalogueEntry:
    """Decodes the body: milliseconds for a full chunk. Raises ValueError for a body that cannot be read."""
    headers = record.headers
    chunk = codec.decode(record.body)
    event_type = EventType(headers[Header.type])
    reported_at = from_epoch(int(headers[Header.reported_at]))
    due_at = reported_at + answer_within(event_type, policy)
    if chunk.renewal is not None and "due_at" in chunk.renewal:
        due_at = from_epoch(int(chunk.renewal["due_at"]))
    apps = headers.get(Header.apps)
    return CatalogueEntry(
        chunk_id=record.record_id,
        position=record.position,
        event_type=event_type,
        lane=Lane(headers[Header.lane]),
        carrier_id=headers[Header.carrier],
        count=int(headers[Header.count]),
        reported_at=reported_at,
        due_at=due_at,
        batch_id=headers.get(Header.batch),
        renewal_id=headers.get(Header.renewal),
        apps=tuple(apps.split(",")) if apps else (),
        provinces=count_provinces(chunk, plan),
    )
