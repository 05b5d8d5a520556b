"""Intake policy as pure functions over columns: may these events stand behind these states?

Judged once, by the writer, before the append. What the fold judges later (succession) is in `hub.flow.succession`. One
call judges rows of one event type; every rule is a mask, so a million rows cost some tens of milliseconds and a single
one some tens of microseconds. The first rule that a row breaks is the reason it gets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hub.domain.events import EventType
from hub.domain.lifecycle import FREEZE_DAYS, OUTCOME, TRANSITIONS, Phase, earliest_release_epoch
from hub.domain.refusals import Refusal
from hub.ports.number_index import States

Mask = npt.NDArray[np.bool_]
Times = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]

DAY = 86_400
CHINA_OFFSET = 28_800

_ALLOWED: dict[EventType, Mask] = {event: np.zeros(256, bool) for event in EventType}
for _phase, _event in TRANSITIONS:
    _ALLOWED[_event][_phase] = True

_TELLS_END = frozenset({EventType.deactivated, EventType.release_scheduled})
_NEEDS_END = frozenset({EventType.release_cancelled, EventType.released, EventType.restored})


@dataclass(frozen=True, slots=True)
class Claims:
    """What a carrier says of numbers, equally long columns. Times are epoch seconds, 0 = not stated."""

    occurred_at: Times = field(repr=False)
    terminated_at: Times = field(repr=False)
    release_planned_at: Times = field(repr=False)
    reason: Codes = field(repr=False)

    def take(self, rows: npt.NDArray[Any] | slice) -> Claims:
        return Claims(
            self.occurred_at[rows], self.terminated_at[rows], self.release_planned_at[rows], self.reason[rows]
        )


@dataclass(frozen=True, slots=True)
class Judgement:
    """Per row ``refusal`` (Refusal.number, 0 = accepted) and, where accepted, what the event will carry."""

    refusal: Codes = field(repr=False)
    generation: npt.NDArray[np.uint8] = field(repr=False)
    seq: npt.NDArray[np.uint16] = field(repr=False)
    occurred_at: Times = field(repr=False)
    binding_cutoff_at: Times = field(repr=False)
    release_planned_at: Times = field(repr=False)
    reason: Codes = field(repr=False)


def china_day(times: Times) -> Times:
    """Days since the epoch in China: two reports of one event may differ by the hour, one of them giving only a day."""
    return (times + CHINA_OFFSET) // DAY


def judge(
    event: EventType,
    states: States,
    claims: Claims,
    *,
    holder: Codes,
    may_publish: Mask,
    carrier_no: int,
    now: int,
    freeze_days: int = FREEZE_DAYS,
) -> Judgement:
    """Judge rows of one event type against the states of their numbers.

    ``holder``: per row the numbering plan's holder index (0 = no such block). ``may_publish``: per holder index whether
    this carrier's blocks include it. ``carrier_no``: whose numbers these are said to be. ``now``: epoch seconds.
    """
    rows = len(states)
    refusal = np.zeros(rows, np.uint8)

    def refuse(bad: Mask, reason: Refusal) -> None:
        if np.count_nonzero(bad):  # any() costs ten times that on a single row
            refusal[bad & (refusal == 0)] = reason.number

    phase, generation = states["phase"], states["generation"]
    ended, since = states["ended_at"].astype(np.int64), states["holder_since"].astype(np.int64)
    mine = (states["carrier"] == carrier_no) & (phase != Phase.unknown)
    is_open = phase >= Phase.frozen

    # whose number is it? A block says to whom it was issued; that the hub knows it with this carrier counts for more
    refuse(holder == 0, Refusal.no_such_block)
    refuse(~may_publish[holder] & ~mine, Refusal.foreign_block)
    refuse(is_open & ~mine & (states["carrier"] != 0), Refusal.claimed_by_other)

    occurred, cutoff, missing = _times(event, claims, ended, is_open, now)
    refuse(_repeats(event, phase, generation, ended, since, claims.terminated_at, cutoff), Refusal.duplicate)
    refuse(~_ALLOWED[event][phase], Refusal.lifecycle_conflict)
    refuse(missing, Refusal.missing_field)
    refuse((occurred > now + DAY) | (claims.terminated_at > now + DAY), Refusal.future_time)
    if event is not EventType.deactivated:
        stated = (claims.terminated_at > 0) & is_open
        refuse(stated & (china_day(claims.terminated_at) != china_day(ended)), Refusal.lifecycle_conflict)

    refuse(_before(event, occurred, cutoff, ended, since), Refusal.invalid_time)
    planned = claims.release_planned_at
    earliest: Times = earliest_release_epoch(cutoff if event in _TELLS_END else ended, freeze_days)  # type: ignore[arg-type, assignment]
    if event is EventType.release_scheduled:
        refuse((planned > 0) & (planned < earliest), Refusal.freeze_too_short)
    elif event is EventType.released:
        refuse(np.minimum(occurred, now) < earliest, Refusal.freeze_too_short)
    elif event is EventType.reassigned:
        refuse(occurred < earliest, Refusal.freeze_too_short)

    next_generation = generation.astype(np.int32)
    if OUTCOME[event].new_generation:
        next_generation, seq = next_generation + 1, np.ones(rows, np.int32)
    else:
        seq = states["seq"].astype(np.int32) + 1
    refuse((next_generation > 0xFF) | (seq > 0xFFFF), Refusal.lifecycle_conflict)
    nothing = np.zeros(rows, np.int64)
    return Judgement(
        refusal=refusal,
        generation=next_generation.astype(np.uint8),
        seq=seq.astype(np.uint16),
        occurred_at=occurred,
        binding_cutoff_at=cutoff,
        release_planned_at=planned if event is EventType.release_scheduled else nothing,
        reason=claims.reason if event in _TELLS_END else nothing.astype(np.uint8),
    )


def _times(event: EventType, claims: Claims, ended: Times, is_open: Mask, now: int) -> tuple[Times, Times, Mask]:
    """When it happened, the binding cutoff, and where a time that the event needs is missing."""
    occurred, stated = claims.occurred_at, claims.terminated_at
    if event is EventType.deactivated:
        cutoff = np.where(stated > 0, stated, occurred)
        return np.where(occurred > 0, occurred, cutoff), cutoff, cutoff == 0
    if event is EventType.release_scheduled:
        cutoff = np.where(is_open & (ended > 0), ended, stated)
        return np.where(occurred > 0, occurred, now), cutoff, cutoff == 0
    return occurred, (ended if event in _NEEDS_END else occurred), occurred == 0


def _repeats(
    event: EventType, phase: Any, generation: Any, ended: Times, since: Times, stated: Times, cutoff: Times
) -> Mask:
    """Where the very event was already reported, as far as the state can tell."""
    nowhere = np.zeros(len(phase), bool)
    if event is EventType.deactivated:
        found = (phase >= Phase.frozen) & (china_day(ended) == china_day(cutoff))
    elif event is EventType.release_scheduled:
        same_end = (stated == 0) | (china_day(stated) == china_day(ended))
        found = (phase >= Phase.clearing) & same_end
    elif event is EventType.released:
        found = phase == Phase.released
    elif event in (EventType.reassigned, EventType.owner_transferred):
        found = (phase == Phase.active) & (generation >= 1) & (since == cutoff)
    else:
        found = nowhere
    return np.asarray(found, bool)


def _before(event: EventType, occurred: Times, cutoff: Times, ended: Times, since: Times) -> Mask:
    """Where the event is said to have happened before what it must follow (by the day where only days are known)."""
    if event is EventType.deactivated:
        return (since > 0) & (china_day(cutoff) < china_day(since))
    if event is EventType.owner_transferred:
        return (since > 0) & (occurred < since)
    if event is EventType.renewal_requested:
        return np.zeros(len(occurred), bool)
    end = cutoff if event is EventType.release_scheduled else ended
    return china_day(occurred) < china_day(end)
