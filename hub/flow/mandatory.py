"""Who must answer a record before its numbers can be cleared.

Every subscription that its headers entitle, whose cursor began at or before it and whose agreement is in force. That
it is paused, suspended or must prove a new endpoint excuses nothing; a waiver does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from hub.domain.events import EventType, Lane
from hub.domain.parties import Subscription, SubscriptionState
from hub.domain.policies import Policy
from hub.flow.judge import Voice
from hub.ports.ledger import DirectorySnapshot, Ledger, Waiver
from hub.ports.log import Header, Record


@dataclass(frozen=True, slots=True)
class Frame:
    """What must not change while a judgement runs. ``since`` is the ledger's moment before any of it was read."""

    snapshot: DirectorySnapshot
    policy: Policy
    waivers: tuple[Waiver, ...]
    now: datetime
    since: int = 0
    chunk_ids: set[str] = field(default_factory=set)  # of the records whose answers were judged
    never_active: set[str] = field(default_factory=set)
    owing: dict[tuple[str | None, ...], list[tuple[Subscription, tuple[str, ...]]]] = field(default_factory=dict)

    def same_as(self, other: Frame) -> bool:
        return self.snapshot.version == other.snapshot.version and self.waivers == other.waivers


class Mandatory:
    """Remembers where cursors began; everything else comes with the frame."""

    def __init__(self, ledger: Ledger, partitions: int) -> None:
        self._ledger, self._partitions = ledger, partitions
        self._starts: dict[str, dict[tuple[int, Lane], int]] = {}  # by subscription
        self._whole: dict[str, frozenset[Lane]] = {}  # lanes of which the start is known in every partition

    def voices(self, frame: Frame, record: Record) -> list[Voice]:
        headers, lane = record.headers, Lane(record.headers[Header.lane])
        found = []
        for subscription, waivers in self._owing(frame, headers):
            start = self._starts.get(subscription.subscription_id, {}).get((record.partition, lane))
            if start is not None and start <= record.offset:
                found.append(Voice(subscription.subscription_id, subscription.app_class, waivers))
        return found

    def _owing(self, frame: Frame, headers: Mapping[str, str]) -> list[tuple[Subscription, tuple[str, ...]]]:
        """The subscriptions that owe an answer to records with such headers, and what waives it."""
        names = (Header.type, Header.lane, Header.carrier, Header.apps, Header.batch)
        key = tuple(headers.get(name) for name in names)
        if key not in frame.owing:
            frame.owing[key] = [
                (
                    subscription,
                    tuple(
                        waiver.waiver_id
                        for waiver in frame.waivers
                        if waiver.subscriber_id == subscription.subscriber_id
                        and waiver.batch_id in (None, headers.get(Header.batch))
                    ),
                )
                for subscription in frame.snapshot.subscriptions.values()
                if subscription.subscription_id not in frame.never_active
                and owes(frame.snapshot, subscription, headers, frame.now)
            ]
        return frame.owing[key]

    async def learn(self, frame: Frame) -> None:
        """Where a cursor began never changes, so it is read once; subscriptions without cursors are asked again.

        A subscription that is unproven and whose cursors never moved has not begun: nothing was ever offered to it.
        """
        known = self._starts
        for gone in known.keys() - frame.snapshot.subscriptions.keys():
            del known[gone]
            self._whole.pop(gone, None)
        new = [  # lane by lane: one that was exchanged for another leaves as many cursors as before
            s.subscription_id
            for s in frame.snapshot.subscriptions.values()
            if not s.lanes <= self._whole.get(s.subscription_id, frozenset())
        ]
        for cursor in [c for s in (new if len(new) < 5 else [None]) for c in await self._ledger.cursors(s)]:
            known.setdefault(cursor.subscription_id, {})[cursor.partition, cursor.lane] = cursor.start
        for name in new:
            lanes = [lane for _, lane in known.get(name, ())]
            self._whole[name] = frozenset(lane for lane in Lane if lanes.count(lane) >= self._partitions)
        for subscription in frame.snapshot.subscriptions.values():
            if subscription.state is SubscriptionState.unproven:
                cursors = await self._ledger.cursors(subscription.subscription_id)
                if all(cursor.offset == cursor.start for cursor in cursors):
                    frame.never_active.add(subscription.subscription_id)


def owes(snapshot: DirectorySnapshot, subscription: Subscription, headers: Mapping[str, str], now: datetime) -> bool:
    """Must this subscription answer such a record?  Like `Members.entitled`, but a suspension excuses nobody."""
    apps = headers.get(Header.apps)
    return (
        subscription.state is not SubscriptionState.deleted
        and EventType(headers[Header.type]) in subscription.event_types
        and Lane(headers[Header.lane]) in subscription.lanes
        and (not apps or subscription.app_id in apps.split(","))
        and any(
            agreement.subscriber_id == subscription.subscriber_id
            and agreement.purpose is subscription.purpose
            and agreement.carrier_id in ("*", headers[Header.carrier])
            and agreement.active(now)
            for agreement in snapshot.agreements
        )
    )
