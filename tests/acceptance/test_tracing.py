"""One event is followed from intake to its answer and into clearance, by its id and without its number."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from hub.adapters.telemetry.otel import OtelTracing
from hub.app.settings import Settings
from hub.app.wiring import build
from hub.domain.errors import NumhubError
from hub.domain.numbers import mask_in
from hub.domain.parties import AppClass
from hub.flow.append import Writer
from hub.flow.push import Push
from tests.factories import TODAY, event, holds, night_file, town, until

N = 13_800_000_000
LONG_AGO = TODAY - timedelta(days=100)


def told(spans: tuple[ReadableSpan, ...], trace_id: int) -> list[ReadableSpan]:
    return [span for span in spans if span.context is not None and span.context.trace_id == trace_id]


def names(spans: list[ReadableSpan]) -> list[str]:
    return sorted(span.name for span in spans)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


async def test_an_events_trace_is_its_id_and_reaches_from_intake_to_the_answer(tmp_path: Path) -> None:
    """publish, append, fold, a deliver per attempt, acknowledge: all in the trace that the event's id names; requests
    and the clearance are linked to it; the receiver is handed the trace; no number stands anywhere."""
    exporter = InMemorySpanExporter()
    async with town(tmp_path, tracing=OtelTracing(exporter, at_once=True)) as place:
        carrier = await place.carrier("cmcc")
        app = await place.app("mail", AppClass.social_mail, handle=holds({N: "unbound"}))
        app.up = False
        done = await carrier.events.publish(
            [event(N, "release_scheduled", TODAY, terminated_at=LONG_AGO, release_planned_at=TODAY + timedelta(days=9))]
        )
        event_id = done.results[0].event_id
        assert event_id is not None
        await until(lambda: app.attempts > 0)
        app.up = True
        await place.later(timedelta(minutes=6))
        await place.quiet([app], "release_scheduled", 1)
        await carrier.batches.upload(night_file([(N + 1, LONG_AGO)]), format="csv", batch_seq=1)
        await place.quiet([app], "release_scheduled", 2)
        assert [each.verdict for each in (await carrier.clearance.numbers([str(N), str(N + 1)])).numbers] == ["go"] * 2
        spans = exporter.get_finished_spans()

    trace_id = int(event_id.removeprefix("evt_"), 16)
    ours = told(spans, trace_id)
    delivered = [span for span in ours if span.name == "deliver"]
    assert len(delivered) >= 2
    assert set(names(ours)) == {"publish", "append", "fold", "deliver", "acknowledge"}
    assert [names(ours).count(name) for name in ("publish", "append", "fold", "acknowledge")] == [1, 1, 1, 1]
    (root,) = (span for span in ours if span.name == "publish")
    assert root.parent is None and root.context is not None
    assert {span.parent.span_id for span in ours if span.parent is not None} == {root.context.span_id}
    outcomes = [attributes(span)["numhub.outcome"] for span in sorted(delivered, key=lambda s: s.start_time or 0)]
    assert outcomes[0] == "retryat" and outcomes[-1] == "delivered"
    assert {attributes(span)["numhub.chunk_id"] for span in ours} == {event_id}
    (answered,) = (span for span in ours if span.name == "acknowledge")
    assert attributes(answered)["numhub.subscription_id"] == app.subscription_id

    requests = {span.context.trace_id: attributes(span) for span in spans if span.context and span.name == "request"}
    for span, route in ((root, "/v1/events"), (answered, "/v1/acks")):
        (link,) = span.links
        assert requests[link.context.trace_id]["http.route"] == route
    (clear,) = (span for span in spans if span.name == "clear")
    assert trace_id in {link.context.trace_id for link in clear.links}
    assert attributes(clear)["numhub.clearance.go"] == 2
    assert app.last is not None
    headers, _ = app.last
    assert headers["traceparent"].split("-")[1] == headers["numhub-chunk-id"].removeprefix("evt_")

    everything = json.dumps([json.loads(span.to_json()) for span in spans])
    assert str(N) not in everything and str(N + 1) not in everything
    plain = [str(value) for span in spans for name, value in attributes(span).items() if not name.endswith("_id")]
    assert [value for value in plain if mask_in(value) != value] == []


def test_what_a_caller_puts_into_an_attribute_is_masked() -> None:
    """Should an attribute ever hold a number, it leaves masked; ids leave as they are."""
    exporter = InMemorySpanExporter()
    tracing = OtelTracing(exporter, at_once=True)
    odd = f"evt_13812345678{'a' * 21}"
    with pytest.raises(ValueError), tracing.act("clear", {"numhub.carrier_id": f"x{N}", "numhub.chunk_id": odd}):
        raise ValueError(f"cannot read {N}")
    text = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert str(N) not in text and "138****0000" in text and odd in text and '"error.type": "ValueError"' in text


def test_sampling_follows_the_id_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that never met keep or leave the same events, roots and children alike."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    one, other = InMemorySpanExporter(), InMemorySpanExporter()
    api, worker = OtelTracing(one, at_once=True), OtelTracing(other, at_once=True)
    for n in range(200):
        record_id = f"evt_{n * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128:032x}"
        with api.publish(record_id, {}):
            pass
        with worker.of_event("deliver", record_id, {}):
            pass
    kept = [{s.context.trace_id for s in e.get_finished_spans() if s.context} for e in (one, other)]
    assert kept[0] == kept[1] and 60 < len(kept[0]) < 140


async def test_a_hub_without_tracing_has_no_traced_parts(tmp_path: Path) -> None:
    """Off costs nothing: the plain use cases are at work and the adapter for OpenTelemetry is not even imported."""
    hub = await build(Settings(data_dir=tmp_path))
    try:
        assert type(hub.context.writer) is Writer and type(hub.dispatcher._kit.push) is Push
    finally:
        await hub.close()
    code = "import sys, hub.app.wiring; sys.exit('hub.adapters.telemetry.otel' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


async def test_tracing_without_the_extra_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing package is named, with what to install."""
    for name in [name for name in sys.modules if name.startswith(("opentelemetry", "hub.adapters.telemetry.otel"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    with pytest.raises(NumhubError, match="numhub.otel"):
        await build(Settings(data_dir=tmp_path, tracing="otlp"))
