"""The clearance rule over columns: what hub.domain.clearance says of one number, for a whole chunk at once.

Rows are the numbers of one chunk, voices the subscriptions that must answer it. In: disposition codes, one row of the
matrix per voice. Out: verdicts, reasons and app classes as small integers, one per number.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hub.domain.clearance import CLASSES, Verdict, WaitReason, enough
from hub.domain.dispositions import BY_NUMBER, Standing
from hub.domain.parties import TIER_1, AppClass
from hub.domain.policies import ClearancePolicy
from hub.ports.number_index import Numbers

U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

GO, WITH_EXCEPTIONS, WAIT = (np.uint8(v) for v in (Verdict.go, Verdict.go_with_exceptions, Verdict.wait))
_PENDING, _FAILED = np.uint16(WaitReason.answers_pending.bit), np.uint16(WaitReason.answers_failed.bit)

_STANDING = np.zeros(256, np.uint8)  # a code nobody knows counts as silence
for _number, _disposition in BY_NUMBER.items():
    _STANDING[_number] = _disposition.standing
_IS_FINAL = np.isin(_STANDING, (Standing.done, Standing.held))
_IS_EXCEPTION = np.isin(_STANDING, (Standing.held, Standing.failed))
_IS_FAILED = np.isin(_STANDING, (Standing.failed,))


class Voice(NamedTuple):
    """A subscription that must answer a record; ``waivers`` are the acts by which it is not waited for."""

    subscription_id: str
    app_class: AppClass
    waivers: tuple[str, ...] = ()


@dataclass(slots=True)
class Columns:
    """One judgement per number, as equally long columns. ``until`` is epoch seconds, 0 = no date known.

    ``reasons`` holds WaitReason bits, ``classes`` bits of domain.clearance.CLASSES.
    """

    numbers: Numbers
    verdict: U8
    until: I64
    reasons: U16
    classes: U16

    @classmethod
    def waiting(cls, numbers: Numbers) -> Columns:
        """Every number waits for a reason not yet named."""
        n = len(numbers)
        return cls(numbers, np.full(n, WAIT), np.zeros(n, np.int64), np.zeros(n, np.uint16), np.zeros(n, np.uint16))

    @classmethod
    def joined(cls, parts: Sequence[Columns]) -> Columns:
        parts = [cls.waiting(np.zeros(0, np.int64)), *parts]
        return cls(
            np.concatenate([part.numbers for part in parts]),
            np.concatenate([part.verdict for part in parts]),
            np.concatenate([part.until for part in parts]),
            np.concatenate([part.reasons for part in parts]),
            np.concatenate([part.classes for part in parts]),
        )

    def take(self, rows: npt.NDArray[np.intp]) -> Columns:
        return Columns(self.numbers[rows], self.verdict[rows], self.until[rows], self.reasons[rows], self.classes[rows])

    def put(self, rows: npt.NDArray[np.intp], other: Columns) -> None:
        """Overwrite ``rows`` with the judgements of ``other``; the numbers stay."""
        self.verdict[rows], self.until[rows] = other.verdict, other.until
        self.reasons[rows], self.classes[rows] = other.reasons, other.classes

    def counts(self) -> tuple[int, int, int]:
        """(go, go with exceptions, wait)"""
        go, exceptions, wait = np.bincount(self.verdict, minlength=3)[:3].tolist()
        return go, exceptions, wait

    def waiting_for(self) -> dict[str, int]:
        """Reason -> numbers; a number that waits for two things counts under both."""
        found = ((reason.value, np.count_nonzero(self.reasons & reason.bit)) for reason in WaitReason)
        return {reason: int(count) for reason, count in found if count}


@cache
def reason_names(bits: int) -> tuple[str, ...]:
    return tuple(reason.value for reason in WaitReason if bits & reason.bit)


@cache
def class_names(bits: int) -> tuple[str, ...]:
    return tuple(sorted(name.value for place, name in enumerate(CLASSES) if bits >> place & 1))


class Answered(NamedTuple):
    """What the answers alone say, per number; ``silent_waivers`` are the waivers without which more would wait."""

    reasons: U16
    classes: U16
    silent_waivers: frozenset[str]


def judge_answers(
    policy: ClearancePolicy, share: float, voices: Sequence[Voice], codes: npt.NDArray[np.uint8]
) -> Answered:
    """``codes``: [voice, number] disposition codes, 0 = silence. No reason set means go, as far as answers go."""
    rows = codes.shape[1]
    reasons, classes = np.zeros(rows, np.uint16), np.zeros(rows, np.uint16)
    waived = np.array([bool(voice.waivers) for voice in voices], bool)
    tier_1 = np.array([voice.app_class in TIER_1 for voice in voices], bool)
    final = _IS_FINAL[codes]
    for place, voice in enumerate(voices):
        classes[_IS_EXCEPTION[codes[place]]] |= np.uint16(1 << CLASSES.index(voice.app_class))
    if policy is not ClearancePolicy.open:
        first = ~waived if policy is ClearancePolicy.strict else tier_1 & ~waived
        _wait_for(reasons, codes, final, first, slice(None))
        if policy is ClearancePolicy.tiered:
            others = ~tier_1 & ~waived
            short = np.flatnonzero(~_enough(final[others].sum(axis=0), int(others.sum()), share))
            _wait_for(reasons, codes, final, others, short)
    counted = {
        waiver
        for place in np.flatnonzero(waived).tolist()
        if policy is not ClearancePolicy.open and not final[place].all()
        for waiver in voices[place].waivers
    }
    return Answered(reasons, classes, frozenset(counted))


def _enough(final: npt.NDArray[np.int64], asked: int, share: float) -> Mask:
    table = np.array([enough(n, asked, share) for n in range(asked + 1)], bool)
    return table[final]


def _wait_for(
    reasons: U16, codes: npt.NDArray[np.uint8], final: Mask, who: Mask, rows: slice | npt.NDArray[np.intp]
) -> None:
    """Mark ``rows`` as waiting where one of ``who`` was silent or failed."""
    said, done = codes[who][:, rows], final[who][:, rows]
    failed = _IS_FAILED[said]
    reasons[rows] |= np.where(failed.any(axis=0), _FAILED, np.uint16(0))
    reasons[rows] |= np.where((~done & ~failed).any(axis=0), _PENDING, np.uint16(0))
