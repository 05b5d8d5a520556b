"""One directory per batch: content as uploaded, slices, plans, refused rows.

``content``            what the carrier is uploading
``sealed``             the content that was committed; ``plain`` beside it if it came compressed or as Parquet
``manifest.json``      the verified slices
``plan-*.npz``         rows on their way into the log
``result-*.csv``, ``slice-*.json``   refused rows and counts of a finished slice; the second makes the first valid
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import closing
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from hub.adapters.files import csv_rows, ndjson_rows
from hub.adapters.files.content import Cutter, HashingReader, Limits, Slice, bounded, inflated, size_of
from hub.adapters.files.memory import give_back
from hub.adapters.files.parquet_rows import as_csv
from hub.domain.batches import ContentEncoding, ContentFormat
from hub.domain.errors import BatchConflict, InvalidRequest, PayloadTooLarge, Unavailable
from hub.domain.refusals import Refusal
from hub.ports.batch_files import Codes, Columns, ContentProblem, Lines, Rows, SliceSummary
from hub.ports.number_index import Numbers

WRITE_SIZE = 1 << 20
RESULT_HEADER = b"line,reason,meaning,number\n"
_OTHER_DIGEST = "the SHA-256 of the content is not the declared one; upload it again"
_BATCH_ID = re.compile(r"bat_[0-9a-f]{24}")


class DiskBatchFiles:
    """Implements ports.batch_files.BatchFiles under ``root``. One process at a time may use a root."""

    def __init__(self, root: Path, *, max_bytes: int = 8 << 30, max_ratio: int = 100) -> None:
        """``max_bytes`` bounds the content as uploaded and as inflated, ``max_ratio`` the one against the other."""
        self._root = root
        self._limits = Limits(max_bytes, max_bytes, max_ratio)
        self._uploads: dict[str, object] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    # ---- upload

    async def size(self, batch_id: str) -> int:
        return await asyncio.to_thread(size_of, self._of(batch_id) / "content")

    async def receive(self, batch_id: str, offset: int, content: AsyncIterator[bytes]) -> int:
        path = self._of(batch_id) / "content"
        ticket = self._uploads[batch_id] = object()  # a later upload, or the commit, takes the ticket away
        await self._guarded(batch_id, ticket, _open_at, path, offset)
        size, waiting, held = offset, [], 0
        try:
            async for piece in content:
                waiting.append(piece)
                held += len(piece)
                if size + held > self._limits.content_bytes:
                    raise PayloadTooLarge(f"A batch may hold {self._limits.content_bytes} bytes; split it.")
                if held >= WRITE_SIZE:
                    await self._guarded(batch_id, ticket, _append, path, b"".join(waiting))
                    size, waiting, held = size + held, [], 0
        except PayloadTooLarge:
            raise
        except Exception:
            # the connection broke: what came whole is kept, the carrier resumes behind it
            await self._guarded(batch_id, ticket, _append, path, b"".join(waiting), True)
            raise
        await self._guarded(batch_id, ticket, _append, path, b"".join(waiting), True)
        return size + held

    async def _guarded(self, batch_id: str, ticket: object, act: Any, path: Path, *rest: Any) -> None:
        async with self._locks.setdefault(batch_id, asyncio.Lock()):
            if self._uploads.get(batch_id) is not ticket:
                raise BatchConflict("Another upload or the commit of this batch took over.")
            try:
                await asyncio.to_thread(act, path, *rest)
            except OSError as error:
                raise Unavailable("The hub's disk does not take the content right now.") from error

    async def is_whole(self, batch_id: str, sha256: str) -> bool:
        path = self._of(batch_id) / "content"

        def judge() -> bool:
            try:
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                    return hashlib.file_digest(file, "sha256").hexdigest() == sha256
            except FileNotFoundError:
                return False

        return await asyncio.to_thread(judge)

    # ---- verification and reading

    async def verify(self, batch_id: str, sha256: str, form: ContentFormat, encoding: ContentEncoding) -> int:
        async with self._locks.setdefault(batch_id, asyncio.Lock()):
            self._uploads[batch_id] = object()
            await asyncio.to_thread(self._seal, self._of(batch_id))
        try:
            return await asyncio.to_thread(self._verify, self._of(batch_id), sha256, form, encoding)
        except OSError as error:
            raise Unavailable("The hub's disk does not take the content right now.") from error

    @staticmethod
    def _seal(home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        if (home / "content").exists():
            for old in home.iterdir():
                if old.name != "content":
                    old.unlink()
            (home / "content").replace(home / "sealed")

    def _verify(self, home: Path, sha256: str, form: ContentFormat, encoding: ContentEncoding) -> int:
        sealed = home / "sealed"
        if not sealed.exists():
            raise ContentProblem("no content was uploaded")
        cutter = Cutter(has_header=form is not ContentFormat.ndjson)
        rewritten = encoding is not ContentEncoding.identity or form is ContentFormat.parquet
        problem: ContentProblem | None = None
        with sealed.open("rb") as file, (home / "plain").open("wb") as plain:
            source = HashingReader(file)
            try:
                if form is ContentFormat.parquet:
                    if source.finish() != sha256:
                        raise ContentProblem(_OTHER_DIGEST)
                    content = bounded(as_csv(sealed), self._limits)
                else:
                    content = inflated(source, encoding, self._limits)
                with closing(content):
                    for piece in content:
                        cutter.feed(piece)
                        if rewritten:
                            plain.write(piece)
                cutter.finish()
            except ContentProblem as found:
                problem = found
            if source.finish() != sha256:
                raise ContentProblem(_OTHER_DIGEST)
            if problem is not None:
                raise problem
            plain.flush()
            os.fsync(plain.fileno())
        header = csv_rows.read_header(cutter.header) if form is not ContentFormat.ndjson else ()
        if form is ContentFormat.parquet:  # its rows count from 1: the header line is ours
            cutter.slices = [replace(part, first_line=part.first_line - 1) for part in cutter.slices]
        manifest = {
            "source": "plain" if rewritten else "sealed",
            "form": form.value,
            "header": header,
            "rows": cutter.rows,
            "slices": [astuple(part) for part in cutter.slices],
        }
        _write(home / "manifest.json", json.dumps(manifest).encode())
        return cutter.rows

    async def verified(self, batch_id: str) -> int | None:
        manifest = await asyncio.to_thread(_read_json, self._of(batch_id) / "manifest.json")
        return None if manifest is None else int(manifest["rows"])

    async def slices(self, batch_id: str) -> int:
        manifest = await asyncio.to_thread(_read_json, self._of(batch_id) / "manifest.json")
        return 0 if manifest is None else len(manifest["slices"])

    async def read_slice(self, batch_id: str, number: int) -> Rows:
        return await asyncio.to_thread(self._read_slice, self._of(batch_id), number)

    @staticmethod
    def _read_slice(home: Path, number: int) -> Rows:
        manifest = _read_json(home / "manifest.json")
        assert manifest is not None, "a slice is read after verify"
        where = Slice(*manifest["slices"][number])
        with (home / manifest["source"]).open("rb") as file:
            file.seek(where.offset)
            data = file.read(where.length)
        if manifest["form"] != ContentFormat.ndjson:
            return csv_rows.read_rows(data, tuple(manifest["header"]), where)
        return ndjson_rows.read_rows(data, where)

    # ---- plans and results

    async def save_plan(self, batch_id: str, name: str, columns: Columns) -> None:
        await asyncio.to_thread(_save, self._of(batch_id) / f"plan-{name}.npz", columns)

    async def load_plan(self, batch_id: str, name: str) -> dict[str, npt.NDArray[Any]] | None:
        return await asyncio.to_thread(_load, self._of(batch_id) / f"plan-{name}.npz")

    async def finish_slice(
        self, batch_id: str, number: int, line: Lines, refusal: Codes, refused: Numbers, summary: SliceSummary
    ) -> None:
        def write() -> None:
            home = self._of(batch_id)
            home.mkdir(parents=True, exist_ok=True)
            _write(home / f"result-{number:05d}.csv", _result_rows(line, refusal, refused))
            _write(home / f"slice-{number:05d}.json", json.dumps(asdict(summary)).encode())
            for plan in home.glob(f"plan-{number}.*.npz"):
                plan.unlink()
            give_back()

        await asyncio.to_thread(write)

    async def finished(self, batch_id: str) -> dict[int, SliceSummary]:
        def read() -> dict[int, SliceSummary]:
            found = {}
            for path in self._of(batch_id).glob("slice-*.json"):
                stored = _read_json(path)
                assert stored is not None
                found[int(path.stem.removeprefix("slice-"))] = SliceSummary(**stored)
            return found

        return await asyncio.to_thread(read)

    async def result(self, batch_id: str) -> AsyncIterator[bytes]:
        yield RESULT_HEADER
        for number in sorted(await self.finished(batch_id)):
            path = self._of(batch_id) / f"result-{number:05d}.csv"
            with await asyncio.to_thread(path.open, "rb") as file:
                while piece := await asyncio.to_thread(file.read, 1 << 18):
                    yield piece

    async def drop_content(self, batch_id: str) -> None:
        def drop() -> None:
            home = self._of(batch_id)
            for path in (home / "content", home / "sealed", home / "plain", *home.glob("plan-*.npz")):
                path.unlink(missing_ok=True)

        await asyncio.to_thread(drop)
        self._uploads.pop(batch_id, None)
        self._locks.pop(batch_id, None)

    def _of(self, batch_id: str) -> Path:
        if not _BATCH_ID.fullmatch(batch_id):
            raise InvalidRequest("This is not a batch id.")
        return self._root / batch_id


def _open_at(path: Path, offset: int) -> None:
    """``offset`` 0 starts anew; any other must be the present size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if offset == 0:
        path.write_bytes(b"")
        return
    size = size_of(path)
    if offset != size:
        raise BatchConflict(
            f"The upload continues at byte {size}; send Upload-Offset: {size}.",
            uploaded_bytes=size,
            headers={"upload-offset": str(size)},
        )


def _append(path: Path, data: bytes, sync: bool = False) -> None:
    with path.open("ab") as file:
        file.write(data)
        if sync:
            file.flush()
            os.fsync(file.fileno())


def _write(path: Path, data: bytes) -> None:
    """Durable and whole, or not at all."""
    fresh = path.with_suffix(path.suffix + ".tmp")
    with fresh.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    _settle(fresh, path)


def _settle(fresh: Path, path: Path) -> None:
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _save(path: Path, columns: Columns) -> None:
    fresh = path.with_suffix(".tmp")
    with fresh.open("wb") as file:
        np.savez(file, allow_pickle=False, **dict(columns))
        file.flush()
        os.fsync(file.fileno())
    _settle(fresh, path)


def _load(path: Path) -> dict[str, npt.NDArray[Any]] | None:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except FileNotFoundError:
        return None


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        stored: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    return stored


def _result_rows(line: Lines, refusal: Codes, refused: Numbers) -> bytes:
    digits = pl.Series("n", refused).cast(pl.String)
    shown = pl.select(
        pl.when(pl.lit(pl.Series(refused > 0)))
        .then(pl.concat_str(pl.lit(digits).str.slice(0, 3), pl.lit("****"), pl.lit(digits).str.slice(7, 4)))
        .otherwise(None)
    ).to_series()
    reason = pl.Series("reason", refusal).cast(pl.Int64)
    names = {item.number: item.value for item in Refusal}
    meanings = {item.number: item.meaning for item in Refusal}
    table = pl.DataFrame(
        {
            "line": line,
            "reason": reason.replace_strict(names, return_dtype=pl.String),
            "meaning": reason.replace_strict(meanings, return_dtype=pl.String),
            "number": shown,
        }
    ).sort("line")
    out = io.BytesIO()
    table.write_csv(out, include_header=False)
    return out.getvalue()
