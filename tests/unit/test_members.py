"""The directory in memory: who is entitled to what, and how soon a change counts."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hub.adapters.system.clock import ManualClock
from hub.domain.errors import Unavailable
from hub.domain.events import EventType, Lane, Purpose
from hub.domain.parties import (
    Agreement,
    AppClass,
    DeliveryMode,
    Party,
    Role,
    Subscription,
    SubscriptionState,
)
from hub.flow.members import Members
from hub.ports.ledger import DirectorySnapshot

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
HEADERS = {"type": "deactivated", "lane": "bulk", "carrier": "mobile"}


def _agreement(**changes: Any) -> Agreement:
    made = Agreement("agr_1", "mobile", "bank", Purpose.account_unbind, "PIA", NOW - DAY, NOW + DAY, NOW - DAY)
    return replace(made, **changes)


SUBSCRIPTION = Subscription(
    subscription_id="sub_1",
    subscriber_id="bank",
    app_id="bank-app",
    app_class=AppClass.bank,
    purpose=Purpose.account_unbind,
    event_types=frozenset({EventType.deactivated}),
    lanes=frozenset({Lane.bulk}),
    mode=DeliveryMode.pull,
    state=SubscriptionState.active,
    created_at=NOW,
)


class FakeDirectory:
    """Holds one snapshot; counts how often it is read; may be away."""

    def __init__(self) -> None:
        parties = (
            Party("mobile", Role.carrier, "Mobile", NOW, carrier_no=3),
            Party("bank", Role.subscriber, "Bank", NOW),
        )
        self.now = DirectorySnapshot(1, {p.party_id: p for p in parties}, {}, {}, (_agreement(),), {}, {})
        self.reads = 0
        self.away = False

    def change(self, **changes: Any) -> None:
        self.now = replace(self.now, version=self.now.version + 1, **changes)

    async def version(self) -> int:
        if self.away:
            raise Unavailable
        return self.now.version

    async def snapshot(self) -> DirectorySnapshot:
        self.reads += 1
        return self.now


def _members(directory: FakeDirectory, clock: ManualClock | None = None) -> Members:
    return Members(directory, clock or ManualClock(NOW))  # type: ignore[arg-type]


async def _entitled(agreement: Agreement, headers: dict[str, str] = HEADERS, **subscription: Any) -> bool:
    directory = FakeDirectory()
    directory.change(agreements=(agreement,))
    members = _members(directory)
    await members.refresh()
    return members.entitled(replace(SUBSCRIPTION, **subscription), headers, NOW)


async def test_a_record_within_an_agreement_is_for_the_subscriber() -> None:
    """Type, lane, purpose and carrier fit; an agreement with every carrier (*) does as well."""
    assert await _entitled(_agreement())
    assert await _entitled(_agreement(carrier_id="*"))
    assert await _entitled(_agreement(), {**HEADERS, "apps": "other,bank-app"})


@pytest.mark.parametrize(
    ("agreement", "headers", "subscription"),
    [
        (_agreement(), {**HEADERS, "type": "released"}, {}),
        (_agreement(), {**HEADERS, "lane": "live"}, {}),
        (_agreement(), {**HEADERS, "carrier": "telecom"}, {}),
        (_agreement(), {**HEADERS, "apps": "other,bank-app-2"}, {}),
        (_agreement(), HEADERS, {"purpose": Purpose.fraud_risk}),
        (_agreement(), HEADERS, {"subscriber_id": "nobody"}),
        (_agreement(subscriber_id="other"), HEADERS, {}),
        (_agreement(ends_at=NOW), HEADERS, {}),
        (_agreement(starts_at=NOW + timedelta(seconds=1)), HEADERS, {}),
    ],
)
async def test_what_no_agreement_covers_goes_nowhere(
    agreement: Agreement, headers: dict[str, str], subscription: dict[str, Any]
) -> None:
    """Each single thing that does not fit is enough."""
    assert not await _entitled(agreement, headers, **subscription)


async def test_suspension_stops_delivery_and_entitlement() -> None:
    """A suspended subscriber is owed nothing new until it is resumed; a paused subscription is not looked at."""
    directory = FakeDirectory()
    members = _members(directory)
    await members.refresh()
    assert members.may_deliver(SUBSCRIPTION, NOW)
    assert not members.may_deliver(replace(SUBSCRIPTION, state=SubscriptionState.paused), NOW)
    assert not members.may_deliver(SUBSCRIPTION, NOW + DAY)
    directory.change(parties={**directory.now.parties, "bank": replace(directory.now.parties["bank"], suspended=True)})
    await members.refresh()
    assert not members.may_deliver(SUBSCRIPTION, NOW)
    assert not members.entitled(SUBSCRIPTION, HEADERS, NOW)


async def test_only_a_new_version_is_read_and_told() -> None:
    """An unchanged version costs no snapshot; a changed one is announced to everybody who asked."""
    directory = FakeDirectory()
    members = _members(directory)
    told: list[int] = []
    stop = members.on_change(lambda: told.append(members.snapshot.version))
    assert [await members.refresh(), await members.refresh(), await members.refresh(force=True)] == [True, False, True]
    assert directory.reads == 2
    directory.change()
    assert await members.refresh()
    stop()
    directory.change()
    assert await members.refresh()
    assert told == [1, 1, 2]


async def test_a_change_counts_after_a_second() -> None:
    """The poll sees a suspension at its next turn."""
    directory, clock = FakeDirectory(), ManualClock(NOW)
    members = _members(directory, clock)
    task = asyncio.create_task(members.run())
    await asyncio.sleep(0)
    directory.change(policy={"clearance": "strict"})
    clock.advance(1.0)
    await asyncio.sleep(0.01)
    task.cancel()
    assert members.policy.clearance.value == "strict"


async def test_a_directory_that_is_away_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """The last snapshot stays good; one warning, not one a second."""
    directory, clock = FakeDirectory(), ManualClock(NOW)
    members = _members(directory, clock)
    await members.refresh()
    directory.away = True
    with caplog.at_level(logging.WARNING):
        task = asyncio.create_task(members.run())
        for _ in range(3):
            await asyncio.sleep(0.01)
            clock.advance(1.0)
        task.cancel()
    assert members.carrier_by_no(3) == members.party("mobile")
    assert [record.message for record in caplog.records] == ["members_refresh_failed"]


def test_before_the_first_reading_nothing_is_judged() -> None:
    """No snapshot is an error to be repeated, not an empty world."""
    with pytest.raises(Unavailable):
        _members(FakeDirectory()).party("bank")


async def test_an_unreadable_policy_leaves_the_last_good_one() -> None:
    """A policy that makes no sense is logged and ignored; parties are refreshed all the same."""
    directory = FakeDirectory()
    directory.change(policy={"freeze_days": 120})
    members = _members(directory)
    await members.refresh()
    directory.change(policy={"clearance": "anything goes"})
    await members.refresh()
    assert members.policy.freeze_days == 120
    assert members.snapshot.version == directory.now.version
