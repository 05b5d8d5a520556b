"""The content of a batch: where its bytes are, how many rows they hold, what their digest is. Never held whole."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from numhub_client.models import ContentEncoding, ContentFormat

PIECE = 1 << 18
_FORMATS: dict[str, ContentFormat] = {".csv": "csv", ".ndjson": "ndjson", ".jsonl": "ndjson", ".parquet": "parquet"}
_ENCODINGS: dict[str, ContentEncoding] = {".gz": "gzip", ".zst": "zstd"}

_BLANK = (b"", b"\r")  # a line of blanks is a row, and refused as one

Told = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Content:
    """``sha256`` and ``size`` are of the bytes as uploaded; ``rows`` are data rows, header line and blank lines not
    counted."""

    open: Callable[[], IO[bytes]] = field(repr=False)
    size: int
    sha256: str
    rows: int
    format: ContentFormat
    encoding: ContentEncoding

    def pieces(self, offset: int, told: Told | None = None) -> Iterator[bytes]:
        """The bytes from ``offset`` on; ``told`` hears how many bytes of the whole have been handed out."""
        with self.open() as file:
            file.seek(offset)
            while piece := file.read(PIECE):
                offset += len(piece)
                yield piece
                if told is not None:
                    told(offset)

    async def apieces(self, offset: int, told: Told | None = None) -> AsyncIterator[bytes]:
        for piece in self.pieces(offset, told):  # a quarter of a megabyte from the page cache: too short for a thread
            yield piece


class _Borrowed(io.BufferedIOBase):
    """The caller's file, read through but never closed."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        return self._file.read(-1 if size is None else size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def examine(
    source: str | Path | bytes | IO[bytes],
    *,
    format: ContentFormat | None = None,
    encoding: ContentEncoding | None = None,
    rows: int | None = None,
    told: Callable[[int, int], None] | None = None,
) -> Content:
    """Read a file once for its digest and its number of rows (a second time, decompressed, if it is gzip).

    Format and encoding are taken from the file's name (``.csv``, ``.ndjson``, ``.jsonl``, ``.parquet``; ``.gz``,
    ``.zst``) where not given. zstd and Parquet content is not looked into: give ``rows``. ``told`` hears (bytes read,
    bytes in all). Raises OSError, ValueError.
    """
    name, opener = _opener(source)
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    if encoding is None:
        encoding = _ENCODINGS.get(suffixes[-1], "identity") if suffixes else "identity"
    format = format or next((_FORMATS[s] for s in reversed(suffixes) if s in _FORMATS), None)
    if format is None:
        raise ValueError("csv, ndjson or parquet? The file's name does not say; give format=")
    if format == "parquet" and encoding != "identity":
        raise ValueError("Parquet is compressed inside: upload it as it is, not as .gz or .zst")
    if rows is None and format == "parquet":
        raise ValueError("Parquet content is not looked into; give rows= (numhub batch upload counts them itself)")
    if rows is None and encoding == "zstd":
        raise ValueError("zstd content is not looked into; give rows=, or upload gzip")
    digest, counter, size = hashlib.sha256(), _Rows(), 0
    with opener() as file:
        total = file.seek(0, io.SEEK_END)
        file.seek(0)
        while piece := file.read(PIECE):
            digest.update(piece)
            size += len(piece)
            if rows is None and encoding == "identity":
                counter.feed(piece)
            if told is not None:
                told(size, total)
    if rows is None and encoding == "gzip":
        with opener() as file, gzip.open(file) as plain:
            while piece := plain.read(PIECE):
                counter.feed(piece)
    if rows is None:
        rows = counter.count(header=format == "csv")
    return Content(opener, size, digest.hexdigest(), rows, format, encoding)


def empty() -> Content:
    """The content of an explicitly empty period."""
    return Content(io.BytesIO, 0, hashlib.sha256().hexdigest(), 0, "csv", "identity")


def _opener(source: str | Path | bytes | IO[bytes]) -> tuple[str, Callable[[], IO[bytes]]]:
    if isinstance(source, bytes):
        return "", lambda: io.BytesIO(source)
    if isinstance(source, str | Path):
        path = Path(source)
        return path.name, lambda: path.open("rb")
    if not source.seekable():
        raise ValueError("the file must be seekable: it is read once for its digest and once to be uploaded")
    file = source

    def reopen() -> IO[bytes]:
        file.seek(0)
        return cast(IO[bytes], _Borrowed(file))

    name = getattr(file, "name", "")
    return name if isinstance(name, str) else "", reopen


class _Rows:
    """Counts lines that are not empty, over pieces cut anywhere."""

    def __init__(self) -> None:
        self._lines = 0
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        text = self._rest + piece
        end = text.rfind(b"\n") + 1
        whole, self._rest = text[:end], text[end:]
        lines = whole.count(b"\n")
        if b"\n\n" in whole or b"\n\r\n" in whole or whole[:1] == b"\n" or whole[:2] == b"\r\n":
            lines = sum(1 for line in whole.split(b"\n") if line not in _BLANK)
        self._lines += lines

    def count(self, *, header: bool) -> int:
        lines = self._lines + (self._rest not in _BLANK)
        return max(0, lines - 1) if header else lines
