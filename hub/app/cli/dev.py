"""`numhub dev`: the real services for a developer, in one command."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from hub.app.cli._open import fail
from hub.app.local.dev import Dev
from hub.app.local.process import LocalError

dev = typer.Typer(
    help="Kafka, PostgreSQL and Redis on this machine, for developing and trying out.", no_args_is_help=True
)

_told = Console(stderr=True, soft_wrap=True, highlight=False)

Folder = Annotated[Path, typer.Option("--folder", help="where the services keep their data, logs and state")]
DEFAULT_FOLDER = Path("numhub-dev")


def _say(line: str) -> None:
    _told.print(f"  {line}", markup=False)


@dev.command("up")
def up(
    folder: Folder = DEFAULT_FOLDER,
    brokers: Annotated[int | None, typer.Option(min=1, max=3, help="Kafka brokers, 1 or 3; 1 unless said")] = None,
) -> None:
    """Start the services in the background, on loopback; what runs already is left alone.

    Standard output holds the settings alone, so that a shell can take them over: eval "$(numhub dev up)"
    """
    if brokers == 2:
        raise fail("--brokers is 1 or 3: two brokers cannot agree when one is gone")
    _told.print(f"services below {folder.resolve()}", markup=False)
    try:
        settings = Dev(folder, _say).up(brokers)
    except LocalError as error:
        raise fail(str(error)) from None
    except KeyboardInterrupt:
        raise fail("interrupted; what this command started was stopped") from None
    for name, value in settings.items():
        print(f"export {name}={shlex.quote(value)}")
    apply = "numhub topics apply" + (" --development" if settings["NUMHUB_KAFKA_BOOTSTRAP"].count(",") < 2 else "")
    _told.print(f'next: eval "$(numhub dev up)"; {apply}; numhub serve. At the end: numhub dev down', markup=False)


@dev.command("down")
def down(
    folder: Folder = DEFAULT_FOLDER,
    erase: Annotated[bool, typer.Option("--erase", help="remove their data as well")] = False,
) -> None:
    """Stop the services that `numhub dev up` started here, and nothing else. Their data stay."""
    try:
        stopped = Dev(folder, _say).down(erase=erase)
    except LocalError as error:
        raise fail(str(error)) from None
    if not stopped:
        _told.print(f"nothing runs below {folder.resolve()}", markup=False)


@dev.command("status")
def status(folder: Folder = DEFAULT_FOLDER) -> None:
    """Tell each service's state; exit code 1 unless all of them run."""
    try:
        state = Dev(folder, _say).state()
    except LocalError as error:
        raise fail(str(error)) from None
    if state is None:
        raise fail(f"nothing was started below {folder.resolve()}; numhub dev up does it")
    names = ["Redis", "PostgreSQL", *(f"Kafka broker {number}" for number in range(1, state.brokers + 1))]
    known = {one.name: one for one in state.processes}
    each = len(state.ports["kafka"]) // state.brokers
    ports = [state.ports["redis"][0], state.ports["postgresql"][0], *state.ports["kafka"][::each]]
    table = Table(box=None, pad_edge=False)
    for heading in ("service", "state", "pid", "address", "log"):
        table.add_column(heading, overflow="fold")
    running = 0
    for name, port in zip(names, ports, strict=True):
        one = known.get(name)
        runs = one is not None and one.alive
        running += runs
        shown = "[green]running[/]" if runs else "[red]ended by itself[/]" if one else "[yellow]stopped[/]"
        table.add_row(name, shown, str(one.pid) if one and runs else "", f"127.0.0.1:{port}", one.log if one else "")
    Console(soft_wrap=True, highlight=False).print(table)
    if running < len(names):
        raise typer.Exit(1)
