"""Getting in: `numhub token` for calls from a shell, `numhub login-link` for the regulator's page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hub.app.cli._open import DEFAULT_DATA, Data, Opened, console, fail, on_data
from hub.app.settings import load
from hub.domain.parties import Role


def token(
    client_id: Annotated[str, typer.Option(help="party id")],
    key: Annotated[Path, typer.Option(help="private key file, as written by numhub party add")],
    url: Annotated[str, typer.Option(help="address of the hub")] = "http://127.0.0.1:8080",
) -> None:
    """Print an access token of ten minutes, for curl and the like."""
    from numhub_client import Client, NumhubError, PrivateKey
    from numhub_client.errors import ConnectionFailed

    try:
        with Client(url, PrivateKey.load(key, client_id)) as client:
            typer.echo(client.token())
    except ConnectionFailed as error:
        raise fail(f"{url}: {error}") from None
    except OSError as error:
        raise fail(f"{key}: {error.strerror or error}") from None
    except (NumhubError, ValueError) as error:
        raise fail(str(error)) from None


def login_link(
    party_id: Annotated[str, typer.Argument(help="a regulator or operator")],
    url: Annotated[str, typer.Option(help="address of the hub as a browser reaches it")] = "http://127.0.0.1:8080",
    data: Data = DEFAULT_DATA,
) -> None:
    """Print a link that opens the regulator's page once, within ten minutes."""

    async def check(opened: Opened) -> None:
        party = opened.members.party(party_id)
        if party is None or party.role not in (Role.regulator, Role.operator):
            raise fail(f"{party_id} is no enrolled regulator or operator")

    on_data(data, check)
    console.print(make_link(load(data_dir=data).keys_folder, url, party_id), soft_wrap=True, highlight=False)


def make_link(keys_folder: Path, url: str, party_id: str) -> str:
    """A signed one-time link for the page at ``url``."""
    from hub.adapters.system.clock import SystemClock
    from hub.app.wiring import link_key
    from hub.web.session import sign_link

    return f"{url}/login?ticket={sign_link(link_key(keys_folder), party_id, SystemClock().now())}"
