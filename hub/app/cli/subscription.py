"""``numhub subscription``: what a subscriber's apps hear of, through the public API."""

from __future__ import annotations

from typing import Annotated, Literal

import typer
from numhub_client.models import Subscription
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hub.app.cli.batch import HUB, ClientId, Key, Kid, Url, _connected

subscription = typer.Typer(no_args_is_help=True, help="What your apps hear of, and how it reaches them.")
console = Console(highlight=False)

Mode = Literal["webhook_full", "webhook_pointer", "pull"]
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


def _table(found: list[Subscription]) -> Table:
    table = Table("subscription", "app", "mode", "state", "parked", "endpoint", box=None)
    table.columns[0].no_wrap = True
    table.columns[4].justify = "right"
    for one in found:
        state = f"{one.state} ({one.state_reason})" if one.state_reason else one.state
        table.add_row(one.subscription_id, one.app_id, one.mode, state, str(one.parked), escape(one.endpoint or ""))
    return table
