"""What you did with a chunk: one default and the rows that differ, never a line per number."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, get_args

from numhub_client._decode import rfc3339
from numhub_client.models import Disposition

DISPOSITIONS = frozenset(get_args(Disposition))
MOST_GROUPS = 64

_Said = tuple[str, datetime | None]


class Answer:
    """Build it with ``chunk.answer(default=...)``, then `row` and `number` for what differs; send it with
    ``client.acks.send``.

    Without ``default`` only the rows named are answered. Saying something else of the same row replaces what was said.
    A ``held_*`` disposition needs ``review_at``: the moment at which you will look at it again.
    """

    def __init__(
        self,
        chunk_id: str,
        default: Disposition | None = None,
        *,
        review_at: datetime | None = None,
        subscription_id: str | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.chunk_id = chunk_id
        self.subscription_id = subscription_id
        self.default: _Said | None = None if default is None else _said(default, review_at)
        self._numbers = numbers
        self._places: dict[int, int] | None = None
        self._rows: dict[int, _Said] = {}
        self._strangers: dict[int, _Said] = {}  # numbers, where the chunk is not at hand

    def row(self, row: int, disposition: Disposition, *, review_at: datetime | None = None) -> Answer:
        """Raises ValueError for a row the chunk does not have, an unknown disposition, a hold without review date."""
        if row < 0 or (self._numbers is not None and row >= len(self._numbers)):
            raise ValueError("no such row in this chunk")
        self._rows[row] = _said(disposition, review_at)
        return self

    def number(self, number: int | str, disposition: Disposition, *, review_at: datetime | None = None) -> Answer:
        """The same by number: 11 digits, +86 may stand in front. Raises ValueError; the text never holds the number."""
        national = _national(number)
        said = _said(disposition, review_at)
        if self._numbers is None:
            self._strangers[national] = said
            return self
        if self._places is None:
            self._places = {each: place for place, each in enumerate(self._numbers)}
        if national not in self._places:
            raise ValueError("this number is not in the chunk")
        self._rows[self._places[national]] = said
        return self

    @property
    def empty(self) -> bool:
        """Nothing was said of any row; there is nothing to send."""
        return self.default is None and not self._rows and not self._strangers

    def of_row(self, row: int) -> str | None:
        """What this answer says of a row; None: nothing."""
        said = self._rows.get(row, self.default)
        return None if said is None else said[0]

    def counts(self) -> Counter[str]:
        """Disposition -> rows, the default's share included where the chunk is at hand."""
        found = Counter(said[0] for said in (*self._rows.values(), *self._strangers.values()))
        if self.default is not None and self._numbers is not None:
            found[self.default[0]] += len(self._numbers) - len(self._rows)
        return +found

    def to_json(self) -> dict[str, Any]:
        """The message for ``POST /v1/acks``: rows grouped by what is said of them. Raises ValueError beyond 64
        groups."""
        rows: defaultdict[_Said, list[int]] = defaultdict(list)
        for row, said in sorted(self._rows.items()):
            if said != self.default:
                rows[said].append(row)
        numbers: defaultdict[_Said, list[str]] = defaultdict(list)
        for national, said in sorted(self._strangers.items()):
            numbers[said].append(f"+86{national}")
        groups = sorted({*rows, *numbers}, key=lambda said: (said[0], said[1].timestamp() if said[1] else 0.0))
        if len(groups) > MOST_GROUPS:
            raise ValueError("more than 64 different (disposition, review_at) pairs; round the review dates to days")
        message: dict[str, Any] = {"chunk_id": self.chunk_id, "exceptions": []}
        if self.default is not None:
            message |= {"default": self.default[0], **_review(self.default)}
        for said in groups:
            group: dict[str, Any] = {"disposition": said[0], **_review(said)}
            if said in rows:
                group["rows"] = rows[said]
            if said in numbers:
                group["numbers"] = numbers[said]
            message["exceptions"].append(group)
        return message

    @classmethod
    def from_json(
        cls, message: Mapping[str, Any], *, subscription_id: str | None = None, numbers: Sequence[int] | None = None
    ) -> Answer:
        """What `to_json` wrote, back again: answers kept by a `Guard` are sent anew in the same words."""
        answer = cls(
            message["chunk_id"],
            message.get("default"),
            review_at=_read_review(message),
            subscription_id=subscription_id,
            numbers=numbers,
        )
        for group in message.get("exceptions", ()):
            for row in group.get("rows", ()):
                answer.row(row, group["disposition"], review_at=_read_review(group))
            for number in group.get("numbers", ()):
                answer.number(number, group["disposition"], review_at=_read_review(group))
        return answer

    def __repr__(self) -> str:
        default = self.default[0] if self.default else None
        return f"Answer({self.chunk_id!r}, default={default!r}, exceptions={len(self._rows) + len(self._strangers)})"


def _said(disposition: str, review_at: datetime | None) -> _Said:
    if disposition not in DISPOSITIONS:
        raise ValueError(f"unknown disposition; one of {', '.join(sorted(DISPOSITIONS))}")
    if disposition.startswith("held_") and review_at is None:
        raise ValueError(f"{disposition} needs review_at: when will you look at it again?")
    if review_at is not None and review_at.tzinfo is None:
        raise ValueError("review_at needs a time zone")
    return disposition, review_at


def _review(said: _Said) -> dict[str, str]:
    return {} if said[1] is None else {"review_at": rfc3339(said[1])}


def _read_review(message: Mapping[str, Any]) -> datetime | None:
    text = message.get("review_at")
    return datetime.fromisoformat(text) if isinstance(text, str) else None


def _national(number: int | str) -> int:
    digits = str(number).removeprefix("+86").removeprefix("0086")
    if len(digits) != 11 or not digits.isascii() or not digits.isdigit():
        raise ValueError("a number has 11 digits; +86 may stand in front")
    return int(digits)
