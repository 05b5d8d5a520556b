"""The strict JSON reader: what two parsers could read differently is refused, the rest is read as everywhere."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hub.api.strict import MAX_DEPTH, parse
from hub.domain.errors import InvalidRequest

REFUSED: dict[str, bytes] = {
    "empty": b"",
    "blank": b"  ",
    "trailing": b"{} {}",
    "bom": b"\xef\xbb\xbf{}",
    "utf-16": '{"a":1}'.encode("utf-16"),
    "utf-32": '{"a":1}'.encode("utf-32-le"),
    "latin-1": b'{"a":"\xe9"}',
    "overlong": b'{"a":"\xc0\xaf"}',
    "raw surrogate": b'{"a":"\xed\xa0\x80"}',
    "lone high surrogate": b'{"a":"\\ud800"}',
    "lone low surrogate": b'{"a":"\\uDC00x"}',
    "lone surrogate in a key": b'{"\\ud800":1}',
    "nul": b'{"a":"\\u0000"}',
    "duplicate key": b'{"a":1,"a":1}',
    "duplicate key, escaped": b'{"a":1,"\\u0061":2}',
    "duplicate key, deep": b'{"x":[{"a":1,"a":2}]}',
    "nan": b'{"a":NaN}',
    "infinity": b"[Infinity]",
    "minus infinity": b"[-Infinity]",
    "float overflow": b"[1e999]",
    "long float": b"[0." + b"1" * 100 + b"]",
    "19 digits": b"[1" + b"0" * 18 + b"]",
    "a million digits": b"[" + b"9" * 1_000_000 + b"]",
    "depth 17": b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
    "depth 100,000": b"[" * 100_000 + b"]" * 100_000,
    "depth of objects": b'{"a":' * 100_000,
    "single quotes": b"{'a':1}",
    "comment": b"{}//",
    "control in a text": b'["\x01"]',
    "quotes that never end": b"[" * 17 + b'"\\"' * 50_000,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused(name: str) -> None:
    """The refusal is InvalidRequest with code invalid_json and repeats nothing of the body."""
    with pytest.raises(InvalidRequest) as caught:
        parse(REFUSED[name])
    assert caught.value.reason_code == "invalid_json"
    assert len(caught.value.message) < 120


@pytest.mark.parametrize(
    "body",
    [
        b"[" * MAX_DEPTH + b"]" * MAX_DEPTH,
        b'{"a":"[[[[[[[[[[[[[[[[[[[[[[[["}',
        b'{"a":"\\"[[[[[[[[[[[[[[[[[[[[[["}',
        b'["\\ud83d\\ude00", "\\\\ud800", "\\\\u0000"]',
        b"[999999999999999999, -999999999999999999, 1.5, 1e3, true, null]",
        b'{"sha256":"1234567890123456789012345678901234567890123456789012345678901234","n":7}',
        '  {"名":"号码"}\n'.encode(),
    ],
)
def test_what_is_clear_is_read_as_json_reads_it(body: bytes) -> None:
    """Brackets and escapes inside texts, pairs of surrogates, 18 digits and full depth are all fine."""
    assert parse(body) == json.loads(body)


def test_many_flat_brackets_are_not_depth() -> None:
    """A list of ten thousand objects is two levels deep."""
    body = json.dumps([{"a": [place]} for place in range(10_000)]).encode()
    assert len(parse(body)) == 10_000


_CHARACTERS = st.characters(exclude_characters="\x00", exclude_categories=["Cs"])
_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text(_CHARACTERS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(_values)
def test_every_plain_value_comes_back(value: object) -> None:
    """Whatever a serializer writes within the limits is read unchanged, escaped or not."""
    if "\\u0000" in json.dumps(value):
        return
    assert parse(json.dumps(value).encode()) == value
    assert parse(json.dumps(value, ensure_ascii=False).encode()) == value


_spaces = st.sampled_from(["", " ", "\n\t"])
_texts = st.sampled_from(["a", "b", ":", "a:", "{", "}", "[", "\\u0061", "\\\\", "é", "0" * 19])


@st.composite
def _written(draw: st.DrawFn, depth: int = 3) -> tuple[str, bool]:
    """A text of JSON, put together by hand, and whether one of its objects has the same key twice."""
    kind = draw(st.sampled_from(["text", "number", "list", "object"] if depth else ["text", "number"]))
    if kind == "text":
        return f'"{draw(_texts)}"', False
    if kind == "number":
        return draw(st.sampled_from(["0", "-1", "1.5", "1e3", "true", "null"])), False
    inner = [draw(_written(depth - 1)) for _ in range(draw(st.integers(0, 3)))]
    twice = any(each for _, each in inner)
    if kind == "list":
        return f"[{','.join(text for text, _ in inner)}]", twice
    keys = [draw(_texts) for _ in inner]
    meant = [json.loads(f'"{key}"') for key in keys]
    pairs = [f'"{key}"{draw(_spaces)}:{draw(_spaces)}{text}' for key, (text, _) in zip(keys, inner, strict=True)]
    return f"{{{','.join(pairs)}}}", twice or len(set(meant)) < len(meant)


@given(_written())
def test_the_same_key_twice_is_found_however_it_is_written(written: tuple[str, bool]) -> None:
    """Deep down, in lists of mixed kinds, with colons and quotes in texts, blanks before colons, or escapes."""
    text, twice = written
    if twice:
        with pytest.raises(InvalidRequest):
            parse(text.encode())
    else:
        assert parse(text.encode()) == json.loads(text)


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fall_over(body: bytes) -> None:
    """Any bytes give a value or InvalidRequest, never another error."""
    try:
        parse(body)
    except InvalidRequest as refused:
        assert refused.reason_code == "invalid_json"
