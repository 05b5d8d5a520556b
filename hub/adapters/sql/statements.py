"""Inserting, and insert-or-update, in the dialect of the connection: what SQLAlchemy Core leaves to the dialects."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter
from typing import Any, TypeVar

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    LargeBinary,
    Select,
    Table,
    Text,
    and_,
    bindparam,
    func,
    insert,
    literal_column,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.expression import Executable

T = TypeVar("T")

IN_LIMIT = 500
"""Values in one IN list: statements stay small, and well below every database's limit of parameters."""

_ROWS, _PARAMETERS = 64, 999
"""Rows and parameters in one insert at most: a text per number of rows is kept prepared, and SQLite took no more
parameters before 3.32."""

_NUMBERS = postgresql.ARRAY(BigInteger)

Guard = Callable[[Any], ColumnElement[bool]]


class _ManyRows:
    """An insert into SQLite with all rows in one statement.

    The driver gives up the interpreter's lock for every statement it carries out, and ``executemany`` is one per row:
    beside a busy event loop each costs a wait for the lock, many times the insert itself.
    """

    def __init__(self, insert: Any, columns: Sequence[str]) -> None:
        dialect = sqlite.dialect()
        compiled = insert.compile(dialect=dialect, column_keys=list(columns))
        one = f"({', '.join('?' * len(columns))})"
        self._head, _, self._tail = str(compiled).partition(f"VALUES {one}")
        if list(compiled.positiontup) != list(columns) or "?" in self._tail:
            raise TypeError(f"cannot be made one statement: {compiled}")
        self._one, self._columns = one, columns
        self._texts: dict[int, str] = {}
        self._pick: Callable[[dict[str, Any]], Iterable[Any]] = (
            itemgetter(*columns) if len(columns) > 1 else lambda row: (row[columns[0]],)
        )
        self._prepare = []  # (place in the row, what the column's type makes of a value)
        for place, name in enumerate(columns):
            type_ = insert.table.c[name].type
            prepare = None if isinstance(type_, LargeBinary) else type_.dialect_impl(dialect).bind_processor(dialect)
            if prepare is not None:
                self._prepare.append((place, prepare))

    def run(self, conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
        self.run_raw(conn, list(map(self._stored, rows)))

    def run_raw(self, conn: Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Rows in the order of the columns, as the database stores them."""
        for some in slices(rows, max(1, min(_ROWS, _PARAMETERS // len(self._columns)))):
            text = self._texts.get(len(some))
            if text is None:
                text = f"{self._head}VALUES {', '.join([self._one] * len(some))}{self._tail}"
                self._texts[len(some)] = text
            conn.exec_driver_sql(text, tuple(chain.from_iterable(some)))

    def _stored(self, row: dict[str, Any]) -> Sequence[Any]:
        line = list(self._pick(row))
        for place, prepare in self._prepare:
            line[place] = prepare(line[place])
        return line


class Insert:
    """``INSERT`` of many rows. All rows of a call name the same columns."""

    def __init__(self, table: Table) -> None:
        self._insert = insert(table)
        self._many: dict[tuple[str, ...], _ManyRows] = {}

    def run(self, conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
        if not rows:
            return
        if conn.dialect.name == "sqlite":
            _many_rows(self._many, self._insert, rows[0]).run(conn, rows)
        else:
            conn.execute(self._insert, rows)


def _many_rows(made: dict[tuple[str, ...], _ManyRows], insert: Any, given: Container[str]) -> _ManyRows:
    columns = tuple(name for name in insert.table.c.keys() if name in given)  # noqa: SIM118 - in the table's order
    found = made.get(columns)
    if found is None:
        found = made[columns] = _ManyRows(insert, columns)
    return found


class Upsert:
    """``INSERT .. ON CONFLICT (keys) DO UPDATE`` (or DO NOTHING without ``update``).

    ``guard`` gets the row that was to be inserted and says when the stored one may be overwritten. Rows are taken in
    the order of their keys, so that two processes that write the same rows wait for each other, never in a circle.
    """

    def __init__(self, table: Table, keys: Sequence[str], update: Sequence[str] = (), guard: Guard | None = None):
        self.columns = tuple(column.name for column in table.columns)
        self._key = itemgetter(*keys)
        self._places = itemgetter(*(self.columns.index(key) for key in keys))
        self._texts: dict[str, str] = {}
        self._by_dialect = {
            name: _upsert(insert(table), keys, update, guard)
            for name, insert in (("sqlite", sqlite.insert), ("postgresql", postgresql.insert))
        }
        self._many: dict[tuple[str, ...], _ManyRows] = {}

    @classmethod
    def whole_row(cls, table: Table) -> Upsert:
        """Insert or replace by the table's primary key."""
        keys = [column.name for column in table.primary_key.columns]
        return cls(table, keys, [column.name for column in table.columns if column.name not in keys])

    def run(self, conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
        if not rows:
            return
        statement = self._by_dialect[conn.dialect.name]
        if conn.dialect.name == "sqlite":
            _many_rows(self._many, statement, rows[0]).run(conn, rows)
        else:
            conn.execute(statement, sorted(rows, key=self._key) if len(rows) > 1 else rows)

    def run_raw(self, conn: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Like `run`, for what is written thousands of times a second: whole rows in the order of ``columns`` and as
        the database stores them (moments by `schema.to_micros`), handed to the driver without a look at each value."""
        if not rows:
            return
        if conn.dialect.name == "sqlite":
            many = _many_rows(self._many, self._by_dialect["sqlite"], self.columns)
            many.run_raw(conn, rows)
        else:
            rows = sorted(rows, key=self._places) if len(rows) > 1 else rows
            conn.exec_driver_sql(self._text(conn.dialect), list(rows))

    def _text(self, dialect: Dialect) -> str:
        known = self._texts.get(dialect.name)
        if known is None:
            compiled: Any = self._by_dialect[dialect.name].compile(dialect=dialect, column_keys=list(self.columns))  # type: ignore[attr-defined]
            if tuple(compiled.positiontup) != self.columns:
                raise TypeError(f"{compiled.string} takes more than a row")
            known = self._texts[dialect.name] = compiled.string
        return known


def _upsert(insert: Any, keys: Sequence[str], update: Sequence[str], guard: Guard | None) -> Executable:
    if not update:
        statement = insert.on_conflict_do_nothing(index_elements=keys)
    else:
        changes = {name: getattr(insert.excluded, name) for name in update}
        where = None if guard is None else guard(insert.excluded)
        statement = insert.on_conflict_do_update(index_elements=keys, set_=changes, where=where)
    assert isinstance(statement, Executable)
    return statement


Pairs = Sequence[tuple[int, int]]


class OfPairs:
    """``query`` over the rows whose two ``columns`` are one of some pairs.

    The pairs are one parameter (PostgreSQL: two arrays): one statement for any number of them, planned once, that looks
    each pair up. A list of pairs behind IN would make SQLite read the whole table. On SQLite values come as they are
    stored.
    """

    def __init__(self, query: Select[Any], columns: Any) -> None:
        wanted = func.json_each(bindparam("pairs", type_=Text)).table_valued("value").alias("wanted")
        first, second = (func.json_extract(wanted.c.value, literal_column(f"'$[{place}]'")) for place in (0, 1))
        looked_up = query.join(wanted, and_(columns[0] == first, columns[1] == second))
        self.text = str(looked_up.compile(dialect=sqlite.dialect()))
        arrays = func.unnest(bindparam("firsts", type_=_NUMBERS), bindparam("seconds", type_=_NUMBERS))
        pair = arrays.table_valued("a", "b").render_derived(name="wanted")
        self._statement = query.join(pair, and_(columns[0] == pair.c.a, columns[1] == pair.c.b))

    def run(self, conn: Connection, pairs: Pairs) -> Iterator[Any]:
        for some in slices(pairs, IN_LIMIT):
            if conn.dialect.name == "sqlite":
                yield from conn.exec_driver_sql(self.text, (orjson.dumps(some).decode(),))
            else:
                arrays = {"firsts": [first for first, _ in some], "seconds": [second for _, second in some]}
                yield from conn.execute(self._statement, arrays)


def slices(values: Iterable[T], size: int = IN_LIMIT) -> Iterator[list[T]]:
    rest = iter(values)
    while part := list(islice(rest, size)):
        yield part


def two_columns(conn: Connection, query: Select[Any]) -> dict[Any, Any]:
    """The two columns of ``query`` as a dict."""
    return {row[0]: row[1] for row in conn.execute(query)}
