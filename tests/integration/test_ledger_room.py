"""The hub keeps parts ready in the tables that grow for years, without anybody's hand."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg
import pytest

from hub.adapters.system.clock import SystemClock
from hub.app.roles import Role
from hub.app.settings import Settings
from hub.app.wiring import build
from hub.workers import timers


async def test_the_role_timers_adds_parts(postgres_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Soon after its start, and again and again; alone, by a lease."""
    monkeypatch.setattr(timers, "ROOM_AFTER", 0.2)
    hub = await build(Settings(data_dir=tmp_path, ledger_url=postgres_url), clock=SystemClock())  # type: ignore[arg-type]
    asking = await asyncpg.connect(postgres_url)
    try:
        await asking.execute(f"INSERT INTO chunk_keys VALUES ({9 << 20}, 'evt_far', 0, 0)")
        await hub.start(frozenset({Role.timers}))
        async with asyncio.timeout(30):
            while not await asking.fetchval("SELECT to_regclass('receipts_p12') IS NOT NULL"):
                await asyncio.sleep(0.1)
        assert hub.supervisor.failure is None
    finally:
        await asking.close()
        await hub.stop(within=2.0)
