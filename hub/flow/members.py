"""Who takes part, held in memory: every judgement about a party is made from this snapshot.

The directory's version is polled once a second, so a suspension or a rotated key counts everywhere about a second after
it was committed (promised: within 60 s). What is not refreshed stays as it was: a ledger that cannot be read for a
while stops no delivery.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from datetime import datetime

from hub.domain.errors import InvalidRequest, Unavailable
from hub.domain.parties import Agreement, Party, Subscription, SubscriptionState
from hub.domain.policies import Policy
from hub.ports.clock import Clock
from hub.ports.ledger import Directory, DirectorySnapshot
from hub.ports.log import Header

log = logging.getLogger("numhub.members")

POLL_EVERY = 1.0
ANY_CARRIER = "*"


class Members:
    """The directory as one consistent snapshot, and the questions asked of it on hot paths."""

    def __init__(self, directory: Directory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._snapshot: DirectorySnapshot | None = None
        self._policy = Policy()
        self._by_no: dict[int, Party] = {}
        self._agreements: dict[tuple[str, str, str], list[Agreement]] = {}
        self._by_purpose: dict[tuple[str, str], list[Agreement]] = {}
        self._callbacks: list[Callable[[], None]] = []

    @property
    def snapshot(self) -> DirectorySnapshot:
        """Raises Unavailable as long as nothing was ever read."""
        if self._snapshot is None:
            raise Unavailable("The directory of parties has not been read yet; repeat in a moment.")
        return self._snapshot

    @property
    def policy(self) -> Policy:
        return self._policy

    async def refresh(self, force: bool = False) -> bool:
        """Read the directory anew if its version changed (or ``force``); True if a new snapshot was taken."""
        known = self._snapshot
        if not force and known is not None and await self._directory.version() == known.version:
            return False
        self._take(await self._directory.snapshot())
        for callback in list(self._callbacks):
            callback()
        return True

    async def run(self) -> None:
        """Follow the directory for ever; a ledger that does not answer is asked again a second later."""
        failing = False
        while True:
            try:
                await self.refresh()
                failing = False
            except Unavailable:
                if not failing:
                    log.warning("members_refresh_failed")
                failing = True
            await self._clock.sleep(POLL_EVERY)

    def on_change(self, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` after every new snapshot; returns the way to stop that."""
        self._callbacks.append(callback)
        return lambda: self._callbacks.remove(callback)

    def party(self, party_id: str) -> Party | None:
        return self.snapshot.parties.get(party_id)

    def carrier_by_no(self, no: int) -> Party | None:
        """The carrier behind a ``carrier_no`` of the number index."""
        return self._by_no.get(no)

    def entitled(self, subscription: Subscription, headers: Mapping[str, str], now: datetime) -> bool:
        """May this record go to this subscription, judged by the record's headers alone?

        Event type and lane wanted, app among the targets of a holder renewal, subscriber not suspended, and an
        agreement for the purpose in force with the carrier whose numbers these are.
        """
        if headers[Header.type] not in subscription.event_types or headers[Header.lane] not in subscription.lanes:
            return False
        apps = headers.get(Header.apps)
        if apps and subscription.app_id not in apps.split(","):
            return False
        return self._served(subscription) and (
            self._agreed(headers[Header.carrier], subscription, now) or self._agreed(ANY_CARRIER, subscription, now)
        )

    def may_deliver(self, subscription: Subscription, now: datetime) -> bool:
        """Is there any point in looking at records for this subscription at all?"""
        if subscription.state is not SubscriptionState.active or not self._served(subscription):
            return False
        found = self._by_purpose.get((subscription.subscriber_id, subscription.purpose.value), ())
        return any(agreement.active(now) for agreement in found)

    def _served(self, subscription: Subscription) -> bool:
        party = self.snapshot.parties.get(subscription.subscriber_id)
        return party is not None and not party.suspended

    def _agreed(self, carrier_id: str, subscription: Subscription, now: datetime) -> bool:
        found = self._agreements.get((carrier_id, subscription.subscriber_id, subscription.purpose), ())
        return any(agreement.active(now) for agreement in found)

    def _take(self, snapshot: DirectorySnapshot) -> None:
        agreements: dict[tuple[str, str, str], list[Agreement]] = {}
        by_purpose: dict[tuple[str, str], list[Agreement]] = {}
        for agreement in snapshot.agreements:
            key = (agreement.carrier_id, agreement.subscriber_id, agreement.purpose.value)
            agreements.setdefault(key, []).append(agreement)
            by_purpose.setdefault((agreement.subscriber_id, agreement.purpose.value), []).append(agreement)
        try:
            policy = Policy.from_mapping(snapshot.policy)
        except InvalidRequest:
            log.error("policy_unreadable")  # the last good one stays in force
            policy = self._policy
        self._agreements, self._by_purpose, self._policy = agreements, by_purpose, policy
        self._by_no = {party.carrier_no: party for party in snapshot.parties.values() if party.carrier_no}
        self._snapshot = snapshot
