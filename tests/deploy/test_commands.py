"""Commands that deploy/ has others run are commands of the hub, with options it knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from hub.app.cli.main import app
from hub.app.roles import WORKER
from tests.deploy.manifests import BASE, containers, render

DEPLOY = Path(__file__).parents[2] / "deploy"


def in_compose() -> Iterator[list[str]]:
    for service in yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))["services"].values():
        if service["image"].startswith("numhub:") and "entrypoint" not in service:
            yield service["command"]


def in_kubernetes() -> Iterator[list[str]]:
    for doc in render(BASE):
        yield from (container["args"] for container in containers(doc))


def in_texts() -> Iterator[list[str]]:
    """`numhub ..` at the beginning of code or of a line, up to the first word that is no name of a command."""
    for file in sorted(DEPLOY.glob("*.md")):
        for found in re.finditer(r"(?:^|`|/bin/)numhub((?: [a-z][a-z-]+)+)", file.read_text("utf-8"), re.MULTILINE):
            yield found[1].split()


def resolve(words: list[str]) -> tuple[Any, list[str]]:
    """The command and what is left for it. Raises KeyError for one that is not there."""
    command: Any = typer.main.get_command(app)
    rest = list(words)
    while hasattr(command, "commands"):
        if not rest:
            return command, rest
        command = command.commands[rest.pop(0)]
    return command, rest


COMMANDS = sorted({tuple(words) for words in [*in_compose(), *in_kubernetes()]})


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_that_is_run_exists(words: tuple[str, ...]) -> None:
    """Subcommand, options and values are taken by the command line as they stand."""
    command, rest = resolve(list(words))
    assert not hasattr(command, "commands"), "a group of commands"
    context = command.make_context("numhub", list(rest), resilient_parsing=False)
    assert not context.args
    roles = {role for role in context.params.get("roles", "").split(",") if role}
    assert roles <= {role.value for role in WORKER}


def test_a_command_that_is_not_there_is_noticed() -> None:
    """The check can fail, at the name and at an option."""
    with pytest.raises(KeyError):
        resolve(["topics", "aply"])
    command, rest = resolve(["serve", "--prot", "1"])
    with pytest.raises(Exception, match="--prot"):
        command.make_context("numhub", rest)


def test_every_command_in_the_documents_exists() -> None:
    """What README, RUNBOOK and CAPACITY tell an operator to type is there to be typed."""
    seen = 0
    for words in in_texts():
        command: Any = typer.main.get_command(app)
        for word in words:
            if not hasattr(command, "commands"):
                break
            assert word in command.commands, f"numhub {' '.join(words)}"
            command = command.commands[word]
            seen += 1
    assert seen > 5
