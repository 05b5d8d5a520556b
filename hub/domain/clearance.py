"""May one number be sold again, given what each app said? The rule for one number; hub.flow.judge does columns.

Silence never counts as an answer, and neither does time: only done and held are final. A hold is a final answer with
an exception; a failure is an answer that does not count (DOMAIN.md section 6). A waiver takes its subscriber out of
those who are waited for, and changes nothing else: what it did say still shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from hub.domain.dispositions import Standing
from hub.domain.parties import TIER_1, AppClass
from hub.domain.policies import ClearancePolicy


class Verdict(IntEnum):
    go = 0
    go_with_exceptions = 1
    wait = 2


class WaitReason(StrEnum):
    """Why a number waits. The places are bits in columns; never reorder."""

    freeze = "freeze"  # the 90 full days are not over
    answers_pending = "answers_pending"
    answers_failed = "answers_failed"
    not_scheduled = "not_scheduled"  # no release was scheduled
    withdrawn = "withdrawn"  # the former holder has it back, or somebody else has it
    already_released = "already_released"
    unknown_number = "unknown_number"  # nobody's, or another carrier's: the two look alike
    invalid_number = "invalid_number"

    @property
    def bit(self) -> int:
        return 1 << list(WaitReason).index(self)


CLASSES = tuple(AppClass)
"""Places of the app classes in bit columns; never reorder."""

FINAL = frozenset({Standing.done, Standing.held})


@dataclass(frozen=True, slots=True)
class Voice:
    """What one mandatory subscription says about one number."""

    app_class: AppClass
    standing: Standing
    waived: bool = False


@dataclass(frozen=True, slots=True)
class Judged:
    verdict: Verdict
    reasons: frozenset[WaitReason]
    app_classes: frozenset[AppClass]  # with held or failed answers


def enough(final: int, asked: int, share: float) -> bool:
    """Do ``final`` of ``asked`` apps reach ``share``?  None asked is enough."""
    return final >= share * asked - 1e-9


def judge(policy: ClearancePolicy, share: float, voices: Iterable[Voice]) -> Judged:
    """The verdict on a number in clearing whose freeze is over."""
    voices = list(voices)
    asked = [voice for voice in voices if not voice.waived]
    exceptions = frozenset(v.app_class for v in voices if v.standing in (Standing.held, Standing.failed))
    if policy is ClearancePolicy.open:
        needed: list[Voice] = []
    elif policy is ClearancePolicy.strict:
        needed = asked
    else:
        others = [voice for voice in asked if voice.app_class not in TIER_1]
        final = sum(voice.standing in FINAL for voice in others)
        needed = [voice for voice in asked if voice.app_class in TIER_1]
        if not enough(final, len(others), share):
            needed = asked
    reasons = set()
    if any(voice.standing is Standing.pending for voice in needed):
        reasons.add(WaitReason.answers_pending)
    if any(voice.standing is Standing.failed for voice in needed):
        reasons.add(WaitReason.answers_failed)
    if reasons:
        return Judged(Verdict.wait, frozenset(reasons), exceptions)
    return Judged(Verdict.go_with_exceptions if exceptions else Verdict.go, frozenset(), exceptions)
