"""What schemas/README.md shows is true: the worked example, the links, the tables."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from hub.adapters.codec.json_codec import JsonCodec
from hub.app import contract
from hub.domain.events import EventType
from hub.flow import acknowledge

SCHEMAS = Path(__file__).parents[2] / "schemas"
README = (SCHEMAS / "README.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The one code block of that language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return str(found)


def reader() -> Any:
    names: dict[str, Any] = {}
    exec(block("python"), names)
    return names["value"]


def test_the_worked_example_says_what_the_text_says() -> None:
    """Shared, shared with an exception, and a column, read by the function that stands below them."""
    data, value = json.loads(block("json")), reader()
    assert [value(data, "generation", row) for row in range(4)] == [0, 0, 0, 0]
    assert [value(data, "seq", row) for row in range(4)] == [2, 2, 4, 2]
    assert value(data, "binding_cutoff_at", 3) == 1772035200
    assert value(data, "release_planned_at", 0) is None


@pytest.mark.parametrize("form", ["shared", "exceptions", "columns"])
def test_the_reader_of_the_text_reads_real_chunks(form: str) -> None:
    """It gives the very columns that the codec was given."""
    chunk, value = contract.sample_chunk(form), reader()
    data = json.loads(JsonCodec().plain(JsonCodec().encode(chunk)))["data"]
    for name in ("generation", "seq", "occurred_at", "binding_cutoff_at"):
        assert [value(data, name, row) for row in range(len(chunk))] == getattr(chunk, name).tolist()
    if chunk.release_planned_at is not None:
        read = [value(data, "release_planned_at", row) or 0 for row in range(len(chunk))]
        assert read == chunk.release_planned_at.tolist()


def test_links_lead_somewhere() -> None:
    """Files and folders named in the README and the changelog are there."""
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(targets) > 30
    assert [target for target in targets if not (SCHEMAS / target).exists()] == []


def test_every_event_and_every_fault_of_an_answer_is_explained() -> None:
    """A subscriber finds each event type in the cutoff table and each code of a faulty answer in the text."""
    assert all(f"| `{event.value}` |" in README for event in EventType)
    source = Path(acknowledge.__file__).read_text(encoding="utf-8")
    faults = set(re.findall(r"_fault\([^,]+, \"(\w+)\"", source))
    assert len(faults) >= 8
    assert [code for code in faults if f"`{code}`" not in README] == []
    assert f"## {contract.VERSION}" in (SCHEMAS / "CHANGELOG.md").read_text(encoding="utf-8")
