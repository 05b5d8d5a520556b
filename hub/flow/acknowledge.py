"""What subscribers say they did: checked, put into rows, committed before the answer goes out.

An answer never depends on a receipt: it may come first, and both are kept. Numbers in an exception are turned into rows
of the chunk here; nothing stored and no message holds a number.
"""

from __future__ import annotations

import asyncio
import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt

from hub.domain.dispositions import Disposition, Standing
from hub.domain.errors import InvalidNumber, InvalidRequest
from hub.domain.events import EventType
from hub.domain.numbers import PhoneNumber
from hub.domain.parties import Subscription
from hub.flow.addressed import Addressed, Place
from hub.flow.fold import Fold
from hub.flow.members import Members
from hub.flow.reader import Reader
from hub.ports.clock import Clock
from hub.ports.codec import Codec
from hub.ports.ledger import Answer, AnswerException, Ledger, Rows
from hub.ports.log import Header
from hub.ports.metrics import Metrics
from hub.ports.number_index import NumberIndex, Numbers

_DECODED: Final = 64  # chunks whose numbers are kept, 80 kB each at most
_FEW: Final = 200  # rows of an answer up to which plain Python is quicker than arrays
_ON_LOOP: Final = 2_000  # rows and numbers that are worked on without a thread


@dataclass(frozen=True, slots=True)
class SaidException:
    """As the subscriber wrote it: rows and/or numbers."""

    disposition: Disposition
    rows: Sequence[int] = ()
    numbers: Sequence[str] = field(default=(), repr=False)
    review_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """One answer as the subscriber wrote it."""

    chunk_id: str
    default: Disposition | None = None
    review_at: datetime | None = None
    exceptions: Sequence[SaidException] = ()


class Acknowledge:
    def __init__(
        self,
        ledger: Ledger,
        fold: Fold,
        index: NumberIndex,
        reader: Reader,
        codec: Codec,
        members: Members,
        clock: Clock,
        metrics: Metrics | None = None,
    ) -> None:
        self._ledger, self._codec = ledger, codec
        self._addressed = Addressed(reader, fold, index, ledger, members, clock)
        self._clock, self._metrics = clock, metrics
        self._numbers: OrderedDict[str, Numbers] = OrderedDict()

    async def answer(self, subscription: Subscription, said: Sequence[Said]) -> list[bool]:
        """Commit all answers of one call; per answer True if it is new, False if it repeats the newest one.

        All or none. Raises NotFound for a chunk that was not addressed to the subscription (or does not exist),
        InvalidRequest with the place of the first fault in ``parts``.
        """
        answers = [await self._judge(subscription, place, one) for place, one in enumerate(said)]
        news = await self._ledger.answer(answers)
        if self._metrics is not None:
            self._measure([answer for answer, new in zip(answers, news, strict=True) if new])
        return news

    async def _judge(self, subscription: Subscription, index: int, said: Said) -> Answer:
        at = f"/answers/{index}"
        place = await self._addressed.to_answer(subscription, said.chunk_id)
        if said.default is None and not said.exceptions:
            raise _fault(at, "says_nothing", "name a default, or exceptions, or both")
        event = EventType(place.headers[Header.type])
        if said.default is not None:
            _fits(said.default, said.review_at, event, f"{at}/default")
        elif said.review_at is not None:
            raise _fault(f"{at}/review_at", "review_at_alone", "review_at belongs to a default")
        size = 0
        for number, exception in enumerate(said.exceptions):
            _fits(exception.disposition, exception.review_at, event, f"{at}/exceptions/{number}")
            size += len(exception.rows) + len(exception.numbers)
        column = None
        if any(exception.numbers for exception in said.exceptions):
            column = await self._column(said.chunk_id, place)
        if size <= _ON_LOOP:
            exceptions = _exceptions(said.exceptions, place.count, column, at)
        else:
            exceptions = await asyncio.to_thread(_exceptions, said.exceptions, place.count, column, at)
        return Answer(
            subscription.subscription_id,
            said.chunk_id,
            place.position,
            place.count,
            said.default,
            exceptions,
            _digest(said, exceptions),
            self._clock.now(),
            said.review_at,
        )

    async def _column(self, chunk_id: str, place: Place) -> Numbers:
        """The chunk's numbers, ascending; kept for the next subscriber's answer."""
        known = self._numbers.get(chunk_id)
        if known is None:
            body = (await self._addressed.readable(chunk_id, place.position)).record.body
            known = (await asyncio.to_thread(self._codec.decode, body)).numbers
            self._numbers[chunk_id] = known
            if len(self._numbers) > _DECODED:
                self._numbers.popitem(last=False)
        else:
            self._numbers.move_to_end(chunk_id)
        return known

    def _measure(self, answers: Sequence[Answer]) -> None:
        assert self._metrics is not None
        self._metrics.count("numhub_answers_total", len(answers))
        numbers: dict[Standing, int] = {}
        for answer in answers:
            excepted = 0
            for exception in answer.exceptions:
                excepted += len(exception.rows)
                standing = exception.disposition.standing
                numbers[standing] = numbers.get(standing, 0) + len(exception.rows)
            if answer.default is not None:
                standing = answer.default.standing
                numbers[standing] = numbers.get(standing, 0) + answer.count - excepted
        for standing, amount in numbers.items():
            self._metrics.count("numhub_answered_numbers_total", amount, standing=standing.name)


def _fits(disposition: Disposition, review_at: datetime | None, event: EventType, at: str) -> None:
    if disposition.needs_review_at and review_at is None:
        raise _fault(at, "review_at_missing", f"{disposition.value} needs review_at, the day to look at it again")
    if disposition is Disposition.soft_locked and event is not EventType.deactivated:
        raise _fault(at, "disposition_not_for_event", f"soft_locked answers deactivated only, not {event.value}")


def _exceptions(
    said: Sequence[SaidException], count: int, column: Numbers | None, at: str
) -> tuple[AnswerException, ...]:
    """Rows ascending and unique per exception; no row in two of them; equal dispositions joined, in a fixed order."""
    if len(said) and sum(len(one.rows) for one in said) <= _FEW and not any(one.numbers for one in said):
        return _few_exceptions(said, count, at)
    taken = np.zeros(count, np.bool_)
    joined: dict[tuple[Disposition, datetime | None], list[npt.NDArray[np.int64]]] = {}
    for place, exception in enumerate(said):
        where = f"{at}/exceptions/{place}"
        rows = _rows(exception, count, column, where)
        if bool(taken[rows].any()):
            raise _overlap(where)
        taken[rows] = True
        joined.setdefault((exception.disposition, exception.review_at), []).append(rows)
    found = []
    for disposition, review_at in sorted(joined, key=_order):
        rows16: Rows = np.sort(np.concatenate(joined[disposition, review_at])).astype(np.uint16)
        found.append(AnswerException(disposition, rows16, review_at))
    return tuple(found)


def _few_exceptions(said: Sequence[SaidException], count: int, at: str) -> tuple[AnswerException, ...]:
    """`_exceptions` for some rows and no numbers, the usual answer: arrays cost more than they save."""
    taken: set[int] = set()
    joined: dict[tuple[Disposition, datetime | None], list[int]] = {}
    for place, exception in enumerate(said):
        where = f"{at}/exceptions/{place}"
        rows = set(exception.rows)
        if not rows:
            raise _no_rows(where)
        if min(rows) < 0 or max(rows) >= count:
            raise _outside(where, sum(not 0 <= row < count for row in exception.rows), count)
        if not taken.isdisjoint(rows):
            raise _overlap(where)
        taken |= rows
        joined.setdefault((exception.disposition, exception.review_at), []).extend(rows)
    return tuple(
        AnswerException(key[0], np.frombuffer(array("H", sorted(joined[key])), np.uint16), key[1])
        for key in sorted(joined, key=_order)
    )


def _order(key: tuple[Disposition, datetime | None]) -> tuple[int, float]:
    return key[0].number, key[1].timestamp() if key[1] else 0.0


def _no_rows(where: str) -> InvalidRequest:
    return _fault(where, "no_rows", "an exception names rows or numbers")


def _outside(where: str, outside: int, count: int) -> InvalidRequest:
    return _fault(f"{where}/rows", "row_outside_chunk", f"{outside} rows are not rows of this chunk of {count}")


def _overlap(where: str) -> InvalidRequest:
    return _fault(where, "rows_overlap", "a row stands in two exceptions of this answer")


def _rows(exception: SaidException, count: int, column: Numbers | None, where: str) -> npt.NDArray[np.int64]:
    rows = np.array(exception.rows, np.int64)
    outside = int(((rows < 0) | (rows >= count)).sum())
    if outside:
        raise _outside(where, outside, count)
    if exception.numbers:
        assert column is not None
        try:
            wanted = np.array([PhoneNumber.parse(text).national for text in exception.numbers], np.int64)
        except InvalidNumber:
            raise _fault(f"{where}/numbers", "invalid_number", "not every number has 11 digits of a mobile") from None
        places = np.searchsorted(column, wanted)
        missing = int((column[np.minimum(places, count - 1)] != wanted).sum())
        if missing:
            raise _fault(f"{where}/numbers", "number_not_in_chunk", f"{missing} numbers are not in this chunk")
        rows = np.concatenate([rows, places])
    if not len(rows):
        raise _no_rows(where)
    return np.unique(rows)


def _digest(said: Said, exceptions: Sequence[AnswerException]) -> str:
    """Equal for answers that say the same, however they were written: rows or numbers, joined or apart."""
    digest = hashlib.sha256(f"v1|{said.default or ''}|{_moment(said.review_at)}".encode())
    for exception in exceptions:
        head = f"|{exception.disposition.value}|{_moment(exception.review_at)}|{len(exception.rows)}|"
        digest.update(head.encode())
        digest.update(exception.rows.astype("<u2").tobytes())
    return digest.hexdigest()


def _moment(moment: datetime | None) -> str:
    return "" if moment is None else repr(moment.timestamp())


def _fault(pointer: str, code: str, detail: str) -> InvalidRequest:
    parts = [{"pointer": pointer, "code": code, "detail": detail}]
    return InvalidRequest(f"{pointer}: {detail}.", parts=parts)
