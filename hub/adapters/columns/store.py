"""The directory of an index: its lock, its manifest, its runs."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pyroaring import BitMap

from hub.adapters.columns.level import DamagedRun, Level, RunInfo, merge_pieces, open_run, remove_run, write_run
from hub.adapters.columns.manifest import Manifest, UnusableManifest, load, save
from hub.adapters.columns.snapshot import STAGING, snapshots, stage, take
from hub.adapters.columns.table import Table

log = logging.getLogger(__name__)

_VERIFY_BYTES = 256 << 20  # on opening, that much is compared with its checksum; more would make starting slow


class IndexInUse(RuntimeError):
    """Another process holds this index directory; give each process a directory of its own."""


class Store:
    """Not thread-safe: the index lets one thread write at a time."""

    def __init__(self, directory: Path, log_id: str, partitions: int) -> None:
        """Make the directory if it is missing and take its lock. Raises IndexInUse."""
        self._directory, self._log_id, self._partitions = directory, log_id, partitions
        directory.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise IndexInUse(f"another process holds the index in {directory}") from None
        self._names_given = 0
        shutil.rmtree(directory / STAGING, ignore_errors=True)  # of a process that died while it published

    def has_runs(self) -> bool:
        return any(self._directory.glob("*.keys"))

    def empty(self) -> Manifest:
        nothing: list[list[RunInfo]] = [[] for _ in range(self._partitions)]
        return Manifest(self._log_id, [0] * self._partitions, [BitMap() for _ in range(self._partitions)], nothing)

    def load(self) -> Manifest:
        """Raises UnusableManifest with the reason."""
        manifest = load(self._directory, self._log_id, self._partitions)
        self._names_given = max(self._names_given, manifest.names_given)
        return manifest

    def save(self, manifest: Manifest) -> None:
        """Replace the manifest, if it says anything new."""
        manifest.names_given = self._names_given
        try:
            if load(self._directory, self._log_id, self._partitions) == manifest:
                return
        except UnusableManifest:
            pass
        save(self._directory, manifest)

    def stage(self) -> tuple[Path, Manifest]:
        """Links to the runs of the saved manifest, for a snapshot. Raises OSError, UnusableManifest."""
        manifest = self.load()
        return stage(self._directory, manifest), manifest

    def unstage(self) -> None:
        shutil.rmtree(self._directory / STAGING, ignore_errors=True)

    def take_snapshot(self, folder: Path, log_ends: Sequence[int] | None) -> Manifest | None:
        """The newest usable snapshot for this log, made the index of this (empty) directory; None if there is none."""
        for found in snapshots(folder, self._log_id):
            try:
                manifest = take(found, self._log_id, self._partitions, self._directory)
                check_not_ahead(manifest, log_ends)
            except UnusableManifest as error:
                log.warning("index.snapshot_unusable", extra={"snapshot": found.name, "cause": str(error)})
                self.keep_only(set())
                continue
            save(self._directory, manifest)
            log.info("index.snapshot_taken", extra={"records": sum(manifest.positions)})
            return self.load()
        return None

    def open_levels(self, table: Table, runs: Sequence[RunInfo]) -> None:
        """Put ``runs`` (newest first) into an empty table. Raises DamagedRun."""
        verify = sum(run.rows for run in runs) * (table.key.itemsize + table.value.itemsize) <= _VERIFY_BYTES
        table.levels = tuple(open_run(self._directory, run, table.key, table.value, verify=verify) for run in runs)

    def write(self, table: Table, levels: Sequence[Level]) -> Level:
        """``levels`` of ``table`` (neighbours, newest first) as one run, fsynced; no manifest names it yet."""
        behind = next(place for place, level in enumerate(table.levels) if level is levels[-1]) + 1
        older = table.levels[behind:]
        fresh = 0
        for place, level in reversed(list(enumerate(levels))):
            fresh += table.count_fresh(level, (*levels[place + 1 :], *older))
        self._names_given += 1
        name = f"run-{self._names_given:010d}"
        info = write_run(self._directory, name, merge_pieces(list(reversed(levels))), fresh)
        return open_run(self._directory, info, table.key, table.value, verify=False)

    def verify(self, table: Table) -> list[str]:
        """What is wrong with the runs of ``table``, one line each."""
        wrong = []
        for run in [level.run for level in table.levels if level.run is not None]:
            try:
                open_run(self._directory, run, table.key, table.value, verify=True)
            except DamagedRun as error:
                wrong.append(str(error))
        return wrong

    def keep_only(self, names: set[str]) -> None:
        """Remove the files of every run that ``names`` does not hold."""
        for path in list(self._directory.iterdir()):
            if path.suffix in (".keys", ".values") and path.stem not in names:
                remove_run(self._directory, path.stem)

    def close(self) -> None:
        os.close(self._lock)


def check_not_ahead(manifest: Manifest, log_ends: Sequence[int] | None) -> None:
    """Raises UnusableManifest if more is folded than the log holds."""
    if log_ends is not None and any(p > end for p, end in zip(manifest.positions, log_ends, strict=True)):
        raise UnusableManifest("it is ahead of the log")
