"""What carriers and regulators are told of answers: from the outbox only, by class, and never finer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hub.adapters.sql.directory import SqlDirectory
from hub.adapters.sql.ledger import SqlLedger, open_ledger
from hub.adapters.system.clock import ManualClock
from hub.domain.dispositions import Disposition, Standing
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
from hub.flow.members import Members
from hub.flow.tell import Tell, Tidings
from hub.ports.ledger import Answer, AnswerException, CatalogueEntry, Cursor
from hub.ports.log import Position
from hub.ports.topics import TopicNames
from hub.workers.outbox import Outbox
from tests.making import CountingMetrics
from tests.topic_world import MemoryTopics

NOW = datetime(2026, 4, 1, tzinfo=UTC)
CHUNK, ROWS = "evt_" + "1" * 32, 10
NAMES = TopicNames("t.")
APPS = {"bank-a": AppClass.bank, "bank-b": AppClass.bank, "mail": AppClass.social_mail}


class Desk:
    def __init__(self, ledger: SqlLedger, directory: SqlDirectory, clock: ManualClock) -> None:
        self.ledger, self.directory, self.clock = ledger, directory, clock
        self.members = Members(directory, clock)
        self.topics, self.metrics = MemoryTopics(), CountingMetrics()
        tell = Tell(ledger, self.members, clock, 1)
        self.tell = tell
        self.outbox = Outbox(ledger, tell, self.topics, NAMES, clock, self.metrics)  # type: ignore[arg-type]

    async def enrol(self) -> None:
        await self.directory.put_party(Party("cmcc", Role.carrier, "cmcc", NOW))
        for name, app_class in APPS.items():
            await self.directory.put_party(Party(name, Role.subscriber, name, NOW))
            await self.directory.put_app(App(f"{name}-app", name, app_class, name, NOW))
            ends = NOW + timedelta(days=999)
            agreement = Agreement(f"agr-{name}", "*", name, Purpose.account_unbind, "pia", NOW, ends, NOW)
            await self.directory.put_agreement(agreement)
            await self.directory.put_subscription(
                Subscription(
                    f"sub_{name}", name, f"{name}-app", app_class, Purpose.account_unbind, frozenset(EventType),
                    frozenset(Lane), DeliveryMode.pull, SubscriptionState.active, NOW,
                )
            )  # fmt: skip
            await self.ledger.open_cursors([Cursor(f"sub_{name}", 0, lane, 0, 0) for lane in Lane])
        await self.members.refresh()

    async def list_chunk(self, **changes: Any) -> None:
        entry = CatalogueEntry(
            CHUNK, Position(0, 3), EventType.release_scheduled, Lane.bulk, "cmcc", ROWS, NOW, NOW + timedelta(days=20),
            batch_id="bat_1",
        )  # fmt: skip
        await self.ledger.catalogue([replace(entry, **changes)], {0: 4})

    async def answer(self, who: str, default: Disposition | None, **rows: list[int]) -> None:
        exceptions = tuple(
            AnswerException(Disposition(name), np.array(some, np.uint16), NOW + timedelta(days=9))
            for name, some in sorted(rows.items())
        )
        digest = f"{default}{rows}"
        said = Answer(f"sub_{who}", CHUNK, Position(0, 3), ROWS, default, exceptions, digest, NOW)
        assert await self.ledger.answer([said]) == [True]

    async def tidings(self) -> Tidings:
        return await self.tell.tidings(await self.ledger.outbox())

    def told(self, carrier: bool = True) -> list[dict[str, Any]]:
        return self.topics.told(topic=NAMES.answers("cmcc" if carrier else None))


@pytest.fixture
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    clock = ManualClock(NOW, auto=True)
    directory, ledger = open_ledger(tmp_path / "ledger.db", clock)
    ledger.keeps_outbox = True
    opened = Desk(ledger, directory, clock)
    await opened.enrol()
    yield opened
    await ledger.close()


async def test_a_class_is_done_when_all_of_it_are(desk: Desk) -> None:
    """One bank of two: pending, whatever it said. Both: failed before held before done; no word of who said what."""
    await desk.list_chunk()
    await desk.answer("bank-a", Disposition.no_account, held_funds=[2], failed_final=[3, 4], unbound=[5])
    (first,) = (await desk.tidings()).classes
    assert first.counts == {Standing.pending: 10, Standing.failed: 0, Standing.held: 0, Standing.done: 0}
    assert not len(first.held) and not len(first.failed)
    await desk.answer("bank-b", Disposition.unbound, held_debt=[4], failed_retryable=[9])
    (second,) = (await desk.tidings()).classes
    assert second.app_class is AppClass.bank
    assert second.counts == {Standing.pending: 1, Standing.failed: 2, Standing.held: 1, Standing.done: 6}
    assert (second.held.tolist(), second.failed.tolist()) == ([2], [3, 4])


async def test_regulators_are_told_each_subscription_in_full(desk: Desk) -> None:
    """Counts by disposition, corrections applied, with the place of the newest answer."""
    await desk.list_chunk()
    await desk.answer("mail", Disposition.no_account)
    await desk.answer("mail", None, unbound=[1, 2])
    await desk.outbox.round()
    (told,) = desk.told(carrier=False)
    assert (told["subscription_id"], told["subscriber_id"], told["version"]) == ("sub_mail", "mail", 1)
    assert told["dispositions"] == {"no_account": 8, "unbound": 2}
    assert await desk.ledger.outbox() == []


async def test_what_looks_the_same_is_not_told_again(desk: Desk) -> None:
    """How often a carrier hears of a class must not show how many stand behind it, nor who corrected what."""
    await desk.list_chunk()
    await desk.answer("bank-a", Disposition.unbound)
    await desk.outbox.round()
    await desk.answer("bank-a", Disposition.no_account)
    await desk.outbox.round()
    await desk.answer("bank-b", Disposition.unbound)
    await desk.outbox.round()
    await desk.answer("bank-b", None, no_account=[1])
    await desk.outbox.round()
    assert [(one["version"], one["counts"]["done"]) for one in desk.told()] == [(1, 0), (2, 10)]
    assert len(desk.told(carrier=False)) == 4
    assert {message.key for message in desk.topics.published if message.topic == NAMES.answers("cmcc")} == {
        f"{CHUNK}/bank"
    }


async def test_nothing_is_told_before_the_chunk_is_listed_and_nothing_is_lost(desk: Desk) -> None:
    """An answer may be quicker than the catalogue: it waits."""
    await desk.answer("mail", Disposition.unbound)
    assert await desk.outbox.round()
    assert desk.topics.published == []
    await desk.list_chunk()
    assert not await desk.outbox.round()
    assert (len(desk.told()), len(desk.told(carrier=False))) == (1, 1)


async def test_a_topic_that_fails_keeps_its_own_and_nobody_elses(desk: Desk) -> None:
    """The regulators hear of it; the carrier does as soon as its topic is there, and the entry goes only then."""
    await desk.list_chunk()
    desk.topics.failing.add(NAMES.answers("cmcc"))
    await desk.answer("mail", Disposition.unbound)
    assert await desk.outbox.round()
    assert (len(desk.told()), len(desk.told(carrier=False))) == (0, 1)
    assert len(await desk.ledger.outbox()) == 1
    desk.topics.failing.clear()
    assert not await desk.outbox.round()
    assert (len(desk.told()), len(desk.told(carrier=False))) == (1, 2), "told again rather than not at all"
    assert await desk.ledger.outbox() == []


async def test_killed_after_telling_it_is_told_again_with_the_same_version(desk: Desk) -> None:
    """At least once: the entry goes only after the brokers have it."""
    await desk.list_chunk()
    await desk.answer("mail", Disposition.unbound)
    settle, desk.ledger.settle_outbox = desk.ledger.settle_outbox, _never  # type: ignore[method-assign]
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(desk.outbox.round(), 1.0)
    desk.ledger.settle_outbox = settle  # type: ignore[method-assign]
    await desk.outbox.round()
    assert [one["version"] for one in desk.told()] == [1, 1]
    assert desk.told()[0]["counts"] == desk.told()[1]["counts"]


async def _never(*_: Any) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("event", [EventType.renewal_requested, EventType.restored])
async def test_carriers_are_not_told_of_renewals_and_of_what_needs_no_answer(desk: Desk, event: EventType) -> None:
    """A renewal names apps, so a class would be an app; its own resource shows the holder's carrier what it may see."""
    await desk.list_chunk(event_type=event, lane=Lane.live)
    await desk.answer("mail", Disposition.unbound)
    await desk.outbox.round()
    assert (desk.told(), len(desk.told(carrier=False))) == ([], 1)
