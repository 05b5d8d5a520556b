"""Insert-or-update in the dialect of the connection; the one thing SQLAlchemy Core leaves to the dialects."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, Table, and_, bindparam, func, tuple_
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Dialect
from sqlalchemy.sql.expression import Executable

T = TypeVar("T")

IN_LIMIT = 500
"""Values in one IN list: statements stay small, and well below every database's limit of parameters."""

_NUMBERS = postgresql.ARRAY(BigInteger)

Guard = Callable[[Any], ColumnElement[bool]]


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

    @classmethod
    def whole_row(cls, table: Table) -> Upsert:
        """Insert or replace by the table's primary key."""
        keys = [column.name for column in table.primary_key.columns]
        return cls(table, keys, [column.name for column in table.columns if column.name not in keys])

    def run(self, conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
        if len(rows) > 1 and conn.dialect.name != "sqlite":
            rows = sorted(rows, key=self._key)
        if rows:
            conn.execute(self._by_dialect[conn.dialect.name], rows)

    def run_raw(self, conn: Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Like `run`, for what is written thousands of times a second: whole rows in the order of ``columns`` and as
        the database stores them (moments by `schema.to_micros`), handed to the driver without a look at each value."""
        if len(rows) > 1 and conn.dialect.name != "sqlite":
            rows = sorted(rows, key=self._places)
        if rows:
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


def of_pairs(conn: Connection, query: Select[Any], columns: Any, pairs: Pairs) -> tuple[Select[Any], dict[str, Any]]:
    """``query`` over the rows whose two ``columns`` are one of ``pairs``, with its parameters.

    PostgreSQL gets the pairs as two arrays: one statement for any number of them, planned once.
    """
    if conn.dialect.name == "sqlite":
        return query.where(tuple_(*columns).in_(pairs)), {}
    wanted = func.unnest(bindparam("firsts", type_=_NUMBERS), bindparam("seconds", type_=_NUMBERS))
    pair = wanted.table_valued("a", "b").render_derived(name="wanted")
    query = query.join(pair, and_(columns[0] == pair.c.a, columns[1] == pair.c.b))
    return query, {"firsts": [first for first, _ in pairs], "seconds": [second for _, second in pairs]}


def slices(values: Iterable[T], size: int = IN_LIMIT) -> Iterator[list[T]]:
    rest = iter(values)
    while part := list(islice(rest, size)):
        yield part


def two_columns(conn: Connection, query: Select[Any]) -> dict[Any, Any]:
    """The two columns of ``query`` as a dict."""
    return {row[0]: row[1] for row in conn.execute(query)}
