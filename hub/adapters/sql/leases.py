"""Leases in the ledger's database. Implements `hub.ports.leases.Leases`.

Moments are the database's own on PostgreSQL, which several machines share; an embedded ledger belongs to one machine
and goes by the hub's clock. Rows are locked in the order of their names everywhere, so that no two transactions can
wait for each other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from sqlalchemy import Connection, delete, func, select, text, update

from hub.adapters.sql.runner import Runner
from hub.adapters.sql.schema import from_micros, lease_members, leases, to_micros
from hub.adapters.sql.statements import Upsert, slices, two_columns
from hub.ports.clock import Clock
from hub.ports.leases import LeaseRow, Leases, Share, shard_lease

__all__ = ["Leases", "SqlLeases", "stale_fences"]

_new_lease = Upsert(leases, ["name"])
_member = Upsert.whole_row(lease_members)

NOBODY = ""

_DATABASE_TIME = text("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")


class SqlLeases:
    """Shares the runner of a `SqlLedger`."""

    def __init__(self, runner: Runner, clock: Clock) -> None:
        self._runner, self._clock = runner, clock

    async def begin(self, holder: str) -> None:
        def operation(conn: Connection) -> None:
            conn.execute(update(leases).where(leases.c.holder == holder).values(epoch=leases.c.epoch + 1))

        await self._runner.write(operation)

    async def take(self, holder: str, names: Collection[str], ttl: timedelta) -> dict[str, int]:
        def operation(conn: Connection) -> dict[str, int]:
            now = self._now(conn)
            return _take(conn, holder, sorted(names), len(names), now, now + _micros(ttl))

        return await self._runner.write(operation)

    async def share(self, holder: str, pool: Sequence[str], ttl: timedelta) -> Share:
        name = pool[0].partition("/")[0]

        def operation(conn: Connection) -> Share:
            now = self._now(conn)
            _member.run(conn, [{"pool": name, "holder": holder, "expires_at": now + _micros(ttl)}])
            alive = conn.scalar(
                select(func.count()).where(lease_members.c.pool == name, lease_members.c.expires_at > now)
            )
            due = -(-len(pool) // max(alive or 1, 1))
            held = _take(conn, holder, sorted(pool), due, now, now + _micros(ttl))
            return Share(held, due)

        return await self._runner.write(operation)

    async def release(self, holder: str, names: Collection[str]) -> None:
        def operation(conn: Connection) -> None:
            for part in slices(sorted(names)):
                mine = (leases.c.holder == holder, leases.c.name.in_(part))
                conn.execute(update(leases).where(*mine).values(holder=NOBODY, expires_at=0))

        await self._runner.write(operation)

    async def leave(self, holder: str) -> None:
        def operation(conn: Connection) -> None:
            conn.execute(delete(lease_members).where(lease_members.c.holder == holder))
            conn.execute(update(leases).where(leases.c.holder == holder).values(holder=NOBODY, expires_at=0))

        await self._runner.write(operation)

    async def rows(self) -> list[LeaseRow]:
        def operation(conn: Connection) -> list[LeaseRow]:
            now = self._now(conn)
            found = conn.execute(select(leases).where(leases.c.expires_at > now).order_by(leases.c.name))
            return [LeaseRow(row.name, row.holder, row.epoch, from_micros(row.expires_at)) for row in found]

        return await self._runner.read(operation)

    def _now(self, conn: Connection) -> int:
        if conn.dialect.name == "postgresql":
            now: int = conn.execute(_DATABASE_TIME).scalar_one()
            return now
        return to_micros(self._clock.now())


def _take(conn: Connection, holder: str, names: Sequence[str], due: int, now: int, until: int) -> dict[str, int]:
    """Renew what ``holder`` has of ``names``, whatever its number, and take free ones up to ``due``.

    Nobody waits for a row of somebody else: a process may be frozen in the middle of a transaction that locks its own.
    """
    _new_lease.run(conn, [{"name": name, "holder": NOBODY, "epoch": 0, "expires_at": 0} for name in names])
    held: dict[str, int] = {}
    for part in slices(names):
        mine = select(leases.c.name, leases.c.epoch).where(leases.c.name.in_(part), leases.c.holder == holder)
        held |= two_columns(conn, mine.order_by(leases.c.name).with_for_update())
    fresh: dict[str, int] = {}
    for part in slices(names):
        free = select(leases.c.name, leases.c.epoch).where(
            leases.c.name.in_(part), leases.c.holder != holder, leases.c.expires_at <= now
        )
        free = free.order_by(leases.c.name).limit(max(due - len(held) - len(fresh), 0))
        fresh |= {name: epoch + 1 for name, epoch in conn.execute(free.with_for_update(skip_locked=True))}
    for part in slices(held):
        conn.execute(update(leases).where(leases.c.name.in_(part)).values(expires_at=until))
    for part in slices(fresh):
        changed = update(leases).where(leases.c.name.in_(part))
        conn.execute(changed.values(holder=holder, epoch=leases.c.epoch + 1, expires_at=until))
    return held | fresh


def stale_fences(conn: Connection, fences: Collection[tuple[int, int]]) -> set[tuple[int, int]]:
    """Those of ``fences`` (shard, epoch) whose epoch is not the present one. The rows stay locked against a change of
    hands until the transaction ends, so what is judged current here is current when it commits."""
    if not fences:
        return set()
    names = {shard_lease(shard): shard for shard, _ in fences}
    query = select(leases.c.name, leases.c.epoch).where(leases.c.name.in_(sorted(names))).order_by(leases.c.name)
    current = {names[name]: epoch for name, epoch in conn.execute(query.with_for_update(read=True))}
    return {(shard, epoch) for shard, epoch in fences if current.get(shard) != epoch}


def _micros(ttl: timedelta) -> int:
    return ttl // timedelta(microseconds=1)
