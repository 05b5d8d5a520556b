"""``numhub subscription``: what a subscriber's apps hear of, through the public API."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Literal

import typer
from numhub_client.models import Subscription
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hub.app.cli._open import print_json
from hub.app.cli.batch import HUB, ClientId, Key, Kid, Url, _connected

subscription = typer.Typer(no_args_is_help=True, help="What your apps hear of, and how it reaches them.")
console = Console(highlight=False)

Mode = Literal["webhook_full", "webhook_pointer", "pull"]
TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
Json = Annotated[bool, typer.Option("--json", help="JSON on standard output")]
SubscriptionId = Annotated[str, typer.Argument(metavar="SUBSCRIPTION_ID")]


@subscription.command("add")
def add(
    app_id: Annotated[str, typer.Argument(help="an app of yours, as enrolled by the operator")],
    client_id: ClientId,
    key: Key,
    url: Url = HUB,
    kid: Kid = None,
    mode: Annotated[Mode, typer.Option(help="how events come to you")] = "pull",
    endpoint: Annotated[str | None, typer.Option(help="https address for webhooks")] = None,
    earliest: Annotated[
        bool, typer.Option("--earliest", help="from the first event the hub has, not from now")
    ] = False,
) -> None:
    """Subscribe an app. Pull works at once; a webhook's endpoint must then be proven."""
    with _connected(url, client_id, key, kid) as client:
        made = client.subscriptions.create(
            app_id, mode=mode, endpoint=endpoint, start="earliest" if earliest else "now"
        )
    console.print(
        f"subscription [bold]{made.subscription_id}[/bold] of {escape(made.app_id)}: {made.mode}, {made.state}"
    )
    if made.secret is not None:
        console.print(f"secret to verify with, shown once: [bold]{made.secret.key}[/bold]", soft_wrap=True)
    if made.state == "unproven":
        console.print(f"when your endpoint knows the secret: numhub subscription prove {made.subscription_id}")


@subscription.command("list")
def list_all(client_id: ClientId, key: Key, url: Url = HUB, kid: Kid = None) -> None:
    """Your subscriptions."""
    with _connected(url, client_id, key, kid) as client:
        console.print(_table(client.subscriptions.list()))


@subscription.command("prove")
def prove(subscription_id: SubscriptionId, client_id: ClientId, key: Key, url: Url = HUB, kid: Kid = None) -> None:
    """Have the hub post its challenge to the endpoint; exit code 1 if it was not answered."""
    with _connected(url, client_id, key, kid) as client:
        found = client.subscriptions.prove(subscription_id)
    console.print(f"{'proven' if found.proven else 'not proven'}: {found.detail}", markup=False)
    if not found.proven:
        raise typer.Exit(1)


@subscription.command("pause")
def pause(subscription_id: SubscriptionId, client_id: ClientId, key: Key, url: Url = HUB, kid: Kid = None) -> None:
    """Stop deliveries; nothing is lost meanwhile."""
    with _connected(url, client_id, key, kid) as client:
        console.print(_table([client.subscriptions.pause(subscription_id)]))


@subscription.command("resume")
def resume(subscription_id: SubscriptionId, client_id: ClientId, key: Key, url: Url = HUB, kid: Kid = None) -> None:
    """Go on where deliveries stopped."""
    with _connected(url, client_id, key, kid) as client:
        console.print(_table([client.subscriptions.resume(subscription_id)]))


@subscription.command("deliveries")
def deliveries(
    subscription_id: SubscriptionId,
    client_id: ClientId,
    key: Key,
    url: Url = HUB,
    kid: Kid = None,
    as_json: Json = False,
) -> None:
    """What became of the newest deliveries: received, retrying, parked and why."""
    with _connected(url, client_id, key, kid) as client:
        found = client.subscriptions.deliveries(subscription_id)
    if as_json:
        print_json([asdict(one) for one in found])
        return
    table = Table("chunk", "state", "at", "attempts", "reason", box=None)
    table.columns[0].no_wrap = table.columns[2].no_wrap = True
    table.columns[3].justify = "right"
    for one in found:
        table.add_row(
            one.chunk_id, one.state, f"{one.at:%Y-%m-%d %H:%M:%S}Z", str(one.attempts), escape(one.reason or "")
        )
    console.print(table if found else "nothing was delivered yet")


@subscription.command("redrive")
def redrive(
    subscription_id: SubscriptionId,
    client_id: ClientId,
    key: Key,
    url: Url = HUB,
    kid: Kid = None,
    since: Annotated[
        datetime | None,
        typer.Option(formats=TIMES, metavar="MOMENT", help="everything published since then (UTC): 2026-01-31T08:00"),
    ] = None,
    parked: Annotated[bool, typer.Option("--parked", help="everything that is parked")] = False,
    chunk: Annotated[list[str] | None, typer.Option(help="this parked chunk; may be given more than once")] = None,
    as_json: Json = False,
) -> None:
    """Deliver again. Subscribers recognise repeats by their id."""
    if (since is not None) + parked + bool(chunk) != 1:
        raise typer.BadParameter("say one of --since, --parked and --chunk")
    with _connected(url, client_id, key, kid) as client:
        moment = since.replace(tzinfo=UTC) if since else None
        chunks = client.subscriptions.redrive(subscription_id, since=moment, chunk_ids=chunk or None, parked=parked)
    if as_json:
        print_json({"subscription_id": subscription_id, "since": moment, "chunks": chunks})
    elif moment is not None:
        console.print(
            f"everything published since {moment:%Y-%m-%d %H:%M:%S}Z comes again: pushed, or on the next pull"
        )
    else:
        console.print(f"{chunks or 0:,} parked chunks are sent again; those that fail again stay parked")


def _table(found: list[Subscription]) -> Table:
    table = Table("subscription", "app", "mode", "state", "parked", "endpoint", box=None)
    table.columns[0].no_wrap = True
    table.columns[4].justify = "right"
    for one in found:
        state = f"{one.state} ({one.state_reason})" if one.state_reason else one.state
        table.add_row(one.subscription_id, one.app_id, one.mode, state, str(one.parked), escape(one.endpoint or ""))
    return table
