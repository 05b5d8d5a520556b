"""Settings: the manual is complete, and what does not go together is refused at start."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from hub.app.settings import Settings, load

EXAMPLE = Path(__file__).parents[2] / "deploy" / "hub.example.toml"


def test_the_example_names_every_setting_with_its_default() -> None:
    """deploy/hub.example.toml and Settings agree field by field, in the same order."""
    example = tomllib.loads(EXAMPLE.read_text("utf-8"))
    defaults = Settings().model_dump(mode="json")
    assert list(example) == list(defaults)
    assert example == defaults


def test_every_setting_in_the_example_is_explained() -> None:
    """Each setting has a comment directly above it."""
    lines = EXAMPLE.read_text("utf-8").splitlines()
    for place, line in enumerate(lines):
        if line and not line.startswith("#"):
            assert lines[place - 1].startswith("#"), line


def test_the_environment_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, then environment, then arguments: the later one wins."""
    file = tmp_path / "hub.toml"
    file.write_text("port = 1000\npartitions = 4\ndrain_within = 1.5\n", "utf-8")
    monkeypatch.setenv("NUMHUB_PORT", "2000")
    settings = load(file, partitions=2)
    assert (settings.port, settings.partitions, settings.drain_within) == (2000, 2, 1.5)


@pytest.mark.parametrize(
    "given",
    [
        {"prot": 1},
        {"port": 70_000},
        {"public_url": "ftp://x"},
        {"host": "0.0.0.0"},
        {"host": "0.0.0.0", "public_url": "https://hub.example", "dangerous_allow_loopback_receivers": True},
    ],
)
def test_what_cannot_be_right_is_refused(given: dict[str, object]) -> None:
    """Unknown options, values out of range and dangerous combinations stop the start."""
    with pytest.raises(ValidationError):
        load(**given)


def test_an_unknown_option_in_the_file_is_refused(tmp_path: Path) -> None:
    """A misspelt setting never passes for the default."""
    file = tmp_path / "hub.toml"
    file.write_text("prot = 1\n", "utf-8")
    with pytest.raises(ValidationError):
        load(file)
