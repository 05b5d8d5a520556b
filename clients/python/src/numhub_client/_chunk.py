"""A chunk as it arrives: up to 10,000 numbers of one event type with what is true of all of them said once.

``data.numbers`` is ascending; row i of every attribute belongs to ``numbers[i]``. An attribute stands in ``shared``
(one value for all rows), in ``shared`` with ``exceptions`` (rows and their values), or in ``columns`` (a value a row).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar

from numhub_client._answer import Answer
from numhub_client.errors import BodyMalformed
from numhub_client.models import ORDERS_UNBIND, Disposition

A = TypeVar("A")
TYPE_PREFIX, TYPE_SUFFIX = "cn.numhub.number.", ".v1"
MOST_ROWS = 10_000
_REQUIRED = ("generation", "seq", "occurred_at", "binding_cutoff_at")
_OPTIONAL = ("release_planned_at", "terminate_reason")


@dataclass(frozen=True, slots=True)
class NumberEvent:
    """One row of a chunk. ``number`` is 11 national digits as an int; reprs show it masked."""

    row: int
    number: int = field(repr=False)
    event_type: str
    generation: int
    seq: int
    occurred_at: datetime
    binding_cutoff_at: datetime
    release_planned_at: datetime | None = None
    terminate_reason: str | None = None
    superseded: bool = False  # the hub says that a newer event of this number replaces this one: do not act on it

    @property
    def e164(self) -> str:
        return f"+86{self.number}"

    @property
    def masked(self) -> str:
        return mask(self.number)

    @property
    def version(self) -> tuple[int, int]:
        """(generation, seq): of two events of one number the higher is the newer."""
        return self.generation, self.seq

    @property
    def orders_unbind(self) -> bool:
        return self.event_type in ORDERS_UNBIND and not self.superseded

    def covers(self, bound_at: datetime) -> bool:
        """Was a binding made at ``bound_at`` made before the cutoff, strictly? Only then is it the former holder's.

        A binding made at or after the cutoff is the new holder's: answer ``rejected_cutoff`` and keep it.
        """
        return bound_at < self.binding_cutoff_at

    def __str__(self) -> str:
        return f"{self.event_type} {self.masked}"


def mask(number: int) -> str:
    """138****5678: the form for logs and screens."""
    digits = f"{number:011d}"
    return f"{digits[:3]}****{digits[-4:]}"


@dataclass(frozen=True, slots=True)
class _Attribute:
    """One attribute of all rows, in whichever of the three forms it came."""

    common: Any = None
    exceptions: Mapping[int, Any] = field(default_factory=dict)
    column: Sequence[Any] | None = None

    def at(self, row: int) -> Any:
        if self.column is not None:
            return self.column[row]
        return self.exceptions.get(row, self.common) if self.exceptions else self.common


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Rows come out as `NumberEvent` only when asked for; ``numbers`` is there as it was sent.

    ``superseded`` rows were withdrawn after publication; ``superseded_unlisted`` says that there are too many to name,
    so that only the newer events (or a `Guard` that saw them) can tell which.
    """

    chunk_id: str
    event_type: str
    lane: str
    reported_at: datetime
    numbers: Sequence[int] = field(repr=False)
    subscription_id: str | None = None
    renewal: Mapping[str, Any] | None = None
    superseded: frozenset[int] = frozenset()
    superseded_unlisted: bool = False
    repeated: bool = False  # handled before, as far as the Receiver's SeenStore knows
    webhook_id: str | None = None
    raw: bytes | None = field(default=None, repr=False)
    _attributes: Mapping[str, _Attribute] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def e164(self) -> list[str]:
        """All numbers as +8613800138000, in order."""
        return [f"+86{number}" for number in self.numbers]

    @property
    def orders_unbind(self) -> bool:
        return self.event_type in ORDERS_UNBIND

    @property
    def wants_answer(self) -> bool:
        """Does the hub count on an answer? The other events (restored, released, ..) are answered only if you did
        something that it should know."""
        return self.event_type in ORDERS_UNBIND or self.event_type == "deactivated"

    def row(self, row: int) -> NumberEvent:
        """Raises IndexError."""
        if not 0 <= row < len(self.numbers):
            raise IndexError("no such row in this chunk")
        of = self._attributes
        planned = of["release_planned_at"].at(row) if "release_planned_at" in of else None
        return NumberEvent(
            row=row,
            number=self.numbers[row],
            event_type=self.event_type,
            generation=of["generation"].at(row),
            seq=of["seq"].at(row),
            occurred_at=_moment(of["occurred_at"].at(row)),
            binding_cutoff_at=_moment(of["binding_cutoff_at"].at(row)),
            release_planned_at=_moment(planned) if planned else None,
            terminate_reason=of["terminate_reason"].at(row) if "terminate_reason" in of else None,
            superseded=row in self.superseded,
        )

    def rows(self) -> Iterator[NumberEvent]:
        return map(self.row, range(len(self.numbers)))

    def versions(self) -> list[tuple[int, int]]:
        """(generation, seq) of each row."""
        generation, seq = self._attributes["generation"], self._attributes["seq"]
        return [(generation.at(row), seq.at(row)) for row in range(len(self.numbers))]

    def among(self, known: Container[int]) -> Iterator[NumberEvent]:
        """The rows whose number (11 digits as int) is in ``known``: a set, a dict, anything that answers ``in``."""
        return (self.row(row) for row, number in enumerate(self.numbers) if number in known)

    def match(
        self,
        accounts: Mapping[Any, A] | Callable[[Any], A | None],
        *,
        key: Literal["national", "e164"] = "national",
    ) -> Iterator[tuple[NumberEvent, A]]:
        """Pairs of (row, account) for the numbers that ``accounts`` knows: a mapping, or a function giving None for
        strangers. Asked with 11 digits as int, or with ``key="e164"`` with text like +8613800138000."""
        find = accounts.get if isinstance(accounts, Mapping) else accounts
        for row, number in enumerate(self.numbers):
            account = find(number if key == "national" else f"+86{number}")
            if account is not None:
                yield self.row(row), account

    def answer(self, default: Disposition | None = None, *, review_at: datetime | None = None) -> Answer:
        """An answer to this chunk: ``default`` for every row, overridden by `Answer.row` and `Answer.number`."""
        return Answer(
            self.chunk_id,
            default,
            review_at=review_at,
            subscription_id=self.subscription_id,
            numbers=self.numbers,
        )


def _moment(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def read_chunk(event: Mapping[str, Any], **context: Any) -> Chunk:
    """A CloudEvent of a chunk, parsed and checked for form. ``context``: further members of `Chunk`.

    Raises BodyMalformed; its text never holds a number.
    """
    data = event.get("data")
    if not isinstance(data, dict):
        raise BodyMalformed("the event has no data")
    numbers = data.get("numbers")
    if not isinstance(numbers, list) or not 0 < len(numbers) <= MOST_ROWS or set(map(type, numbers)) != {int}:
        raise BodyMalformed("data.numbers is no list of 1 to 10,000 numbers")
    shared, exceptions, columns = (_object(data, name) for name in ("shared", "exceptions", "columns"))
    found = {}
    for name in (*_REQUIRED, *_OPTIONAL):
        attribute = _attribute(name, len(numbers), shared, exceptions, columns)
        if attribute is not None:
            found[name] = attribute
        elif name in _REQUIRED:
            raise BodyMalformed(f"the event does not state {name}")
    renewal = data.get("renewal")
    return Chunk(
        chunk_id=_text(data, "chunk_id"),
        event_type=_text(data, "event_type"),
        lane=_text(data, "lane"),
        reported_at=_moment(_whole(data.get("reported_at"), "reported_at")),
        numbers=numbers,
        renewal=renewal if isinstance(renewal, dict) else None,
        _attributes=found,
        **context,
    )


def _attribute(
    name: str, count: int, shared: Mapping[str, Any], exceptions: Mapping[str, Any], columns: Mapping[str, Any]
) -> _Attribute | None:
    whole = None if name == "terminate_reason" else name
    optional = name in _OPTIONAL
    if name in columns:
        column = columns[name]
        if not isinstance(column, list) or len(column) != count:
            raise BodyMalformed(f"columns.{name} has not one value per row")
        return _Attribute(column=[_value(value, whole, optional) for value in column])
    if name not in shared and name not in exceptions:
        return None
    if name not in shared and not optional:
        raise BodyMalformed(f"shared.{name} is missing")
    common = _value(shared.get(name), whole, optional)
    if name not in exceptions:
        return _Attribute(common)
    stated = _object(exceptions, name)
    rows, values = stated.get("rows"), stated.get("values")
    if not isinstance(rows, list) or not isinstance(values, list) or len(rows) != len(values):
        raise BodyMalformed(f"exceptions.{name} has not one value per row")
    if not all(type(row) is int and 0 <= row < count for row in rows):
        raise BodyMalformed(f"exceptions.{name} names a row that is not there")
    return _Attribute(common, {row: _value(value, whole, optional) for row, value in zip(rows, values, strict=True)})


def _value(value: Any, whole: str | None, optional: bool) -> Any:
    if value is None and optional:
        return None
    if whole is not None:
        return _whole(value, whole)
    if not isinstance(value, str):
        raise BodyMalformed("terminate_reason is no text")
    return value


def _whole(value: Any, name: str) -> int:
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise BodyMalformed(f"{name} is no whole number in range")
    return value


def _object(members: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = members.get(name, {})
    if not isinstance(found, dict):
        raise BodyMalformed(f"{name} is no object")
    return found


def _text(members: Mapping[str, Any], name: str) -> str:
    found = members.get(name)
    if not isinstance(found, str) or not found:
        raise BodyMalformed(f"the event does not state {name}")
    return found
