"""`numhub ledger`: bring the tables up to date, prove that a backup can be restored."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from hub.adapters.sql import care
from hub.app.cli._open import MaybeData, console, fail
from hub.app.cli.serve import settings_for
from hub.domain.errors import NumhubError

app = typer.Typer(help="The ledger's database: its tables and its backups.")

Config = Annotated[Path | None, typer.Option(help="settings file (TOML)")]


@app.command("migrate")
def migrate(data: MaybeData = None, config: Config = None) -> None:
    """Bring the ledger's tables up to date. Steps only add: a hub of the version before goes on working meanwhile.

    Parts of the tables that grow for years are made ahead here, and by any running hub with the role timers.
    """
    settings = settings_for(config, data_dir=data)
    try:
        if not settings.ledger_url.get_secret_value():
            settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        before, after = care.migrate(settings.ledger_address)
    except NumhubError as error:
        raise fail(error.message) from None
    except OSError as error:
        raise fail(f"{settings.data_dir}: {error.strerror or error}") from None
    if before == after:
        console.print(f"the ledger stands at {after} already", highlight=False)
    else:
        console.print(f"the ledger stood at {before or 'nothing'}, it stands at {after} now", highlight=False)


@app.command("backup-check")
def backup_check(
    folder: Annotated[Path, typer.Argument(help="where the backup is put")],
    data: MaybeData = None,
    config: Config = None,
    keep: Annotated[bool, typer.Option(help="keep the backup that was checked")] = True,
) -> None:
    """Back the ledger up, restore the backup beside it, compare the two row by row; exit code 1 if anything differs.

    Works while the hub runs. PostgreSQL: pg_dump into FOLDER/ledger.dump, restored with pg_restore into a scratch
    database (the user needs the right to create one) that is dropped again. To restore for good: create an empty
    database, `pg_restore --no-owner --exit-on-error --dbname=... FOLDER/ledger.dump`, point NUMHUB_LEDGER_URL at it.
    SQLite: an online copy into FOLDER/ledger.db. To restore for good: stop the hub, remove ledger.db-wal and
    ledger.db-shm, put the copy in the place of ledger.db.
    What was committed after the backup comes back from the log and from subscribers who answer again.
    """
    settings = settings_for(config, data_dir=data)
    try:
        findings = care.check_backup(settings.ledger_address, folder, keep=keep)
    except NumhubError as error:
        raise fail(error.message) from None
    except OSError as error:
        raise fail(f"{folder}: {error.strerror or error}") from None
    table = Table(show_header=False, box=None)
    for finding in findings:
        table.add_row("[green]ok[/]" if finding.good else "[red]look[/]", finding.what, finding.said)
    console.print(table, highlight=False)
    if not all(finding.good for finding in findings):
        raise typer.Exit(1)
