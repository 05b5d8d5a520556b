"""``numhub waiver``: a regulator's signed word that some answers are not waited for, through the public API."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated

import typer
from numhub_client.models import Waiver
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hub.app.cli._open import print_json
from hub.app.cli.batch import HUB, ClientId, Key, Kid, Url, _connected
from hub.app.cli.subscription import TIMES, Json

waiver = typer.Typer(no_args_is_help=True, help="Signed acts by which a subscriber's answers are not waited for.")
console = Console(highlight=False)


@waiver.command("add")
def add(
    subscriber_id: Annotated[str, typer.Argument(help="party id of the subscriber")],
    client_id: ClientId,
    key: Key,
    person: Annotated[str, typer.Option(help="who decided")],
    reason: Annotated[str, typer.Option(help="and why; kept as evidence")],
    url: Url = HUB,
    kid: Kid = None,
    batch: Annotated[str | None, typer.Option(metavar="BATCH_ID", help="for this batch only, else for all")] = None,
    ends_at: Annotated[
        datetime | None, typer.Option(formats=TIMES, metavar="MOMENT", help="until then (UTC), else for good")
    ] = None,
    as_json: Json = False,
) -> None:
    """Sign a waiver with the regulator's key and put it; it is listed for ever."""
    with _connected(url, client_id, key, kid) as client:
        made = client.waivers.sign_and_put(
            subscriber_id,
            person=person,
            reason=reason,
            batch_id=batch,
            ends_at=ends_at.replace(tzinfo=UTC) if ends_at else None,
        )
    if as_json:
        print_json(asdict(made))
    else:
        console.print(_table([made]))


@waiver.command("list")
def list_all(client_id: ClientId, key: Key, url: Url = HUB, kid: Kid = None, as_json: Json = False) -> None:
    """Every waiver ever made that you may see, the ended ones too."""
    with _connected(url, client_id, key, kid) as client:
        found = client.waivers.list()
    if as_json:
        print_json([asdict(one) for one in found])
    else:
        console.print(_table(found) if found else "there is no waiver")


def _table(found: list[Waiver]) -> Table:
    table = Table("waiver", "subscriber", "batch", "ends", "by", "person", "reason", box=None)
    table.columns[0].no_wrap = True
    for one in found:
        ends = f"{one.ends_at:%Y-%m-%d %H:%M}Z" if one.ends_at else "never"
        table.add_row(
            one.waiver_id, one.subscriber_id, one.batch_id or "all", ends, one.issued_by,
            escape(one.person), escape(one.reason),
        )  # fmt: skip
    return table
