"""`numhub verify`: do log, number index and ledger tell the same story?"""

from __future__ import annotations

import asyncio
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer
from rich.table import Table

from hub.adapters.codec.json_codec import JsonCodec
from hub.adapters.columns.index import ColumnIndex
from hub.adapters.columns.store import IndexInUse
from hub.adapters.sql.ledger import open_ledger
from hub.adapters.sqlite.log_file import LogMismatch
from hub.adapters.system.clock import SystemClock
from hub.adapters.telemetry.prometheus import NoMetrics
from hub.app.cli._open import MaybeData, console, fail, print_json
from hub.app.cli.serve import settings_for
from hub.app.settings import INDEX_DIR, LOG_FILE, Settings
from hub.app.wiring import open_log
from hub.domain.errors import NumhubError
from hub.flow.verify import Finding, Verify


def verify(
    data: MaybeData = None,
    config: Annotated[Path | None, typer.Option(help="settings file (TOML)")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="one JSON object on standard output")] = False,
) -> None:
    """Judge the log anew and compare: number index, positions, catalogue, batches. Changes nothing.

    Exit code 1 if anything differs. Works beside a running hub, whose index is then not looked at. Reads the whole log
    twice and needs room for a second number index in the temporary folder.
    """
    settings = settings_for(config, data_dir=data)
    if not settings.kafka_bootstrap and not (settings.data_dir / LOG_FILE).exists():
        raise fail(f"there is no log below {settings.data_dir}; name the hub's data directory with --data")
    began = time.perf_counter()
    try:
        findings = asyncio.run(_verify(settings))
    except (NumhubError, LogMismatch) as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{error.filename or settings.data_dir}: {error.strerror or error}") from None
    agrees = all(finding.good for finding in findings)
    if as_json:
        told = {"agrees": agrees, "findings": [asdict(each) for each in findings]}
        print_json(told | {"seconds": round(time.perf_counter() - began, 1)})
    else:
        table = Table(show_header=False, box=None)
        for finding in findings:
            table.add_row("[green]ok[/]" if finding.good else "[red]differs[/]", finding.what, finding.said)
        console.print(table, highlight=False)
    if not agrees:
        raise typer.Exit(1)


async def _verify(settings: Settings) -> list[Finding]:
    log = await open_log(settings)
    try:
        _, ledger = open_ledger(settings.ledger_address, SystemClock(), **settings.ledger_options)
        try:
            with TemporaryDirectory(prefix="numhub-verify-") as scratch:
                fresh = ColumnIndex(Path(scratch) / INDEX_DIR, log.partitions, log.log_id)
                index = _index(settings, log.partitions, log.log_id)
                try:
                    return await Verify(log, ledger, JsonCodec(), NoMetrics(), fresh=fresh, index=index).run()
                finally:
                    fresh.close()
                    if index is not None:
                        index.close()
        finally:
            await ledger.close()
    finally:
        await log.close()


def _index(settings: Settings, partitions: int, log_id: str) -> ColumnIndex | None:
    """None while a hub holds it."""
    try:
        return ColumnIndex(settings.data_dir / INDEX_DIR, partitions, log_id)
    except IndexInUse:
        return None
