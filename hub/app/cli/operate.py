"""What operators do with a data directory while no hub runs on it, or beside one: doctor, rebuild, schemas."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from hub.adapters.codec.json_codec import JsonCodec
from hub.adapters.columns.index import ColumnIndex
from hub.adapters.columns.store import IndexInUse
from hub.adapters.oauth.keys import KeyFileError, open_hub_keys
from hub.adapters.redis.examine import examine
from hub.adapters.sql import care
from hub.adapters.sqlite.log_file import LogMismatch
from hub.adapters.telemetry.prometheus import NoMetrics
from hub.app.cli._open import MaybeData, console, fail
from hub.app.cli.serve import settings_for
from hub.app.kafka import look_at
from hub.app.settings import INDEX_DIR, LEDGER_FILE, LOG_FILE, Settings
from hub.app.wiring import build, open_log
from hub.domain.errors import NumhubError
from hub.flow import matching
from hub.flow.fold import Fold

Check = tuple[str, bool, str]

CONTRACT_URL = "https://hub.example"
"""The address that stands for any hub in the published documents."""


def doctor(
    data: MaybeData = None,
    config: Annotated[Path | None, typer.Option(help="settings file (TOML)")] = None,
) -> None:
    """Look over settings, files, keys and databases; exit code 1 if something needs a hand."""
    settings = settings_for(config, data_dir=data)
    data = settings.data_dir
    checks: list[Check] = [("settings", True, "read and consistent")]
    checks += [_folder(data), _space(data), _keys(settings.keys_folder)]
    checks += asyncio.run(look_at(settings)) if settings.kafka_bootstrap else [_database(data / LOG_FILE, "log")]
    checks += _ledger_server(settings) if settings.shared else [_database(data / LEDGER_FILE, "ledger")]
    if redis_url := settings.redis_url.get_secret_value():
        checks.append(("redis", *asyncio.run(examine(redis_url))))
    if settings.dangerous_allow_loopback_receivers:
        checks.append(("receivers", False, "dangerous_allow_loopback_receivers is on: for development only"))
    table = Table(show_header=False, box=None)
    for name, good, text in checks:
        table.add_row("[green]ok[/]" if good else "[red]look[/]", name, text)
    console.print(table)
    if not all(good for _, good, _ in checks):
        raise typer.Exit(1)


def _ledger_server(settings: Settings) -> list[Check]:
    try:
        return [(found.what, found.good, found.said) for found in care.look(settings.ledger_address)]
    except NumhubError as error:
        return [("ledger server", False, error.message)]


def _folder(data: Path) -> Check:
    if not data.exists():
        return "data directory", True, f"{data} does not exist yet; numhub serve makes it"
    mode = data.stat().st_mode & 0o777
    if mode & 0o077:
        return "data directory", False, f"{data} is open to others (mode {mode:o}); chmod 700 it"
    return "data directory", True, str(data.resolve())


def _space(data: Path) -> Check:
    at = next(folder for folder in (data, *data.resolve().parents) if folder.exists())
    free = shutil.disk_usage(at).free
    return "disk", free > 1 << 30, f"{free / (1 << 30):.1f} GiB free" + ("" if free > 1 << 30 else "; below 1 GiB")


def _keys(folder: Path) -> Check:
    if not folder.exists():
        return "signing keys", True, "none yet; made at the first start"
    try:
        return "signing keys", True, f"kid {open_hub_keys(folder).signing_kid[:12]}.. signs"
    except KeyFileError as error:
        return "signing keys", False, str(error)


def _database(path: Path, what: str) -> Check:
    if not path.exists():
        return what, True, "not there yet"
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5) as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        return what, False, f"{path.name}: {error}"
    size = sum(part.stat().st_size for part in (path, path.with_name(path.name + "-wal")) if part.exists())
    return what, found == "ok", f"{path.name}: {size / 1e6:.1f} MB, quick check {found}"


def rebuild(
    data: MaybeData = None,
    config: Annotated[Path | None, typer.Option(help="settings file (TOML)")] = None,
    log_replaced: Annotated[
        bool, typer.Option("--log-replaced", help="accept another log: set all subscribers back to its beginning")
    ] = False,
) -> None:
    """Delete what is derived (number index, catalogue) and fold it from the log again. The hub must be stopped.

    With --log-replaced the log is taken as the ledger's own though the ledger has positions it never reached (a topic
    made anew, a log restored to an older state): subscribers get everything in it again, and miss nothing of it.
    """
    settings = settings_for(config, data_dir=data)
    data = settings.data_dir
    if not settings.kafka_bootstrap and not (data / LOG_FILE).exists():
        raise fail(f"there is no log below {data}")
    try:
        numbers, seconds = asyncio.run(_rebuild(settings))
        moved = asyncio.run(_clear_catalogue(settings, log_replaced))
    except IndexInUse:
        raise fail(f"a hub is running on {data}; stop it first") from None
    except (NumhubError, KeyFileError, LogMismatch) as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{error.filename or data}: {error.strerror or error}") from None
    console.print(f"{numbers:,} numbers folded in {seconds:.1f} s; the catalogue is listed anew at the next start")
    if log_replaced:
        console.print(f"{moved:,} positions of subscribers set to the beginning of the log")


async def _rebuild(settings: Settings) -> tuple[int, float]:
    data, log = settings.data_dir, await open_log(settings)
    partitions = log.partitions
    began = time.perf_counter()
    # Opening takes the directory's lock, so a running hub is never robbed of its index.
    ColumnIndex(data / INDEX_DIR, partitions, log.log_id).close()
    shutil.rmtree(data / INDEX_DIR)
    index = ColumnIndex(data / INDEX_DIR, partitions, log.log_id)
    fold = Fold(log, index, JsonCodec(), NoMetrics())
    running = asyncio.create_task(fold.run())
    try:
        await fold.catch_up()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    index.flush()
    count = index.count()
    index.close()
    await log.close()
    return count, time.perf_counter() - began


async def _clear_catalogue(settings: Any, log_replaced: bool) -> int:
    hub = await build(settings)
    try:
        if log_replaced:
            return await matching.start_over(hub.ledger, hub.log)
        await matching.check(hub.ledger, hub.log)
        await hub.ledger.clear_catalogue()
        return 0
    finally:
        await hub.close()


def schemas(
    folder: Annotated[Path, typer.Argument(help="where the contract stands")] = Path("schemas"),
    check: Annotated[bool, typer.Option("--check", help="only compare; exit code 1 if something differs")] = False,
) -> None:
    """Write the published contract (OpenAPI, AsyncAPI, JSON Schemas, examples, tables) as generated from the models."""
    from tempfile import TemporaryDirectory

    from hub.app import contract
    from hub.app.settings import Settings

    async def compared() -> tuple[dict[str, str], list[str]]:
        with TemporaryDirectory() as scratch:
            hub = await build(Settings(data_dir=Path(scratch)), public_url=CONTRACT_URL)
            try:
                return contract.compare(hub.app, folder)
            finally:
                await hub.close()

    differing, strays = asyncio.run(compared())
    for name, text in differing.items():
        path = folder / name
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        console.print(f"{'differs' if check else 'written'}: {path}", highlight=False)
    for name in strays:
        console.print(f"not of the contract, remove it: {folder / name}", highlight=False)
    if check and (differing or strays):
        raise typer.Exit(1)
