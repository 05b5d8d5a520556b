"""The number index as immutable sorted columns, folded from the log.

Per partition one `Table` from number to STATE; one more from the hash of a record id to its position. What came last
is in memory; when that has become much, a background thread writes it to sorted runs, replaces the manifest atomically
and merges runs of similar size. A crash loses only what is in memory: the fold goes on from the manifest's positions.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hub.adapters.columns.level import DamagedRun, Level, RunInfo
from hub.adapters.columns.manifest import Manifest, UnusableManifest
from hub.adapters.columns.snapshot import publish
from hub.adapters.columns.store import IndexInUse, Store, check_not_ahead
from hub.adapters.columns.table import Table, similar_suffix
from hub.ports.log import Position
from hub.ports.number_index import STATE, Numbers, States

__all__ = ["ColumnIndex", "IndexInUse"]

log = logging.getLogger(__name__)

_SHIFT = 48  # position packed: partition << 48 | offset
_RECORD_ROWS = 50  # folding a record again after a crash costs as much as so many rows
_SMALL = 256  # rows; a small apply never waits for the disk
_MEMORY_LIMIT = 4  # x memory_rows: beyond it a big apply waits until the writer thread has caught up
_RETRY_SECONDS = 5.0


class ColumnIndex:
    """`hub.ports.number_index.NumberIndex` in ``directory`` (made if missing), for the log ``log_id``.

    An index that is damaged, of another log, or (with ``log_ends``) ahead of the log is deleted with a warning. Where
    there is none, the newest usable copy below ``snapshots`` is taken, and the fold adds what is missing. Raises
    IndexInUse if another process, or another instance, holds the directory. About ``memory_rows`` rows (28 bytes each)
    stay in memory before they are written.
    """

    def __init__(
        self,
        directory: Path | str,
        partitions: int,
        log_id: str,
        *,
        log_ends: Sequence[int] | None = None,
        memory_rows: int = 1_000_000,
        snapshots: Path | None = None,
    ) -> None:
        self._store = Store(Path(directory), log_id, partitions)
        self._log_id, self._memory_rows = log_id, memory_rows
        self._lock = threading.Lock()  # held by who changes what readers see; readers take none
        self._writing = threading.Lock()  # one flush or merge at a time; taken before _lock
        self._work = threading.Condition(self._lock)
        self._closed = False
        try:
            manifest = self._store.load()
            check_not_ahead(manifest, log_ends)
            self._use(manifest)
        except (UnusableManifest, DamagedRun) as error:
            if self._store.has_runs():
                log.warning("index.deleted_for_rebuild", extra={"cause": str(error)})
            self._store.save(self._store.empty())  # first: it may name runs as a copy's are named
            self._store.keep_only(set())
            taken = self._store.take_snapshot(snapshots, log_ends) if snapshots else None
            self._use(taken or self._store.empty())
            self._store.save(self._manifest())
        self._store.keep_only(self._manifest().run_names())
        self._untidy = True  # runs may want merging
        self._thread = threading.Thread(target=self._write_for_ever, name="index-writer", daemon=True)
        self._thread.start()

    # -- reading, without locks

    def lookup(self, partition: int, numbers: Numbers) -> States:
        return self._tables[partition].lookup(numbers)

    def position_of(self, partition: int) -> int:
        return self._positions[partition]

    def is_skipped(self, position: Position) -> bool:
        return position.offset in self._skipped[position.partition]

    def find(self, record_id: str) -> Position | None:
        packed = self._ids.get(_hash(record_id))
        if packed is None:
            return None
        return Position(int(packed) >> _SHIFT, int(packed) & ((1 << _SHIFT) - 1))

    def count(self) -> int:
        return sum(table.count() for table in self._tables)

    # -- writing

    def apply(self, position: Position, record_id: str, numbers: Numbers, states: States) -> None:
        partition = position.partition
        if len(numbers) != len(states):
            raise ValueError("a state per number is needed")
        with self._lock:
            self._advance(position, len(numbers))
            if len(numbers):
                self._tables[partition].put(numbers, states)
            self._ids.put_one(_hash(record_id), partition << _SHIFT | position.offset)
            while len(numbers) > _SMALL and self._unsaved >= _MEMORY_LIMIT * self._memory_rows:
                if self._closed or not self._work.wait(timeout=_RETRY_SECONDS):
                    break

    def skip(self, position: Position) -> None:
        with self._lock:
            self._advance(position, 0)
            self._skipped[position.partition].add(position.offset)

    def _advance(self, position: Position, rows: int) -> None:
        expected = self._positions[position.partition]
        if position.offset != expected:
            raise ValueError(f"partition {position.partition} is folded up to {expected}, not {position.offset}")
        self._positions[position.partition] += 1
        self._unsaved += rows + _RECORD_ROWS
        if self._unsaved >= self._memory_rows:
            self._work.notify_all()

    def flush(self) -> None:
        with self._writing:
            self._flush()

    def snapshot(self, folder: Path) -> Path | None:
        """Publish what is folded now for other nodes (`adapters.columns.snapshot`); None if they have as much.

        The fold never waits for the copy: runs are only linked while writing stands still. Raises OSError,
        InterruptedError among them when the index is closed meanwhile. One at a time."""
        with self._writing:  # no run is merged away meanwhile
            self._flush()
            staged, manifest = self._store.stage()
        try:
            return publish(staged, manifest, folder, lambda: self._closed) if any(manifest.positions) else None
        finally:
            self._store.unstage()

    def clear(self) -> None:
        with self._writing:
            with self._lock:
                self._use(self._store.empty())
                self._store.save(self._manifest())
            self._store.keep_only(set())

    def verify(self) -> list[str]:
        """Compare every run with its checksum; returns what is wrong, one line each."""
        with self._writing:
            return [line for table in self._all_tables() for line in self._store.verify(table)]

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._work.notify_all()
        self._thread.join()
        with contextlib.suppress(OSError):  # a full disk: the fold will take in again what is missing
            self.flush()
        self._store.close()

    # -- the disk

    def _all_tables(self) -> list[Table]:
        return [*self._tables, self._ids]

    def _use(self, manifest: Manifest) -> None:
        tables = [Table(np.int64, STATE) for _ in manifest.positions]
        ids = Table(np.uint64, np.int64)
        for table, runs in zip((*tables, ids), (*manifest.runs, manifest.ids), strict=True):
            self._store.open_levels(table, runs)
        self._tables, self._ids = tables, ids
        self._positions = list(manifest.positions)
        self._skipped = [offsets.copy() for offsets in manifest.skipped]
        self._unsaved = 0

    def _manifest(self) -> Manifest:
        """Of the moment, with the runs only."""
        return Manifest(
            self._log_id,
            list(self._positions),
            [offsets.copy() for offsets in self._skipped],
            [_runs(table) for table in self._tables],
            _runs(self._ids),
        )

    def _write_for_ever(self) -> None:
        while True:
            with self._lock:
                while not (self._closed or self._untidy or self._unsaved >= self._memory_rows):
                    self._work.wait()
                if self._closed:
                    return
                self._untidy = False
            try:
                with self._writing:
                    if self._unsaved >= self._memory_rows:
                        self._flush()
                    self._merge_runs()
            except Exception as error:  # a full disk, say: keep what is in memory, try again
                log.exception("index.write_failed", extra={"cause": str(error)})
                with self._lock:
                    self._untidy = True
                    if not self._closed:
                        self._work.wait(timeout=_RETRY_SECONDS)

    def _flush(self) -> None:
        with self._lock:  # freeze: all that the positions count stands in levels that nobody merges away
            frozen: list[tuple[Table, list[Level]]] = []
            for table in self._all_tables():
                table.spill()
                levels = [level for level in table.levels if level.run is None]
                for level in levels:
                    level.frozen = True
                if levels:
                    frozen.append((table, levels))
            manifest = self._manifest()
            unsaved, self._unsaved = self._unsaved, 0
        try:
            written = [(table, levels, self._store.write(table, levels)) for table, levels in frozen]
            for table, _, level in written:
                assert level.run is not None
                self._runs_in(manifest, table).insert(0, level.run)
            self._store.save(manifest)
        except BaseException:
            with self._lock:
                self._unsaved += unsaved
            raise
        with self._lock:
            for table, levels, level in written:
                table.replace(levels, level)
            self._untidy = True
            self._work.notify_all()

    def _merge_runs(self) -> None:
        """Merge runs of similar size, one table after the other, until none is left to merge.

        The saved manifest gets the merged run in the place of the others; its positions stay as they were.
        """
        for table in self._all_tables():
            while not self._closed:
                levels = [level for level in table.levels if level.run is not None]
                taken = levels[: similar_suffix([len(level) for level in levels])]
                if not taken:
                    break
                merged = self._store.write(table, taken)
                assert merged.run is not None
                manifest = self._store.load()
                self._runs_in(manifest, table)[: len(taken)] = [merged.run]
                self._store.save(manifest)
                with self._lock:
                    table.replace(taken, merged)
                self._store.keep_only(manifest.run_names())

    def _runs_in(self, manifest: Manifest, table: Table) -> list[RunInfo]:
        return manifest.ids if table is self._ids else manifest.runs[self._tables.index(table)]


def _runs(table: Table) -> list[RunInfo]:
    return [level.run for level in table.levels if level.run is not None]


def _hash(record_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(record_id.encode(), digest_size=8).digest(), "little")
