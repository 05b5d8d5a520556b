"""The ledger's tables: a fresh database equals all steps carried out, on both databases; steps run beside writers."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from ledger_contract import NOW, FixedClock, answer, receipt
from sqlalchemy import Connection, create_engine, inspect, text, update

from hub.adapters.sql import tables
from hub.adapters.sql.engine import address, on_server
from hub.adapters.sql.errors import SchemaBehind, SchemaTooNew
from hub.adapters.sql.keys import Keys
from hub.adapters.sql.ledger import SqlLedger, open_ledger
from hub.adapters.sql.schema import GROWING, PARTS_AHEAD, REVISION, metadata, schema_version
from hub.domain.errors import Unavailable
from hub.domain.parties import Party, Role

Run = Callable[[Callable[[Connection], Any]], Any]
"""Carries out an operation in a transaction on one database."""


def on_file(path: Path) -> Run:
    def run(operation: Callable[[Connection], Any]) -> Any:
        engine = create_engine(f"sqlite:///{path}")
        try:
            with engine.begin() as conn:
                return operation(conn)
        finally:
            engine.dispose()

    return run


def on_url(url: str) -> Run:
    return lambda operation: on_server(address(url), operation)


def from_nothing_step_by_step(conn: Connection) -> None:
    tables.upgrade(conn, None)


def described(conn: Connection) -> dict[str, Any]:
    """Everything the database itself says about its tables."""
    look = inspect(conn)
    found: dict[str, Any] = {}
    for name in sorted(look.get_table_names()):
        columns = [(c["name"], str(c["type"]), c["nullable"], c.get("autoincrement")) for c in look.get_columns(name)]
        indexes = sorted(
            (
                i["name"] or "",
                tuple(i["column_names"]),
                i["unique"],
                sorted(f"{key}={value}" for key, value in i.get("dialect_options", {}).items()),
            )
            for i in look.get_indexes(name)
        )
        unique = sorted((u["name"] or "", tuple(u["column_names"])) for u in look.get_unique_constraints(name))
        found[name] = (sorted(columns), look.get_pk_constraint(name), indexes, unique)
    if conn.dialect.name == "postgresql":
        bounds = "SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class WHERE relispartition ORDER BY 1"
        found["bounds"] = [tuple(row) for row in conn.execute(text(bounds))]
        keys = "SELECT partrelid::regclass::text, pg_get_partkeydef(partrelid) FROM pg_partitioned_table ORDER BY 1"
        found["partitioned"] = [tuple(row) for row in conn.execute(text(keys))]
    else:
        found["sql"] = sorted(
            " ".join((sql or "").split())
            for (sql,) in conn.execute(
                text("SELECT sql FROM sqlite_master WHERE type = 'table' AND sql LIKE '%WITHOUT%'")
            )
        )
    return found


def first_rows(conn: Connection) -> list[list[tuple[Any, ...]]]:
    names = ("alembic_version", "directory_state", "judgement_state")
    return [[tuple(row) for row in conn.execute(text(f"SELECT * FROM {name}"))] for name in names]


def differences(conn: Connection) -> list[Any]:
    """What Alembic itself would change to come from the database to the description."""

    def ours(_: Any, name: str | None, kind: str, reflected: bool, __: Any) -> bool:
        return not (reflected and kind == "table" and "_p" in (name or "")[-4:]) and not str(name).endswith("_rest")

    context = MigrationContext.configure(conn, opts={"compare_type": True, "include_object": ours})
    return list(compare_metadata(context, metadata))


def check_equal(fresh: Run, stepped: Run) -> None:
    fresh(lambda conn: tables.prepare(conn, True))
    stepped(from_nothing_step_by_step)
    assert fresh(described) == stepped(described)
    assert fresh(first_rows) == stepped(first_rows)
    assert stepped(tables.revision) == REVISION


def test_a_fresh_file_equals_all_steps(tmp_path: Path) -> None:
    """Same tables, columns, keys and indexes, and the same first rows; Alembic finds nothing to do."""
    check_equal(on_file(tmp_path / "fresh.db"), on_file(tmp_path / "stepped.db"))
    assert on_file(tmp_path / "stepped.db")(lambda conn: differences(conn)) == []


def test_a_fresh_database_equals_all_steps(postgres_url: str) -> None:
    """The same on PostgreSQL, bounds of the parts included."""
    run = on_url(postgres_url)
    run(lambda conn: tables.prepare(conn, True))
    fresh, rows = run(described), run(first_rows)
    run(lambda conn: conn.exec_driver_sql("DROP SCHEMA public CASCADE"))
    run(lambda conn: conn.exec_driver_sql("CREATE SCHEMA public"))
    run(from_nothing_step_by_step)
    assert run(described) == fresh
    assert run(first_rows) == rows
    assert run(differences) == []
    assert [name for name, _ in fresh["partitioned"]] == sorted(GROWING)


@pytest.mark.parametrize("there", [None, "0001"])
def test_without_leave_to_migrate_the_tables_are_only_checked(postgres_url: str, there: str | None) -> None:
    """Empty or behind: one line that names the command, and nothing is touched."""
    run = on_url(postgres_url)
    if there is not None:
        run(lambda conn: tables.prepare(conn, True))
        run(lambda conn: conn.execute(update(schema_version).values(version_num=there)).close())
    before = run(described)
    with pytest.raises(SchemaBehind, match="run: numhub ledger migrate") as refusal:
        open_ledger(postgres_url, FixedClock(), migrate=False)
    assert "\n" not in str(refusal.value)
    assert run(described) == before


def test_newer_tables_are_refused(postgres_url: str) -> None:
    """Even with leave to migrate: this program does not know what they mean."""
    run = on_url(postgres_url)
    run(lambda conn: tables.prepare(conn, True))
    run(lambda conn: conn.execute(update(schema_version).values(version_num="0099")).close())
    for migrate in (True, False):
        with pytest.raises(SchemaTooNew, match="0099"):
            open_ledger(postgres_url, FixedClock(), migrate=migrate)


async def test_a_ledger_from_before_steps_were_counted_is_brought_up_to_date(tmp_path: Path) -> None:
    """A file as the first version made it, with its data: opened with leave it is new, and nothing is lost."""
    path = tmp_path / "ledger.db"
    first = tables.MIGRATIONS / "versions" / "0001_first.py"
    only_first = tmp_path / "migrations"
    (only_first / "versions").mkdir(parents=True)
    shutil.copy(first, only_first / "versions")
    on_file(path)(lambda conn: tables.upgrade(conn, None, only_first))
    with sqlite3.connect(path) as before:
        before.execute("DROP TABLE alembic_version")
        before.execute("INSERT INTO subscription_keys VALUES (7, 'sub_a')")
    before.close()
    with pytest.raises(SchemaBehind):
        open_ledger(path, FixedClock(), migrate=False)
    directory, ledger = open_ledger(path, FixedClock(), migrate=True)
    await directory.put_party(Party("cmcc", Role.carrier, "C", NOW))
    assert await ledger.moment() == 1
    assert await ledger.answer([answer()]) == [True]
    await ledger.close()
    assert on_file(path)(tables.revision) == REVISION
    with sqlite3.connect(path) as after:
        assert after.execute("SELECT subscription_no FROM answers").fetchall() == [(7,)]
    after.close()


LATER_STEP = """
import sqlalchemy as sa
from alembic import op

revision = "9000"
down_revision = "{}"


def upgrade() -> None:
    op.add_column("answers", sa.Column("later", sa.Text(), nullable=True))
    op.add_column("batches", sa.Column("later", sa.Integer(), server_default="5", nullable=False))
    op.create_table("later", sa.Column("id", sa.Integer(), primary_key=True))
"""


@pytest.mark.parametrize("stack", ["sqlite", "postgresql"])
async def test_a_later_step_runs_while_this_program_writes(
    stack: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The step of a version to come, while two ledgers write: no call fails, nothing is lost, both go on after it."""
    where: Any = tmp_path / "ledger.db" if stack == "sqlite" else request.getfixturevalue("postgres_url")
    run = on_file(where) if stack == "sqlite" else on_url(where)
    ledgers = [open_ledger(where, FixedClock())[1] for _ in range(2)]
    folder = tmp_path / "migrations"
    shutil.copytree(tables.MIGRATIONS, folder, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "versions" / "9000_later.py").write_text(LATER_STEP.format(REVISION))
    done = asyncio.Event()
    written = [0, 0]

    async def write(place: int, ledger: SqlLedger) -> None:
        n = place
        while not done.is_set() or written[place] < 20:
            assert await ledger.answer([answer(n=n)]) == [True]
            await ledger.deliver(receipts=[receipt(n=n)])
            written[place] += 1
            n += 2

    writers = [asyncio.create_task(write(place, ledger)) for place, ledger in enumerate(ledgers)]
    while min(written) < 5 and not any(writer.done() for writer in writers):
        await asyncio.sleep(0.01)
    await asyncio.to_thread(run, lambda conn: tables.upgrade(conn, REVISION, folder))
    before = list(written)
    while min(now - then for now, then in zip(written, before, strict=True)) < 5 and not any(
        writer.done() for writer in writers
    ):
        await asyncio.sleep(0.01)
    done.set()
    await asyncio.gather(*writers)
    for ledger in ledgers:
        await ledger.close()
    assert run(tables.revision) == "9000"
    assert run(lambda conn: conn.scalar(text("SELECT count(*) FROM answers WHERE later IS NULL"))) == sum(written)


def test_parts_stand_ready_beyond_the_one_being_filled(postgres_url: str) -> None:
    """Far along in the chunks, opening with leave to migrate adds parts; nothing falls into the last resort."""
    run = on_url(postgres_url)
    run(lambda conn: tables.prepare(conn, True))
    far = 9 << 20
    run(lambda conn: conn.execute(text(f"INSERT INTO chunk_keys VALUES ({far}, 'evt_far', 0, 0)")).close())
    run(lambda conn: tables.prepare(conn, True))
    run(lambda conn: tables.prepare(conn, True))
    parts = {name for name, _ in run(described)["bounds"] if name.startswith("receipts_")}
    assert parts >= {"receipts_rest", *(f"receipts_p{place}" for place in range(9, 9 + PARTS_AHEAD))}


async def test_a_running_hub_adds_parts_and_waits_for_nobody_long(postgres_url: str) -> None:
    """Asked again nothing is made; while somebody holds the table it gives up within seconds."""
    run = on_url(postgres_url)
    _, ledger = open_ledger(postgres_url, FixedClock())
    assert await ledger.make_room() == 0
    far = 9 << 20
    run(lambda conn: conn.execute(text(f"INSERT INTO chunk_keys VALUES ({far}, 'evt_far', 0, 0)")).close())
    held = await asyncpg.connect(postgres_url)
    try:
        async with held.transaction():
            await held.fetch("SELECT count(*) FROM receipts")  # a long report
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await ledger.make_room()
            assert time.monotonic() - began < 15
    finally:
        await held.close()
    assert await ledger.make_room() == PARTS_AHEAD * len(GROWING)
    assert await ledger.make_room() == 0
    await ledger.close()
    parts = {name for name, _ in run(described)["bounds"] if name.startswith("receipts_")}
    assert parts >= {"receipts_rest", *(f"receipts_p{place}" for place in range(9, 9 + PARTS_AHEAD))}


def test_keys_are_made_anew_only_when_they_are_new(tmp_path: Path) -> None:
    """Forgetting keys costs a question, never a second key."""
    run = on_file(tmp_path / "ledger.db")
    run(lambda conn: tables.prepare(conn, True))
    keys = Keys()
    first = run(lambda conn: dict(keys.subscriptions(conn, ["a", "b"])))
    keys.forget()
    assert run(lambda conn: dict(keys.subscriptions(conn, ["b", "a"]))) == first
