"""Who wants which records, judged by headers; and what the catalogue says about a record."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest

from hub.adapters.codec.json_codec import JsonCodec
from hub.adapters.system.clock import ManualClock
from hub.domain.events import EventType, Lane, Purpose
from hub.domain.parties import (
    Agreement,
    App,
    AppClass,
    DeliveryMode,
    Party,
    Role,
    Subscription,
    SubscriptionState,
)
from hub.domain.policies import Policy
from hub.flow.catalogue import answer_within, entry_of
from hub.flow.fanout import FRESH_FOR, Fanout, Verdict
from hub.flow.members import Members
from hub.ports.ledger import DirectorySnapshot
from hub.ports.log import Record
from tests.dispatch_world import NOW, make_record, number

SUBSCRIPTION = Subscription(
    "sub_a",
    "a",
    "a-app",
    AppClass.bank,
    Purpose.account_unbind,
    frozenset({EventType.release_scheduled}),
    frozenset({Lane.bulk}),
    DeliveryMode.webhook_full,
    SubscriptionState.active,
    NOW,
    "https://a/",
)
HEADERS = {"type": "release_scheduled", "lane": "bulk", "carrier": "cmcc"}


class OneSnapshot:
    def __init__(self, *, suspended: bool = False, until: timedelta = timedelta(days=1)) -> None:
        self.held = DirectorySnapshot(
            1,
            {"a": Party("a", Role.subscriber, "A", NOW, suspended=suspended)},
            {},
            {"a-app": App("a-app", "a", AppClass.bank, "A", NOW)},
            (Agreement("g", "cmcc", "a", Purpose.account_unbind, "pia", NOW, NOW + until, NOW),),
            {"sub_a": SUBSCRIPTION},
            {},
        )

    async def version(self) -> int:
        return self.held.version

    async def snapshot(self) -> DirectorySnapshot:
        return self.held


async def make_fanout(directory: OneSnapshot, clock: ManualClock) -> tuple[Fanout, Members]:
    members = Members(directory, clock)  # type: ignore[arg-type]
    await members.refresh()
    return Fanout(members, clock), members


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ({}, Verdict.send),
        ({"type": "deactivated"}, Verdict.skip),
        ({"lane": "live"}, Verdict.skip),
        ({"carrier": "cucc"}, Verdict.skip),
        ({"apps": "b-app,c-app"}, Verdict.skip),
        ({"apps": "b-app,a-app"}, Verdict.send),
    ],
)
async def test_headers_decide(headers: dict[str, str], verdict: Verdict) -> None:
    """Type, lane, agreement with the carrier, target apps."""
    fanout, _ = await make_fanout(OneSnapshot(), ManualClock(NOW))
    assert fanout.judge(SUBSCRIPTION, {**HEADERS, **headers}) is verdict
    assert fanout.judge(SUBSCRIPTION, {**HEADERS, **headers}) is verdict


@pytest.mark.parametrize("state", [one for one in SubscriptionState if one is not SubscriptionState.active])
async def test_what_is_not_active_stands_still(state: SubscriptionState) -> None:
    """Halt, not skip: nothing may be passed over."""
    fanout, _ = await make_fanout(OneSnapshot(), ManualClock(NOW))
    assert fanout.judge(replace(SUBSCRIPTION, state=state), HEADERS) is Verdict.halt


async def test_suspension_and_the_end_of_an_agreement_bite_within_a_second() -> None:
    """A judgement is not remembered beyond its freshness, nor beyond a change of the directory."""
    clock = ManualClock(NOW)
    directory = OneSnapshot(until=timedelta(seconds=10))
    fanout, members = await make_fanout(directory, clock)
    assert fanout.judge(SUBSCRIPTION, HEADERS) is Verdict.send
    clock.advance(10 + FRESH_FOR)
    assert fanout.judge(SUBSCRIPTION, HEADERS) is Verdict.halt
    directory.held = replace(OneSnapshot().held, version=2)
    await members.refresh()
    assert fanout.judge(SUBSCRIPTION, HEADERS) is Verdict.send
    directory.held = replace(OneSnapshot(suspended=True).held, version=3)
    await members.refresh()
    assert fanout.judge(SUBSCRIPTION, HEADERS) is Verdict.halt


class TwoProvinces:
    source_version, holders, provinces = "1", ("", "cmcc"), ("", "广东", "上海")

    def province_of(self, numbers: np.ndarray) -> np.ndarray:
        return (numbers % 3).astype(np.uint8)


def test_catalogue_entry_counts_provinces_and_knows_the_due_date() -> None:
    """Everything from headers, body and policy; unknown places are counted too."""
    new = make_record([number(i) for i in range(6)])
    record = Record(new.partition, 7, new.record_id, {**new.headers, "batch": "bat_1"}, new.body, 0)
    entry = entry_of(record, JsonCodec(), TwoProvinces(), Policy())  # type: ignore[arg-type]
    assert entry.provinces == {"unknown": 2, "广东": 2, "上海": 2}
    assert entry.due_at - entry.reported_at == timedelta(days=20)
    assert (entry.count, entry.batch_id, entry.position.offset) == (6, "bat_1", 7)


def test_every_event_type_has_a_term() -> None:
    """Soft-locks within a day, unbinding within the policy's term, a change of holder within five days."""
    terms = {event: answer_within(event, Policy()) for event in EventType}
    assert terms[EventType.deactivated] == timedelta(days=1)
    assert terms[EventType.reassigned] == terms[EventType.owner_transferred] == timedelta(days=5)
    assert all(term > timedelta() for term in terms.values())
