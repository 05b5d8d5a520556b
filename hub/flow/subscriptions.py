"""A subscriber's own subscriptions: made, proven, changed, stopped.

A subscription's cursors are opened before it becomes visible, so that nothing appended afterwards can be missed. A
webhook gets its first event only after its endpoint has repeated a challenge; a new endpoint is proven again. A foreign
subscription or app looks like an unknown one. Secrets are shown once, by the call that makes them.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from random import Random
from typing import NamedTuple

from hub.domain.errors import InvalidRequest, NotFound, RuleError
from hub.domain.events import EventType, Lane, Purpose
from hub.domain.parties import DeliveryMode, SigningSecret, Subscription, SubscriptionState
from hub.flow.fold import Fold
from hub.flow.members import Members
from hub.ports.clock import Clock
from hub.ports.envelope import Envelope, SecretMaker
from hub.ports.ledger import Cursor, Directory, Ledger
from hub.ports.log import EventLog
from hub.ports.sender import Sender, SendError

log = logging.getLogger("numhub.subscriptions")

CheckUrl = Callable[[str], None]
"""Raises InvalidRequest for an endpoint that will never be posted to."""

LIVE_SECRETS = 4
GONE = "endpoint_gone"
PROOF_WAITS = (2.0, 10.0)
"""Seconds before the second and third try of the automatic proof."""


class Made(NamedTuple):
    """``key`` is what the receiver verifies with; it is never shown again. None for pull."""

    subscription: Subscription
    secret: SigningSecret | None = None
    key: str | None = None


class Posted(NamedTuple):
    """What an endpoint made of a proof or a test; ``detail`` is safe to show to its owner."""

    ok: bool
    status: int | None
    detail: str


class Subscriptions:
    def __init__(
        self,
        directory: Directory,
        ledger: Ledger,
        log: EventLog,
        fold: Fold,
        members: Members,
        sender: Sender,
        envelope: Envelope,
        clock: Clock,
        random: Random,
        new_secret: SecretMaker,
        check_url: CheckUrl,
    ) -> None:
        self._directory = directory
        self._ledger = ledger
        self._log = log
        self._fold = fold
        self._members = members
        self._sender = sender
        self._envelope = envelope
        self._clock = clock
        self._random = random
        self._new_secret = new_secret
        self._check_url = check_url
        self._locks: dict[str, asyncio.Lock] = {}
        self._proofs: set[asyncio.Task[None]] = set()

    # -- reading

    def mine(self, party_id: str) -> list[Subscription]:
        """Oldest first."""
        found = [one for one in self._members.snapshot.subscriptions.values() if one.subscriber_id == party_id]
        return sorted(found, key=lambda one: (one.created_at, one.subscription_id))

    def get(self, party_id: str, subscription_id: str) -> Subscription:
        """Raises NotFound if there is none of that id, or it is somebody else's."""
        found = self._members.snapshot.subscriptions.get(subscription_id)
        if found is None or found.subscriber_id != party_id or found.state is SubscriptionState.deleted:
            raise NotFound
        return found

    # -- making and changing

    async def create(
        self,
        party_id: str,
        *,
        app_id: str,
        mode: DeliveryMode,
        endpoint: str | None,
        event_types: Collection[EventType],
        lanes: Collection[Lane],
        purpose: Purpose,
        start: str = "now",
        signature: str = "v1",
    ) -> Made:
        """``start``: ``now`` or ``earliest``. Raises NotFound (app), InvalidRequest (endpoint)."""
        await self._members.refresh()
        app = self._members.snapshot.apps.get(app_id)
        if app is None or app.subscriber_id != party_id:
            raise NotFound("Nothing of that app id is yours.")
        if mode.pushes != (endpoint is not None):
            raise InvalidRequest("An endpoint is needed for the webhook modes, and for them only.", field="endpoint")
        if endpoint is not None:
            self._check_url(endpoint)
        now = self._clock.now()
        secret, key = self._new_secret(signature, now) if mode.pushes else (None, None)
        subscription = Subscription(
            subscription_id=f"sub_{self._random.getrandbits(64):016x}",
            subscriber_id=party_id,
            app_id=app_id,
            app_class=app.app_class,
            purpose=purpose,
            event_types=frozenset(event_types),
            lanes=frozenset(lanes),
            mode=mode,
            state=SubscriptionState.unproven if mode.pushes else SubscriptionState.active,
            created_at=now,
            endpoint=endpoint,
            secrets=(secret,) if secret else (),
        )
        await self._ledger.open_cursors(await self._cursors(subscription, subscription.lanes, start))
        await self._store(subscription)
        log.info("subscription_created", extra={"subscription_id": subscription.subscription_id, "mode": mode.value})
        self._prove_soon(subscription)
        return Made(subscription, secret, key)

    async def change(
        self,
        party_id: str,
        subscription_id: str,
        *,
        endpoint: str | None = None,
        event_types: Collection[EventType] | None = None,
        lanes: Collection[Lane] | None = None,
    ) -> Subscription:
        """What is None stays. A lane that is added starts now. A new endpoint must be proven again."""
        async with self._changing(party_id, subscription_id) as old:
            new = old
            if endpoint is not None and endpoint != old.endpoint:
                if not old.mode.pushes:
                    raise InvalidRequest("A pull subscription has no endpoint.", field="endpoint")
                self._check_url(endpoint)
                new = replace(new, endpoint=endpoint)
                if old.state is not SubscriptionState.suspended or _gone(old):
                    new = replace(new, state=SubscriptionState.unproven, state_reason=None)
            if event_types is not None:
                new = replace(new, event_types=frozenset(event_types))
            if lanes is not None:
                added = frozenset(lanes) - old.lanes
                fresh = await self._cursors(old, added, "now") if added else []
                await self._ledger.open_cursors(fresh)
                if fresh:  # a lane that was left earlier does not come back with what it missed
                    await self._ledger.rewind(subscription_id, fresh)
                new = replace(new, lanes=frozenset(lanes))
            await self._store(new)
        if new.state is SubscriptionState.unproven:
            self._prove_soon(new)
        return new

    async def rotate(self, party_id: str, subscription_id: str, overlap: timedelta) -> Made:
        """A new secret of the same scheme; the old ones go on signing for ``overlap`` at most."""
        async with self._changing(party_id, subscription_id) as old:
            if not old.mode.pushes:
                raise RuleError("A pull subscription has no secret.", code="no_secret")
            now = self._clock.now()
            scheme = old.secrets[-1].scheme if old.secrets else "v1"
            secret, key = self._new_secret(scheme, now)
            until = now + overlap
            kept = [
                replace(one, expires_at=until if one.expires_at is None else min(one.expires_at, until))
                for one in old.secrets
                if overlap and (one.expires_at is None or one.expires_at > now)
            ]
            new = replace(old, secrets=(*kept[-(LIVE_SECRETS - 1) :], secret))
            await self._store(new)
        return Made(new, secret, key)

    async def pause(self, party_id: str, subscription_id: str) -> Subscription:
        """Cursors stand still; nothing is lost."""
        async with self._changing(party_id, subscription_id) as old:
            if old.state is SubscriptionState.paused:
                return old
            if old.state is not SubscriptionState.active:
                raise RuleError(f"A subscription that is {old.state.value} cannot be paused.", code="wrong_state")
            new = replace(old, state=SubscriptionState.paused, state_reason="paused by its owner")
            await self._store(new)
        return new

    async def resume(self, party_id: str, subscription_id: str) -> Subscription:
        """Goes on where it stopped. One that was suspended because its endpoint said 410 must prove it again."""
        async with self._changing(party_id, subscription_id) as old:
            if old.state is SubscriptionState.active:
                return old
            if old.state is SubscriptionState.paused:
                new = replace(old, state=SubscriptionState.active, state_reason=None)
            elif _gone(old):
                new = replace(old, state=SubscriptionState.unproven, state_reason=None)
            else:
                raise RuleError(f"A subscription that is {old.state.value} cannot be resumed.", code="wrong_state")
            await self._store(new)
        if new.state is SubscriptionState.unproven:
            self._prove_soon(new)
        return new

    async def delete(self, party_id: str, subscription_id: str) -> None:
        async with self._changing(party_id, subscription_id) as old:
            await self._store(replace(old, state=SubscriptionState.deleted, secrets=()))
        self._locks.pop(subscription_id, None)

    async def suspend(self, subscription_id: str, reason: str) -> None:
        """The hub's own act; cursors stay. Nothing happens to one that is not being delivered to."""
        async with self._lock(subscription_id):
            await self._members.refresh(force=True)
            old = self._members.snapshot.subscriptions.get(subscription_id)
            if old is None or old.state is not SubscriptionState.active:
                return
            await self._store(replace(old, state=SubscriptionState.suspended, state_reason=reason))
            log.warning("subscription_suspended", extra={"subscription_id": subscription_id})

    # -- proof and test

    async def prove(self, party_id: str, subscription_id: str) -> tuple[Subscription, Posted]:
        """Ask the endpoint to repeat a challenge; if it does, an unproven subscription becomes active."""
        await self._members.refresh()
        subscription = self.get(party_id, subscription_id)
        if not subscription.mode.pushes:
            raise RuleError("A pull subscription has nothing to prove.", code="nothing_to_prove")
        challenge, proof_id = self._token(), f"prf_{self._token()}"
        headers, body = self._envelope.proof(
            subscription, proof_id=proof_id, challenge=challenge, now=self._clock.now()
        )
        posted = await self._post(subscription, headers, body, challenge)
        async with self._changing(party_id, subscription_id) as now:
            if now.state is not SubscriptionState.unproven or now.endpoint != subscription.endpoint:
                return now, posted
            if posted.ok:
                now = replace(now, state=SubscriptionState.active, state_reason=None)
                await self._store(now)
            elif now.state_reason != posted.detail:
                now = replace(now, state_reason=posted.detail)
                await self._store(now)
        log.info("endpoint_proof", extra={"subscription_id": subscription_id, "ok": posted.ok})
        return now, posted

    async def send_test(self, party_id: str, subscription_id: str) -> Posted:
        """Post a test event to the endpoint now, whatever the state of the subscription."""
        subscription = self.get(party_id, subscription_id)
        if not subscription.mode.pushes:
            raise RuleError("A pull subscription has no endpoint to test.", code="nothing_to_test")
        headers, body = self._envelope.test_event(subscription, event_id=f"tst_{self._token()}", now=self._clock.now())
        return await self._post(subscription, headers, body, None)

    async def run(self) -> None:
        """Go on with the proofs that a restart cut short; cancelled, it stops those that still run."""
        try:
            for subscription in self._members.snapshot.subscriptions.values():
                if subscription.state is SubscriptionState.unproven:
                    self._prove_soon(subscription)
            await asyncio.Event().wait()
        finally:
            await self.close()

    async def close(self) -> None:
        """Stop the proofs that still run in the background."""
        for task in list(self._proofs):
            task.cancel()
        await asyncio.gather(*self._proofs, return_exceptions=True)

    # -- within

    def _prove_soon(self, subscription: Subscription) -> None:
        if subscription.mode.pushes:
            task = asyncio.create_task(self._prove_some_times(subscription), name="endpoint-proof")
            self._proofs.add(task)
            task.add_done_callback(self._proofs.discard)

    async def _prove_some_times(self, subscription: Subscription) -> None:
        for wait in (*PROOF_WAITS, None):
            try:
                now, posted = await self.prove(subscription.subscriber_id, subscription.subscription_id)
            except NotFound:
                return
            except Exception:
                log.exception("endpoint_proof_broke", extra={"subscription_id": subscription.subscription_id})
                return
            changed = now.state is not SubscriptionState.unproven or now.endpoint != subscription.endpoint
            if posted.ok or changed or wait is None:
                return
            await self._clock.sleep(wait)

    async def _post(
        self, subscription: Subscription, headers: dict[str, str], body: bytes, challenge: str | None
    ) -> Posted:
        try:
            answer = await self._sender.post(subscription.endpoint or "", headers, body)
        except SendError as error:
            return Posted(False, None, f"the endpoint could not be reached: {error.kind}")
        if not 200 <= answer.status < 300:
            return Posted(False, answer.status, f"the endpoint answered {answer.status}, 2xx was expected")
        if challenge is not None and _challenge_in(answer.body) != challenge:
            return Posted(False, answer.status, "the endpoint's answer does not repeat the challenge")
        return Posted(True, answer.status, "ok")

    async def _cursors(self, subscription: Subscription, lanes: Collection[Lane], start: str) -> list[Cursor]:
        ends = [0] * self._log.partitions if start == "earliest" else await self._log.ends()
        return [
            Cursor(subscription.subscription_id, partition, lane, end, end)
            for lane in sorted(lanes)
            for partition, end in enumerate(ends)
        ]

    def _lock(self, subscription_id: str) -> asyncio.Lock:
        return self._locks.setdefault(subscription_id, asyncio.Lock())

    @asynccontextmanager
    async def _changing(self, party_id: str, subscription_id: str) -> AsyncIterator[Subscription]:
        """The subscription as it stands now, with nobody else changing it here meanwhile."""
        self.get(party_id, subscription_id)
        async with self._lock(subscription_id):
            await self._members.refresh(force=True)
            yield self.get(party_id, subscription_id)

    async def _store(self, subscription: Subscription) -> None:
        await self._directory.put_subscription(subscription)
        await self._members.refresh(force=True)

    def _token(self) -> str:
        return f"{self._random.getrandbits(128):032x}"


def _gone(subscription: Subscription) -> bool:
    return subscription.state is SubscriptionState.suspended and (subscription.state_reason or "").startswith(GONE)


def _challenge_in(body: bytes) -> object:
    try:
        answer = json.loads(body[:4096])
    except (ValueError, RecursionError):
        return None
    return answer.get("challenge") if isinstance(answer, dict) else None
