"""Why intake refuses a row or an item: stable codes, a meaning for people, and a small number for columns."""

from __future__ import annotations

from enum import StrEnum


class Refusal(StrEnum):
    invalid_number = "invalid_number"
    unknown_column = "unknown_column"
    missing_field = "missing_field"
    invalid_time = "invalid_time"
    invalid_value = "invalid_value"
    foreign_block = "foreign_block"
    no_such_block = "no_such_block"
    duplicate = "duplicate"
    lifecycle_conflict = "lifecycle_conflict"
    freeze_too_short = "freeze_too_short"
    not_cleared = "not_cleared"
    claimed_by_other = "claimed_by_other"
    future_time = "future_time"
    number_changed_meanwhile = "number_changed_meanwhile"
    not_acting_for = "not_acting_for"

    @property
    def number(self) -> int:
        """A stable small integer >= 1 for columns (0 there means: not refused); never renumber."""
        return _NUMBERS[self]

    @property
    def meaning(self) -> str:
        return _MEANINGS[self]

    @property
    def retriable(self) -> bool:
        """May the very same row be accepted when it is sent again?"""
        return self in (Refusal.number_changed_meanwhile, Refusal.not_cleared)


_NUMBERS = {refusal: place for place, refusal in enumerate(Refusal, start=1)}
BY_NUMBER = {number: refusal for refusal, number in _NUMBERS.items()}

_MEANINGS = {
    Refusal.invalid_number: "not a mainland-China mobile number of 11 digits (+86, 0086 or 86 may stand in front)",
    Refusal.unknown_column: "the row has a field that the format does not know",
    Refusal.missing_field: "a time that this event needs is missing",
    Refusal.invalid_time: "a time is not RFC 3339, YYYY-MM-DD or epoch seconds, or lies before what it must follow",
    Refusal.invalid_value: "a field cannot be read or holds a value that is not allowed here",
    Refusal.foreign_block: "the number's block was issued to another carrier and the hub never saw it with you",
    Refusal.no_such_block: "the numbering plan has no such block",
    Refusal.duplicate: "the same event of this number was already reported, in this file or before",
    Refusal.lifecycle_conflict: "the number's present state does not allow this event",
    Refusal.freeze_too_short: "the number would be released before its 90 full days of rest are over",
    Refusal.not_cleared: "the number may not be released yet: clearance says wait",
    Refusal.claimed_by_other: "another carrier has reported this number and has it still open",
    Refusal.future_time: "a time lies more than a day ahead",
    Refusal.number_changed_meanwhile: "another writer changed the number at the same moment; send the row again",
    Refusal.not_acting_for: "you are not enrolled to publish for the party named in acting_for",
}
