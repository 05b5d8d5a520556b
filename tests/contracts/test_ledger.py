"""The ledger's contract on SQLite, and what only the SQL adapter promises."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ledger_contract import NOW, FixedClock, LedgerContract, answer, batch, chunk_id, cursor, parked, receipt
from sqlalchemy import exc
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateIndex, CreateTable

from hub.adapters.sql import engine, reports, threads
from hub.adapters.sql.errors import SchemaTooNew, translated
from hub.adapters.sql.ledger import SqlLedger, open_ledger
from hub.adapters.sql.schema import metadata
from hub.domain.errors import BatchConflict, NumhubError, Unavailable
from hub.domain.parties import Party, Role
from hub.ports.ledger import Directory, Ledger
from hub.ports.metrics import MetricName


class TestSqliteLedger(LedgerContract):
    async def make_ledger(self, where: Any) -> tuple[Directory, Ledger]:
        return open_ledger(where / "ledger.db", FixedClock())


class Observed:
    """Metrics that remember how often each was observed."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def count(self, name: MetricName, amount: float = 1, **labels: str) -> None: ...

    def set(self, name: MetricName, value: float, **labels: str) -> None: ...

    def observe(self, name: MetricName, seconds: float, **labels: str) -> None:
        self.seen.append(name)


async def test_calls_that_wait_are_committed_together(tmp_path: Path) -> None:
    """Two hundred concurrent receipts take a few commits, not two hundred; each commit is observed."""
    metrics = Observed()
    ledger = SqlLedger.open(tmp_path / "ledger.db", FixedClock(), metrics)
    await asyncio.gather(*(ledger.deliver(receipts=[receipt(n=n)]) for n in range(200)))
    assert 1 <= len(metrics.seen) <= 20
    assert set(metrics.seen) == {"numhub_ledger_commit_seconds"}
    await ledger.close()


async def test_answers_that_come_together_wait_for_company(tmp_path: Path) -> None:
    """Twenty callers, each answering ten chunks one after the other, need far fewer than two hundred commits."""
    metrics = Observed()
    ledger = SqlLedger.open(tmp_path / "ledger.db", FixedClock(), metrics)

    async def caller(place: int) -> None:
        for n in range(10):
            assert await ledger.answer([answer(n=10 * place + n)]) == [True]

    await asyncio.gather(*(caller(place) for place in range(20)))
    assert len(metrics.seen) <= 100
    await ledger.close()


async def test_who_comes_alone_is_not_kept_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for company is for a crowd: a single caller's answers are committed at once."""
    monkeypatch.setattr(threads, "GATHER_SECONDS", 60)
    ledger = SqlLedger.open(tmp_path / "ledger.db", FixedClock())
    async with asyncio.timeout(30):
        for n in range(5):
            assert await ledger.answer([answer(n=n)]) == [True]
    await ledger.close()


async def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    """Closing carries out what waits; what is on disk is the whole state."""
    directory, ledger = open_ledger(tmp_path / "ledger.db", FixedClock())
    waiting = [asyncio.ensure_future(ledger.deliver(receipts=[receipt(n=n)])) for n in range(50)]
    await asyncio.sleep(0)  # let them be handed in
    await ledger.close()
    await asyncio.gather(*waiting)
    for call in (ledger.cursors, ledger.waivers, directory.snapshot):
        with pytest.raises(Unavailable):
            await call()
    with pytest.raises(Unavailable):
        await ledger.deliver(receipts=[receipt()])
    await ledger.close()
    _, again = open_ledger(str(tmp_path / "ledger.db"), FixedClock())
    assert len(await again.receipts_of("sub_a", [chunk_id(n) for n in range(60)])) == 50
    await again.close()


async def test_a_cancelled_caller_harms_nobody(tmp_path: Path) -> None:
    """A caller that went away does not keep the others of its group from their results."""
    ledger = SqlLedger.open(tmp_path / "ledger.db", FixedClock())
    calls = [asyncio.ensure_future(ledger.answer([answer(n=n)])) for n in range(20)]
    await asyncio.sleep(0)
    calls[3].cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert [result for result in results if result != [True]] == [results[3]]
    assert isinstance(results[3], asyncio.CancelledError)
    await ledger.close()


async def test_keys_of_an_undone_transaction_are_forgotten(tmp_path: Path) -> None:
    """A group that is rolled back leaves no key behind that points to nothing."""
    ledger = SqlLedger.open(tmp_path / "ledger.db", FixedClock())
    await ledger.put_batch(batch(1))
    _, *outcome = await asyncio.gather(
        ledger._runner.write(lambda conn: time.sleep(0.05)),  # meanwhile the others gather into one group
        ledger.deliver(parked=[parked(n=1)], cursors=[cursor(2)]),
        ledger.put_batch(batch(2, batch_seq=1)),
        ledger.answer([answer(n=1)]),
        return_exceptions=True,
    )
    assert [type(result) for result in outcome] == [frozenset, BatchConflict, list]
    assert [chunk.chunk_id for chunk in await ledger.parked_of("sub_a")] == [chunk_id(1)]
    assert len(await ledger.answers_of("sub_a", chunk_id(1))) == 1
    await ledger.close()


async def test_a_locked_database_is_unavailable_and_recovers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process holds the lock writes fail at once for all who wait, reads go on; then writes go on."""
    monkeypatch.setattr(engine, "BUSY_SECONDS", 0.1)
    ledger = SqlLedger.open(tmp_path / "ledger.db", FixedClock())
    await ledger.deliver(receipts=[receipt(n=0)])
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    calls = (ledger.deliver(receipts=[receipt(n=n)]) for n in range(1, 30))
    outcome = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in outcome} == {Unavailable}
    assert list(await ledger.receipts_of("sub_a", [chunk_id(n) for n in range(30)])) == [chunk_id(0)]
    other.execute("ROLLBACK")
    other.close()
    await ledger.deliver(receipts=[receipt(n=1)])
    assert len(await ledger.receipts_of("sub_a", [chunk_id(n) for n in range(30)])) == 2
    await ledger.close()


async def test_a_full_disk_is_unavailable_and_recovers(tmp_path: Path) -> None:
    """No space: nothing of the call is kept, reads go on; with space again, so do writes."""
    directory, ledger = open_ledger(tmp_path / "ledger.db", FixedClock())
    await ledger._runner.write(lambda conn: conn.exec_driver_sql("PRAGMA max_page_count = 1").close())
    party = Party("big", Role.subscriber, "x" * 100_000, NOW)
    with pytest.raises(Unavailable):
        await directory.put_party(party)
    assert (await directory.snapshot()).parties == {}
    assert await directory.version() == 0
    await ledger._runner.write(lambda conn: conn.exec_driver_sql("PRAGMA max_page_count = 100000").close())
    await directory.put_party(party)
    assert await directory.version() == 1
    await ledger.close()


async def test_a_newer_schema_is_refused_with_one_line(tmp_path: Path) -> None:
    """An older program does not touch what a newer one wrote; a file that is no database is an error of the domain."""
    await SqlLedger.open(tmp_path / "ledger.db", FixedClock()).close()
    with sqlite3.connect(tmp_path / "ledger.db") as other:
        other.execute("UPDATE alembic_version SET version_num = '0099'")
    other.close()
    with pytest.raises(SchemaTooNew, match="schema version 0099") as refusal:
        SqlLedger.open(tmp_path / "ledger.db", FixedClock())
    assert "\n" not in str(refusal.value)
    (tmp_path / "other.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(NumhubError):
        SqlLedger.open(tmp_path / "other.db", FixedClock())
    with pytest.raises(ValueError, match="file"):
        SqlLedger.open("sqlite://", FixedClock())


async def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Signing secrets are in it."""
    ledger = SqlLedger.open(f"sqlite:///{tmp_path}/ledger.db", FixedClock())
    await ledger.deliver(receipts=[receipt()])
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    await ledger.close()


async def test_every_commit_is_synchronous(tmp_path: Path) -> None:
    """The connections are what durability rests on: WAL, synchronous=FULL, foreign keys."""
    ledger = SqlLedger.open(tmp_path / "ledger.db", FixedClock())

    def settings(conn: Any) -> list[Any]:
        names = ("journal_mode", "synchronous", "foreign_keys")
        return [conn.exec_driver_sql(f"PRAGMA {name}").scalar() for name in names]

    assert await ledger._runner.write(settings) == ["wal", 2, 1]
    assert await ledger._runner.read(settings) == ["wal", 2, 1]
    await ledger.close()


CHILD = """
import asyncio, sys
from ledger_contract import FixedClock, answer_for_ever
from hub.adapters.sql.ledger import SqlLedger
async def main():
    await answer_for_ever(SqlLedger.open(sys.argv[1], FixedClock()), 16, int(sys.argv[2]))
asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """kill -9 in the middle of answers, three times over one file: every acknowledged answer and receipt is there."""
    seed = random.randrange(10**6)
    chance = random.Random(seed)
    path, here = tmp_path / "ledger.db", Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(here), str(here.parent.parent)))}
    acknowledged: list[int] = []
    for life in range(3):
        first = life * 1_000_000
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(path), str(first)], stdout=subprocess.PIPE, env=environment
        ) as child:
            assert child.stdout is not None
            lines: Iterator[bytes] = iter(child.stdout)
            mine = [int(next(lines))]
            time.sleep(chance.random() * 0.2)
            child.kill()
            mine += [int(line) for line in lines if line.endswith(b"\n")]
        acknowledged += mine
    _, ledger = open_ledger(path, FixedClock())
    received = await ledger.receipts_of("sub_a", [chunk_id(n) for n in acknowledged])
    standings = await ledger.standings([(chunk_id(n), 100) for n in acknowledged], ["sub_a"])
    promised = {chunk_id(n) for n in acknowledged}
    assert set(received) == promised == {s.chunk_id for s in standings}, f"seed {seed}"
    assert all(int(s.codes.sum()) == 100 for s in standings)
    await ledger.close()


def all_errors(kind: type[BaseException]) -> set[type[BaseException]]:
    return {kind}.union(*(all_errors(narrower) for narrower in kind.__subclasses__()))


def test_every_database_error_has_a_meaning() -> None:
    """Whatever SQLAlchemy may raise becomes an error of the domain; what may pass by itself becomes Unavailable."""
    for kind in {kind for kind in all_errors(exc.SQLAlchemyError) if kind.__module__ == exc.__name__}:
        error = kind.__new__(kind)
        error.args = ("x",)
        if isinstance(error, exc.StatementError):
            error.orig, error.statement, error.params = Exception("x"), None, None
            error.connection_invalidated = False  # type: ignore[attr-defined]
        known = translated(error)
        assert isinstance(known, NumhubError), kind
        if issubclass(kind, (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)):
            assert isinstance(known, Unavailable), kind
    torn = exc.DatabaseError("x", None, Exception("x"), connection_invalidated=True)
    assert isinstance(translated(torn), Unavailable)
    assert isinstance(translated(sqlite3.OperationalError("locked")), Unavailable)
    assert isinstance(translated(sqlite3.DatabaseError("malformed")), NumhubError)
    duplicate = exc.IntegrityError("x", None, Exception('violates unique constraint "batches_by_seq"'))
    assert isinstance(translated(duplicate), BatchConflict)
    assert translated(ValueError("a mistake of the program")) is None


def test_tables_and_reports_can_be_said_to_postgresql() -> None:
    """The same schema and queries compile for the other database."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    for table in metadata.sorted_tables:
        assert "CREATE TABLE" in str(CreateTable(table).compile(dialect=dialect))
        for index in table.indexes:
            assert "INDEX" in str(CreateIndex(index).compile(dialect=dialect))
    limits = reports.Filters("cmcc", "bank", "bank", 1, 2)
    for make in reports._REPORTS.values():
        assert "SELECT" in str(make(limits, NOW).compile(dialect=dialect))
