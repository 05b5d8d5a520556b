"""Small integer keys for subscriptions and chunks.

Keys are only ever added, so what was committed may be remembered in memory for ever. Used by the writer alone;
readers join the key tables, for they must not see the keys of a transaction that may still be undone.

Where several processes write at once (PostgreSQL), keys are made in a transaction of their own, committed at once:
whoever makes the same key waits for microseconds, not for the other's whole group, and no order of keys in two groups
can end in a deadlock. A key without facts harms nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext

from sqlalchemy import Connection, Engine, bindparam, select, update

from hub.adapters.sql.schema import chunk_keys, subscription_keys
from hub.adapters.sql.statements import Upsert, slices
from hub.ports.log import Position

NO_PLACE = Position(-1, -1)
"""Of a chunk of which only a failed attempt is known: attempts do not say where their chunk stands."""

_REMEMBERED = 100_000  # keys held in memory per kind: about 15 MB

_new_subscription = Upsert(subscription_keys, ["subscription_id"])
_new_chunk = Upsert(chunk_keys, ["chunk_id"])
_place_chunk = update(chunk_keys).where(chunk_keys.c.chunk_id == bindparam("id"), chunk_keys.c.part < 0)


class Keys:
    """``at_once``: an engine on which each statement is committed at once; None = in the caller's transaction."""

    def __init__(self, at_once: Engine | None = None) -> None:
        self._at_once = at_once
        self._subscriptions: dict[str, int] = {}
        self._chunks: dict[str, int] = {}
        self._placeless: set[str] = set()  # of the known chunks

    def forget(self) -> None:
        """After a rollback: keys made in it are gone."""
        self._subscriptions.clear()
        self._chunks.clear()
        self._placeless.clear()

    def subscriptions(self, conn: Connection, ids: Iterable[str]) -> Mapping[str, int]:
        """The keys of (at least) ``ids``; those seen for the first time are made."""
        wanted = set(ids)
        if len(self._subscriptions) + len(wanted) > _REMEMBERED:
            self._subscriptions.clear()
        unknown = [id_ for id_ in wanted if id_ not in self._subscriptions]
        if unknown:
            self._find_subscriptions(conn, unknown)
            missing = sorted(id_ for id_ in unknown if id_ not in self._subscriptions)
            if missing:
                with self._making(conn) as making:
                    _new_subscription.run(making, [{"subscription_id": id_} for id_ in missing])
                self._find_subscriptions(conn, missing)
        return self._subscriptions

    def chunks(self, conn: Connection, places: Mapping[str, Position]) -> Mapping[str, int]:
        """The keys of (at least) the chunks in ``places`` (chunk id -> where it stands in the log, or NO_PLACE)."""
        if len(self._chunks) + len(places) > _REMEMBERED:
            self._chunks.clear()
            self._placeless.clear()
        unknown = [id_ for id_ in places if id_ not in self._chunks]
        if unknown and self._at_once is not None:  # often made by another process
            self._find_chunks(conn, unknown)
            unknown = [id_ for id_ in unknown if id_ not in self._chunks]
        if unknown:  # new, as a rule: those that are there already are passed over
            rows = [{"chunk_id": id_, "part": places[id_][0], "log_offset": places[id_][1]} for id_ in unknown]
            with self._making(conn) as making:
                _new_chunk.run(making, rows)
            self._find_chunks(conn, unknown)
        if self._placeless:
            self._place(conn, places)
        return self._chunks

    def _making(self, conn: Connection) -> AbstractContextManager[Connection]:
        return nullcontext(conn) if self._at_once is None else self._at_once.connect()

    def _find_subscriptions(self, conn: Connection, wanted: Iterable[str]) -> None:
        query = select(subscription_keys.c.subscription_id, subscription_keys.c.subscription_no)
        for part in slices(wanted):
            for id_, number in conn.execute(query.where(subscription_keys.c.subscription_id.in_(part))):
                self._subscriptions[id_] = number

    def _find_chunks(self, conn: Connection, wanted: Iterable[str]) -> None:
        query = select(chunk_keys.c.chunk_id, chunk_keys.c.chunk_no, chunk_keys.c.part)
        for part in slices(wanted):
            for id_, number, partition in conn.execute(query.where(chunk_keys.c.chunk_id.in_(part))):
                self._chunks[id_] = number
                if partition < 0:
                    self._placeless.add(id_)

    def _place(self, conn: Connection, places: Mapping[str, Position]) -> None:
        found = [id_ for id_, place in places.items() if place != NO_PLACE and id_ in self._placeless]
        if found:
            with self._making(conn) as making:
                making.execute(
                    _place_chunk.values(part=bindparam("new_part"), log_offset=bindparam("new_offset")),
                    [{"id": id_, "new_part": places[id_][0], "new_offset": places[id_][1]} for id_ in sorted(found)],
                )
            self._placeless.difference_update(found)


def find_subscription(conn: Connection, subscription_id: str) -> int | None:
    """For readers: the key of a subscription, None if nothing was ever kept for it."""
    query = select(subscription_keys.c.subscription_no).where(subscription_keys.c.subscription_id == subscription_id)
    found: int | None = conn.scalar(query)
    return found
