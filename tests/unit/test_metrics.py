"""Metrics: exactly those that are declared, with exactly the labels declared."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hub.adapters.telemetry.prometheus import PrometheusMetrics
from hub.ports.metrics import METRICS


def test_what_is_declared_is_what_is_shown() -> None:
    """Every declared metric can be used with its labels and appears on the page under its name."""
    metrics = PrometheusMetrics()
    for name, metric in METRICS.items():
        labels = dict.fromkeys(metric.labels, "x")
        act: Any = {"counter": metrics.count, "gauge": metrics.set, "histogram": metrics.observe}[metric.kind]
        act(name, 2.0, **labels)
    kind, page = metrics.exposition()
    families = {family.name: family for family in text_string_to_metric_families(page.decode())}
    assert kind.startswith("text/plain")
    for name, metric in METRICS.items():
        family = families[name.removesuffix("_total") if metric.kind == "counter" else name]
        assert (family.type, family.documentation) == (metric.kind, metric.meaning)
        assert set(family.samples[0].labels) - {"le"} == set(metric.labels)


def test_a_missing_label_is_an_error() -> None:
    """A metric with labels is never counted without them."""
    with pytest.raises(ValueError, match="label"):
        PrometheusMetrics().count("numhub_answered_numbers_total", 1, wrong="x")


def test_nothing_counted_is_forgotten() -> None:
    """Whichever thread counts, however often, looked at in between or not."""
    metrics = PrometheusMetrics()

    def count() -> None:
        for _ in range(1_500):
            metrics.count("numhub_deliveries_total", mode="webhook_full", outcome="delivered")
            metrics.count("numhub_parked_total", 2)
            metrics.observe("numhub_delivery_seconds", 0.01)

    other = threading.Thread(target=count)
    other.start()
    count()
    metrics.exposition()
    other.join()
    count()
    _, page = metrics.exposition()
    assert b'numhub_deliveries_total{mode="webhook_full",outcome="delivered"} 4500.0' in page
    assert b"numhub_parked_total 9000.0" in page and b"numhub_delivery_seconds_count 4500.0" in page
