"""No tracing: what a hub has unless it is told otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType

from hub.ports.tracing import Acts, Span, Value


class NoSpan:
    """Implements `ports.tracing.Span` by doing nothing."""

    def note(self, attributes: Mapping[str, Value]) -> None:
        return None

    def failed(self, kind: str) -> None:
        return None

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


_NO_SPAN = NoSpan()


class NoTracing:
    """Implements `ports.tracing.Tracing` by doing nothing."""

    enabled = False

    def publish(self, record_id: str, attributes: Mapping[str, Value]) -> Span:
        return _NO_SPAN

    def of_event(
        self, act: Acts, record_id: str, attributes: Mapping[str, Value], *, begun_ns: int | None = None
    ) -> Span:
        return _NO_SPAN

    def act(self, act: Acts, attributes: Mapping[str, Value]) -> Span:
        return _NO_SPAN

    def request(self, traceparent: str | None) -> Span:
        return _NO_SPAN

    def touches(self, record_id: str) -> None:
        return None

    def traceparent(self) -> str | None:
        return None

    def close(self) -> None:
        return None
