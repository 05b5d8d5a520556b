"""Following one event from intake to every answer, by its id and without its number.

The trace of an event is named after its record id, so no process has to hand anything on: whoever knows the id (a
delivery tomorrow, an answer in half a year, an operator with a support ticket) knows the trace. What serves a request
has a trace of its own, or the caller's; the two are linked. Attributes never hold a number; only names of `attribute`
are used besides OpenTelemetry's own (``messaging.*``, ``http.*``, ``error.type``).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Literal, Protocol

Acts = Literal["publish", "append", "fold", "deliver", "acknowledge", "clear"]
Value = str | int | float | bool


class Attribute:
    """Names of attributes of our own."""

    chunk_id = "numhub.chunk_id"
    event_type = "numhub.event_type"
    lane = "numhub.lane"
    count = "numhub.count"  # numbers in the chunk
    carrier_id = "numhub.carrier_id"
    batch_id = "numhub.batch_id"
    accepted = "numhub.accepted"  # the fold's verdict
    subscription_id = "numhub.subscription_id"
    attempt = "numhub.attempt"
    outcome = "numhub.outcome"
    default = "numhub.answer.default"
    exceptions = "numhub.answer.exceptions"  # rows that were answered otherwise
    new = "numhub.answer.new"
    clearance_id = "numhub.clearance_id"
    go = "numhub.clearance.go"
    with_exceptions = "numhub.clearance.go_with_exceptions"
    wait = "numhub.clearance.wait"


class Span(Protocol):
    """Ends with its block; within it, it is the current one. An error that leaves the block is noted by its class
    alone: messages may quote what a caller sent."""

    def note(self, attributes: Mapping[str, Value]) -> None: ...

    def failed(self, kind: str) -> None: ...

    def __enter__(self) -> Span: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Tracing(Protocol):
    """``enabled`` False: nobody need call the rest (the wiring leaves the traced use cases out altogether)."""

    enabled: bool

    def publish(self, record_id: str, attributes: Mapping[str, Value]) -> Span:
        """The root of an event's trace, linked to the request that caused it. Begun again for a repeated append."""
        ...

    def of_event(
        self, act: Acts, record_id: str, attributes: Mapping[str, Value], *, begun_ns: int | None = None
    ) -> Span:
        """What happened to an event, as a child of its root, linked to the request within which it happened.
        ``begun_ns``: when, in ns since the epoch, if not now."""
        ...

    def act(self, act: Acts, attributes: Mapping[str, Value]) -> Span:
        """What concerns many events: a child of the current span."""
        ...

    def request(self, traceparent: str | None) -> Span:
        """Serving a request; continues the caller's trace where it sent one."""
        ...

    def touches(self, record_id: str) -> None:
        """Link the current span to an event's trace."""
        ...

    def traceparent(self) -> str | None:
        """W3C trace context of the current span, to hand on to a receiver; None if there is nothing to follow."""
        ...

    def close(self) -> None:
        """Send what is collected; bounded in time."""
        ...
