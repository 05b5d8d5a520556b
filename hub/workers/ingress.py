"""Carriers' own topics: taken in by one `CarrierIngress` each.

A stretch of records is judged and appended, then reported to the carrier, then the position behind it is committed in
the ledger. A process may die between any two of these: the stretch is read again, what was accepted is found in the
log, and reports are told again under their keys. So every record ends in the log or in a refusal, exactly once and at
least once. While log, topics or ledger cannot be reached, everything stands still where it is.

A topic that was deleted, made again or cut by retention before it was read stops its carrier's ingress, visibly: a log
line, a metric, no jump to anywhere. It goes on when the topic is right again, or when an operator lets it begin anew
(`numhub ingress restart`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Coroutine
from typing import Any, NoReturn

from hub.domain.errors import IdempotencyMismatch, NumhubError, PositionExpired
from hub.domain.parties import Role
from hub.flow.ingest.topic import TopicIntake
from hub.flow.members import Members
from hub.ports.clock import Clock
from hub.ports.ledger import IngressPositions, Ledger
from hub.ports.metrics import Metrics
from hub.ports.topics import SentRecord, Stretch, TopicNames, TopicReader, Topics, TopicState
from hub.workers.ingress_records import read
from hub.workers.ingress_reports import Taken, reports

log = logging.getLogger("numhub.ingress")

PIECE = 256
"""Records taken in between two commits of the position, at most."""

READ_WITHIN = 2.0
CHECK_EVERY = 5.0
MISSING_EVERY = 10.0
STOPPED_EVERY = 5.0
RETRY_MIN, RETRY_MAX = 0.5, 15.0
_IN_THREAD_FROM = 32 << 10  # bytes


class Stopped(Exception):
    """This carrier's ingress cannot go on by itself. The message is a code for log and alarm."""


class CarrierIngress:
    """One carrier's topic. `run` in one process at a time; two at once do no harm, only double work."""

    def __init__(
        self,
        carrier_id: str,
        topics: Topics,
        names: TopicNames,
        intake: TopicIntake,
        ledger: Ledger,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self.carrier_id = carrier_id
        self.stopped: str | None = None
        self.waiting = False
        self._topics, self._names, self._intake, self._ledger = topics, names, intake, ledger
        self._clock, self._metrics = clock, metrics
        self._source, self._rejects = names.ingress(carrier_id), names.rejects(carrier_id)

    async def run(self) -> None:
        """Follow the topic for ever."""
        try:
            await self._run()
        finally:  # another process may go on with it: its figures count then
            self._metrics.set("numhub_ingress_stopped", 0, carrier=self.carrier_id)
            self._metrics.set("numhub_ingress_behind", 0, carrier=self.carrier_id)

    async def _run(self) -> None:
        wait = RETRY_MIN
        while True:
            try:
                await self._follow()
                wait = RETRY_MIN
                continue
            except Stopped as error:
                self._alarm(str(error))
                await self._clock.sleep(STOPPED_EVERY)
                continue
            except NumhubError as error:
                if not self.waiting:
                    why = {"carrier": self.carrier_id, "code": error.reason_code, "cause": error.message}
                    log.warning("ingress_waits", extra=why)
                self.waiting = True
            except Exception:
                # a mistake of ours: no record is skipped for it, no other carrier suffers from it
                log.exception("ingress_failed", extra={"carrier": self.carrier_id})
                self._alarm("failed")
            await self._clock.sleep(wait)
            wait = min(wait * 2, RETRY_MAX)

    async def _follow(self) -> None:
        reader = await self._topics.reader(self._source)
        try:
            saved = await self._ledger.ingress_positions(self.carrier_id)
            state = await reader.state()
            if state is None and saved is None:  # this carrier does not publish here
                self._fine()
                await self._clock.sleep(MISSING_EVERY)
                return
            positions = self._positions(saved, state)
            assert state is not None
            if saved is None:  # from now on it is known which topic this is
                if any(state.first.values()):
                    log.warning("ingress_begins_late", extra={"carrier": self.carrier_id, "topic": self._source})
                await self._ledger.move_ingress(self.carrier_id, IngressPositions(state.topic_id, dict(positions)))
            checked = self._clock.monotonic()
            while True:
                try:
                    stretches = await reader.read(state.topic_id, positions, within=READ_WITHIN)
                except PositionExpired:
                    await self._explain(reader, state.topic_id, positions)
                for stretch in stretches:
                    await self._take(state.topic_id, stretch)
                    positions[stretch.partition] = stretch.next_offset
                self._fine()
                if not stretches or self._clock.monotonic() - checked > CHECK_EVERY:
                    now = await reader.state()
                    positions = self._positions(IngressPositions(state.topic_id, positions), now)
                    checked = self._clock.monotonic()
        finally:
            await reader.close()

    async def _explain(self, reader: TopicReader, topic_id: str, positions: dict[int, int]) -> NoReturn:
        self._positions(IngressPositions(topic_id, positions), await reader.state())
        raise Stopped("position_expired")

    def _positions(self, saved: IngressPositions | None, state: TopicState | None) -> dict[int, int]:
        """Where to read on in each partition; one that was never read is read from its beginning. Raises Stopped."""
        if state is None:
            raise Stopped("topic_missing")
        if saved is None:
            return dict(state.first)
        if saved.topic_id != state.topic_id:
            raise Stopped("topic_replaced")
        positions = {partition: saved.offsets.get(partition, first) for partition, first in state.first.items()}
        if any(positions[partition] < first for partition, first in state.first.items()):
            raise Stopped("position_expired")
        if any(position > state.ends[partition] for partition, position in positions.items()):
            raise Stopped("topic_cut")
        behind = sum(state.ends[partition] - position for partition, position in positions.items())
        self._metrics.set("numhub_ingress_behind", behind, carrier=self.carrier_id)
        return positions

    async def _take(self, topic_id: str, stretch: Stretch) -> None:
        for at in range(0, max(len(stretch.records), 1), PIECE):
            piece = stretch.records[at : at + PIECE]
            if piece:
                await self._take_piece(piece)
            end = stretch.next_offset if at + PIECE >= len(stretch.records) else piece[-1].offset + 1
            reached = IngressPositions(topic_id, {stretch.partition: end})
            await self._ledger.move_ingress(self.carrier_id, reached)

    async def _take_piece(self, piece: tuple[SentRecord, ...]) -> None:
        if sum(record.size for record in piece) > _IN_THREAD_FROM:
            said = await asyncio.to_thread(lambda: [read(record) for record in piece])
        else:
            said = [read(record) for record in piece]
        try:
            outcomes = await self._intake.take_in(self.carrier_id, said)
        except IdempotencyMismatch:  # by another way at this very moment: it is seen in the log when tried again
            outcomes = await self._intake.take_in(self.carrier_id, said)
        taken = [Taken(*each) for each in zip(piece, said, outcomes, strict=True)]
        await self._topics.publish(reports(self._source, self._rejects, taken, self._clock.now()))
        for one in taken:
            reason = one.quarantined
            refused = one.counts[1]
            outcome = "quarantined" if reason else "refused" if refused else "accepted"
            self._metrics.count("numhub_ingress_records_total", outcome=outcome)
            if reason:
                self._metrics.count("numhub_ingress_quarantined_total", reason=reason.value)

    def _alarm(self, reason: str) -> None:
        if self.stopped != reason:
            why = {"carrier": self.carrier_id, "topic": self._source, "reason": reason}
            log.error("ingress_stopped", extra=why)
        self.stopped = reason
        self._metrics.set("numhub_ingress_stopped", 1, carrier=self.carrier_id)

    def _fine(self) -> None:
        if self.stopped or self.waiting:
            log.info("ingress_goes_on", extra={"carrier": self.carrier_id})
        self.stopped, self.waiting = None, False
        self._metrics.set("numhub_ingress_stopped", 0, carrier=self.carrier_id)


class Ingress:
    """Runs ``follow`` for every carrier that ``wanted`` names, and for no other."""

    def __init__(
        self,
        follow: Callable[[str], Coroutine[Any, Any, None]],
        wanted: Callable[[], Collection[str]],
        clock: Clock,
        look_every: float = 1.0,
    ) -> None:
        self._follow, self._wanted, self._clock, self._look_every = follow, wanted, clock, look_every
        self._running: dict[str, asyncio.Task[None]] = {}

    @property
    def carriers(self) -> list[str]:
        return sorted(self._running)

    async def run(self) -> None:
        """For ever; who is suspended or leaves is let go within a second, at whatever point it is."""
        try:
            while True:
                for task in self._running.values():
                    if task.done():
                        raise RuntimeError(f"{task.get_name()} ended") from task.exception()
                wanted = set(self._wanted())
                for carrier_id in self._running.keys() - wanted:
                    await _cancelled([self._running.pop(carrier_id)])
                for carrier_id in sorted(wanted - self._running.keys()):
                    task = asyncio.create_task(self._follow(carrier_id), name=f"ingress {carrier_id}")
                    self._running[carrier_id] = task
                await self._clock.sleep(self._look_every)
        finally:
            await _cancelled(list(self._running.values()))
            self._running.clear()


def publishing_carriers(members: Members) -> list[str]:
    """Carriers that may publish now."""
    return [
        party.party_id
        for party in members.snapshot.parties.values()
        if party.role is Role.carrier and not party.suspended
    ]


async def _cancelled(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
