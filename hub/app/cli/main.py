"""The command line, put together."""

from __future__ import annotations

import typer

from hub.app.cli import (
    batch,
    demo,
    dev,
    ingress,
    keys,
    ledger,
    listen,
    login,
    operate,
    parties,
    policy,
    serve,
    subscription,
    topics,
    verify,
    waiver,
)

app = typer.Typer(
    name="numhub",
    help="The hub that tells every app when a phone number changes hands.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("serve")(serve.serve)
app.command("api")(serve.api)
app.command("worker")(serve.worker)
app.command("demo")(demo.demo)
app.command("doctor")(operate.doctor)
app.command("verify")(verify.verify)
app.command("rebuild")(operate.rebuild)
app.command("schemas")(operate.schemas)
app.command("token")(login.token)
app.command("login-link")(login.login_link)
app.command("listen")(listen.listen)
app.add_typer(parties.party, name="party")
app.add_typer(parties.app, name="app")
app.add_typer(parties.agreement, name="agreement")
app.add_typer(batch.batch, name="batch")
app.add_typer(subscription.subscription, name="subscription")
app.add_typer(waiver.waiver, name="waiver")
app.add_typer(topics.app, name="topics")
app.add_typer(ingress.app, name="ingress")
app.add_typer(ledger.app, name="ledger")
app.add_typer(keys.keys, name="keys")
app.add_typer(dev.dev, name="dev")
app.add_typer(policy.policy, name="policy")


def main() -> None:
    app()
