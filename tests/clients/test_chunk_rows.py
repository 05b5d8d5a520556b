"""A chunk's compact form and its rows say the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numhub_client import Chunk
from numhub_client.errors import BodyMalformed
from numhub_client.testing import FakeHub, chunk_body
from numhub_client.webhooks import read_event, superseded_rows

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NUMBER = st.integers(13_000_000_000, 19_999_999_999)


def read(body: bytes) -> Chunk:
    message = read_event(json.loads(body), subscription_id="sub_1")
    assert isinstance(message, Chunk)
    return message


ROW = st.tuples(
    st.integers(0, 3),
    st.integers(1, 9),
    st.integers(1_600_000_000, 1_600_000_003),
    st.integers(1_600_000_000, 1_900_000_000),
    st.one_of(st.none(), st.just(1_800_000_000)),
    st.one_of(st.none(), st.sampled_from(["arrears", "fraud"])),
)


@settings(max_examples=150, deadline=None)
@given(numbers=st.sets(NUMBER, min_size=1, max_size=40), data=st.data())
def test_rows_are_what_was_packed_whatever_the_form(numbers: set[int], data: st.DataObject) -> None:
    """Shared, exceptions or columns: each row comes out with its own values."""
    ordered = sorted(numbers)
    same = data.draw(st.booleans())
    first = data.draw(ROW)
    rows = [first if same and data.draw(st.integers(0, 12)) else data.draw(ROW) for _ in ordered]
    names = ("generation", "seq", "occurred_at", "binding_cutoff_at", "release_planned_at", "terminate_reason")
    columns: dict[str, Any] = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    chunk = read(chunk_body("evt_1", "release_scheduled", ordered, lane="bulk", reported_at=NOW, **columns))
    assert list(chunk.numbers) == ordered
    assert len(chunk) == len(ordered)
    for event, number, row in zip(chunk.rows(), ordered, rows, strict=True):
        assert event.number == number
        assert event.e164 == f"+86{number}"
        found = (
            event.generation,
            event.seq,
            int(event.occurred_at.timestamp()),
            int(event.binding_cutoff_at.timestamp()),
            None if event.release_planned_at is None else int(event.release_planned_at.timestamp()),
            event.terminate_reason,
        )
        assert found == row
    assert chunk.versions() == [(row[0], row[1]) for row in rows]


def test_a_binding_is_covered_only_strictly_before_the_cutoff(hub: FakeHub) -> None:
    """At the cutoff itself the binding is the new holder's."""
    event = read(hub.publish("reassigned", [13800138000], binding_cutoff_at=NOW).body).row(0)
    assert event.covers(NOW - timedelta(seconds=1))
    assert not event.covers(NOW)
    assert event.orders_unbind


def test_matching_asks_for_national_or_e164_numbers(hub: FakeHub) -> None:
    """Accounts may be kept under either form, in a mapping or behind a function."""
    chunk = read(hub.publish("released", [13800138000, 13800138001, 13800138002]).body)
    assert [(e.row, a) for e, a in chunk.match({13800138001: "ada"})] == [(1, "ada")]
    assert [(e.row, a) for e, a in chunk.match({"+8613800138002": "bob"}, key="e164")] == [(2, "bob")]
    assert [e.row for e, _ in chunk.match(lambda number: number % 2 or None)] == [1]
    assert [e.row for e in chunk.among({13800138000})] == [0]


def test_no_repr_shows_a_number(hub: FakeHub) -> None:
    """Chunks, rows and answers may be logged as they are."""
    chunk = read(hub.publish("released", [13800138000]).body)
    for shown in (repr(chunk), repr(chunk.row(0)), str(chunk.row(0)), repr(chunk.answer("no_account"))):
        assert "13800138000" not in shown
    assert chunk.row(0).masked == "138****8000"


def test_superseded_rows_are_read_as_single_rows_and_ranges() -> None:
    """The header's grammar, and its escape for lists that are too long."""
    assert superseded_rows("") == (frozenset(), False)
    assert superseded_rows("3,17-20") == ({3, 17, 18, 19, 20}, False)
    assert superseded_rows("see-feed") == (frozenset(), True)
    for bad in ("x", "5-3", "-1", "10000"):
        with pytest.raises(BodyMalformed):
            superseded_rows(bad)
    assert read(FakeHub().publish("released", [13800138000]).body).superseded == frozenset()


DAMAGE: dict[str, Any] = {
    "no numbers": lambda d: d.update(numbers=[]),
    "text numbers": lambda d: d.update(numbers=["13800138000"]),
    "true as number": lambda d: d.update(numbers=[True]),
    "shared no object": lambda d: d.update(shared=[]),
    "attribute missing": lambda d: d["shared"].pop("seq"),
    "column too short": lambda d: d["columns"].update(seq=[]),
    "exception beyond": lambda d: d["exceptions"].update(seq={"rows": [9], "values": [1]}),
    "exception uneven": lambda d: d["exceptions"].update(seq={"rows": [0], "values": []}),
    "time as text": lambda d: d["shared"].update(occurred_at="2026-01-01"),
    "absurd time": lambda d: d["shared"].update(occurred_at=10**18),
    "no chunk id": lambda d: d.pop("chunk_id"),
    "reason no text": lambda d: d["shared"].update(terminate_reason=5),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_a_damaged_chunk_is_refused_whole(hub: FakeHub, damage: Any) -> None:
    """Nothing is guessed: a chunk that is not as documented raises BodyMalformed and names no number."""
    event = json.loads(hub.publish("released", [13800138000]).body)
    damage(event["data"])
    with pytest.raises(BodyMalformed) as refused:
        read_event(event)
    assert "1380013" not in str(refused.value)
