"""Traces by OpenTelemetry. Needs the extra ``numhub[otel]``; configured by the standard ``OTEL_*`` variables.

A record id is ``evt_`` and 32 hex digits: exactly a trace id. So the id on a delivery, in a log line or in a support
ticket is the id to look for in the tracing system, and no context has to travel through log and ledger. The root
span's id follows from it too; its sampling as well, since samplers judge by trace id: every process must be given the
same ``OTEL_TRACES_SAMPLER``.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SimpleSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hub.domain.numbers import mask_in
from hub.ports.tracing import Acts, Span, Value

_RECORD_ID: Final = re.compile(r"[a-z]{3}_[0-9a-f]{24,32}")
_MAX_LINKS: Final = 64
_FLUSH_MS: Final = 3_000
_KINDS: Final[dict[Acts, SpanKind]] = {
    "publish": SpanKind.PRODUCER,
    "append": SpanKind.CLIENT,
    "fold": SpanKind.CONSUMER,
    "deliver": SpanKind.CLIENT,
    "acknowledge": SpanKind.INTERNAL,
    "clear": SpanKind.INTERNAL,
}
_NOWHERE: Final = Context()


class _Ids(RandomIdGenerator):
    """Random ids, unless the next ones are set: for roots, whose ids follow from the record."""

    def __init__(self) -> None:
        self.next = threading.local()

    def generate_trace_id(self) -> int:
        wanted: int | None = self.next.__dict__.pop("trace_id", None)
        return super().generate_trace_id() if wanted is None else wanted

    def generate_span_id(self) -> int:
        wanted: int | None = self.next.__dict__.pop("span_id", None)
        return super().generate_span_id() if wanted is None else wanted


class _OtelSpan:
    """Implements `ports.tracing.Span`."""

    __slots__ = ("_links", "_span", "_token")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        self._links = 0
        self._token: Any = None

    def note(self, attributes: Mapping[str, Value]) -> None:
        self._span.set_attributes(_clean(attributes))

    def failed(self, kind: str) -> None:
        self._span.set_status(Status(StatusCode.ERROR))
        self._span.set_attribute("error.type", mask_in(kind))

    def __enter__(self) -> Span:
        self._token = otel_context.attach(trace.set_span_in_context(self._span))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.failed(kind.__name__)
        otel_context.detach(self._token)
        self._span.end()


class OtelTracing:
    """Implements `ports.tracing.Tracing`."""

    enabled = True

    def __init__(self, exporter: SpanExporter, *, at_once: bool = False) -> None:
        """``at_once``: export each span when it ends, for tests; else in batches, by a thread of the SDK."""
        self._ids = _Ids()
        # what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say goes before this
        resource = Resource({SERVICE_NAME: "numhub"}).merge(_from_environment())
        self._provider = TracerProvider(id_generator=self._ids, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(exporter) if at_once else BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("numhub")
        self._propagator = TraceContextTextMapPropagator()

    def publish(self, record_id: str, attributes: Mapping[str, Value]) -> Span:
        root = _root(record_id)
        self._ids.next.trace_id, self._ids.next.span_id = root
        return self._begin("publish", _NOWHERE, attributes, self._links(root[0]))

    def of_event(
        self, act: Acts, record_id: str, attributes: Mapping[str, Value], *, begun_ns: int | None = None
    ) -> Span:
        root = self._root_context(record_id)
        parent = trace.set_span_in_context(NonRecordingSpan(root), _NOWHERE)
        return self._begin(act, parent, attributes, self._links(root.trace_id), begun_ns)

    def act(self, act: Acts, attributes: Mapping[str, Value]) -> Span:
        return self._begin(act, otel_context.get_current(), attributes, [])

    def request(self, traceparent: str | None) -> Span:
        carrier = {"traceparent": traceparent} if traceparent else {}
        context = self._propagator.extract(carrier, _NOWHERE)
        return _OtelSpan(self._tracer.start_span("request", context, SpanKind.SERVER))

    def touches(self, record_id: str) -> None:
        current = trace.get_current_span()
        links = getattr(current, "links", None)  # only a recording span has them
        if links is not None and len(links) < _MAX_LINKS:
            current.add_link(self._root_context(record_id))

    def traceparent(self) -> str | None:
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier)
        return carrier.get("traceparent")

    def close(self) -> None:
        self._provider.force_flush(_FLUSH_MS)
        self._provider.shutdown()

    def _begin(
        self,
        act: Acts,
        parent: Context,
        attributes: Mapping[str, Value],
        links: list[Link],
        begun_ns: int | None = None,
    ) -> Span:
        span = self._tracer.start_span(act, parent, _KINDS[act], _clean(attributes), links, begun_ns)
        return _OtelSpan(span)

    def _links(self, trace_id: int) -> list[Link]:
        """To the span at work here, if it belongs to another trace."""
        current = trace.get_current_span().get_span_context()
        return [Link(current)] if current.is_valid and current.trace_id != trace_id else []

    def _root_context(self, record_id: str) -> SpanContext:
        trace_id, span_id = _root(record_id)
        # asked, not remembered: the sampler says the same of a trace id everywhere and at any time
        decision = self._provider.sampler.should_sample(_NOWHERE, trace_id, "publish").decision
        flags = TraceFlags(TraceFlags.SAMPLED if decision is Decision.RECORD_AND_SAMPLE else TraceFlags.DEFAULT)
        return SpanContext(trace_id, span_id, is_remote=True, trace_flags=flags)


def open_otlp() -> OtelTracing:
    """Exports by OTLP over HTTP to ``OTEL_EXPORTER_OTLP_ENDPOINT``. An absent collector costs spans, not events."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OtelTracing(OTLPSpanExporter())


def _from_environment() -> Resource:
    found = Resource.create()
    attributes = dict(found.attributes)
    if str(attributes.get(SERVICE_NAME, "")).startswith("unknown_service"):
        del attributes[SERVICE_NAME]
    return Resource(attributes, found.schema_url)


def _root(record_id: str) -> tuple[int, int]:
    """Trace id and id of the root span."""
    digest = hashlib.sha256(record_id.encode()).digest()
    tail = record_id[4:]
    trace_id = int(tail, 16) if len(tail) == 32 and _RECORD_ID.fullmatch(record_id) else 0
    return trace_id or int.from_bytes(digest[:16]), int.from_bytes(digest[16:24]) or 1


def _clean(attributes: Mapping[str, Value]) -> dict[str, Value]:
    """No number in any text, whatever the caller put there; ids are hex and may look like one by chance."""
    return {
        name: mask_in(value) if isinstance(value, str) and not _RECORD_ID.fullmatch(value) else value
        for name, value in attributes.items()
    }
