"""`numhub ledger`, and other commands, on both databases: what an operator types and sees."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner

from hub.adapters.sql import care
from hub.adapters.sql.ledger import open_ledger
from hub.adapters.system.clock import SystemClock
from hub.app.cli.main import app
from hub.domain.events import Lane
from hub.domain.parties import Party, Role
from hub.ports.ledger import Cursor, Receipt
from hub.ports.log import Position

Numhub = Callable[..., str]


@pytest.fixture(params=["sqlite", "postgresql"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A ledger's URL, or nothing for the embedded one."""
    return "" if request.param == "sqlite" else str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def numhub(address: str, tmp_path: Path) -> Numhub:
    def run(*arguments: str, code: int = 0, **env: str) -> str:
        env = {"NUMHUB_DATA_DIR": str(tmp_path / "data"), "NUMHUB_LEDGER_URL": address, "COLUMNS": "200"} | env
        result = CliRunner().invoke(app, list(arguments), env=env)
        assert result.exit_code == code, result.output
        return result.output

    return run


async def fill(where: Any) -> None:
    clock = SystemClock()
    directory, ledger = open_ledger(where, clock)
    await directory.put_party(Party("bank", Role.subscriber, "Bank", clock.now()))
    await ledger.open_cursors([Cursor("sub_a", 0, Lane.bulk, 0, 0)])
    receipts = [Receipt("sub_a", f"evt_{n}", Position(0, n), clock.now(), 1, "pull") for n in range(500)]
    await ledger.deliver(receipts=receipts)
    await ledger.close()


def test_tables_are_made_and_a_production_hub_waits_for_it(numhub: Numhub, address: str, tmp_path: Path) -> None:
    """In the production profile nothing is migrated by the way; the command says what it did, and that it is done."""
    if address:
        assert "numhub ledger migrate" in numhub("party", "list", code=1, NUMHUB_PROFILE="production")
    assert "stood at nothing, it stands at 0003 now" in numhub("ledger", "migrate")
    assert "stands at 0003 already" in numhub("ledger", "migrate")
    numhub("party", "add", "bank", "--role", "subscriber", "--name", "B", "--key-out", str(tmp_path / "k"))
    assert "bank" in numhub("party", "list", NUMHUB_PROFILE="production")


def test_a_backup_is_made_restored_and_compared(numhub: Numhub, address: str, tmp_path: Path) -> None:
    """Each table that holds anything is named with its rows; the backup is for its owner alone; no database is left."""
    numhub("ledger", "migrate")
    asyncio.run(fill(address or tmp_path / "data" / "ledger.db"))
    said = numhub("ledger", "backup-check", str(tmp_path / "backup"))
    assert "500 rows, the same" in said
    assert "look" not in said
    (copy,) = (tmp_path / "backup").iterdir()
    assert copy.stat().st_mode & 0o077 == 0
    if address:
        assert asyncio.run(_databases(address)) == []


def test_a_backup_that_differs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows lost or changed on the way, and a history with a gap, each stand in the findings as bad."""
    path = tmp_path / "ledger.db"
    asyncio.run(fill(path))
    honest, copies = care._sums, iter([False, True])

    def sums(conn: Any) -> Any:
        if next(copies):
            conn.exec_driver_sql("DELETE FROM receipts WHERE chunk_no = 7")
            conn.exec_driver_sql("UPDATE parties SET name = 'Benk'")
            conn.exec_driver_sql("DELETE FROM chunk_keys WHERE chunk_no = 9")
        return honest(conn)

    monkeypatch.setattr(care, "_sums", sums)
    bad = {found.what: found.said for found in care.check_backup(path, tmp_path / "backup") if not found.good}
    assert bad == {
        "receipts": "500 rows, restored 499; the content differs",
        "parties": "1 rows, restored 1; the content differs",
        "chunk_keys": "500 rows, restored 499; the content differs",
        "receipts whose keys are missing": "1",
    }


def test_a_damaged_file_is_said(numhub: Numhub, address: str, tmp_path: Path) -> None:
    """A ledger that cannot be read, or is not there, ends in one line."""
    if address:
        pytest.skip("a file is damaged, not a server")
    assert "there is no ledger" in numhub("ledger", "backup-check", str(tmp_path / "backup"), code=1)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ledger.db").write_bytes(b"not a database" * 1000)
    assert len(numhub("ledger", "backup-check", str(tmp_path / "backup"), code=1).strip().splitlines()) == 1


def test_doctor_looks_at_the_ledger(numhub: Numhub, address: str) -> None:
    """Version, tables and what durability rests on; without tables it says so; unreachable is one line."""
    if not address:
        numhub("ledger", "migrate")
        assert "quick check ok" in numhub("doctor")
        return
    assert "no tables" in numhub("doctor", code=1)
    numhub("ledger", "migrate")
    said = numhub("doctor", code=1 if asyncio.run(_fsync(address)) == "off" else 0)
    for expected in ("PostgreSQL", "0003", "fsync", "synchronous_commit", "full_page_writes"):
        assert expected in said
    assert "ready ahead" not in said
    asyncio.run(_execute(address, f"INSERT INTO chunk_keys VALUES ({2 << 20}, 'evt_far', 0, 0)"))
    assert "1 ready ahead" in numhub("doctor", code=1)
    numhub("ledger", "migrate")
    assert "ready ahead" not in numhub("doctor", code=1 if asyncio.run(_fsync(address)) == "off" else 0)
    assert "does not answer" in numhub("doctor", code=1, NUMHUB_LEDGER_URL="postgresql://127.0.0.1:1/x")
    assert "refuses" in numhub("doctor", code=1, NUMHUB_LEDGER_URL=address.rpartition("/")[0] + "/nowhere")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(statement)
    await connection.close()


async def _databases(url: str) -> list[str]:
    connection = await asyncpg.connect(url)
    found = await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE 'numhub_restore_%'")
    await connection.close()
    return [row["datname"] for row in found]


async def _fsync(url: str) -> str:
    connection = await asyncpg.connect(url)
    found = str(await connection.fetchval("SHOW fsync"))
    await connection.close()
    return found
