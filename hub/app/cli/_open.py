"""What commands on a data directory share: opening it, running one act, ending with one clear line."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from random import SystemRandom
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from hub.adapters.oauth.keys import JwkReader
from hub.adapters.sql.ledger import open_ledger
from hub.adapters.system.clock import SystemClock
from hub.app.settings import load
from hub.domain.errors import NumhubError
from hub.flow.enrol import Enrol
from hub.flow.members import Members

T = TypeVar("T")

Data = Annotated[Path, typer.Option("--data", envvar="NUMHUB_DATA_DIR", help="the hub's data directory")]
MaybeData = Annotated[Path | None, typer.Option("--data", help="the data directory, over the setting data_dir")]
DEFAULT_DATA = Path("numhub-data")

console = Console()


@dataclass(frozen=True)
class Opened:
    """The directory of one data directory, ready for questions and changes; a running hub sees changes in a second."""

    members: Members
    enrol: Enrol
    clock: SystemClock


def fail(message: str) -> typer.Exit:
    """Say why on standard error, in one line; to be raised. Exit code 1."""
    Console(stderr=True, soft_wrap=True).print(f"numhub: {message}", style="red", markup=False, highlight=False)
    return typer.Exit(1)


def print_json(value: Any) -> None:
    """For programs: one line of standard output."""
    sys.stdout.write(json.dumps(value, default=lambda moment: moment.isoformat()) + "\n")


def on_data(data: Path, act: Callable[[Opened], Awaitable[T]], *, make: bool = False) -> T:
    """Open the ledger under ``data``, do ``act``, close. The hub's own errors end the command.

    ``make``: begin a new ledger where there is none. Who only looks or changes has named the wrong directory then.
    """

    settings = load(data_dir=data)
    address = settings.ledger_address

    async def run() -> T:
        clock = SystemClock()
        directory, ledger = open_ledger(address, clock, **settings.ledger_options)
        try:
            members = Members(directory, clock)
            await members.refresh()
            return await act(Opened(members, Enrol(directory, members, clock, SystemRandom(), JwkReader()), clock))
        finally:
            await ledger.close()

    if not make and isinstance(address, Path) and not address.exists():
        raise fail(f"there is no ledger below {data}; name the hub's data directory with --data")
    try:
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        return asyncio.run(run())
    except NumhubError as error:
        raise fail(error.message) from None
    except OSError as error:
        raise fail(f"{data}: {error.strerror or error}") from None
