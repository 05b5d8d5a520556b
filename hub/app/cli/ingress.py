"""`numhub ingress`: how far carriers' own topics are taken in, and beginning one of them anew."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hub.adapters.sql.ledger import SqlLedger, open_ledger
from hub.adapters.system.clock import SystemClock
from hub.app.cli._open import MaybeData, console, fail
from hub.app.cli.serve import settings_for
from hub.domain.errors import NumhubError, Unavailable
from hub.flow.members import Members
from hub.workers.ingress import publishing_carriers

app = typer.Typer(help="What carriers publish to their own Kafka topics.")

Config = Annotated[Path | None, typer.Option(help="settings file (TOML)")]


@app.command("status")
def status(data: MaybeData = None, config: Config = None) -> None:
    """Per carrier the topic that is taken in, and the next offset of each partition."""

    async def act(ledger: SqlLedger, members: Members) -> None:
        table = Table("carrier", "topic id", "next offsets", box=None)
        for carrier_id in publishing_carriers(members):
            found = await ledger.ingress_positions(carrier_id)
            offsets = " ".join(f"{part}:{offset}" for part, offset in sorted(found.offsets.items())) if found else "-"
            table.add_row(carrier_id, found.topic_id if found else "-", offsets)
        console.print(table, highlight=False)
        console.print(f"answers not told yet: {await ledger.outbox_size()}", highlight=False)

    _on_ledger(data, config, act)


@app.command("restart")
def restart(
    carrier: Annotated[str, typer.Argument(help="party id of the carrier")],
    data: MaybeData = None,
    config: Config = None,
) -> None:
    """Take a stopped carrier's topic in from its beginning again: what is known is recognised by its id."""

    async def act(ledger: SqlLedger, members: Members) -> None:
        if not await ledger.forget_ingress(carrier):
            raise fail(f"nothing of {carrier} was ever taken in")
        console.print(f"{carrier}: begins anew within some seconds", highlight=False)

    _on_ledger(data, config, act)


def _on_ledger(data: Path | None, config: Path | None, act: Callable[[SqlLedger, Members], Awaitable[None]]) -> None:
    settings = settings_for(config, data_dir=data)
    address = settings.ledger_address
    if isinstance(address, Path) and not address.exists():
        raise fail(f"there is no ledger below {settings.data_dir}; name the hub's data directory with --data")

    async def run() -> None:
        clock = SystemClock()
        directory, ledger = open_ledger(address, clock)
        try:
            members = Members(directory, clock)
            await members.refresh()
            await act(ledger, members)
        finally:
            await ledger.close()

    try:
        asyncio.run(run())
    except Unavailable as error:
        raise fail(f"the ledger cannot be reached: {error.message}") from None
    except NumhubError as error:
        raise fail(error.message) from None
