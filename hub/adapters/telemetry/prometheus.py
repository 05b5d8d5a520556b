"""Metrics for Prometheus: those that `ports.metrics.METRICS` declares, and the usual ``process_*``."""

from __future__ import annotations

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


class PrometheusMetrics:
    """Implements `ports.metrics.Metrics` on a registry of its own, so that two hubs may live in one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)  # CPU, memory, open files of this process
        self._metrics: dict[str, Any] = {}
        self._children: dict[tuple[str, tuple[str, ...]], Any] = {}
        for name, metric in METRICS.items():
            options: dict[str, Any] = {"buckets": _BUCKETS} if metric.kind == "histogram" else {}
            self._metrics[name] = _KINDS[metric.kind](
                name, metric.meaning, metric.labels, registry=self._registry, **options
            )

    def count(self, name: MetricName, amount: float = 1, **labels: str) -> None:
        self._child(name, labels).inc(amount)

    def set(self, name: MetricName, value: float, **labels: str) -> None:
        self._child(name, labels).set(value)

    def observe(self, name: MetricName, seconds: float, **labels: str) -> None:
        self._child(name, labels).observe(seconds)

    def exposition(self) -> tuple[str, bytes]:
        """(content type, page) in Prometheus' text format."""
        return CONTENT_TYPE_LATEST, generate_latest(self._registry)

    def _child(self, name: MetricName, labels: dict[str, str]) -> Any:
        if not labels:
            return self._metrics[name]
        key = (name, tuple(labels[label] for label in METRICS[name].labels))
        child = self._children.get(key)
        if child is None:
            child = self._children[key] = self._metrics[name].labels(**labels)
        return child


class NoMetrics:
    """Implements `ports.metrics.Metrics` by doing nothing: for commands and tests that look at none."""

    def count(self, name: MetricName, amount: float = 1, **labels: str) -> None:
        return None

    def set(self, name: MetricName, value: float, **labels: str) -> None:
        return None

    def observe(self, name: MetricName, seconds: float, **labels: str) -> None:
        return None
