"""The SQLite file of the log: its tables, opening it, and reading threads."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import orjson

from hub.domain.errors import LogUnavailable
from hub.ports.log import Record

SHIFT = 48  # row id = partition << 48 | offset: one B-tree, scanned by range
FORMAT = 1
BUSY_SECONDS = 5.0

# ``bounds`` keeps the ends, not max(place): they stand even when retention has taken every record.
_SCHEMA = """
CREATE TABLE IF NOT EXISTS log (log_id TEXT NOT NULL, partitions INTEGER NOT NULL, format INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS bounds (
  partition INTEGER PRIMARY KEY, first_offset INTEGER NOT NULL, next_offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS records (
  place INTEGER PRIMARY KEY, record_id TEXT NOT NULL, headers BLOB NOT NULL, appended_at_ms INTEGER NOT NULL,
  body BLOB NOT NULL);
"""


class LogMismatch(RuntimeError):
    """The file holds a log of another format or number of partitions than asked for."""


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """WAL, fsync on every commit. Raises LogUnavailable."""
    try:
        connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA page_size = 8192")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute(f"PRAGMA query_only = {int(read_only)}")
    except sqlite3.Error as error:
        raise LogUnavailable(f"the log file {path.name} cannot be opened: {error}") from error
    return connection


@contextlib.contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def prepare(connection: sqlite3.Connection, path: Path, partitions: int) -> str:
    """Make the tables if they are missing; returns the log's id. Raises LogMismatch, LogUnavailable."""
    try:
        with transaction(connection):
            for statement in _SCHEMA.split(";"):
                connection.execute(statement)
            found = connection.execute("SELECT log_id, partitions, format FROM log").fetchone()
            if found is None:
                found = (uuid4().hex, partitions, FORMAT)
                connection.execute("INSERT INTO log VALUES (?, ?, ?)", found)
                rows = [(partition, 0, 0) for partition in range(partitions)]
                connection.executemany("INSERT INTO bounds VALUES (?, ?, ?)", rows)
    except sqlite3.Error as error:
        raise LogUnavailable(f"the log file {path.name} cannot be used: {error}") from error
    if found[2] != FORMAT:
        raise LogMismatch(f"{path} holds a log of format {found[2]}; this version reads format {FORMAT}")
    if found[1] != partitions:
        raise LogMismatch(f"{path} holds a log of {found[1]} partitions, not {partitions}; fixed at creation")
    return str(found[0])


def truncate(path: Path, partition: int, before: int) -> None:
    """Delete the records of ``partition`` below offset ``before`` (at most up to its end) and move its first offset."""
    with contextlib.closing(connect(path)) as connection, transaction(connection):
        connection.execute(
            "UPDATE bounds SET first_offset = max(first_offset, min(?, next_offset)) WHERE partition = ?",
            (before, partition),
        )
        base = partition << SHIFT
        connection.execute(
            "DELETE FROM records WHERE place >= ?"
            " AND place < ? + (SELECT first_offset FROM bounds WHERE partition = ?)",
            (base, base, partition),
        )


class LogReaders:
    """A few reading threads, each with its own connection."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connections: list[sqlite3.Connection] = []
        self.executor = ThreadPoolExecutor(4, thread_name_prefix="log-reader")

    def read(self, partition: int, offset: int, max_records: int, max_bytes: int) -> list[Record]:
        """In one of the executor's threads. Raises LogUnavailable."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = connect(self._path, read_only=True)
            self._connections.append(connection)
        base = partition << SHIFT
        found: list[Record] = []
        size = 0
        try:
            rows = connection.execute(
                "SELECT place, record_id, headers, appended_at_ms, body FROM records"
                " WHERE place >= ? AND place < ? ORDER BY place LIMIT ?",
                (base + offset, (partition + 1) << SHIFT, max_records),
            )
            for place, record_id, headers, at_ms, body in rows:
                size += len(body)
                if found and size > max_bytes:
                    break
                found.append(Record(partition, place - base, record_id, orjson.loads(headers), body, at_ms))
            rows.close()  # ends the read transaction, else checkpoints would have to wait for it
        except (sqlite3.Error, orjson.JSONDecodeError) as error:
            raise LogUnavailable(f"the log file {self._path.name} cannot be read: {error}") from error
        return found

    def close(self) -> None:
        self.executor.shutdown()
        for connection in self._connections:
            connection.close()
