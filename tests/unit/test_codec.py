"""The bytes of a chunk: the documented form, the way there and back, and what is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.adapters.codec.json_codec import JsonCodec
from hub.domain.events import EventType, Lane
from hub.ports.codec import Chunk
from tests.making import FIRST, T0, make_chunk

CODEC = JsonCodec()


def read(body: bytes) -> Chunk:
    """Read out of the bytes themselves: the codec that wrote them still knows what it put in."""
    return JsonCodec().decode(body)


COLUMNS = ("numbers", "generation", "seq", "occurred_at", "binding_cutoff_at", "release_planned_at", "reason")

_time = st.integers(0, 2**32 - 1)


@st.composite
def chunks(draw: st.DrawFn) -> Chunk:
    numbers = sorted(draw(st.sets(st.integers(13_000_000_000, 19_999_999_999), min_size=1, max_size=60)))
    rows = len(numbers)

    def column(values: st.SearchStrategy[int], dtype: Any) -> Any:
        few = draw(st.lists(values, min_size=1, max_size=3))  # mostly equal, now and then an exception, or all mixed
        often = draw(st.sampled_from([1.0, 0.95, 0.3]))
        chosen = [few[0] if draw(st.floats(0, 1)) < often else draw(st.sampled_from(few)) for _ in range(rows)]
        return np.array(chosen, dtype)

    return Chunk(
        draw(st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable())),
        draw(st.sampled_from(EventType)),
        draw(st.sampled_from(Lane)),
        draw(_time),
        np.array(numbers, np.int64),
        column(st.integers(0, 255), np.uint8),
        column(st.integers(0, 65_535), np.uint16),
        column(_time, np.int64),
        column(_time, np.int64),
        column(_time, np.int64) if draw(st.booleans()) else None,
        column(st.integers(0, 5), np.uint8),
        {"renewal_id": "ren_1", "due_at": 5, "consent_digest": "aa"} if rows == 1 and draw(st.booleans()) else None,
    )


def same(one: Chunk, other: Chunk) -> bool:
    for name in COLUMNS:
        a, b = getattr(one, name), getattr(other, name)
        empty = a is None or not a.any(), b is None or not b.any()
        if all(empty) and name in ("release_planned_at", "reason"):
            continue  # not stated by any row: absent
        if a is None or b is None or a.dtype != b.dtype or not np.array_equal(a, b):
            return False
    rest = ("record_id", "event_type", "lane", "reported_at", "renewal")
    return all(getattr(one, name) == getattr(other, name) for name in rest)


@settings(max_examples=150, deadline=None)
@given(chunks())
def test_there_and_back(chunk: Chunk) -> None:
    """decode undoes encode, column by column, and encode gives the same bytes for the same chunk."""
    body = CODEC.encode(chunk)
    assert same(read(body), chunk) and same(CODEC.decode(body), chunk)
    assert CODEC.encode(read(body)) == body


def test_the_documented_form() -> None:
    """A CloudEvent: common values once, rows that differ as exceptions, wild ones as a column; no carrier anywhere."""
    chunk = make_chunk("a", range(FIRST, FIRST + 20), EventType.release_scheduled, seq=[1] * 19 + [3])
    chunk.occurred_at[:] = T0 + np.arange(20)
    event = orjson.loads(CODEC.plain(CODEC.encode(chunk)))
    assert {name: event[name] for name in event if name != "data"} == {
        "specversion": "1.0",
        "id": chunk.record_id,
        "source": "urn:numhub:hub",
        "type": "cn.numhub.number.release_scheduled.v1",
        "time": "2026-01-01T00:00:00Z",
        "timestamp": "2026-01-01T00:00:00Z",
        "datacontenttype": "application/json",
    }
    assert event["data"] == {
        "chunk_id": chunk.record_id,
        "event_type": "release_scheduled",
        "lane": "bulk",
        "count": 20,
        "country_code": "86",
        "numbers": list(range(FIRST, FIRST + 20)),
        "shared": {"generation": 0, "seq": 1, "binding_cutoff_at": T0},
        "exceptions": {"seq": {"rows": [19], "values": [3]}},
        "columns": {"occurred_at": list(range(T0, T0 + 20))},
        "reported_at": T0,
    }


def test_reasons_and_planned_releases_read_as_people_write_them() -> None:
    """A reason is its name, a time that a row does not state is null."""
    rows = 4
    chunk = make_chunk(
        "a",
        range(FIRST, FIRST + rows),
        release_planned_at=np.array([0, T0, 0, T0 + 1], np.int64),
        reason=np.array([2, 2, 2, 2], np.uint8),
    )
    data = orjson.loads(CODEC.plain(CODEC.encode(chunk)))["data"]
    assert data["shared"]["terminate_reason"] == "arrears"
    assert data["columns"]["release_planned_at"] == [None, T0, None, T0 + 1]
    assert same(read(CODEC.encode(chunk)), chunk)


def test_every_attribute_is_taken_from_any_of_the_three_places() -> None:
    """The reader does not depend on where this version's writer would have put an attribute."""
    chunk = make_chunk("a", range(FIRST, FIRST + 3))
    event = orjson.loads(CODEC.plain(CODEC.encode(chunk)))
    event["data"]["shared"] = {"generation": 0, "occurred_at": T0}
    event["data"]["columns"] = {"seq": [1, 1, 1]}
    event["data"]["shared"]["binding_cutoff_at"] = 5
    event["data"]["exceptions"] = {"binding_cutoff_at": {"rows": [0, 1, 2], "values": [T0, T0, T0]}}
    assert same(CODEC.decode(zstandard.compress(orjson.dumps(event))), chunk)


def _set(*path: Any, to: Any) -> Callable[[dict[str, Any]], None]:
    def change(event: dict[str, Any]) -> None:
        place: Any = event
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = to

    return change


WRONG = {
    "another version": _set("specversion", to="2.0"),
    "unknown type": _set("type", to="cn.numhub.number.exploded.v1"),
    "types differ": _set("data", "event_type", to="restored"),
    "ids differ": _set("data", "chunk_id", to="evt_other"),
    "unknown lane": _set("data", "lane", to="slow"),
    "count": _set("data", "count", to=4),
    "no numbers": _set("data", "numbers", to=[]),
    "numbers no list": _set("data", "numbers", to="13800000000"),
    "not ascending": _set("data", "numbers", to=[FIRST, FIRST + 2, FIRST + 1]),
    "twice": _set("data", "numbers", to=[FIRST, FIRST, FIRST + 1]),
    "no mobile number": _set("data", "numbers", to=[1, 2, 3]),
    "text numbers": _set("data", "numbers", to=["1", "2", "3"]),
    "fractions": _set("data", "numbers", to=[FIRST, FIRST + 1.5, FIRST + 2]),
    "huge": _set("data", "numbers", to=[FIRST, FIRST + 1, 2**64 - 1]),
    "missing attribute": _set("data", "shared", to={"generation": 0, "seq": 1, "occurred_at": T0}),
    "column too short": _set("data", "columns", to={"seq": [1, 1]}),
    "seq too large": _set("data", "shared", "seq", to=65_536),
    "negative": _set("data", "shared", "generation", to=-1),
    "null": _set("data", "shared", "seq", to=None),
    "late": _set("data", "shared", "binding_cutoff_at", to=2**32),
    "row out of range": _set("data", "exceptions", to={"seq": {"rows": [3], "values": [2]}}),
    "negative row": _set("data", "exceptions", to={"seq": {"rows": [-1], "values": [2]}}),
    "uneven exceptions": _set("data", "exceptions", to={"seq": {"rows": [0, 1], "values": [2]}}),
    "unknown reason": _set("data", "shared", "terminate_reason", to="bored"),
    "renewal of many": _set("data", "renewal", to={"renewal_id": "ren_1"}),
    "reported_at text": _set("data", "reported_at", to="now"),
    "no data": _set("data", to=None),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_encode_did_not_write_is_refused(name: str) -> None:
    """Every departure from the form is a ValueError, nothing else."""
    event = orjson.loads(CODEC.plain(CODEC.encode(make_chunk("a", range(FIRST, FIRST + 3)))))
    WRONG[name](event)
    with pytest.raises(ValueError):
        CODEC.decode(zstandard.compress(orjson.dumps(event)))


@pytest.mark.parametrize(
    "body", [b"", b"{}", zstandard.compress(b""), zstandard.compress(b"[]"), zstandard.compress(b"\xff")]
)
def test_other_bytes_are_refused(body: bytes) -> None:
    """No zstd, no JSON, no object."""
    with pytest.raises(ValueError):
        CODEC.decode(body)


def test_a_bomb_is_refused_before_it_grows() -> None:
    """A body that claims more than the limit is never decompressed."""
    with pytest.raises(ValueError):
        CODEC.plain(zstandard.compress(bytes(20 << 20)))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_flipped_byte_never_escapes_as_another_error(place: int, value: int) -> None:
    """Damage is a ValueError or, where it hits nothing that counts, still a chunk."""
    body = bytearray(CODEC.encode(make_chunk("a", range(FIRST, FIRST + 300, 3))))
    body[place % len(body)] = value
    with contextlib.suppress(ValueError):
        assert len(CODEC.decode(bytes(body))) >= 1


@pytest.mark.parametrize(
    "numbers", [[], [FIRST + 1, FIRST], [FIRST, FIRST], [5], list(range(FIRST, FIRST + 10_001))], ids=len
)
def test_encode_refuses_what_decode_would(numbers: list[int]) -> None:
    """Empty, unordered, doubled, foreign or too long."""
    with pytest.raises(ValueError):
        CODEC.encode(make_chunk("a", numbers))


def test_a_chunk_decoded_twice_is_decoded_once() -> None:
    """The same bytes object gives the same chunk, which nobody can change; equal bytes give an equal one."""
    codec = JsonCodec()
    body = codec.encode(make_chunk("a", range(FIRST, FIRST + 5_000)))
    chunk = codec.decode(body)
    assert codec.decode(body) is chunk and same(chunk, read(body))
    assert chunk.numbers.dtype == read(body).numbers.dtype and chunk.seq.dtype == read(body).seq.dtype
    assert chunk.reason is None and read(body).reason is None
    assert not chunk.numbers.flags.writeable and not chunk.seq.flags.writeable
    other = codec.decode(bytes(bytearray(body)))
    assert other is not chunk and same(other, chunk)


def test_decoded_chunks_are_kept_in_bounds() -> None:
    """What was decoded long ago is let go of."""
    codec = JsonCodec()
    bodies = [codec.encode(make_chunk(str(n), range(FIRST, FIRST + 10_000))) for n in range(40)]
    first = codec.decode(bodies[0])
    for body in bodies:
        codec.decode(body)
    assert codec.decode(bodies[-1]) is codec.decode(bodies[-1])
    assert codec.decode(bodies[0]) is not first
