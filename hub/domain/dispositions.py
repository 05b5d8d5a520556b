"""What a subscriber says it did with a number: the disposition. A receipt (the bytes arrived) is something else.

Codes travel in columns as small integers; 0 means that nothing has been said yet.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum


class Disposition(StrEnum):
    unbound = "unbound"
    no_account = "no_account"
    already_rebound = "already_rebound"  # the old holder has moved to another number
    rejected_cutoff = "rejected_cutoff"  # only bindings at or after the cutoff: the new holder's
    soft_locked = "soft_locked"  # answers `deactivated` only
    held_funds = "held_funds"
    held_debt = "held_debt"
    held_legal = "held_legal"
    held_dispute = "held_dispute"
    held_memorial = "held_memorial"
    needs_holder_action = "needs_holder_action"
    failed_retryable = "failed_retryable"
    failed_final = "failed_final"

    @property
    def number(self) -> int:
        """A stable small integer >= 1 for columns; never renumber."""
        return _NUMBERS[self]

    @property
    def standing(self) -> Standing:
        return _STANDING[self]

    @property
    def needs_review_at(self) -> bool:
        """A hold is only an answer together with the date on which it will be looked at again."""
        return self.value.startswith("held_")


class Standing(IntEnum):
    """How a disposition counts for clearance; carriers see no finer grain than this."""

    pending = 0
    done = 1
    held = 2
    failed = 3


_NUMBERS = {disposition: place for place, disposition in enumerate(Disposition, start=1)}
BY_NUMBER = {number: disposition for disposition, number in _NUMBERS.items()}

_STANDING = {
    Disposition.unbound: Standing.done,
    Disposition.no_account: Standing.done,
    Disposition.already_rebound: Standing.done,
    Disposition.rejected_cutoff: Standing.done,
    Disposition.soft_locked: Standing.pending,
    Disposition.held_funds: Standing.held,
    Disposition.held_debt: Standing.held,
    Disposition.held_legal: Standing.held,
    Disposition.held_dispute: Standing.held,
    Disposition.held_memorial: Standing.held,
    Disposition.needs_holder_action: Standing.held,
    Disposition.failed_retryable: Standing.pending,
    Disposition.failed_final: Standing.failed,
}
