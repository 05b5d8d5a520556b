"""Who wants which records, judged by their headers alone.

A record that is not wanted is passed over for good. A subscription that may not be served at all (paused, suspended,
its party suspended, no agreement in force) passes over nothing: its cursors stand still until it may be served again.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from hub.domain.parties import Subscription
from hub.flow.members import Members
from hub.ports.clock import Clock
from hub.ports.log import Header

FRESH_FOR = 1.0
"""Seconds for which a judgement may be reused; with the members' own second a suspension bites within about two."""


class Verdict(Enum):
    send = "send"
    skip = "skip"
    halt = "halt"  # nothing may go to this subscription now


class Fanout:
    """Judges (subscription, record headers); a judgement is reused while the directory stands, a second at most."""

    def __init__(self, members: Members, clock: Clock) -> None:
        self._members = members
        self._clock = clock
        self._version = -1
        self._fresh_until = 0.0
        self._served: dict[str, bool] = {}
        self._wanted: dict[tuple[str, str, str, str], bool] = {}

    def judge(self, subscription: Subscription, headers: Mapping[str, str]) -> Verdict:
        if not self.serves(subscription):
            return Verdict.halt
        if Header.apps in headers:  # a holder renewal names its apps: no two are alike
            wanted = self._members.entitled(subscription, headers, self._clock.now())
            return Verdict.send if wanted else Verdict.skip
        key = (subscription.subscription_id, headers[Header.type], headers[Header.lane], headers[Header.carrier])
        known = self._wanted.get(key)
        if known is None:
            known = self._wanted[key] = self._members.entitled(subscription, headers, self._clock.now())
        return Verdict.send if known else Verdict.skip

    def serves(self, subscription: Subscription) -> bool:
        """May anything be sent to this subscription now?"""
        self._refresh()
        known = self._served.get(subscription.subscription_id)
        if known is None:
            now = self._clock.now()
            known = self._served[subscription.subscription_id] = self._members.may_deliver(subscription, now)
        return known

    def forget(self) -> None:
        """Judge everything anew: a subscription was changed."""
        self._served.clear()
        self._wanted.clear()

    def _refresh(self) -> None:
        now, version = self._clock.monotonic(), self._members.snapshot.version
        if version != self._version or now >= self._fresh_until:
            self.forget()
            self._version, self._fresh_until = version, now + FRESH_FOR
