"""One sorted, immutable stretch of keys and values, in memory or mapped from two files; and how stretches merge."""

from __future__ import annotations

import mmap
import os
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hub.ports.number_index import opaque

Keys = npt.NDArray[Any]  # int64 numbers or uint64 hashes, ascending and unique
Values = npt.NDArray[Any]

PIECE = 1 << 18  # rows merged and written at once: bounds the memory of a merge, keeps each step at some milliseconds


@dataclass(frozen=True, slots=True)
class RunInfo:
    """What the manifest says of a run on disk."""

    name: str
    rows: int
    fresh: int  # keys that no older run holds: the sum over all runs is the number of known keys
    keys_crc: int
    values_crc: int


@dataclass(eq=False, slots=True)
class Level:
    keys: Keys
    values: Values
    fresh: int | None = None  # None = not yet counted
    run: RunInfo | None = None  # None = only in memory
    frozen: bool = False  # being written to disk: must not be merged away meanwhile

    def __len__(self) -> int:
        return len(self.keys)


class DamagedRun(Exception):
    """A run's files are missing or not what the manifest says."""


def merge(parts: Sequence[tuple[Keys, Values]]) -> tuple[Keys, Values]:
    """Several stretches, oldest first, as one; of equal keys the newest value stays."""
    if len(parts) == 1:
        return parts[0]
    dtype = parts[0][1].dtype
    beside = _beside(parts)
    if beside is not None:  # as the chunks of one file are
        joined = np.concatenate([opaque(part[1]) for part in beside])
        return np.concatenate([part[0] for part in beside]), joined.view(dtype)
    keys = np.concatenate([part[0] for part in parts])
    # "stable" finds the sorted stretches and merges them; among equal keys the newest comes last.
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    last = np.empty(len(keys), np.bool_)
    last[-1:] = True
    np.not_equal(keys[1:], keys[:-1], out=last[:-1])
    values = np.concatenate([opaque(part[1]) for part in parts])
    if last.all():
        return keys, values.take(order).view(dtype)
    return keys[last], values.take(order[last]).view(dtype)


def _beside(parts: Sequence[tuple[Keys, Values]]) -> list[tuple[Keys, Values]] | None:
    """The stretches in ascending order, if none of them reaches into another."""
    ordered = sorted((part for part in parts if len(part[0])), key=lambda part: int(part[0][0]))
    apart = all(left[0][-1] < right[0][0] for left, right in pairwise(ordered))
    return ordered if ordered and apart else None


def merge_pieces(levels: Sequence[Level]) -> Iterator[tuple[Keys, Values]]:
    """`merge` of levels (oldest first), in ascending pieces of about PIECE rows, so that memory stays flat."""
    widest = max(levels, key=len).keys
    inner = widest[PIECE::PIECE]
    cuts = [[0, *np.searchsorted(level.keys, inner).tolist(), len(level)] for level in levels]
    for start, stop in pairwise(zip(*cuts, strict=True)):
        parts = [
            (level.keys[low:high], level.values[low:high])
            for level, low, high in zip(levels, start, stop, strict=True)
            if high > low
        ]
        if parts:
            yield merge(parts)


def write_run(directory: Path, name: str, pieces: Iterator[tuple[Keys, Values]], fresh: int) -> RunInfo:
    """Write the two files of a run and fsync them."""
    rows = keys_crc = values_crc = 0
    with run_paths(directory, name)[0].open("wb") as keys_file, run_paths(directory, name)[1].open("wb") as values_file:
        for keys, values in pieces:
            keys_bytes, values_bytes = keys.tobytes(), values.tobytes()
            keys_crc, values_crc = zlib.crc32(keys_bytes, keys_crc), zlib.crc32(values_bytes, values_crc)
            keys_file.write(keys_bytes)
            values_file.write(values_bytes)
            rows += len(keys)
        for file in (keys_file, values_file):
            file.flush()
            os.fsync(file.fileno())
    return RunInfo(name, rows, fresh, keys_crc, values_crc)


def open_run(directory: Path, info: RunInfo, key: np.dtype[Any], value: np.dtype[Any], *, verify: bool) -> Level:
    """Map a run read-only. Raises DamagedRun for a wrong size, or with ``verify`` for any changed byte."""
    keys_path, values_path = run_paths(directory, info.name)
    keys = _map(keys_path, info.rows, key, info.keys_crc if verify else None)
    values = _map(values_path, info.rows, value, info.values_crc if verify else None)
    return Level(keys, values, info.fresh, info)


def remove_run(directory: Path, name: str) -> None:
    """Unlink the files; whoever still reads the mapped arrays keeps them until done."""
    for path in run_paths(directory, name):
        path.unlink(missing_ok=True)


def _map(path: Path, rows: int, dtype: np.dtype[Any], crc: int | None) -> npt.NDArray[Any]:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != rows * dtype.itemsize:
                raise DamagedRun(f"{path.name} has another size than the manifest says")
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:
        raise DamagedRun(f"{path.name} cannot be read") from error
    if crc is not None and zlib.crc32(mapped) != crc:
        raise DamagedRun(f"{path.name} is not what was written")
    return np.frombuffer(mapped, dtype, rows)


def run_paths(directory: Path, name: str) -> tuple[Path, Path]:
    """The files of a run: keys, values."""
    return directory / f"{name}.keys", directory / f"{name}.values"
