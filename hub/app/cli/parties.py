"""``numhub party``, ``app``, ``agreement``: who takes part, decided by the operator on the data directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.markup import escape
from rich.table import Table

from hub.adapters.oauth.keys import generate, write_private
from hub.app.cli._open import DEFAULT_DATA, Data, Opened, console, fail, on_data
from hub.domain.events import Purpose
from hub.domain.lifecycle import CHINA
from hub.domain.parties import AppClass, Party, Role
from hub.flow.enrol import Enrolled
from hub.flow.members import ANY_CARRIER

party = typer.Typer(no_args_is_help=True, help="Carriers, subscribers, regulators, operators.")
app = typer.Typer(no_args_is_help=True, help="The apps of subscribers.")
agreement = typer.Typer(no_args_is_help=True, help="The basis on which events reach subscribers.")

KeyOut = Annotated[Path | None, typer.Option("--key-out", help="make a key pair; the private JWK goes into this file")]
KeyIn = Annotated[Path | None, typer.Option("--public-key", help="file with the party's public JWK (or JWK set)")]
Kind = Annotated[Literal["ES256", "EdDSA"], typer.Option("--alg", help="kind of the key pair to make")]


@party.command("add")
def add_party(
    party_id: Annotated[str, typer.Argument(help="its client id: lower case, digits, dot, dash, underscore")],
    role: Annotated[Role, typer.Option("--role")],
    name: Annotated[str, typer.Option("--name", help="its name as people know it")],
    key_out: KeyOut = None,
    public_key: KeyIn = None,
    alg: Kind = "ES256",
    holder: Annotated[list[str] | None, typer.Option("--holder", help="block holder a carrier may publish")] = None,
    acting_for: Annotated[list[str] | None, typer.Option("--acting-for", help="MVNO whose files it sends")] = None,
    coverage_since: Annotated[str | None, typer.Option(help="day from which its events are complete")] = None,
    sandbox: Annotated[bool, typer.Option("--sandbox", help="give it a client secret; never for real data")] = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Enrol a party; with a key pair made here (--key-out) or with its own public key (--public-key)."""
    keys = _keys(key_out, public_key, alg)
    if not keys and not sandbox:
        raise fail("a party needs a key: give --key-out FILE or --public-key FILE")
    since = _day(coverage_since) if coverage_since else None

    async def act(opened: Opened) -> Enrolled:
        return await opened.enrol.add_party(
            role,
            party_id,
            name,
            keys=keys,
            block_holders=holder or (),
            acting_for=acting_for or (),
            sandbox=sandbox,
            coverage_since=since,
        )

    enrolled = _keeping_key(key_out, lambda: on_data(data, act, make=True))
    console.print(
        f"{role.value} [bold]{party_id}[/bold] enrolled", *_told(enrolled.kids, key_out), sep="\n", soft_wrap=True
    )
    if enrolled.client_secret:
        console.print(f"client secret, shown once: [bold]{enrolled.client_secret}[/bold]", soft_wrap=True)


@party.command("list")
def list_parties(data: Data = DEFAULT_DATA) -> None:
    """All parties."""

    async def act(opened: Opened) -> list[tuple[Party, int]]:
        snapshot = opened.members.snapshot
        return [(found, len(snapshot.keys.get(found.party_id, ()))) for found in snapshot.parties.values()]

    table = _table("party", "role", "name", "state", "keys", "since")
    for found, keys in sorted(on_data(data, act), key=lambda pair: (pair[0].role, pair[0].party_id)):
        _row(table, found.party_id, found.role.value, found.name, _state(found), str(keys), _date(found.created_at))
    console.print(table)


@party.command("show")
def show_party(party_id: str, data: Data = DEFAULT_DATA) -> None:
    """One party: keys, apps, agreements, subscriptions."""

    async def act(opened: Opened) -> Table:
        snapshot = opened.members.snapshot
        found = snapshot.parties.get(party_id)
        if found is None:
            raise fail(f"there is no party {party_id}")
        table = _table(title=f"{found.name} ({party_id})")
        _row(table, "role", found.role.value)
        _row(table, "state", _state(found))
        if found.role is Role.carrier:
            _row(table, "blocks", ", ".join(found.block_holders) or "any")
            _row(table, "acts for", ", ".join(found.acting_for) or "nobody else")
            _row(table, "complete since", _date(found.coverage_since) if found.coverage_since else "not stated")
        for key in snapshot.keys.get(party_id, ()):
            until = f", until {_date(key.retired_at)}" if key.retired_at else ""
            _row(table, "key", f"{key.kid} ({key.jwk.get('kty')}, {_date(key.created_at)}{until})")
        for known in snapshot.apps.values():
            if known.subscriber_id == party_id:
                _row(table, "app", f"{known.app_id} ({known.app_class.value})")
        for agreed in snapshot.agreements:
            if party_id in (agreed.subscriber_id, agreed.carrier_id):
                span = f"{_date(agreed.starts_at)} to {_date(agreed.ends_at)}"
                whose = f"{agreed.carrier_id} -> {agreed.subscriber_id}"
                _row(table, "agreement", f"{agreed.agreement_id} {whose} {agreed.purpose.value}, {span}")
        for subscription in snapshot.subscriptions.values():
            if subscription.subscriber_id == party_id:
                state = f"{subscription.mode.value}, {subscription.state.value}"
                _row(table, "subscription", f"{subscription.subscription_id} {subscription.app_id} ({state})")
        return table

    console.print(on_data(data, act))


@party.command("suspend")
def suspend(party_id: str, data: Data = DEFAULT_DATA) -> None:
    """Stop a party everywhere; a running hub obeys within a minute, in fact about a second."""
    on_data(data, lambda opened: opened.enrol.suspend(party_id))
    console.print(f"[bold]{party_id}[/bold] suspended")


@party.command("resume")
def resume(party_id: str, data: Data = DEFAULT_DATA) -> None:
    """Let a suspended party take part again."""
    on_data(data, lambda opened: opened.enrol.resume(party_id))
    console.print(f"[bold]{party_id}[/bold] takes part again")


@party.command("rotate-key")
def rotate_key(
    party_id: str,
    key_out: KeyOut = None,
    public_key: KeyIn = None,
    alg: Kind = "ES256",
    overlap_hours: Annotated[float, typer.Option(help="how long older keys stay good; 0: not at all")] = 24.0,
    data: Data = DEFAULT_DATA,
) -> None:
    """Register a new key, made here (--key-out) or by the party (--public-key)."""
    keys = _keys(key_out, public_key, alg)
    if len(keys) != 1:
        raise fail("give exactly one new key: --key-out FILE or --public-key FILE")
    overlap = timedelta(hours=overlap_hours)
    kid = _keeping_key(
        key_out, lambda: on_data(data, lambda opened: opened.enrol.rotate_key(party_id, keys[0], overlap=overlap))
    )
    console.print(f"[bold]{party_id}[/bold] has a new key", *_told([kid], key_out), sep="\n", soft_wrap=True)


@app.command("add")
def add_app(
    app_id: str,
    subscriber: Annotated[str, typer.Option("--subscriber", help="party id of the subscriber")],
    app_class: Annotated[AppClass, typer.Option("--class")],
    name: Annotated[str, typer.Option("--name")],
    data: Data = DEFAULT_DATA,
) -> None:
    """Enrol an app of a subscriber."""
    on_data(data, lambda opened: opened.enrol.add_app(app_id, subscriber, app_class, name))
    console.print(f"app [bold]{app_id}[/bold] of {subscriber} enrolled")


@app.command("list")
def list_apps(data: Data = DEFAULT_DATA) -> None:
    """All apps."""

    async def act(opened: Opened) -> Table:
        table = _table("app", "subscriber", "class", "name", "since")
        for known in sorted(opened.members.snapshot.apps.values(), key=lambda found: found.app_id):
            _row(table, known.app_id, known.subscriber_id, known.app_class.value, known.name, _date(known.created_at))
        return table

    console.print(on_data(data, act))


@agreement.command("add")
def add_agreement(
    subscriber: Annotated[str, typer.Option("--subscriber")],
    pia_ref: Annotated[str, typer.Option("--pia", help="reference of the personal information impact assessment")],
    carrier: Annotated[str, typer.Option("--carrier", help="* stands for every carrier")] = ANY_CARRIER,
    purpose: Annotated[Purpose, typer.Option("--purpose")] = Purpose.account_unbind,
    days: Annotated[int, typer.Option("--days", min=1, max=3650, help="how long it lasts from now")] = 365,
    data: Data = DEFAULT_DATA,
) -> None:
    """Let a carrier's events reach a subscriber for one purpose."""

    async def act(opened: Opened) -> str:
        now = opened.clock.now()
        made = await opened.enrol.add_agreement(
            subscriber, pia_ref=pia_ref, carrier_id=carrier, purpose=purpose, starts_at=now,
            ends_at=now + timedelta(days=days),
        )  # fmt: skip
        return made.agreement_id

    console.print(f"agreement [bold]{on_data(data, act)}[/bold] is in force for {days} days")


@agreement.command("list")
def list_agreements(data: Data = DEFAULT_DATA) -> None:
    """All agreements."""

    async def act(opened: Opened) -> Table:
        now = opened.clock.now()
        table = _table("agreement", "carrier", "subscriber", "purpose", "from", "to", "in force", "assessment")
        for agreed in opened.members.snapshot.agreements:
            span = (_date(agreed.starts_at), _date(agreed.ends_at), "yes" if agreed.active(now) else "no")
            who = (agreed.carrier_id, agreed.subscriber_id, agreed.purpose.value)
            _row(table, agreed.agreement_id, *who, *span, agreed.pia_ref)
        return table

    console.print(on_data(data, act))


@agreement.command("end")
def end_agreement(agreement_id: str, data: Data = DEFAULT_DATA) -> None:
    """End an agreement now: nothing more is delivered on its basis."""
    on_data(data, lambda opened: opened.enrol.end_agreement(agreement_id))
    console.print(f"agreement [bold]{agreement_id}[/bold] ended")


def _keys(key_out: Path | None, public_key: Path | None, alg: Literal["ES256", "EdDSA"]) -> list[Mapping[str, Any]]:
    """The public keys a command brings; a key pair made here is written before anything is enrolled."""
    if key_out is not None and public_key is not None:
        raise fail("give --key-out or --public-key, not both")
    if key_out is not None:
        private, public = generate(alg)
        try:
            write_private(key_out, private)
        except FileExistsError:
            raise fail(f"{key_out} exists already; a key is never replaced") from None
        except OSError as error:
            raise fail(f"{key_out}: {error.strerror}") from None
        return [public]
    if public_key is None:
        return []
    try:
        found = json.loads(public_key.read_text("utf-8"))
        keys = found["keys"] if isinstance(found, dict) and "keys" in found else [found]
        if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
            raise ValueError
    except OSError as error:
        raise fail(f"{public_key}: {error.strerror}") from None
    except ValueError:
        raise fail(f"{public_key} holds no JWK") from None
    return keys


def _keeping_key(key_out: Path | None, act: Any) -> Any:
    """Do ``act``; if it fails, take away the key file made for it: nobody knows its public half."""
    try:
        return act()
    except BaseException:
        if key_out is not None:
            key_out.unlink(missing_ok=True)
        raise


def _told(kids: Any, key_out: Path | None) -> list[str]:
    lines = [f"key id {kid}" for kid in kids]
    return [*lines, f"private key (JWK) in {key_out}: hand it over, then delete it here"] if key_out else lines


def _table(*columns: str, title: str | None = None) -> Table:
    """A table whose first column (an id) is never cut."""
    table = Table(title=escape(title) if title else None, title_justify="left", show_header=bool(columns))
    for place, column in enumerate(columns):
        table.add_column(column, no_wrap=place == 0, overflow="fold")
    return table


def _row(table: Table, *cells: str) -> None:
    table.add_row(*(escape(cell) for cell in cells))  # names are other people's texts, not markup


def _state(found: Party) -> str:
    return "suspended" if found.suspended else "sandbox" if found.sandbox else "active"


def _date(moment: datetime | None) -> str:
    return "" if moment is None else f"{moment.astimezone(CHINA):%Y-%m-%d %H:%M}"


def _day(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=CHINA).astimezone(UTC)
    except ValueError:
        raise fail("--coverage-since is a day such as 2026-01-01") from None
