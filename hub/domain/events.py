"""What can happen to a number, as subscribers hear of it."""

from __future__ import annotations

from enum import StrEnum


class EventType(StrEnum):
    deactivated = "deactivated"  # the line ended; soft-lock, do not unbind yet
    restored = "restored"  # same holder back; drop the soft-lock
    release_scheduled = "release_scheduled"  # unbind what was bound before the cutoff
    release_cancelled = "release_cancelled"  # stop; say what was done
    released = "released"  # on sale again
    reassigned = "reassigned"  # a new holder has it
    owner_transferred = "owner_transferred"  # 过户: a new holder without a freeze
    renewal_requested = "renewal_requested"  # 主动焕新: the new holder pressed the key

    @property
    def number(self) -> int:
        """A stable small integer for columns; never renumber."""
        return _NUMBERS[self]


_NUMBERS = {
    EventType.deactivated: 1,
    EventType.restored: 2,
    EventType.release_scheduled: 3,
    EventType.release_cancelled: 4,
    EventType.released: 5,
    EventType.reassigned: 6,
    EventType.owner_transferred: 7,
    EventType.renewal_requested: 8,
}

BY_NUMBER = {number: event for event, number in _NUMBERS.items()}

ORDERS_UNBIND = frozenset(
    {EventType.release_scheduled, EventType.reassigned, EventType.owner_transferred, EventType.renewal_requested}
)
"""Events that ask a subscriber to unbind bindings older than the cutoff."""

ASKS_FOR_ANSWER = ORDERS_UNBIND | {EventType.deactivated}
"""Events a subscriber owes a disposition for; the others only inform."""


class Lane(StrEnum):
    bulk = "bulk"
    live = "live"


class Purpose(StrEnum):
    account_unbind = "account_unbind"
    label_clear = "label_clear"
    fraud_risk = "fraud_risk"


class TerminateReason(StrEnum):
    holder_request = "holder_request"
    arrears = "arrears"
    fraud = "fraud"
    carrier = "carrier"
    deceased = "deceased"
