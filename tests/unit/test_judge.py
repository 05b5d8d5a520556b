"""Intake policy: which event may stand behind which state, and with what reason it is refused otherwise."""

import numpy as np
import pytest

from hub.domain.events import EventType
from hub.domain.lifecycle import TRANSITIONS, Phase, earliest_release_epoch
from hub.domain.refusals import BY_NUMBER
from hub.flow.ingest.judge import Claims, Judgement, judge
from hub.ports.number_index import STATE

NOW = 1_775_000_000  # 2026-04-01
DAY = 86_400
MINE, OTHER = 7, 8
OWN_BLOCK, FOREIGN_BLOCK = 1, 2


def judged(
    event: EventType,
    phase: Phase = Phase.unknown,
    *,
    carrier: int = MINE,
    generation: int = 0,
    seq: int = 3,
    ended_at: int = 0,
    since: int = 0,
    occurred_at: int = NOW - DAY,
    terminated_at: int = 0,
    planned: int = 0,
    reason: int = 0,
    holder: int = OWN_BLOCK,
) -> tuple[str | None, Judgement]:
    state = np.zeros(1, STATE)
    if phase is not Phase.unknown:
        state[0] = (generation, phase, seq, carrier, 0, ended_at, since, 0)
    claims = Claims(
        np.array([occurred_at]), np.array([terminated_at]), np.array([planned]), np.array([reason], np.uint8)
    )
    may_publish = np.array([False, True, False])
    found = judge(
        event,
        state,
        claims,
        holder=np.array([holder], np.uint8),
        may_publish=may_publish,
        carrier_no=MINE,
        now=NOW,
    )
    code = int(found.refusal[0])
    return (BY_NUMBER[code].value if code else None), found


ENDED = NOW - 120 * DAY


@pytest.mark.parametrize("event", list(EventType))
@pytest.mark.parametrize("phase", list(Phase))
def test_the_machine_is_the_domain_s(phase: Phase, event: EventType) -> None:
    """For every phase and event: accepted exactly where the domain has a transition, with its generation and seq."""
    ended = ENDED if phase >= Phase.frozen else 0
    stated = ENDED if event is EventType.release_scheduled else 0
    reason, found = judged(event, phase, ended_at=ended, terminated_at=stated, generation=2)
    transition = TRANSITIONS.get((phase, event))
    if transition is None:
        assert reason in ("lifecycle_conflict", "duplicate")
        return
    assert reason is None
    known = phase is not Phase.unknown
    if transition.new_generation:
        assert (found.generation[0], found.seq[0]) == (3 if known else 1, 1)
    else:
        assert (found.generation[0], found.seq[0]) == ((2, 4) if known else (0, 1))


@pytest.mark.parametrize(
    ("expected", "case"),
    [
        ("no_such_block", {"holder": 0}),
        ("foreign_block", {"holder": FOREIGN_BLOCK}),
        ("foreign_block", {"holder": FOREIGN_BLOCK, "phase": Phase.active, "carrier": OTHER}),
        (None, {"holder": FOREIGN_BLOCK, "phase": Phase.active}),
        (None, {"phase": Phase.active, "carrier": OTHER}),
        ("claimed_by_other", {"phase": Phase.frozen, "carrier": OTHER, "ended_at": ENDED}),
        ("claimed_by_other", {"phase": Phase.clearing, "carrier": OTHER, "ended_at": ENDED}),
        ("claimed_by_other", {"phase": Phase.released, "carrier": OTHER, "ended_at": ENDED}),
        ("missing_field", {"occurred_at": 0}),
        (None, {"occurred_at": 0, "terminated_at": ENDED}),
        ("future_time", {"occurred_at": NOW + 2 * DAY}),
        ("future_time", {"terminated_at": NOW + 2 * DAY}),
        (None, {"occurred_at": NOW + DAY}),
        ("duplicate", {"phase": Phase.frozen, "ended_at": NOW - DAY}),
        ("duplicate", {"phase": Phase.clearing, "ended_at": NOW - DAY}),
        ("lifecycle_conflict", {"phase": Phase.frozen, "ended_at": ENDED}),
        ("invalid_time", {"phase": Phase.active, "since": NOW - DAY, "occurred_at": NOW - 3 * DAY}),
        ("lifecycle_conflict", {"phase": Phase.active, "seq": 0xFFFF}),
    ],
)
def test_deactivated(expected: str | None, case: dict[str, int]) -> None:
    """Whose number, which times, which repeats."""
    assert judged(EventType.deactivated, **case)[0] == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("expected", "case"),
    [
        ("missing_field", {}),
        (None, {"terminated_at": ENDED}),
        (None, {"terminated_at": ENDED, "occurred_at": 0}),
        (None, {"phase": Phase.frozen, "ended_at": ENDED}),
        (None, {"phase": Phase.frozen, "ended_at": ENDED, "terminated_at": ENDED}),
        ("lifecycle_conflict", {"phase": Phase.frozen, "ended_at": ENDED, "terminated_at": ENDED + 2 * DAY}),
        ("duplicate", {"phase": Phase.clearing, "ended_at": ENDED, "terminated_at": ENDED}),
        ("duplicate", {"phase": Phase.clearing, "ended_at": ENDED}),
        ("lifecycle_conflict", {"phase": Phase.clearing, "ended_at": ENDED, "terminated_at": ENDED + 5 * DAY}),
        ("invalid_time", {"terminated_at": NOW, "occurred_at": NOW - 3 * DAY}),
        ("freeze_too_short", {"terminated_at": ENDED, "planned": earliest_release_epoch(ENDED) - 1}),
        (None, {"terminated_at": ENDED, "planned": earliest_release_epoch(ENDED)}),
        (
            "freeze_too_short",
            {"phase": Phase.frozen, "ended_at": ENDED, "planned": earliest_release_epoch(ENDED) - 1},
        ),
    ],
)
def test_release_scheduled(expected: str | None, case: dict[str, int]) -> None:
    """The end of the line must be known and not contradicted; the planned release must respect the freeze."""
    assert judged(EventType.release_scheduled, **case)[0] == expected  # type: ignore[arg-type]


def test_day_90_is_counted_in_china() -> None:
    """Terminated on 2026-01-01 at any hour in China, released from 2026-04-02T00:00+08:00 on, not a second before."""
    first, last = 1_767_196_800, 1_767_196_800 + DAY - 1
    may = 1_767_196_800 + 91 * DAY
    for ended in (first, last):
        assert judged(EventType.release_scheduled, terminated_at=ended, planned=may - 1)[0] == "freeze_too_short"
        assert judged(EventType.release_scheduled, terminated_at=ended, planned=may)[0] is None


@pytest.mark.parametrize(
    ("event", "expected", "case"),
    [
        (EventType.released, "missing_field", {"occurred_at": 0}),
        (EventType.released, "freeze_too_short", {"ended_at": NOW - 90 * DAY}),
        (EventType.released, "freeze_too_short", {"ended_at": NOW - 90 * DAY, "occurred_at": NOW + DAY}),
        (EventType.released, None, {"ended_at": NOW - 93 * DAY}),
        (EventType.released, "duplicate", {"phase": Phase.released}),
        (EventType.restored, "invalid_time", {"occurred_at": ENDED - 2 * DAY}),
        (EventType.restored, "lifecycle_conflict", {"terminated_at": ENDED + 2 * DAY}),
        (EventType.reassigned, "freeze_too_short", {"phase": Phase.released, "occurred_at": ENDED + 30 * DAY}),
        (EventType.reassigned, "duplicate", {"phase": Phase.active, "generation": 1, "since": NOW - DAY}),
        (EventType.owner_transferred, "duplicate", {"phase": Phase.active, "generation": 1, "since": NOW - DAY}),
        (EventType.owner_transferred, "invalid_time", {"phase": Phase.active, "since": NOW}),
        (EventType.owner_transferred, "lifecycle_conflict", {"phase": Phase.active, "generation": 255}),
    ],
)
def test_later_events(event: EventType, expected: str | None, case: dict[str, int]) -> None:
    """Nothing happens before what it must follow, nor before the freeze is over."""
    case = {"phase": Phase.clearing, "ended_at": ENDED, **case}
    assert judged(event, **case)[0] == expected  # type: ignore[arg-type]


def test_the_cutoff_follows_the_event() -> None:
    """deactivated and scheduled: end of the line; back or out again: the known end; new holder: when it began."""
    at = NOW - DAY
    assert judged(EventType.deactivated, terminated_at=ENDED)[1].binding_cutoff_at[0] == ENDED
    assert judged(EventType.deactivated)[1].binding_cutoff_at[0] == at
    known = {"phase": Phase.clearing, "ended_at": ENDED}
    assert judged(EventType.released, **known)[1].binding_cutoff_at[0] == ENDED  # type: ignore[arg-type]
    assert judged(EventType.restored, **known)[1].binding_cutoff_at[0] == ENDED  # type: ignore[arg-type]
    exact = judged(EventType.release_scheduled, Phase.frozen, ended_at=ENDED + 5, terminated_at=ENDED)
    assert exact[1].binding_cutoff_at[0] == ENDED + 5
    assert judged(EventType.owner_transferred)[1].binding_cutoff_at[0] == at


def test_only_what_the_event_means_is_carried() -> None:
    """A planned release belongs to a scheduled release, a reason to the end of a line."""
    _, found = judged(EventType.restored, Phase.frozen, ended_at=ENDED, planned=NOW, reason=2)
    assert (found.release_planned_at[0], found.reason[0]) == (0, 0)
    _, found = judged(EventType.deactivated, planned=NOW, reason=2)
    assert (found.release_planned_at[0], found.reason[0]) == (0, 2)
