"""The lease contract on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest
from lease_contract import POOL, TTL, LeaseContract
from sqlalchemy import Connection, Table, update

from hub.adapters.sql.ledger import SqlLedger, open_ledger
from hub.adapters.sql.schema import lease_members, leases
from hub.adapters.system.clock import ManualClock, SystemClock
from hub.ports.leases import Leases


class TestSqliteLeases(LeaseContract):
    async def make_two(self, where: Path) -> tuple[Leases, Leases]:
        self.clock = ManualClock(datetime(2026, 5, 1, tzinfo=UTC))
        self.ledgers = [open_ledger(where / "ledger.db", self.clock)[1] for _ in range(2)]
        return self.ledgers[0].leases(), self.ledgers[1].leases()

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    async def close(self) -> None:
        for ledger in self.ledgers:
            await ledger.close()


class TestPostgresLeases(LeaseContract):
    """The database's clock cannot be moved: instead everything that was written is made older."""

    ledgers: list[SqlLedger]

    @pytest.fixture(autouse=True)
    def _database(self, postgres_url: str) -> None:
        self.url = postgres_url

    async def make_two(self, where: Path) -> tuple[Leases, Leases]:
        self.ledgers = [open_ledger(self.url, SystemClock())[1] for _ in range(2)]
        return self.ledgers[0].leases(), self.ledgers[1].leases()

    async def test_a_process_frozen_in_a_transaction_holds_up_nobody(self, two: tuple[Leases, Leases]) -> None:
        """Its own leases stay with it as long as the transaction lasts; the others renew and take theirs at once."""
        a, b = two
        await a.share("a", POOL, TTL)
        await b.share("b", POOL, TTL)
        await a.release("a", POOL[:4])
        await b.share("b", POOL, TTL)
        await self.pass_time(10.5)
        frozen = await asyncpg.connect(self.url)
        try:
            async with frozen.transaction():
                await frozen.fetch("SELECT * FROM leases WHERE name = $1 FOR SHARE", POOL[5])  # as a delivery does
                async with asyncio.timeout(5):
                    held = (await b.share("b", POOL, TTL)).held
                assert held == dict.fromkeys([*POOL[:4], POOL[4], *POOL[6:]], 2)
        finally:
            await frozen.close()
        assert POOL[5] in (await b.share("b", POOL, TTL)).held

    async def pass_time(self, seconds: float) -> None:
        def older(conn: Connection) -> None:
            tables: tuple[Table, ...] = (leases, lease_members)
            for table in tables:
                conn.execute(update(table).values(expires_at=table.c.expires_at - int(seconds * 1e6)))

        await self.ledgers[0]._runner.write(older)

    async def close(self) -> None:
        for ledger in self.ledgers:
            await ledger.close()
