"""The life of a number, one machine per number, versioned by ``generation`` and ``seq``.

unknown|active -deactivated-> frozen -restored-> active        unknown|frozen -release_scheduled-> clearing
clearing -release_cancelled-> frozen   clearing -restored-> active   clearing -released-> released (on sale)
released -reassigned-> active, generation + 1           unknown|active -renewal_requested-> active, same generation
unknown|active -owner_transferred-> active, generation + 1

``unknown`` is a number the hub has never heard of: a carrier that joins today has numbers in every state, so the
first event may be a deactivation, a scheduled release, a transfer or a renewal. What presupposes an earlier event the
hub can check (restored, released, reassigned) is refused for an unknown number.

Two rulings are kept apart. **Policy** (``TRANSITIONS``, the freeze, clearance) is judged once, by the writer, before
the append. **Succession** (``is_successor``) is judged by the fold on every node, for ever, and knows no policy.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from enum import IntEnum
from typing import NamedTuple

from hub.domain.events import EventType

CHINA = timezone(timedelta(hours=8), "Asia/Shanghai")
"""China has had one zone without daylight saving since 1991; a fixed offset keeps day 90 independent of tz data."""

FREEZE_DAYS = 90
"""Full days a number rests; country profile China. Policy may lengthen it, never shorten it."""


class Phase(IntEnum):
    unknown = 0
    active = 1
    frozen = 2
    clearing = 3
    released = 4


class Transition(NamedTuple):
    to: Phase
    new_generation: bool


TRANSITIONS: dict[tuple[Phase, EventType], Transition] = {
    (Phase.unknown, EventType.deactivated): Transition(Phase.frozen, False),
    (Phase.active, EventType.deactivated): Transition(Phase.frozen, False),
    (Phase.frozen, EventType.restored): Transition(Phase.active, False),
    (Phase.clearing, EventType.restored): Transition(Phase.active, False),
    (Phase.unknown, EventType.release_scheduled): Transition(Phase.clearing, False),
    (Phase.frozen, EventType.release_scheduled): Transition(Phase.clearing, False),
    (Phase.clearing, EventType.release_cancelled): Transition(Phase.frozen, False),
    (Phase.clearing, EventType.released): Transition(Phase.released, False),
    (Phase.released, EventType.reassigned): Transition(Phase.active, True),
    (Phase.unknown, EventType.owner_transferred): Transition(Phase.active, True),
    (Phase.active, EventType.owner_transferred): Transition(Phase.active, True),
    (Phase.unknown, EventType.renewal_requested): Transition(Phase.active, False),
    (Phase.active, EventType.renewal_requested): Transition(Phase.active, False),
}

OUTCOME: dict[EventType, Transition] = {event: to for (_, event), to in TRANSITIONS.items()}
"""Where an event leads, whatever stood before: the fold needs no more. (Each event has one outcome; tested.)"""


def is_successor(generation: int, seq: int, next_generation: int, next_seq: int) -> bool:
    """May (next_generation, next_seq) stand directly behind (generation, seq)?  An unknown number is (0, 0).

    ``seq`` counts events within one generation from 1 and starts again at 1 with the next generation.
    """
    same = next_generation == generation and next_seq == seq + 1
    return same or (next_generation == generation + 1 and next_seq == 1)


def earliest_release_at(terminated_at: datetime, freeze_days: int = FREEZE_DAYS) -> datetime:
    """Midnight in China after ``freeze_days`` full days, the day of termination not counted.

    Terminated on 2026-01-01 (any hour, China) -> 2026-04-02T00:00+08:00.
    """
    if terminated_at.tzinfo is None:
        raise ValueError("terminated_at must be aware")
    day = terminated_at.astimezone(CHINA).replace(hour=0, minute=0, second=0, microsecond=0)
    return day + timedelta(days=max(freeze_days, FREEZE_DAYS) + 1)


def earliest_release_epoch(terminated_epoch: int, freeze_days: int = FREEZE_DAYS) -> int:
    """`earliest_release_at` in epoch seconds; works elementwise on numpy int64 columns too (only + - * //)."""
    day = (terminated_epoch + 28_800) // 86_400
    return day * 86_400 - 28_800 + (max(freeze_days, FREEZE_DAYS) + 1) * 86_400


def from_epoch(seconds: int | float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
