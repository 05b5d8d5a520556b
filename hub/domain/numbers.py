"""One mobile number: parsing, masking, and its place in the numbering plan.

Inside the hub a number is its 11 national digits as an int (13812345678); on the bulk path many of them are one
int64 column. ``PhoneNumber`` is the careful form for one: its ``repr`` and ``str`` are masked, so it may be logged.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from hub.domain.errors import InvalidNumber

COUNTRY_CODE = "86"
BLOCK_SIZE = 10_000
NATIONAL_PATTERN = r"1[3-9][0-9]{9}"
FIRST_NATIONAL, LAST_NATIONAL = 13_000_000_000, 19_999_999_999

_INPUT = re.compile(rf"(?:\+86|0086|86)?({NATIONAL_PATTERN})")


@dataclass(frozen=True, slots=True, order=True)
class PhoneNumber:
    """A mainland-China mobile number (E.164 country code 86)."""

    national: int

    def __post_init__(self) -> None:
        if not FIRST_NATIONAL <= self.national <= LAST_NATIONAL:
            raise InvalidNumber

    @classmethod
    def parse(cls, text: str) -> PhoneNumber:
        """Read 11 digits with or without +86, 0086 or 86; blanks, hyphens and full-width digits are folded.

        Raises InvalidNumber. The text is never part of the error.
        """
        if len(text) > 32:
            raise InvalidNumber
        found = _INPUT.fullmatch(text)
        if found is None:
            folded = unicodedata.normalize("NFKC", text).replace(" ", "").replace("-", "")
            found = _INPUT.fullmatch(folded) if folded.isascii() else None
        if found is None:
            raise InvalidNumber
        return cls(int(found.group(1)))

    @property
    def e164(self) -> str:
        return f"+{COUNTRY_CODE}{self.national}"

    @property
    def block7(self) -> int:
        """The number block of 10,000 this number stands in (号段): its first seven digits."""
        return self.national // BLOCK_SIZE

    def __repr__(self) -> str:
        return f"PhoneNumber({mask(self.national)})"

    __str__ = __repr__


def mask(national: int) -> str:
    """138****5678: the only form in which people and logs see a number."""
    digits = f"{national:011d}"
    return f"{digits[:3]}****{digits[-4:]}"


_ANYWHERE = re.compile(r"(?<!\d)(?:(?:\+?86|0086)[ -]?)?([1１][3-9３-９]\d)[ -]?\d{4}[ -]?(\d{4})(?!\d)")


def mask_in(text: str) -> str:
    """``text`` with every mobile number in it masked; full-width digits and 138 1234 5678 are found too."""
    return _ANYWHERE.sub(r"\1****\2", text)


def partition_of(national: int, partitions: int) -> int:
    """The log partition of a number: all numbers of a block share one, so all events of a number meet in one order."""
    return (national // BLOCK_SIZE) % partitions
