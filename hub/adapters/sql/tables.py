"""Makes the tables, brings older ones up to date, or checks that they are those this program knows.

The steps are Alembic's (`migrations/versions`), carried out through the connection that is given. A fresh database
gets the tables as `schema` describes them, which a test holds against all steps together. Steps only add, so that
programs of the version before go on working while and after they run.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, func, insert, inspect, select, text

from hub.adapters.sql.errors import SchemaBehind, SchemaTooNew
from hub.adapters.sql.schema import (
    GROWING,
    PART_CHUNKS,
    PARTS_AHEAD,
    REVISION,
    chunk_keys,
    directory_state,
    judgement_state,
    metadata,
    part_of,
    schema_version,
)

MIGRATIONS = Path(__file__).parent / "migrations"

_BEFORE_ALEMBIC = "0001"
"""Where ledgers stand that were made before steps were counted."""

_ONE_AT_A_TIME = 7_305_118_204_916_003
"""Key of the lock under which processes that start together take turns at making the tables."""

_PARTS = text("SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = to_regclass(:name)")

_LOCK_SECONDS = 5
"""How long a step waits for a table: writers that come after it wait as long."""


def prepare(conn: Connection, migrate: bool) -> None:
    """Raises SchemaBehind (unless ``migrate``), SchemaTooNew."""
    _take_turns(conn)
    found = revision(conn)
    if found is None and (migrate or conn.dialect.name == "sqlite"):  # a new file is nobody's older ledger
        _make(conn)
    elif found != REVISION:
        if found is not None and not _known(found):
            raise SchemaTooNew(
                f"The ledger has schema version {found}, this numhub knows versions up to {REVISION}; "
                "use a newer numhub or restore an older copy of the ledger."
            )
        if not migrate:
            stands = "has no tables yet" if found is None else f"has schema version {found}"
            raise SchemaBehind(f"The ledger {stands}, this numhub needs {REVISION}; run: numhub ledger migrate")
        upgrade(conn, found)
    if migrate:
        add_parts(conn)


def revision(conn: Connection) -> str | None:
    """Which step the tables stand at; None for an empty database."""
    there = inspect(conn)
    if there.has_table(schema_version.name):
        return conn.scalar(select(schema_version.c.version_num))
    return _BEFORE_ALEMBIC if there.has_table("schema_info") else None


def add_parts(conn: Connection, within: float | None = None) -> int:
    """See to it that PARTS_AHEAD parts of each partitioned table stand ready beyond the one being filled; how many
    were made. Waits for a table ``within`` seconds."""
    if conn.dialect.name != "postgresql":
        return 0
    if within is not None:
        conn.exec_driver_sql(f"SET LOCAL lock_timeout = '{within}s'")
    made = 0
    newest = _newest_part(conn)
    for name in GROWING:
        there = set(conn.scalars(_PARTS, {"name": name}))
        for place in range(newest, newest + PARTS_AHEAD):
            if f"{name}_p{place}" not in there:
                conn.exec_driver_sql(part_of(name, place))
                made += 1
    return made


def parts_ahead(conn: Connection, name: str) -> int:
    """Parts of a table on PostgreSQL that stand ready beyond the one being filled."""
    there = set(conn.scalars(_PARTS, {"name": name}))
    ahead = 0
    while f"{name}_p{_newest_part(conn) + ahead + 1}" in there:
        ahead += 1
    return ahead


def _newest_part(conn: Connection) -> int:
    return int(conn.scalar(select(func.max(chunk_keys.c.chunk_no))) or 0) // PART_CHUNKS


def _take_turns(conn: Connection) -> None:
    if conn.dialect.name == "postgresql":
        conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_AT_A_TIME})
        conn.exec_driver_sql(f"SET LOCAL lock_timeout = '{_LOCK_SECONDS}s'")


def _make(conn: Connection) -> None:
    metadata.create_all(conn)
    conn.execute(insert(schema_version), {"version_num": REVISION})
    conn.execute(insert(directory_state), {"id": 1, "version": 0, "policy": {}})
    conn.execute(insert(judgement_state), {"id": 1, "changes": 0})


def upgrade(conn: Connection, found: str | None, folder: Path = MIGRATIONS) -> None:
    """Carry out the steps after ``found`` in the transaction of ``conn``."""
    from alembic.migration import MigrationContext
    from alembic.operations import Operations
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(folder))

    def steps(revisions: object, context: object) -> object:
        return script._upgrade_revs("head", found)  # type: ignore[arg-type]

    context = MigrationContext.configure(conn, opts={"fn": steps, "transactional_ddl": True})
    if found == _BEFORE_ALEMBIC and not inspect(conn).has_table(schema_version.name):
        context.stamp(script, found)
    with Operations.context(context):
        context.run_migrations()


def _known(found: str) -> bool:
    return any((MIGRATIONS / "versions").glob(f"{found}_*.py"))
