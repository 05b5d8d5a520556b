"""Parquet: read by a process of its own, which writes the rows as plain CSV lines; then they go the way of CSV.

What a Parquet file says of itself (sizes of pages, counts of values, repeats) is only known to be a lie when it is
unpacked. The reading process may use a bounded amount of memory and computing time, so a bomb, or a defect of the
decoder, ends that process and not the hub. It reads row group by row group and holds one piece at a time.

Row *n* of the file is line *n*; there is no header line. Values of more than 64 characters, and those that would not be
plain in CSV, are replaced by something that is refused with the same reason.
"""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from hub.adapters.files.texts import COLUMNS, checked_columns
from hub.ports.batch_files import ContentProblem

MEMORY = 640 << 20
"""Bytes that the reading process may have, 200 MiB of them for the decoder itself. A row group of 5 million rows takes
as much again."""
CPU_SECONDS, SILENT_SECONDS = 600, 60.0
"""A decoder that ran out of memory may also wait for its own dead threads."""
MAX_ROWS = 50_000_000
FOOTER_LIMIT = 16 << 20
PIECE_ROWS = 1 << 18
_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"
_BAD, _DAMAGED = 3, 4  # exit codes: the file cannot be taken, for a reason that is told; it cannot be decoded
_SILENT = -1000
_THREADS = ("POLARS_MAX_THREADS", "POLARS_ASYNC_THREAD_COUNT", "OPENBLAS_NUM_THREADS")
_PIECE_BYTES = 4 << 20


def as_csv(path: Path, memory: int = MEMORY) -> Iterator[bytes]:
    """CSV in pieces, the first line being the names of the columns. Raises ContentProblem, or OSError when the reading
    process could not run to its end for a reason that lies here."""
    _check_frame(path)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        **dict.fromkeys(_THREADS, "2"),  # each takes memory, and by themselves they are as many as the machine's cores
        "RUST_BACKTRACE": "0",  # to print one takes memory
    }
    command = [sys.executable, "-m", __name__, str(path), str(memory)]
    with (
        TemporaryFile() as told,
        subprocess.Popen(  # noqa: S603 - this very module
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=told, env=environment
        ) as reader,
    ):
        assert reader.stdout is not None
        try:
            yield from _pieces(reader.stdout.fileno())
            code = reader.wait(SILENT_SECONDS)
        except (TimeoutError, subprocess.TimeoutExpired):
            reader.kill()
            code = _SILENT
        except BaseException:  # whoever reads has seen enough
            reader.kill()
            raise
        told.seek(0)
        said = told.read(4_000).decode(errors="replace").strip()
    if code == 0:
        return
    if code == _BAD:
        raise ContentProblem(said.splitlines()[-1])
    if code == -signal.SIGKILL:  # not by us
        raise OSError("the process that reads Parquet was killed")
    if code == -signal.SIGXCPU:
        raise ContentProblem(f"the Parquet content takes longer than {CPU_SECONDS} seconds to decode")
    if code == _DAMAGED:
        raise ContentProblem("the Parquet content is damaged: it cannot be decoded")
    raise ContentProblem(
        f"the Parquet content cannot be decoded with {memory >> 20} MiB of memory: "
        "it is damaged, or its row groups are too large (a million rows each are plenty)"
    )


def _pieces(pipe: int) -> Iterator[bytes]:
    """What comes, in pieces of a few MiB. Raises TimeoutError when nothing comes for long."""
    ready = select.poll()
    ready.register(pipe, select.POLLIN)
    waiting: list[bytes] = []
    size = 0
    while True:
        if not ready.poll(SILENT_SECONDS * 1000):
            raise TimeoutError
        piece = os.read(pipe, 1 << 20)
        waiting.append(piece)
        size += len(piece)
        if not piece or size >= _PIECE_BYTES:
            yield b"".join(waiting)
            waiting, size = [], 0
        if not piece:
            return


def _check_frame(path: Path) -> None:
    """What every Parquet file begins and ends with, before anything is decoded."""
    with path.open("rb") as file:
        head = file.read(4)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - 8))
        tail = file.read(8)
    if _ENCRYPTED in (head, tail[-4:]):
        raise ContentProblem("the Parquet content is encrypted; upload it unencrypted, the connection is")
    if head != _MAGIC:
        raise ContentProblem("the content is not Parquet; say format csv or ndjson if it is one of these")
    if size < 12 or tail[-4:] != _MAGIC:
        raise ContentProblem("the Parquet content ends too early: its footer is missing")
    footer = int.from_bytes(tail[:4], "little")
    if footer > min(size - 12, FOOTER_LIMIT):
        raise ContentProblem("the Parquet content is damaged: its footer cannot be that large")


# ---- in the reading process


def _write_csv(path: str, out: IO[bytes]) -> None:
    import polars as pl

    from hub.adapters.files.parquet_columns import plain_text

    table = pl.scan_parquet(path, glob=False, hive_partitioning=False)
    schema = table.collect_schema()
    if len(schema) > 10 * len(COLUMNS):
        raise ContentProblem(f"the Parquet content has {len(schema)} columns; allowed: {', '.join(COLUMNS)}")
    names = checked_columns([name.strip().lower() for name in schema.names()], "in the Parquet schema")
    columns = [plain_text(name, mine, schema[name]) for name, mine in zip(schema.names(), names, strict=True)]
    rows = table.select(pl.len()).collect().item()
    if rows > MAX_ROWS:
        raise ContentProblem(f"the Parquet content has {rows:,} rows; a batch may have {MAX_ROWS:,}")
    out.write(",".join(names).encode() + b"\n")
    for start in range(0, rows, PIECE_ROWS):
        piece = table.slice(start, PIECE_ROWS).select(columns).collect()
        if piece.height != min(PIECE_ROWS, rows - start):
            raise ValueError("fewer rows than the footer says")
        piece.write_csv(out, include_header=False, quote_style="never")
    out.flush()


def main(path: str, memory: int) -> int:
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        _write_csv(path, sys.stdout.buffer)
    except ContentProblem as problem:
        sys.stderr.write(f"{problem}\n")
        return _BAD
    except BrokenPipeError:
        return 1
    except MemoryError:
        return 1
    except BaseException as error:  # a panic of the decoder is no Exception
        sys.stderr.write(f"{type(error).__name__}\n")
        return _DAMAGED
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1], int(sys.argv[2])))  # without ceremony: threads of the decoder may be in any state
