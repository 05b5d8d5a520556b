"""One record of a carrier's topic: what it says, or why it is set aside; nothing a carrier sends raises."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.domain.events import EventType
from hub.domain.quarantine import Quarantine
from hub.domain.refusals import BY_NUMBER, Refusal
from hub.flow.ingest.lists import NumberList
from hub.flow.ingest.topic import SaidEvent, Unreadable
from hub.ports.topics import SentRecord
from hub.wire.ingress import SCHEMA
from hub.workers.ingress_records import MAX_BYTES, MAX_HEADERS, read
from tests.topic_world import event, numbers

NUMBER = 13_800_138_000
HEADER = (("schema", SCHEMA.encode()),)


def sent(value: Any, headers: Any = ()) -> SentRecord:
    data = json.dumps(value).encode() if isinstance(value, dict | list) else value
    size = len(data or b"") + sum(len(name) + len(said) for name, said in headers)
    return SentRecord(0, 7, size, data, tuple(headers))


def without(value: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: said for name, said in value.items() if name not in names}


GOOD = event("a-1", NUMBER)
POISON: dict[str, tuple[SentRecord, Quarantine]] = {
    "null value": (sent(None), Quarantine.empty),
    "empty value": (sent(b""), Quarantine.empty),
    "not JSON": (sent(b"number=13800138000"), Quarantine.invalid_json),
    "JSON, but a list": (sent([GOOD]), Quarantine.invalid_json),
    "JSON, but a text": (sent(b'"13800138000"'), Quarantine.invalid_json),
    "Avro framing": (sent(b"\x00\x00\x00\x00\x01\x0813800138000"), Quarantine.invalid_json),
    "wrong UTF-8": (sent(b'{"id":"\xff\xfe"}'), Quarantine.invalid_json),
    "UTF-16": (sent('{"id":"a"}'.encode("utf-16")), Quarantine.invalid_json),
    "byte order mark": (sent(b"\xef\xbb\xbf" + json.dumps(GOOD).encode()), Quarantine.invalid_json),
    "duplicate keys": (sent(b'{"id":"a","id":"b"}'), Quarantine.invalid_json),
    "NaN": (sent(b'{"id":NaN}'), Quarantine.invalid_json),
    "a million digits": (sent(b'{"id":' + b"9" * 1_000_000 + b"}"), Quarantine.invalid_json),
    "nested too deep": (sent(b'{"id":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), Quarantine.invalid_json),
    "10 MB": (sent(b"x" * 10_000_000), Quarantine.too_large),
    "just too large": (sent(b" " * (MAX_BYTES + 1)), Quarantine.too_large),
    "header bomb": (sent(GOOD, [("h", b"")] * (MAX_HEADERS + 1)), Quarantine.headers_too_large),
    "huge header": (sent(GOOD, [("h", b"x" * 10_000)]), Quarantine.headers_too_large),
    "no schema": (sent(without(GOOD, "schema")), Quarantine.schema_missing),
    "another schema": (sent(GOOD | {"schema": "numhub.ingress.v2"}), Quarantine.schema_unknown),
    "schema is a number": (sent(GOOD | {"schema": 1}), Quarantine.schema_unknown),
    "header contradicts": (sent(GOOD, [("schema", b"numhub.ingress.v9")]), Quarantine.schema_unknown),
    "schema header not text": (sent(without(GOOD, "schema"), [("schema", b"\xff")]), Quarantine.schema_unknown),
    "no id": (sent(without(GOOD, "id")), Quarantine.invalid_message),
    "id with a blank": (sent(GOOD | {"id": "a b"}), Quarantine.invalid_message),
    "id too long": (sent(GOOD | {"id": "a" * 129}), Quarantine.invalid_message),
    "unknown member": (sent(GOOD | {"holder": "Li"}), Quarantine.invalid_message),
    "unknown event": (sent(GOOD | {"event_type": "vanished"}), Quarantine.invalid_message),
    "time without zone": (sent(GOOD | {"occurred_at": "2026-03-01T02:00:00"}), Quarantine.invalid_message),
    "number not text": (sent(GOOD | {"number": NUMBER}), Quarantine.invalid_message),
    "no numbers": (sent(numbers("l", [])), Quarantine.invalid_message),
    "too many numbers": (sent(numbers("l", [NUMBER] * 10_001)), Quarantine.invalid_message),
    "numbers are true": (sent(numbers("l", [True])), Quarantine.invalid_message),
    "column too short": (sent(numbers("l", [NUMBER] * 2, columns={"occurred_at": [1]})), Quarantine.invalid_message),
    "attribute twice": (sent(numbers("l", [NUMBER], columns={"terminated_at": [1]})), Quarantine.invalid_message),
    "time as text": (sent(numbers("l", [NUMBER], shared={"occurred_at": "2026-03-01"})), Quarantine.invalid_message),
    "damaged": (SentRecord(0, 7, 0, None, damaged=True), Quarantine.damaged),
}  # fmt: skip


@pytest.mark.parametrize("name", POISON)
def test_poison_is_set_aside_with_its_reason(name: str) -> None:
    """Each has its code; what is told of it repeats no number."""
    record, reason = POISON[name]
    found = read(record)
    assert isinstance(found, Unreadable)
    assert found.reason is reason
    assert "13800138000" not in (found.detail or "")
    assert len(found.detail or "") < 400


def test_a_fault_is_told_by_its_place_and_the_own_id() -> None:
    """The carrier finds its record and the member that is wrong."""
    found = read(sent(GOOD | {"event_type": "vanished"}))
    assert isinstance(found, Unreadable)
    assert found.key == "a-1"
    assert found.detail is not None and found.detail.startswith("/event_type: ")


def test_an_event_reads_like_an_item_over_http() -> None:
    """All members arrive; the schema may stand in the header alone."""
    more = {"terminated_at": "2026-02-28T16:00:00Z", "terminate_reason": "arrears", "acting_for": "mvno-a"}
    found = read(sent(without(GOOD, "schema") | more, HEADER))
    assert isinstance(found, SaidEvent)
    assert found.key == "a-1"
    item = found.item
    assert (item.number, item.event_type, item.acting_for, item.reason) == (NUMBER, EventType.deactivated, "mvno-a", 2)
    assert (item.occurred_at, item.terminated_at) == (1_772_301_600, 1_772_294_400)


def test_an_unreadable_number_spoils_its_row_only() -> None:
    """In a list of numbers each row that cannot be read has its own reason; the others stand."""
    column: list[int | str] = [NUMBER, "+86 138 0013 8001", 12, "x", "1380013800", NUMBER + 5]
    record = numbers("l", column, shared={}, columns={
        "terminated_at": [1_772_294_400, 1_772_294_400, None, None, None, 5],
        "terminate_reason": ["fraud", None, None, None, None, None],
    })  # fmt: skip
    found = read(sent(record))
    assert isinstance(found, NumberList)
    assert found.numbers.tolist() == [NUMBER, NUMBER + 1, 0, 0, 0, NUMBER + 5]
    reasons = [BY_NUMBER.get(code) for code in found.refusal.tolist()]
    bad = Refusal.invalid_number
    assert reasons == [None, None, bad, bad, bad, Refusal.invalid_time]
    assert found.claims.terminated_at.tolist() == [1_772_294_400, 1_772_294_400, 0, 0, 0, 0]
    assert found.claims.reason.tolist() == [3, 0, 0, 0, 0, 0]


def test_an_unknown_reason_is_refused_by_row() -> None:
    """A reason for the end of a line that the hub does not know is the row's fault, not the list's."""
    found = read(sent(numbers("l", [NUMBER, NUMBER + 1], columns={"terminate_reason": ["moved", "fraud"]})))
    assert isinstance(found, NumberList)
    assert found.refusal.tolist() == [Refusal.invalid_value.number, 0]


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.binary(max_size=200) | st.none(), st.lists(st.tuples(st.text(max_size=8), st.binary(max_size=20)), max_size=3)
)
def test_no_bytes_raise(value: bytes | None, headers: list[tuple[str, bytes]]) -> None:
    """Whatever the bytes, there is an outcome."""
    assert isinstance(read(sent(value, headers)), Unreadable)


@given(st.dictionaries(st.sampled_from([*GOOD, "numbers", "shared", "columns", "other"]), _json, max_size=8))
def test_no_members_raise(value: dict[str, Any]) -> None:
    """Whatever the members hold, there is an outcome."""
    assert read(sent({"schema": SCHEMA} | value)) is not None
