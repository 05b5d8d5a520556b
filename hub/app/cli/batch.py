"""``numhub batch``: a carrier's file to the hub and its verdict back, through the public API."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
import zstandard
from numhub_client import Client, NumhubError, PrivateKey
from numhub_client.errors import BatchFailed, ConnectionFailed
from numhub_client.models import Batch
from numhub_client.models import Progress as Step
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from hub.app.cli._open import fail
from hub.domain.batches import ContentEncoding, ContentFormat
from hub.domain.events import EventType

batch = typer.Typer(no_args_is_help=True, help="Files of numbers: upload, follow, collect the refused rows.")
console = Console(highlight=False)

Url = Annotated[str, typer.Option("--url", envvar="NUMHUB_URL", help="the hub")]
ClientId = Annotated[str, typer.Option("--client-id", envvar="NUMHUB_CLIENT_ID", help="your party id")]
Key = Annotated[Path, typer.Option("--key", envvar="NUMHUB_KEY", help="your private key (JWK, or PEM with --kid)")]
Kid = Annotated[str | None, typer.Option("--kid", help="the key's id, where the file does not say it")]
BatchId = Annotated[str, typer.Argument(metavar="BATCH_ID")]
HUB = "http://127.0.0.1:8080"

KNOWN = {".csv", ".ndjson", ".jsonl", ".parquet"}
STAGES = {"digest": "reading", "upload": "uploading", "validate": "judging"}


@batch.command("upload")
def upload(
    file: Annotated[
        Path, typer.Argument(help="CSV or NDJSON, plain, .gz or .zst; or Parquet", exists=True, dir_okay=False)
    ],
    batch_seq: Annotated[int, typer.Option("--batch-seq", help="your own number for this batch, without gaps", min=1)],
    client_id: ClientId,
    key: Key,
    url: Url = HUB,
    kid: Kid = None,
    event_type: Annotated[EventType, typer.Option(help="for rows that name none")] = EventType.release_scheduled,
    acting_for: Annotated[str | None, typer.Option(help="party id of the MVNO whose numbers these are")] = None,
    content_format: Annotated[
        ContentFormat | None, typer.Option("--format", help="where the name does not say")
    ] = None,
    encoding: Annotated[ContentEncoding | None, typer.Option(help="where the name does not say")] = None,
) -> None:
    """Announce, upload, commit and wait; an interrupted upload goes on when the command is given again."""
    if content_format is None and not {suffix.lower() for suffix in file.suffixes} & KNOWN:
        raise fail(f"{file.name} does not say what it is: give --format csv, ndjson or parquet")
    with _connected(url, client_id, key, kid) as client, _bars() as bars:
        tasks = {stage: bars.add_task(text, total=None, visible=False) for stage, text in STAGES.items()}

        def tell(step: Step) -> None:
            bars.update(tasks[step.stage], completed=step.done, total=step.total, visible=True)

        done = client.batches.upload(
            file,
            batch_seq=batch_seq,
            event_type=event_type.value,
            acting_for=acting_for,
            format=content_format.value if content_format else None,
            encoding=encoding.value if encoding else None,
            rows=_rows(file, content_format, encoding),
            progress=tell,
        )
    _show(done)


@batch.command("empty")
def empty(
    batch_seq: Annotated[int, typer.Option("--batch-seq", help="your own number for this batch, without gaps", min=1)],
    client_id: ClientId,
    key: Key,
    url: Url = HUB,
    kid: Kid = None,
    acting_for: Annotated[str | None, typer.Option(help="party id of the MVNO that has nothing to say")] = None,
) -> None:
    """Say that there is nothing this period."""
    with _connected(url, client_id, key, kid) as client:
        _show(client.batches.empty(batch_seq=batch_seq, acting_for=acting_for))


@batch.command("status")
def status(batch_id: BatchId, client_id: ClientId, key: Key, url: Url = HUB, kid: Kid = None) -> None:
    """Where a batch stands."""
    with _connected(url, client_id, key, kid) as client:
        _show(client.batches.get(batch_id))


@batch.command("result")
def result(
    batch_id: BatchId,
    client_id: ClientId,
    key: Key,
    url: Url = HUB,
    kid: Kid = None,
    out: Annotated[Path | None, typer.Option("--out", help="write the result file here")] = None,
) -> None:
    """The refused rows: line, reason, meaning."""
    with _connected(url, client_id, key, kid) as client:
        if out is not None:
            client.batches.save_result(batch_id, out)
            console.print(f"written to {out}", markup=False)
            return
        table = Table("line", "reason", "meaning", box=None)
        table.columns[0].justify = "right"
        rows = client.batches.result(batch_id)
        for row in rows:
            table.add_row(str(row.line), row.reason, row.meaning)
    console.print(table if rows else "no row was refused")


@contextmanager
def _connected(url: str, client_id: str, key: Path, kid: str | None) -> Iterator[Client]:
    """A client; what goes wrong inside becomes one clear line and exit code 1."""
    try:
        with Client(url, PrivateKey.load(key, client_id, kid=kid)) as client:
            yield client
    except BatchFailed as failed:
        _show(failed.batch)
        raise typer.Exit(1) from None
    except ConnectionFailed as error:
        raise fail(f"{url}: {error}") from None
    except OSError as error:
        raise fail(f"{error.filename}: {error.strerror}" if error.filename else str(error)) from None
    except (NumhubError, ValueError) as error:
        raise fail(str(error)) from None


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description:<10}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
    )


def _show(found: Batch) -> None:
    console.print(
        f"batch {found.batch_id} (no. {found.batch_seq}): [bold]{found.state}[/bold], "
        f"{_count(found.rows_accepted, 'row')} accepted in {_count(found.chunks, 'chunk')}, "
        f"{found.rows_refused:,} refused",
        soft_wrap=True,
    )
    if found.failure:
        console.print(found.failure, style="red", markup=False)
    if found.reasons:
        table = Table("rows", "reason", "meaning", box=None)
        table.columns[0].justify = "right"
        for reason in sorted(found.reasons, key=lambda each: -each.rows):
            table.add_row(f"{reason.rows:,}", reason.reason, reason.meaning)
        console.print(table)


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _rows(file: Path, form: ContentFormat | None, encoding: ContentEncoding | None) -> int | None:
    """Where the client itself does not look into the file. Raises ValueError for damaged content."""
    suffixes = [suffix.lower() for suffix in file.suffixes]
    if form is ContentFormat.parquet or (form is None and suffixes[-1:] == [".parquet"]):
        return _rows_in_parquet(file)
    if encoding is ContentEncoding.zstd or (encoding is None and suffixes[-1:] == [".zst"]):
        return _rows_in_zstd(file, header=form is ContentFormat.csv or (form is None and ".csv" in suffixes))
    return None


def _rows_in_parquet(file: Path) -> int:
    """As the file's footer says."""
    import polars as pl

    try:
        return int(pl.scan_parquet(file, glob=False).select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
        raise ValueError("the file is not Parquet, or it is damaged") from None


def _rows_in_zstd(file: Path, *, header: bool) -> int:
    """Data rows of zstd content: the client itself does not look into zstd. Raises ValueError for damaged content."""
    try:
        with (
            file.open("rb") as packed,
            zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as raw,
        ):
            rows = sum(1 for line in io.BufferedReader(raw, 1 << 20) if line not in (b"\n", b"\r\n", b"\r"))
    except zstandard.ZstdError:
        raise ValueError("the file is not zstd content") from None
    return max(0, rows - header)
