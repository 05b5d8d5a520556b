"""Metrics for Prometheus: those that `ports.metrics.METRICS` declares, and the usual ``process_*``.

What is counted thousands of times a second, on the thread of the event loop, is kept in plain numbers and handed to the
library when somebody looks: its locks cost more than the counting.
"""

from __future__ import annotations

import threading
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from hub.ports.metrics import METRICS, MetricName

_KINDS: dict[str, type[Counter] | type[Gauge] | type[Histogram]] = {
    "counter": Counter,
    "gauge": Gauge,
    "histogram": Histogram,
}
_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.6, 1.2, 2.5, 5, 10, 30, 60, 300, 3600)

_OBSERVED_KEPT = 1_000


class PrometheusMetrics:
    """Implements `ports.metrics.Metrics` on a registry of its own, so that two hubs may live in one process.

    Made, and looked at, on the thread that counts most; others may count too.
    """

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # CPU, memory, open files of this process
        self._metrics: dict[str, Any] = {}
        self._children: dict[tuple[object, ...], Any] = {}
        self._home = threading.get_ident()
        self._counted: dict[tuple[object, ...], float] = {}
        self._observed: dict[tuple[object, ...], list[float]] = {}
        for name, metric in METRICS.items():
            options: dict[str, Any] = {"buckets": _BUCKETS} if metric.kind == "histogram" else {}
            self._metrics[name] = _KINDS[metric.kind](
                name, metric.meaning, metric.labels, registry=self._registry, **options
            )

    def count(self, name: MetricName, amount: float = 1, **labels: str) -> None:
        key = (name, *labels.items())
        if key not in self._counted or threading.get_ident() != self._home:
            self._child(key, name, labels).inc(amount)
            self._counted.setdefault(key, 0.0)
        else:
            self._counted[key] += amount

    def set(self, name: MetricName, value: float, **labels: str) -> None:
        self._child((name, *labels.items()), name, labels).set(value)

    def observe(self, name: MetricName, seconds: float, **labels: str) -> None:
        key = (name, *labels.items())
        observed = self._observed.get(key)
        if observed is None or threading.get_ident() != self._home:
            self._child(key, name, labels).observe(seconds)
            self._observed.setdefault(key, [])
        else:
            observed.append(seconds)
            if len(observed) >= _OBSERVED_KEPT:
                self._hand_over_observed()

    def exposition(self) -> tuple[str, bytes]:
        """(content type, page) in Prometheus' text format."""
        for key, amount in self._counted.items():
            self._counted[key] = 0.0
            self._children[key].inc(amount)
        self._hand_over_observed()
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)

    def _hand_over_observed(self) -> None:
        for key, observed in self._observed.items():
            child = self._children[key]
            for seconds in observed:
                child.observe(seconds)
            observed.clear()

    def _child(self, key: tuple[object, ...], name: MetricName, labels: dict[str, str]) -> Any:
        child = self._children.get(key)
        if child is None:
            metric = self._metrics[name]
            child = self._children[key] = metric.labels(**labels) if labels else metric
        return child


class NoMetrics:
    """Implements `ports.metrics.Metrics` by doing nothing: for commands and tests that look at none."""

    def count(self, name: MetricName, amount: float = 1, **labels: str) -> None:
        return None

    def set(self, name: MetricName, value: float, **labels: str) -> None:
        return None

    def observe(self, name: MetricName, seconds: float, **labels: str) -> None:
        return None
