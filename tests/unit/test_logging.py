"""Logs: one JSON object per line, and no full number in any of them."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from hub.adapters.telemetry.logging import JsonLines, MaskNumbers, configure
from hub.domain.numbers import PhoneNumber

NUMBER = "13812345678"
MASKED = "138****5678"


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.addFilter(MaskNumbers())
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("numhub.test")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.DEBUG)
    yield stream
    logger.handlers, logger.propagate = [], True


def _line(out: io.StringIO) -> dict[str, object]:
    assert "\n" not in out.getvalue().rstrip("\n")
    line: dict[str, object] = json.loads(out.getvalue())
    return line


@dataclass
class _Thing:
    number: int


def test_numbers_in_messages_are_masked(out: io.StringIO) -> None:
    """In the message itself, in every way people write a number."""
    spaced = "138-1234-5678 138 1234 5678 １３８１２３４５６７８"
    forms = f"a {NUMBER} +86{NUMBER} 0086{NUMBER} 86{NUMBER} {spaced} tel:{NUMBER}."
    logging.getLogger("numhub.test").info(forms)
    text = str(_line(out)["event"])
    assert NUMBER not in text
    assert text.count("****") == 8
    assert "12345678" not in text.replace(" ", "").replace("-", "")


def test_numbers_in_arguments_are_masked(out: io.StringIO) -> None:
    """As text, as %d, as bytes, inside containers and objects."""
    logger = logging.getLogger("numhub.test")
    logger.info("%s %d %s %s %r", NUMBER, int(NUMBER), [int(NUMBER)], NUMBER.encode(), _Thing(int(NUMBER)))
    text = str(_line(out)["event"])
    assert NUMBER not in text
    assert text.count(MASKED) == 5


def test_numbers_in_extra_fields_are_masked(out: io.StringIO) -> None:
    """Whatever stands in extra: text, integer with or without 86, list, mapping with numbers as keys, object."""
    extra = {
        "one": NUMBER,
        "two": int(NUMBER),
        "three": int("86" + NUMBER),
        "four": [int(NUMBER), (NUMBER,)],
        "five": {NUMBER: {"deep": {int(NUMBER)}}},
        "six": _Thing(int(NUMBER)),
        "seven": PhoneNumber(int(NUMBER)),
        "count": 5,
        "ms": 1_767_225_600_000,
    }
    logging.getLogger("numhub.test").info("numbers_seen", extra=extra)
    line = _line(out)
    assert NUMBER not in out.getvalue()
    assert line["event"] == "numbers_seen"
    assert line["two"] == MASKED
    assert (line["count"], line["ms"]) == (5, 1_767_225_600_000)


def test_numbers_in_tracebacks_are_masked(out: io.StringIO) -> None:
    """An exception's text goes out masked, with its traceback, on one line."""
    try:
        raise ValueError(f"bad number {NUMBER}")
    except ValueError:
        logging.getLogger("numhub.test").exception("it_failed")
    line = _line(out)
    assert NUMBER not in out.getvalue()
    assert f"ValueError: bad number {MASKED}" in str(line["error"])


def test_a_format_that_does_not_fit_loses_nothing(out: io.StringIO) -> None:
    """A wrong log call is still a line, still masked."""
    logging.getLogger("numhub.test").info("%d %d", NUMBER)
    assert NUMBER not in out.getvalue()
    assert MASKED in str(_line(out)["event"])


def test_ids_and_times_stay_readable(out: io.StringIO) -> None:
    """What is no mobile number is not touched: epoch milliseconds, ids, long digits, counts."""
    text = "1767225600000 250000000 evt_00ff12 2026-01-01T00:00:00Z 10086 12812345678 138123456789"
    logging.getLogger("numhub.test").info(text)
    assert _line(out)["event"] == text


def test_configure_makes_every_logger_write_masked_lines() -> None:
    """The root logger is replaced; uvicorn's own handlers go, its access log is silent."""
    root, stream = logging.getLogger(), io.StringIO()
    before, level = root.handlers[:], root.level
    try:
        configure("INFO", stream)
        logging.getLogger("some.library").warning("number %s", NUMBER)
        logging.getLogger("uvicorn.access").info("GET /?n=%s", NUMBER)
        logging.getLogger("some.library").debug("not shown")
    finally:
        root.handlers[:] = before
        root.setLevel(level)
        logging.getLogger("uvicorn.access").disabled = False
    (line,) = stream.getvalue().splitlines()
    assert json.loads(line)["event"] == f"number {MASKED}"
