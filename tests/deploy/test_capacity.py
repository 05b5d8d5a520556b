"""CAPACITY.md: its tables are what the formulas give, and the formulas grow as the design promises."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub.domain.shards import SHARDS
from hub.flow.ingest.chunks import CHUNK_ROWS
from tests.making import CODEC, make_chunk

SCRIPT = Path(__file__).parents[2] / "deploy" / "scripts" / "capacity.py"


@pytest.fixture(scope="module")
def capacity() -> Any:
    spec = importlib.util.spec_from_file_location("capacity", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["capacity"] = module
    spec.loader.exec_module(module)
    return module


def test_the_document_shows_what_the_formulas_give(capacity: Any) -> None:
    """No table was written by hand, none is old."""
    text = capacity.DOCUMENT.read_text("utf-8")
    assert capacity.filled(text) == text


def test_nothing_grows_faster_than_its_cause(capacity: Any) -> None:
    """Ten nations need ten times one nation's work at most; twice the apps twice the deliveries and no more log."""
    one, ten = capacity.need(capacity.nations(1)), capacity.need(capacity.nations(10))
    for name in ("chunks_year", "dispatch_cores", "live_cores", "log_bytes", "ledger_bytes", "index_bytes", "out_bits"):
        assert getattr(ten, name) == pytest.approx(10 * getattr(one, name)), name
    load = capacity.nations(1)
    twice = capacity.need(replace(load, apps=2 * load.apps))
    assert twice.deliveries_year == 2 * one.deliveries_year
    assert twice.log_bytes == one.log_bytes
    assert ten.workers <= SHARDS, "more workers than shards would find nothing to do"


def test_bulk_keeps_the_storage_promise(capacity: Any) -> None:
    """At most 0.1 byte per (number, app) pair, receipt, answer and the chunk itself included, on PostgreSQL too."""
    cost = capacity.cost
    per_chunk = (cost("receipt_bytes") + cost("answer_bytes")) * cost("sql_overhead") + cost("chunk_bytes") / 239
    assert per_chunk / capacity.CHUNK <= 0.1


def test_costs_that_can_be_measured_here_are_true(capacity: Any) -> None:
    """The bytes of a chunk are those of the codec, and a chunk is the hub's own."""
    assert capacity.CHUNK == CHUNK_ROWS
    rows = [13_000_000_000 + place * 387_654 for place in range(CHUNK_ROWS)]
    chunk = make_chunk("capacity", rows)
    body = CODEC.encode(chunk)
    assert len(body) == pytest.approx(capacity.cost("chunk_bytes"), rel=0.5)
    single = CODEC.encode(make_chunk("one", [13_800_000_000]))
    assert len(single) < capacity.cost("live_bytes")


def test_what_was_not_measured_says_so(capacity: Any) -> None:
    """A goal is never shown as a measurement."""
    shown = capacity.costs_table()
    for name, one in capacity.COSTS.items():
        line = next(line for line in shown.splitlines() if f"`{name}`" in line)
        assert ("**not measured here:**" in line) is not one.measured
        assert one.measured or "measured:" not in one.source
