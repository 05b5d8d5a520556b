"""Never move backwards: of two events of one number the higher (generation, seq) wins, in whatever order they arrive.

A chunk may come twice, and a live event may overtake a bulk one. A `Guard` keeps the highest version seen of each
number, and the answer given to each chunk. With the SQLite store, marks, answer and your own effects (made through
``turn.connection``) are one transaction: after a crash either all of them are there or none, and the repeat that
follows is answered in the same words. Claiming an id before the work is done would lose the event instead.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numhub_client._answer import Answer
from numhub_client._chunk import Chunk

Version = tuple[int, int]


class GuardTransaction(Protocol):
    connection: sqlite3.Connection | None

    def versions(self, numbers: Sequence[int]) -> Mapping[int, Version]:
        """The highest version seen of each of ``numbers``; numbers never seen are left out."""
        ...

    def raise_to(self, marks: Mapping[int, Version]) -> None: ...

    def answer(self, chunk_id: str) -> dict[str, Any] | None: ...

    def keep_answer(self, chunk_id: str, message: Mapping[str, Any]) -> None: ...


class GuardStore(Protocol):
    def transaction(self) -> AbstractContextManager[GuardTransaction]:
        """Commits when the block ends, forgets everything when it raises."""
        ...


@dataclass(slots=True)
class Turn:
    """One chunk being worked off. Set ``answer`` before the block ends and it is kept with the marks.

    ``stale``: rows for which something newer was seen; do not act on them. ``repeated``: rows seen before in this very
    version. ``previous``: the answer kept for this chunk, if it was finished before: send it again, do nothing.
    """

    chunk: Chunk
    stale: frozenset[int]
    repeated: frozenset[int]
    previous: Answer | None
    connection: sqlite3.Connection | None = field(default=None, repr=False)
    answer: Answer | None = None


class Guard:
    """``with guard.begin(chunk) as turn: ...`` around the work on one chunk. In memory unless a store is given."""

    def __init__(self, store: GuardStore | None = None) -> None:
        self._store: GuardStore = store if store is not None else MemoryStore()

    @classmethod
    def sqlite(cls, where: str | Path | sqlite3.Connection) -> Guard:
        """Kept in a SQLite file, or in your own connection, so that your tables and the marks commit together."""
        return cls(SqliteStore(where))

    @contextmanager
    def begin(self, chunk: Chunk) -> Iterator[Turn]:
        with self._store.transaction() as transaction:
            kept = transaction.answer(chunk.chunk_id)
            previous = None
            if kept is not None:
                previous = Answer.from_json(kept, subscription_id=chunk.subscription_id, numbers=chunk.numbers)
            seen, versions = transaction.versions(chunk.numbers), chunk.versions()
            known = [(row, seen[n], versions[row]) for row, n in enumerate(chunk.numbers) if n in seen]
            turn = Turn(
                chunk,
                stale=chunk.superseded | {row for row, before, now in known if before > now},
                repeated=frozenset(row for row, before, now in known if before == now),
                previous=previous,
                connection=transaction.connection,
            )
            yield turn
            transaction.raise_to(
                {
                    n: version
                    for n, version in zip(chunk.numbers, versions, strict=True)
                    if seen.get(n, (-1, 0)) < version
                }
            )
            if turn.answer is not None:
                transaction.keep_answer(chunk.chunk_id, turn.answer.to_json())

    def stale_rows(self, chunk: Chunk) -> frozenset[int]:
        """Rows for which something newer was seen; changes nothing."""
        with self._store.transaction() as transaction:
            seen = transaction.versions(chunk.numbers)
        rows = {row for row, version in enumerate(chunk.versions()) if seen.get(chunk.numbers[row], (-1, 0)) > version}
        return chunk.superseded | rows


class MemoryStore:
    """For tests and for programs whose effects do not outlive them either."""

    def __init__(self) -> None:
        self._marks: dict[int, Version] = {}
        self._answers: dict[str, dict[str, Any]] = {}

    @contextmanager
    def transaction(self) -> Iterator[GuardTransaction]:
        transaction = _MemoryTransaction(self._marks, self._answers)
        yield transaction
        self._marks.update(transaction.new_marks)
        self._answers.update(transaction.new_answers)


class _MemoryTransaction:
    connection: sqlite3.Connection | None = None

    def __init__(self, marks: Mapping[int, Version], answers: Mapping[str, dict[str, Any]]) -> None:
        self._marks, self._answers = marks, answers
        self.new_marks: dict[int, Version] = {}
        self.new_answers: dict[str, dict[str, Any]] = {}

    def versions(self, numbers: Sequence[int]) -> Mapping[int, Version]:
        return {number: self._marks[number] for number in numbers if number in self._marks}

    def raise_to(self, marks: Mapping[int, Version]) -> None:
        self.new_marks.update(marks)

    def answer(self, chunk_id: str) -> dict[str, Any] | None:
        return self._answers.get(chunk_id)

    def keep_answer(self, chunk_id: str, message: Mapping[str, Any]) -> None:
        self.new_answers[chunk_id] = dict(message)


class SqliteStore:
    """Two tables, ``numhub_marks`` and ``numhub_answers``. Use it from one thread at a time.

    With a path it opens a connection of its own; with a connection it works in yours, which must not be inside a
    transaction when a turn begins.
    """

    def __init__(self, where: str | Path | sqlite3.Connection) -> None:
        if isinstance(where, sqlite3.Connection):
            self.connection = where
        else:
            self.connection = sqlite3.connect(where, check_same_thread=False, timeout=30)
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute("PRAGMA synchronous=FULL")
        with self.connection:
            self.connection.execute(
                "CREATE TABLE IF NOT EXISTS numhub_marks"
                " (number INTEGER PRIMARY KEY, generation INTEGER NOT NULL, seq INTEGER NOT NULL)"
            )
            self.connection.execute(
                "CREATE TABLE IF NOT EXISTS numhub_answers (chunk_id TEXT PRIMARY KEY, message TEXT NOT NULL)"
            )

    @contextmanager
    def transaction(self) -> Iterator[GuardTransaction]:
        if self.connection.in_transaction:
            raise RuntimeError("the connection is inside a transaction already; commit or roll back first")
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            yield _SqliteTransaction(self.connection)
        except BaseException:
            self.connection.rollback()
            raise
        self.connection.commit()

    def close(self) -> None:
        self.connection.close()


class _SqliteTransaction:
    _AT_ONCE = 500  # bound variables per statement; old builds of SQLite allow 999

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection: sqlite3.Connection | None = connection
        self._db = connection

    def versions(self, numbers: Sequence[int]) -> Mapping[int, Version]:
        found: dict[int, Version] = {}
        for start in range(0, len(numbers), self._AT_ONCE):
            part = numbers[start : start + self._AT_ONCE]
            marks = ",".join("?" * len(part))
            query = f"SELECT number, generation, seq FROM numhub_marks WHERE number IN ({marks})"  # noqa: S608 - marks only
            found.update((n, (generation, seq)) for n, generation, seq in self._db.execute(query, part))
        return found

    def raise_to(self, marks: Mapping[int, Version]) -> None:
        self._db.executemany(
            "INSERT INTO numhub_marks VALUES (?, ?, ?)"
            " ON CONFLICT (number) DO UPDATE SET generation = excluded.generation, seq = excluded.seq"
            " WHERE (excluded.generation, excluded.seq) > (generation, seq)",
            ((number, *version) for number, version in marks.items()),
        )

    def answer(self, chunk_id: str) -> dict[str, Any] | None:
        row = self._db.execute("SELECT message FROM numhub_answers WHERE chunk_id = ?", (chunk_id,)).fetchone()
        return None if row is None else json.loads(row[0])

    def keep_answer(self, chunk_id: str, message: Mapping[str, Any]) -> None:
        self._db.execute(
            "INSERT INTO numhub_answers VALUES (?, ?) ON CONFLICT (chunk_id) DO UPDATE SET message = excluded.message",
            (chunk_id, json.dumps(message)),
        )
