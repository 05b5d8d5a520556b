"""Copies of an index for new nodes: ready in the time of a copy, not of reading years of the log.

A snapshot is a directory below ``<folder>/<log id>``, named by the number of records folded in it, that holds a
manifest and the runs it names. It is complete when it has its name (renamed last). Runs never change, so it is made in
two steps:
`stage` links them inside the index's own directory, which costs nothing and is done while nobody merges them away;
`publish` carries what is staged to the shared folder, for as long as that takes, while the index goes on.

Who takes one reads every byte and compares it with the checksum; what is damaged is passed over.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from hub.adapters.columns.level import RunInfo, run_paths
from hub.adapters.columns.manifest import Manifest, UnusableManifest, load, save, sync_directory

log = logging.getLogger(__name__)

STAGING = "staging"
KEPT = 2
_PIECE = 1 << 20
_ABANDONED_SECONDS = 86_400  # what a node that died while it published left behind


def stage(directory: Path, manifest: Manifest) -> Path:
    """Links to the runs of ``manifest``, all in ``directory``, in a folder of their own inside it. Raises OSError."""
    staged = directory / STAGING
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir()
    for run, _ in _runs(manifest):
        for path in run_paths(directory, run.name):
            os.link(path, staged / path.name)
    return staged


def publish(staged: Path, manifest: Manifest, folder: Path, stopped: Callable[[], bool] = bool) -> Path | None:
    """A new snapshot of what is staged; None if there is one as new.

    Raises OSError, InterruptedError as soon as ``stopped()``; nothing half-made has a name."""
    home = folder / manifest.log_id
    name = _name(manifest)
    if any(found.name >= name for found in snapshots(folder, manifest.log_id)):
        return None
    home.mkdir(parents=True, exist_ok=True)
    _sweep(home)
    making = home / f".making-{secrets.token_hex(8)}"  # other nodes may have the same process ids
    making.mkdir()
    try:
        for path in sorted(staged.iterdir()):
            _place(path, making / path.name, stopped)
        save(making, manifest)
        making.rename(home / name)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise
    sync_directory(home)
    for old in snapshots(folder, manifest.log_id)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    log.info("index.snapshot_published", extra={"records": sum(manifest.positions)})
    return home / name


def take(found: Path, log_id: str, partitions: int, directory: Path) -> Manifest:
    """Bring the runs of the snapshot ``found`` into ``directory``; no manifest there names them yet.

    Raises UnusableManifest with the reason, also for runs that are not what was written."""
    manifest = load(found, log_id, partitions)
    try:
        for run, place in _runs(manifest):
            for source, target, crc in zip(
                run_paths(found, run.name), run_paths(directory, run.name), (run.keys_crc, run.values_crc), strict=True
            ):
                _place(source, target)
                if _checksum(target) != crc:
                    raise UnusableManifest(f"{source.name} of {place} is not what was written")
    except OSError as error:
        raise UnusableManifest(f"{error.filename}: {error.strerror}") from error
    return manifest


def snapshots(folder: Path, log_id: str) -> list[Path]:
    """Of this log, newest first."""
    home = folder / log_id
    with contextlib.suppress(OSError):
        return sorted((path for path in home.iterdir() if path.name.isdecimal()), reverse=True)
    return []


def _name(manifest: Manifest) -> str:
    return f"{sum(manifest.positions):015d}"


def _runs(manifest: Manifest) -> Iterator[tuple[RunInfo, str]]:
    for partition, runs in enumerate(manifest.runs):
        yield from ((run, f"partition {partition}") for run in runs)
    yield from ((run, "the record ids") for run in manifest.ids)


def _sweep(home: Path) -> None:
    for path in home.glob(".making-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(path, ignore_errors=True)


def _place(source: Path, target: Path, stopped: Callable[[], bool] = bool) -> None:
    """A link on one file system, else a copy that is on disk before it counts."""
    target.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        os.link(source, target)
        return
    with source.open("rb") as read, target.open("xb") as written:
        while piece := read.read(_PIECE):
            if stopped():
                raise InterruptedError("stopped while it was copied")
            written.write(piece)
        written.flush()
        os.fsync(written.fileno())


def _checksum(path: Path) -> int:
    crc = 0
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            crc = zlib.crc32(piece, crc)
    return crc
