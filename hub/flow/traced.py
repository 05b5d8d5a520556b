"""The use cases, traced: what they do is theirs, here it is only watched.

A hub without tracing has none of these classes in it, so tracing that is off costs nothing. One event leaves
``publish`` (root), ``append`` and ``fold`` at intake, a ``deliver`` per attempt, an ``acknowledge`` per answer, all in
the trace that its id names; a ``clear`` is linked to the events whose answers it weighed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Any

from hub.domain.delivery import Delivered, Outcome, Parked, Refused, RetryAt
from hub.domain.parties import Subscription
from hub.flow.acknowledge import Acknowledge, Said
from hub.flow.append import Writer
from hub.flow.clear import Clear
from hub.flow.push import Push, Sendable, Trail
from hub.flow.tally import BatchClearance, Clearance
from hub.ports.ledger import ClearanceRecord
from hub.ports.log import Header, NewRecord, Position
from hub.ports.number_index import Numbers
from hub.ports.sender import Response, Sender
from hub.ports.tracing import Attribute, Span, Tracing, Value


class TracedWriter(Writer):
    def __init__(self, *parts: Any, tracing: Tracing, system: str) -> None:
        """``system``: what carries the log, as OpenTelemetry calls it (``kafka``, ``sqlite``)."""
        super().__init__(*parts)
        self._tracing, self._system = tracing, system

    async def append(self, records: Sequence[NewRecord]) -> list[bool]:
        with contextlib.ExitStack() as spans:
            roots = [
                spans.enter_context(self._tracing.publish(record.record_id, _of(record.headers, record.record_id)))
                for record in _events(records)
            ]
            accepted = await super().append(records)
            events = (verdict for record, verdict in zip(records, accepted, strict=True) if _is_event(record))
            for root, verdict in zip(roots, events, strict=True):
                root.note({Attribute.accepted: verdict})
            return accepted

    async def _appended(self, records: Sequence[NewRecord], until: float) -> list[Position]:
        with contextlib.ExitStack() as spans:
            begun = [
                spans.enter_context(self._tracing.of_event("append", record.record_id, self._sending(record)))
                for record in _events(records)
            ]
            positions = await super()._appended(records, until)
            places = (place for record, place in zip(records, positions, strict=True) if _is_event(record))
            for span, place in zip(begun, places, strict=True):
                span.note({"messaging.kafka.offset": place.offset})
            return positions

    async def _judged(self, records: Sequence[NewRecord], positions: Sequence[Position], until: float) -> list[bool]:
        with contextlib.ExitStack() as spans:
            begun = [
                spans.enter_context(
                    self._tracing.of_event("fold", record.record_id, {Attribute.chunk_id: record.record_id})
                )
                for record in _events(records)
            ]
            accepted = await super()._judged(records, positions, until)
            events = (verdict for record, verdict in zip(records, accepted, strict=True) if _is_event(record))
            for span, verdict in zip(begun, events, strict=True):
                span.note({Attribute.accepted: verdict})
            return accepted

    def _sending(self, record: NewRecord) -> dict[str, Value]:
        return {
            Attribute.chunk_id: record.record_id,
            "messaging.system": self._system,
            "messaging.operation.type": "send",
            "messaging.destination.name": "log",
            "messaging.destination.partition.id": str(record.partition),
            "messaging.message.id": record.record_id,
            "messaging.message.body.size": len(record.body),
        }


class TracedPush(Push):
    def __init__(self, *parts: Any, tracing: Tracing) -> None:
        super().__init__(*parts)
        self._tracing = tracing

    async def attempt(self, subscription: Subscription, readable: Sendable, trail: Trail) -> Outcome:
        record = readable.record
        attributes = _of(record.headers, record.record_id) | {
            Attribute.subscription_id: subscription.subscription_id,
            Attribute.attempt: trail.attempts + 1,
            "http.request.method": "POST",
        }
        with self._tracing.of_event("deliver", record.record_id, attributes) as span:
            outcome = await super().attempt(subscription, readable, trail)
            _told(span, outcome)
            return outcome


class TracedSender:
    """Hands the trace on to the receiver (W3C ``traceparent``), beside what is signed."""

    def __init__(self, sender: Sender, tracing: Tracing) -> None:
        self._sender, self._tracing = sender, tracing

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        traceparent = self._tracing.traceparent()
        if traceparent is not None:
            headers = {**headers, "traceparent": traceparent}
        return await self._sender.post(url, headers, body)

    async def close(self) -> None:
        await self._sender.close()


class TracedAcknowledge(Acknowledge):
    def __init__(self, *parts: Any, tracing: Tracing) -> None:
        super().__init__(*parts)
        self._tracing = tracing

    async def answer(self, subscription: Subscription, said: Sequence[Said]) -> list[bool]:
        begun = time.time_ns()
        news = await super().answer(subscription, said)
        # only now: until it is judged, an id may be anything that a caller typed
        for one, new in zip(said, news, strict=True):
            attributes: dict[str, Value] = {
                Attribute.chunk_id: one.chunk_id,
                Attribute.subscription_id: subscription.subscription_id,
                Attribute.default: one.default.value if one.default is not None else "none",
                Attribute.exceptions: sum(len(each.rows) + len(each.numbers) for each in one.exceptions),
                Attribute.new: new,
            }
            with self._tracing.of_event("acknowledge", one.chunk_id, attributes, begun_ns=begun):
                pass
        return news


class TracedClear(Clear):
    def __init__(self, *parts: Any, tracing: Tracing, **more: Any) -> None:
        super().__init__(*parts, **more)
        self._tracing = tracing

    async def numbers(self, carrier_id: str, numbers: Numbers) -> Clearance:
        with self._tracing.act("clear", {Attribute.carrier_id: carrier_id, Attribute.count: len(numbers)}) as span:
            found = await super().numbers(carrier_id, numbers)
            span.note(_cleared(found.record))
            return found

    async def batch(self, carrier_id: str, batch_id: str, detail: str = "none") -> BatchClearance:
        with self._tracing.act("clear", {Attribute.carrier_id: carrier_id}) as span:
            found = await super().batch(carrier_id, batch_id, detail)
            span.note({Attribute.batch_id: batch_id, **_cleared(found.record)})
            return found

    async def _duty(self, *parts: Any) -> Any:
        duty = await super()._duty(*parts)
        self._tracing.touches(duty.record.record_id)
        return duty


def _is_event(record: NewRecord) -> bool:
    return record.headers.get(Header.kind) == "chunk"


def _events(records: Sequence[NewRecord]) -> list[NewRecord]:
    return [record for record in records if _is_event(record)]


def _of(headers: Mapping[str, str], record_id: str) -> dict[str, Value]:
    found: dict[str, Value] = {
        Attribute.chunk_id: record_id,
        Attribute.event_type: headers.get(Header.type, ""),
        Attribute.lane: headers.get(Header.lane, ""),
        Attribute.count: int(headers.get(Header.count, "0")),
        Attribute.carrier_id: headers.get(Header.carrier, ""),
    }
    if batch := headers.get(Header.batch):
        found[Attribute.batch_id] = batch
    return found


def _told(span: Span, outcome: Outcome) -> None:
    span.note({Attribute.outcome: type(outcome).__name__.lower()})
    match outcome:
        case Delivered(status=status):
            span.note({"http.response.status_code": status})
        case Refused(status=status):
            span.note({"http.response.status_code": status})
            span.failed(f"http_{status}")
        case RetryAt(reason=reason, status=answered):
            if answered is not None:
                span.note({"http.response.status_code": answered})
            span.failed(reason)
        case Parked(reason=reason):
            span.failed(reason)


def _cleared(record: ClearanceRecord) -> dict[str, Value]:
    return {
        Attribute.clearance_id: record.clearance_id,
        Attribute.go: record.go,
        Attribute.with_exceptions: record.go_with_exceptions,
        Attribute.wait: record.wait,
    }
