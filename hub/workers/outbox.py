"""Tells committed answers on the topics of carriers and regulators.

The ledger's outbox gets an entry in the very transaction of each answer; here entries are read, how things stand is
published with acks=all, and only then the entries are deleted. So a topic is told of every answer at least once, and
never of one that is not committed. A topic that cannot be written to keeps its entries waiting and nobody else's.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime

from hub.domain.dispositions import Standing
from hub.domain.errors import NumhubError
from hub.flow.tell import ClassStands, PairStands, Tell
from hub.ports.clock import Clock
from hub.ports.ledger import Ledger, OutboxEntry
from hub.ports.metrics import Metrics
from hub.ports.topics import Publication, TopicNames, Topics
from hub.wire.answers import FOR_CARRIERS, FOR_REGULATORS, CarrierAnswer, ClassCounts, RegulatorAnswer
from hub.wire.ingress import SCHEMA_HEADER

log = logging.getLogger("numhub.outbox")

PAGE = 500
LOOK_EVERY = 0.25
RETRY_EVERY = 5.0
COUNT_EVERY = 5.0


class Outbox:
    """`run` in one process at a time; should two, readers go by `version`."""

    def __init__(
        self, ledger: Ledger, tell: Tell, topics: Topics, names: TopicNames, clock: Clock, metrics: Metrics
    ) -> None:
        self._ledger, self._tell, self._topics, self._names = ledger, tell, topics, names
        self._clock, self._metrics = clock, metrics
        self._failing: set[str] = set()
        self._counted = float("-inf")

    async def run(self) -> None:
        """For ever."""
        try:
            await self._run()
        finally:  # another process may go on with it: its figure counts then
            self._metrics.set("numhub_outbox_waiting", 0)

    async def _run(self) -> None:
        failing = False
        while True:
            try:
                await self.round()
                await self._count()
                failing = False
            except NumhubError as error:
                if not failing:
                    log.warning("outbox_waits", extra={"code": error.reason_code, "cause": error.message})
                failing = True
            except Exception:
                log.exception("outbox_failed")
                failing = True
            await self._clock.sleep(RETRY_EVERY if failing or self._failing else LOOK_EVERY)

    async def round(self) -> bool:
        """Tell all that waits; True if something had to be left."""
        after, left = 0, False
        failed: set[str] = set()
        while entries := await self._ledger.outbox(after, PAGE):
            after = entries[-1].number
            left |= not await self._page(entries, failed)
        for topic in self._failing - failed:
            log.info("outbox_goes_on", extra={"topic": topic})
        self._failing = failed
        return left

    async def _page(self, entries: Sequence[OutboxEntry], failed: set[str]) -> bool:
        tidings = await self._tell.tidings(entries)
        now = self._clock.now()
        everybody = self._names.answers()
        done = await self._publish(everybody, [_pair(everybody, pair, now) for pair in tidings.pairs], failed)
        settled: list[int] = []
        told = []
        for carrier_id, some in tidings.ready.items():
            topic = self._names.answers(carrier_id)
            news = [one for one in tidings.classes if one.chunk.carrier_id == carrier_id]
            if await self._publish(topic, [_class(topic, one, now) for one in news], failed):
                told += [one.told for one in news]
                settled += [entry.number for entry in some] if done else []
        if settled or told:
            await self._ledger.settle_outbox(settled, told)
        return len(settled) == len(entries)

    async def _publish(self, topic: str, messages: list[Publication], failed: set[str]) -> bool:
        if not messages:
            return True
        if topic in failed:
            return False
        try:
            await self._topics.publish(messages)
        except NumhubError as error:
            failed.add(topic)
            if topic not in self._failing:
                why = {"topic": topic, "code": error.reason_code, "cause": error.message}
                log.warning("outbox_topic_waits", extra=why)
            return False
        return True

    async def _count(self) -> None:
        if self._clock.monotonic() - self._counted >= COUNT_EVERY:
            self._metrics.set("numhub_outbox_waiting", await self._ledger.outbox_size())
            self._counted = self._clock.monotonic()


def _pair(topic: str, pair: PairStands, now: datetime) -> Publication:
    subscription = pair.subscription
    message = RegulatorAnswer(
        chunk_id=pair.chunk.chunk_id,
        subscription_id=pair.subscription_id,
        subscriber_id=subscription.subscriber_id if subscription else None,
        app_class=subscription.app_class if subscription else None,
        carrier_id=pair.chunk.carrier_id,
        event_type=pair.chunk.event_type,
        version=pair.version,
        count=pair.chunk.count,
        answered=sum(pair.dispositions.values()),
        dispositions=dict(pair.dispositions),
        due_at=pair.chunk.due_at,
        as_of=now,
    )
    key = f"{pair.chunk.chunk_id}/{pair.subscription_id}"
    return Publication(topic, key, {SCHEMA_HEADER: FOR_REGULATORS}, message.model_dump_json().encode())


def _class(topic: str, one: ClassStands, now: datetime) -> Publication:
    message = CarrierAnswer(
        chunk_id=one.chunk.chunk_id,
        event_type=one.chunk.event_type,
        batch_id=one.chunk.batch_id,
        app_class=one.app_class,
        version=one.version,
        count=one.chunk.count,
        counts=ClassCounts(**{standing.name: one.counts[standing] for standing in Standing}),
        held_rows=one.held.tolist(),
        failed_rows=one.failed.tolist(),
        as_of=now,
    )
    key = f"{one.chunk.chunk_id}/{one.app_class.value}"
    return Publication(topic, key, {SCHEMA_HEADER: FOR_CARRIERS}, message.model_dump_json().encode())
