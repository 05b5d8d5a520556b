"""Has this number changed hands since this day?

In: numbers and the days (China) on which somebody last knew whose they were. Out: yes, no or no_data for each, with
the day from which the hub's data can answer at all, and the moment as of which they do. Guaranteed: never `no` for
lack of data (STANDARDS.md section 2.1). `yes` rests on an event that the hub holds. `no` rests on silence, and silence
counts only where `hub.flow.coverage` finds that every carrier who could have served the number has reported since.

===============================  ============================================================
the number is                    the answer for a day D
===============================  ============================================================
frozen, in clearing, on sale     yes: ended (D up to the end of the line), gap (D after it)
in use, holder since H           yes, reassigned, if D lies before H; else no, if covered
in use, H not known; never seen  no, if covered
===============================  ============================================================

Ported and suspended numbers produce no events here; a restored line counts as never ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from enum import IntEnum, StrEnum
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from hub.domain.lifecycle import Phase
from hub.domain.numbers import BLOCK_SIZE
from hub.flow.coverage import NEVER, Coverage, CoverageSource
from hub.flow.fold import Fold
from hub.flow.members import Members
from hub.ports.clock import Clock
from hub.ports.ledger import Ledger
from hub.ports.number_index import STATE, NumberIndex, Numbers, opaque
from hub.ports.number_plan import NumberPlan

FEW = 16
"""Up to so many numbers are answered one by one: below that numpy costs more than it saves."""


class Answer(IntEnum):
    no_data = 0
    no = 1
    yes = 2


class Reason(StrEnum):
    ended = "ended"  # yes: the line was cut on that day or later
    gap = "gap"  # yes: on that day nobody had it
    reassigned = "reassigned"  # yes: another holder since
    before_coverage = "before_coverage"
    no_coverage = "no_coverage"  # a carrier that could have served it is not connected, or left a gap
    stale = "stale"  # a carrier has been silent for too long
    invalid_number = "invalid_number"
    future_date = "future_date"


@dataclass(frozen=True, slots=True)
class Checked:
    answer: Answer
    reason: Reason | None
    coverage_since: date | None
    as_of: datetime | None = None  # `no` only: when the quietest of the carriers it rests on reported last


@dataclass(frozen=True, slots=True)
class Checks:
    """``answers`` in the order asked; ``as_of``: what was reported before it is in them."""

    answers: list[Checked]
    as_of: datetime


class Check:
    def __init__(
        self, ledger: Ledger, fold: Fold, index: NumberIndex, members: Members, plan: NumberPlan, clock: Clock
    ) -> None:
        self._index, self._plan, self._clock, self._partitions = index, plan, clock, len(fold.positions())
        self._coverage = CoverageSource(ledger, members, fold, clock)

    async def check(self, numbers: Sequence[int], since: Sequence[date]) -> Checks:
        """``numbers`` 11 national digits, 0 for one that could not be read; ``since`` equally long.

        Raises Unavailable if it is not known whether the index is up to date.
        """
        coverage = await self._coverage.current()
        today = china_day(int(self._clock.now().timestamp()))
        if len(numbers) <= FEW:
            answers = [self._one(n, day_of(d), today, coverage) for n, d in zip(numbers, since, strict=True)]
        else:
            known = {day: day_of(day) for day in set(since)}
            days = np.fromiter(map(known.__getitem__, since), np.int64, len(numbers))
            answers = self._many(np.array(numbers, np.int64), days, today, coverage)
        heard = [checked.as_of for checked in answers if checked.as_of is not None]
        return Checks(answers, min([coverage.as_of, *heard]))

    def _one(self, number: int, day: int, today: int, coverage: Coverage) -> Checked:
        if not number:
            return Checked(Answer.no_data, Reason.invalid_number, None)
        if day > today:
            return Checked(Answer.no_data, Reason.future_date, None)
        found = self._index.lookup((number // BLOCK_SIZE) % self._partitions, np.array([number], np.int64))[0].item()
        phase, ended_at, holder_since = found[1], found[5], found[6]
        block = self._plan.find(number)
        covered = coverage.of(block.holder if block else "")
        reason = None
        if phase >= Phase.frozen:
            reason = Reason.ended if day <= china_day(ended_at) else Reason.gap
        elif phase == Phase.active and holder_since and day < china_day(holder_since):
            reason = Reason.reassigned
        if reason is not None:
            return Checked(Answer.yes, reason, covered.since_date)
        why = covered.why_not(day)
        if why is None:
            return Checked(Answer.no, None, covered.since_date, covered.heard_at)
        return Checked(Answer.no_data, Reason(why), covered.since_date)

    def _many(self, numbers: Numbers, days: npt.NDArray[np.int64], today: int, coverage: Coverage) -> list[Checked]:
        """The same rule over columns; tested against `_one`."""
        states = self._lookup(numbers)
        phase, ended = states["phase"], states["ended_at"].astype(np.int64)
        since = states["holder_since"].astype(np.int64)
        holders = self._plan.holder_of(numbers)
        covered = [coverage.of(holder) for holder in self._plan.holders]
        from_day = np.array([NEVER if c.blocked else c.since_day for c in covered], np.int64)[holders]
        answers = np.where(days >= from_day, np.int8(Answer.no), np.int8(Answer.no_data))
        reasons = list(Reason)
        place = {reason: n for n, reason in enumerate(reasons, start=1)}
        blocked = np.array([place[Reason(c.blocked or Reason.before_coverage)] for c in covered], np.int8)[holders]
        told = np.where(answers == Answer.no, np.int8(0), blocked)
        closed = phase >= Phase.frozen
        changed = (phase == Phase.active) & (since > 0) & (days < china_day(since))
        answers[closed | changed] = Answer.yes
        told[closed] = np.where(days <= china_day(ended), place[Reason.ended], place[Reason.gap])[closed]
        told[changed] = place[Reason.reassigned]
        for wrong, reason in ((days > today, Reason.future_date), (numbers == 0, Reason.invalid_number)):
            answers[wrong], told[wrong] = Answer.no_data, place[reason]
        known = {place[Reason.future_date], place[Reason.invalid_number]}
        made: dict[tuple[int, int, int], Checked] = {}  # few differ
        found = []
        for key in zip(answers.tolist(), told.tolist(), holders.tolist(), strict=True):
            checked = made.get(key)
            if checked is None:
                answer, why, holder = key
                checked = made[key] = Checked(
                    Answer(answer),
                    reasons[why - 1] if why else None,
                    None if why in known else covered[holder].since_date,
                    covered[holder].heard_at if answer == Answer.no else None,
                )
            found.append(checked)
        return found

    def _lookup(self, numbers: Numbers) -> npt.NDArray[np.void]:
        partition = (numbers // BLOCK_SIZE) % self._partitions
        order = np.lexsort((numbers, partition))
        bounds = np.searchsorted(partition[order], np.arange(self._partitions + 1))
        states = np.zeros(len(numbers), STATE)
        for p in range(self._partitions):
            rows = order[bounds[p] : bounds[p + 1]]
            if len(rows):
                opaque(states)[rows] = opaque(self._index.lookup(p, numbers[rows]))
        return states


Seconds = TypeVar("Seconds", int, npt.NDArray[np.int64])


def china_day(epoch: Seconds) -> Seconds:
    """The day in China (days since 1970-01-01) of epoch seconds; elementwise on columns."""
    return (epoch + 28_800) // 86_400


def day_of(day: date) -> int:
    return day.toordinal() - 719_163
