"""Answers to be told on topics: to regulators per subscription, to carriers per app class and never finer.

In: entries of the ledger's outbox, which exist only for committed answers. Out: how the pairs and classes concerned
stand now. A carrier is told of a class only what it may know of it (DOMAIN.md, section 10): for each number of its own
chunk whether the class as a whole is done, held, failed or pending; who and how many stand behind it does not show, not
even in how often something is told, because what looks the same to the carrier is not told again.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hub.domain.dispositions import BY_NUMBER, Disposition, Standing
from hub.domain.events import ASKS_FOR_ANSWER, EventType
from hub.domain.parties import AppClass, Subscription
from hub.flow.mandatory import Frame, Mandatory
from hub.flow.members import Members
from hub.ports.clock import Clock
from hub.ports.ledger import CatalogueEntry, Ledger, OutboxEntry, Told
from hub.ports.log import Header, Record

_STANDING = np.zeros(256, np.uint8)  # what nobody knows counts as silence
for _number, _disposition in BY_NUMBER.items():
    _STANDING[_number] = _disposition.standing

TOLD_TO_CARRIERS = ASKS_FOR_ANSWER - {EventType.renewal_requested}
"""A holder's request has a resource of its own, which shows each app to the carrier for the holder's eyes."""

Codes = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PairStands:
    """For regulators. ``subscription`` None: it has been deleted since."""

    chunk: CatalogueEntry
    subscription_id: str
    subscription: Subscription | None
    version: int
    dispositions: Mapping[Disposition, int]


@dataclass(frozen=True, slots=True)
class ClassStands:
    """For the carrier of the chunk. ``counts`` by standing; rows only where the class settled on an exception."""

    chunk: CatalogueEntry
    app_class: AppClass
    version: int
    counts: Mapping[Standing, int]
    held: npt.NDArray[np.int64] = field(repr=False)
    failed: npt.NDArray[np.int64] = field(repr=False)
    digest: bytes = field(repr=False)

    @property
    def told(self) -> Told:
        return Told(self.chunk.chunk_id, self.app_class.value, self.version, self.digest)


@dataclass(slots=True)
class Tidings:
    """What is to be told of some outbox entries; those of a chunk that is not listed yet are left for later."""

    pairs: list[PairStands] = field(default_factory=list)
    classes: list[ClassStands] = field(default_factory=list)
    ready: dict[str, list[OutboxEntry]] = field(default_factory=dict)  # by carrier


class Tell:
    def __init__(self, ledger: Ledger, members: Members, clock: Clock, partitions: int) -> None:
        self._ledger, self._members, self._clock = ledger, members, clock
        self._mandatory = Mandatory(ledger, partitions)

    async def tidings(self, entries: Sequence[OutboxEntry]) -> Tidings:
        """Raises Unavailable."""
        frame = Frame(self._members.snapshot, self._members.policy, (), self._clock.now())
        await self._mandatory.learn(frame)
        by_chunk: dict[str, list[OutboxEntry]] = {}
        for entry in entries:
            by_chunk.setdefault(entry.chunk_id, []).append(entry)
        known = {(one.chunk_id, one.app_class): one for one in await self._ledger.told(list(by_chunk))}
        found = Tidings()
        for chunk_id, some in by_chunk.items():
            chunk = await self._ledger.chunk(chunk_id)
            if chunk is not None:
                found.ready.setdefault(chunk.carrier_id, []).extend(some)
                await self._of_chunk(frame, chunk, some, known, found)
        return found

    async def _of_chunk(
        self,
        frame: Frame,
        chunk: CatalogueEntry,
        entries: Sequence[OutboxEntry],
        known: Mapping[tuple[str, str], Told],
        found: Tidings,
    ) -> None:
        newest = {entry.subscription_id: entry.place for entry in sorted(entries, key=lambda entry: entry.place)}
        subscriptions = frame.snapshot.subscriptions
        classes: dict[AppClass, list[str]] = {}
        if chunk.event_type in TOLD_TO_CARRIERS:
            concerned = {subscriptions[name].app_class for name in newest if name in subscriptions}
            for voice in self._mandatory.voices(frame, _record(chunk)):
                if voice.app_class in concerned:
                    classes.setdefault(voice.app_class, []).append(voice.subscription_id)
        wanted = {*newest, *(name for names in classes.values() for name in names)}
        standings = await self._ledger.standings([(chunk.chunk_id, chunk.count)], sorted(wanted))
        codes = {standing.subscription_id: standing.codes for standing in standings}
        for name, place in newest.items():
            if name in codes:
                pair = PairStands(chunk, name, subscriptions.get(name), place, _dispositions(codes[name]))
                found.pairs.append(pair)
        for app_class, names in sorted(classes.items()):
            told = known.get((chunk.chunk_id, app_class.value))
            stands = await asyncio.to_thread(_class, chunk, app_class, [codes.get(name) for name in names], told)
            if told is None or stands.digest != told.digest:
                found.classes.append(stands)


def _record(chunk: CatalogueEntry) -> Record:
    """As much of the log's record as tells who owes an answer."""
    headers = {
        Header.type: chunk.event_type.value,
        Header.lane: chunk.lane.value,
        Header.carrier: chunk.carrier_id,
        Header.apps: ",".join(chunk.apps),
    }
    if chunk.batch_id:
        headers[Header.batch] = chunk.batch_id
    return Record(chunk.position.partition, chunk.position.offset, chunk.chunk_id, headers, b"", 0)


def _dispositions(codes: Codes) -> dict[Disposition, int]:
    counts = np.bincount(codes, minlength=1)
    return {BY_NUMBER[code]: int(counts[code]) for code in np.flatnonzero(counts).tolist() if code in BY_NUMBER}


def _class(chunk: CatalogueEntry, app_class: AppClass, codes: Sequence[Codes | None], told: Told | None) -> ClassStands:
    """Pending while one voice is; then failed if one is; then held if one is; else done."""
    pending, failed, held = (np.zeros(chunk.count, bool) for _ in range(3))
    for column in codes:
        if column is None:
            pending[:] = True
            break
        standing = _STANDING[column]
        pending |= standing == Standing.pending
        failed |= standing == Standing.failed
        held |= standing == Standing.held
    failed &= ~pending
    held &= ~pending & ~failed
    counts = {
        Standing.pending: int(pending.sum()),
        Standing.failed: int(failed.sum()),
        Standing.held: int(held.sum()),
    }
    counts[Standing.done] = chunk.count - sum(counts.values())
    digest = hashlib.sha256(np.packbits(np.stack([pending, failed, held])).tobytes()).digest()[:16]
    # the rows that are pending are counted, not named: one of them alone would say that somebody has an account there
    version = 1 if told is None else told.version + (told.digest != digest)
    return ClassStands(chunk, app_class, version, counts, np.flatnonzero(held), np.flatnonzero(failed), digest)
