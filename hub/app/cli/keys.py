"""The hub's own keys: made before many processes share them, and changed from time to time."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hub.adapters.oauth.keys import KeyFileError, open_hub_keys, rotate_hub_keys
from hub.app.cli._open import MaybeData, console, fail
from hub.app.cli.serve import settings_for
from hub.app.wiring import make_keys

keys = typer.Typer(help="The hub's own keys: token signing, feed cursors, login links.", no_args_is_help=True)

MaybeConfig = Annotated[Path | None, typer.Option("--config", help="settings file (TOML)")]
MaybeFolder = Annotated[Path | None, typer.Option("--to", help="the folder, over the setting keys_dir")]


@keys.command("create")
def create(data: MaybeData = None, config: MaybeConfig = None, to: MaybeFolder = None) -> None:
    """Make what is missing. Run it once before the first processes of a hub start; again it changes nothing."""
    folder = to or settings_for(config, data_dir=data).keys_folder
    try:
        make_keys(folder)
        signing = open_hub_keys(folder).signing_kid
    except KeyFileError as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{folder}: {error.strerror or error}") from None
    console.print(f"{folder}: kid {signing[:12]}.. signs", highlight=False, soft_wrap=True)


@keys.command("rotate")
def rotate(data: MaybeData = None, config: MaybeConfig = None, to: MaybeFolder = None) -> None:
    """Make a new token signing key beside the old ones, which stay good until their files are removed.

    Processes take it up when they start: restart all of them, wait ten minutes (a token's life), remove the old file.
    """
    folder = to or settings_for(config, data_dir=data).keys_folder
    try:
        kids = rotate_hub_keys(folder)
    except KeyFileError as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{folder}: {error.strerror or error}") from None
    console.print(f"{folder}: kid {kids.signing_kid[:12]}.. signs after a restart", highlight=False, soft_wrap=True)
