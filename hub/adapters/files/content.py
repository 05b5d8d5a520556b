"""Uploaded bytes on their way to rows: hashed, inflated within limits, cut into slices of whole lines.

One line is one row, always: a line break inside quotes does not join lines, so an open quote harms its own row only.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import zstandard

from hub.domain.batches import ContentEncoding
from hub.ports.batch_files import ContentProblem

PIECE = 4 << 20
SLICE_ROWS = 500_000
SLICE_BYTES = 32 << 20
SLICE_LINES = 2_000_000
LINE_LIMIT = 16 << 20
RATIO_SLACK = 1 << 20
"""Output that is allowed before the ratio counts: a tiny file may compress extremely well."""


@dataclass(frozen=True, slots=True)
class Limits:
    content_bytes: int  # as uploaded
    plain_bytes: int  # inflated
    ratio: int  # inflated : uploaded


@dataclass(frozen=True, slots=True)
class Slice:
    """``length`` bytes from ``offset`` on: ``lines`` lines, ``rows`` of them not blank; the first is ``first_line``."""

    offset: int
    length: int
    first_line: int
    lines: int
    rows: int


class HashingReader(RawIOBase):
    """Reads a file and keeps the SHA-256 and the count of what was read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._hash, self.taken = file, hashlib.sha256(), 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._hash.update(data)
        self.taken += len(data)
        return data

    def finish(self) -> str:
        """Read what is left and return the digest of the whole file, hex."""
        while self.read(PIECE):
            pass
        return self._hash.hexdigest()


def bounded(pieces: Iterator[bytes], limits: Limits) -> Generator[bytes, None, None]:
    """The same pieces; ContentProblem past the limit of plain content."""
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > limits.plain_bytes:
            raise ContentProblem(f"the content is larger than {limits.plain_bytes} bytes when unpacked")
        yield piece


def inflated(source: HashingReader, encoding: ContentEncoding, limits: Limits) -> Generator[bytes, None, None]:
    """The plain content in pieces of at most a few MiB; ContentProblem past a limit or when the coding is broken."""
    pieces = {
        ContentEncoding.identity: _identity,
        ContentEncoding.gzip: _gzip,
        ContentEncoding.zstd: _zstd,
    }[encoding](source)
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > limits.plain_bytes:
            raise ContentProblem(f"the content is larger than {limits.plain_bytes} bytes when inflated")
        if encoding is not ContentEncoding.identity and total > limits.ratio * source.taken + RATIO_SLACK:
            raise ContentProblem(f"the content inflates to more than {limits.ratio} times its size")
        yield piece


def _identity(source: HashingReader) -> Iterator[bytes]:
    while piece := source.read(PIECE):
        yield piece


def _gzip(source: HashingReader) -> Iterator[bytes]:
    inflate, fed = zlib.decompressobj(wbits=31), False
    try:
        while data := source.read(PIECE // 4):
            while data:
                if inflate.eof:  # another member follows
                    inflate, fed = zlib.decompressobj(wbits=31), False
                fed = True
                if piece := inflate.decompress(data, PIECE):
                    yield piece
                data = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
    except zlib.error as error:
        raise ContentProblem("the gzip content is damaged or followed by something else") from error
    if not fed or not inflate.eof:
        raise ContentProblem("the gzip content ends too early")


def _zstd(source: HashingReader) -> Iterator[bytes]:
    inflate = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    try:
        # pieces of input are kept small: the reader inflates at most what is asked for, whatever the ratio
        with inflate.stream_reader(
            cast(BinaryIO, source), read_size=1 << 17, read_across_frames=True, closefd=False
        ) as reader:
            while piece := reader.read(PIECE):
                yield piece
    except zstandard.ZstdError as error:
        raise ContentProblem("the zstd content is damaged or needs too large a window") from error


class Cutter:
    """Counts lines and cuts a stream of pieces into slices; ``header`` is the first line if one is expected."""

    def __init__(self, has_header: bool) -> None:
        self.header: bytes | None = None
        self.slices: list[Slice] = []
        self.rows = 0
        self._wants_header = has_header
        self._rest = b""
        self._offset, self._line = 0, 1
        self._open = Slice(0, 0, 1, 0, 0)

    def feed(self, piece: bytes) -> None:
        """Raises ContentProblem for a line longer than 16 MiB: that is no table."""
        data = self._rest + piece
        end = data.rfind(b"\n") + 1
        self._rest = data[end:]
        if len(self._rest) > LINE_LIMIT:
            raise ContentProblem(f"a line is longer than {LINE_LIMIT} bytes; rows end with a line feed")
        if end:
            self._take(data[:end])

    def finish(self) -> None:
        if self._rest:
            self._take(self._rest + b"\n", missing=1)
            self._rest = b""
        self._close()

    def _take(self, data: bytes, missing: int = 0) -> None:
        """Whole lines; ``missing`` = 1 when the last line feed is not in the file."""
        if self._wants_header:
            self._wants_header = False
            cut = data.index(b"\n") + 1
            self.header = data[:cut].rstrip(b"\r\n")
            self._offset, self._line = cut - (missing if cut == len(data) else 0), 2
            self._open = Slice(self._offset, 0, 2, 0, 0)
            data = data[cut:]
            if not data:
                return
        view = np.frombuffer(data, np.uint8)
        ends = np.flatnonzero(view == 10)
        starts = np.concatenate([[0], ends[:-1] + 1])
        length = ends - starts
        # a line feed alone, or a carriage return and a line feed, is a blank line: no row
        blank = (length == 0) | ((length == 1) & (view[starts] == 13))
        filled = np.flatnonzero(~blank)
        first = 0
        while first < len(ends):
            room = SLICE_ROWS - self._open.rows
            before = int(np.searchsorted(filled, first))
            last = int(filled[before + room - 1]) + 1 if len(filled) - before > room else len(ends)
            rows = min(room, len(filled) - before)
            size = int(ends[last - 1]) + 1 - int(starts[first])
            size -= missing if last == len(ends) else 0
            grown = self._open
            self._open = Slice(
                grown.offset, grown.length + size, grown.first_line, grown.lines + last - first, grown.rows + rows
            )
            self.rows += rows
            full = self._open.rows >= SLICE_ROWS or self._open.lines >= SLICE_LINES
            if full or self._open.length >= SLICE_BYTES:
                self._close()
            first = last

    def _close(self) -> None:
        done = self._open
        if done.rows:
            self.slices.append(done)
        self._open = Slice(done.offset + done.length, 0, done.first_line + done.lines, 0, 0)


def size_of(path: Path) -> int:
    """Bytes in a file; 0 if it is not there."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
