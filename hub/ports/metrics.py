"""All metrics, declared once: name, kind, meaning, labels. A misspelt name is a type error."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

MetricName = Literal[
    "numhub_events_accepted_total",
    "numhub_rows_refused_total",
    "numhub_records_appended_total",
    "numhub_records_void_total",
    "numhub_append_failures_total",
    "numhub_index_dropped_total",
    "numhub_deliveries_total",
    "numhub_delivered_numbers_total",
    "numhub_delivery_seconds",
    "numhub_parked_total",
    "numhub_parked_chunks",
    "numhub_oldest_undelivered_seconds",
    "numhub_failing_endpoints",
    "numhub_positions_expired_total",
    "numhub_answers_total",
    "numhub_answered_numbers_total",
    "numhub_fold_position",
    "numhub_log_end",
    "numhub_index_numbers",
    "numhub_http_requests_total",
    "numhub_http_request_seconds",
    "numhub_ledger_commit_seconds",
    "numhub_loop_lag_seconds",
    "numhub_lanes_behind",
    "numhub_oldest_batch_seconds",
    "numhub_clearances_total",
    "numhub_cleared_numbers_total",
    "numhub_dependency_up",
    "numhub_coordination_fallbacks_total",
    "numhub_clock_steps_total",
    "numhub_data_free_bytes",
    "numhub_data_size_bytes",
    "numhub_shards_held",
    "numhub_ingress_records_total",
    "numhub_ingress_quarantined_total",
    "numhub_ingress_stopped",
    "numhub_ingress_behind",
    "numhub_outbox_waiting",
]


class Metric(NamedTuple):
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()


METRICS: dict[MetricName, Metric] = {
    "numhub_events_accepted_total": Metric("counter", "numbers accepted into the log", ("event_type", "lane")),
    "numhub_rows_refused_total": Metric("counter", "rows and items refused at intake", ("reason",)),
    "numhub_records_appended_total": Metric("counter", "records appended to the log", ("lane",)),
    "numhub_records_void_total": Metric("counter", "records the fold judged void or repeated", ("verdict",)),
    "numhub_append_failures_total": Metric("counter", "appends that failed or whose outcome is unknown", ("outcome",)),
    "numhub_index_dropped_total": Metric("counter", "times the index did not fit the log and was dropped"),
    "numhub_deliveries_total": Metric("counter", "delivery attempts by outcome", ("mode", "outcome")),
    "numhub_delivered_numbers_total": Metric("counter", "numbers for which a receipt was recorded", ("mode",)),
    "numhub_delivery_seconds": Metric("histogram", "append to receipt of the live lane, seconds"),
    "numhub_parked_total": Metric("counter", "chunks parked after the last attempt"),
    "numhub_parked_chunks": Metric("gauge", "chunks in the parking place now, all subscriptions"),
    "numhub_oldest_undelivered_seconds": Metric(
        "gauge", "age of the oldest record a lane still has before it, by how its endpoint does", ("lane", "endpoint")
    ),
    "numhub_failing_endpoints": Metric("gauge", "subscriptions whose endpoint failed since its last success"),
    "numhub_positions_expired_total": Metric("counter", "lanes stopped because the log no longer keeps their position"),
    "numhub_answers_total": Metric("counter", "chunk answers committed"),
    "numhub_answered_numbers_total": Metric("counter", "numbers answered, corrections included", ("standing",)),
    "numhub_fold_position": Metric("gauge", "next offset to fold", ("partition",)),
    "numhub_log_end": Metric("gauge", "next offset of the log", ("partition",)),
    "numhub_index_numbers": Metric("gauge", "numbers the index knows"),
    "numhub_http_requests_total": Metric("counter", "API requests", ("route", "status")),
    "numhub_http_request_seconds": Metric("histogram", "API request duration, seconds", ("route",)),
    "numhub_ledger_commit_seconds": Metric("histogram", "duration of one ledger group commit, seconds"),
    "numhub_loop_lag_seconds": Metric("gauge", "how late the event loop runs, seconds"),
    "numhub_lanes_behind": Metric("gauge", "subscriber lanes not at the end of the log", ("lane",)),
    "numhub_oldest_batch_seconds": Metric("gauge", "age of the oldest batch being processed"),
    "numhub_clearances_total": Metric("counter", "clearance judgements recorded"),
    "numhub_cleared_numbers_total": Metric("counter", "numbers judged by clearance", ("verdict",)),
    "numhub_dependency_up": Metric("gauge", "1 if it answered the last question, else 0", ("dependency",)),
    "numhub_coordination_fallbacks_total": Metric(
        "counter", "answers given without Redis: limits counted per process, nonces refused", ("call",)
    ),
    "numhub_clock_steps_total": Metric("counter", "jumps of the wall clock by more than a second"),
    "numhub_data_free_bytes": Metric("gauge", "bytes free where data_dir is"),
    "numhub_data_size_bytes": Metric("gauge", "bytes that the file system of data_dir holds in all"),
    "numhub_shards_held": Metric("gauge", "shards of subscriptions that this process delivers for"),
    "numhub_ingress_records_total": Metric("counter", "records of carriers' own topics by outcome", ("outcome",)),
    "numhub_ingress_quarantined_total": Metric("counter", "records of carriers' topics set aside whole", ("reason",)),
    "numhub_ingress_stopped": Metric("gauge", "1 while a carrier's ingress cannot go on by itself", ("carrier",)),
    "numhub_ingress_behind": Metric("gauge", "records of a carrier's topic not taken in yet", ("carrier",)),
    "numhub_outbox_waiting": Metric("gauge", "answers not yet told on the topics"),
}


class Metrics(Protocol):
    def count(self, name: MetricName, amount: float = 1, **labels: str) -> None: ...
    def set(self, name: MetricName, value: float, **labels: str) -> None: ...
    def observe(self, name: MetricName, seconds: float, **labels: str) -> None: ...
