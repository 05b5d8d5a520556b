"""What an operator does with a ledger: bring its tables up to date, look at it, prove that a backup can be restored."""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.pool import NullPool

from hub.adapters.sql import tables
from hub.adapters.sql.engine import address, on_server
from hub.adapters.sql.errors import translating
from hub.adapters.sql.schema import GROWING, REVISION, metadata
from hub.domain.errors import NumhubError


class BackupFailed(NumhubError):
    """The backup could not be made or restored."""

    code = "ledger_backup_failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line for a person."""

    what: str
    good: bool
    said: str


def migrate(url_or_path: str | Path) -> tuple[str | None, str]:
    """Bring the tables up to date; the step they stood at (None: there were none) and the one they stand at."""

    def operation(conn: Connection) -> str | None:
        before = tables.revision(conn)
        tables.prepare(conn, True)
        return before

    return _on(address(url_or_path), operation), REVISION


def look(url_or_path: str | Path) -> list[Finding]:
    """Whether a PostgreSQL ledger can be relied on. Raises Unavailable, with the reason, if it cannot be reached."""
    found: list[Finding] = _on(address(url_or_path), _look)
    return found


def _look(conn: Connection) -> list[Finding]:
    def show(name: str) -> str:
        return str(conn.exec_driver_sql(f"SHOW {name}").scalar())

    number = int(show("server_version_num"))
    stands = tables.revision(conn)
    findings = [
        Finding("ledger server", number >= 150_000, f"PostgreSQL {show('server_version')}, 15 or newer is needed"),
        Finding("ledger schema", stands == REVISION, f"{stands or 'no tables'}, this numhub needs {REVISION}"),
    ]
    findings += [
        Finding(f"ledger {name}", show(name) not in ("off", "local"), show(name))
        for name in ("fsync", "full_page_writes", "synchronous_commit")
    ]
    if stands == REVISION:
        for name in GROWING:
            rest = conn.scalar(text(f"SELECT count(*) FROM (SELECT 1 FROM {name}_rest LIMIT 1) one"))  # noqa: S608
            if (ahead := tables.parts_ahead(conn, name)) < 2:
                said = f"{ahead} ready ahead: numhub ledger migrate, or a worker with the role timers, makes more"
                findings.append(Finding(f"ledger parts of {name}", False, said))
            if rest:
                findings.append(Finding(f"ledger parts of {name}", False, "rows beyond the last part; ask for help"))
    return findings


# ---- backup ----------------------------------------------------------------------------------------------------


def check_backup(url_or_path: str | Path, folder: Path, *, keep: bool = True) -> list[Finding]:
    """Back the ledger up into ``folder``, restore the backup beside it, and hold the two against each other.

    A hub may go on writing: what is compared is the moment of the backup. Raises BackupFailed, Unavailable.
    """
    url = address(url_or_path)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if url.get_backend_name() == "sqlite":
        return _check_file(Path(url.database or ""), folder / "ledger.db", keep)
    return _check_server(url, folder / "ledger.dump", keep)


def _check_file(source: Path, copy: Path, keep: bool) -> list[Finding]:
    if not source.exists():
        raise BackupFailed(f"there is no ledger {source}")
    copy.unlink(missing_ok=True)
    copy.touch(mode=0o600)
    with translating():
        engine = create_engine(f"sqlite:///{source}", poolclass=NullPool, connect_args={"timeout": 5})
        with closing(sqlite3.connect(copy)) as target, engine.connect() as conn:
            raw = conn.connection.driver_connection
            assert isinstance(raw, sqlite3.Connection)
            raw.isolation_level = None
            raw.execute("BEGIN")
            before = _sums(conn)  # opens the view that the copy is made of
            raw.backup(target)
            raw.execute("ROLLBACK")
        engine.dispose()
        whole = "damaged"
        with closing(sqlite3.connect(copy)) as target:
            whole = str(target.execute("PRAGMA integrity_check").fetchone()[0])
        restored = URL.create("sqlite", database=str(copy))
        after, faults = _on(restored, lambda conn: (_sums(conn), _faults(conn)))
    findings = [Finding("copy", True, f"{copy}, {copy.stat().st_size / 1e6:.1f} MB")]
    findings.append(Finding("integrity", whole == "ok", whole))
    findings += _compared(before, after) + faults
    if not keep:
        copy.unlink()
    return findings


def _check_server(url: URL, dump: Path, keep: bool) -> list[Finding]:
    scratch = f"numhub_restore_{secrets.token_hex(6)}"
    elsewhere = url.set(database=scratch)

    def dumped(conn: Connection) -> dict[str, tuple[int, int]]:
        conn.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        snapshot = conn.scalar(text("SELECT pg_export_snapshot()"))
        dump.unlink(missing_ok=True)
        dump.touch(mode=0o600)
        _run(url, "pg_dump", "--format=custom", f"--snapshot={snapshot}", f"--file={dump}", "--no-owner")
        return _sums(conn)

    before = _on(url, dumped)
    with _database(url, scratch):
        _run(elsewhere, "pg_restore", "--no-owner", "--exit-on-error", f"--dbname={scratch}", str(dump))
        after, faults = _on(elsewhere, lambda conn: (_sums(conn), _faults(conn)))
    findings = [Finding("dump", True, f"{dump}, {dump.stat().st_size / 1e6:.1f} MB")]
    findings.append(Finding("restore", True, "into a database of its own, dropped again"))
    findings += _compared(before, after) + faults
    if not keep:
        dump.unlink()
    return findings


def _sums(conn: Connection) -> dict[str, tuple[int, int]]:
    """Per table its rows and a sum over their whole content, in whatever order they lie."""
    found: dict[str, tuple[int, int]] = {}
    for table in metadata.sorted_tables:
        if conn.dialect.name == "postgresql":
            name = conn.dialect.identifier_preparer.format_table(table)
            content = f"SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)), 0) FROM {name} t"  # noqa: S608
            rows, total = conn.execute(text(content)).one()
            found[table.name] = int(rows), int(total)
        else:
            rows = total = 0
            for row in conn.exec_driver_sql(f"SELECT * FROM {table.name}"):  # noqa: S608
                rows, total = rows + 1, (total + hash(tuple(row))) & (1 << 64) - 1
            found[table.name] = rows, total
    return found


_BROKEN = {
    "answers whose keys are missing": """SELECT count(*) FROM answers a
        LEFT JOIN chunk_keys c ON c.chunk_no = a.chunk_no
        LEFT JOIN subscription_keys s ON s.subscription_no = a.subscription_no
        WHERE c.chunk_no IS NULL OR s.subscription_no IS NULL""",
    "receipts whose keys are missing": """SELECT count(*) FROM receipts r
        LEFT JOIN chunk_keys c ON c.chunk_no = r.chunk_no
        LEFT JOIN subscription_keys s ON s.subscription_no = r.subscription_no
        WHERE c.chunk_no IS NULL OR s.subscription_no IS NULL""",
    "answers with a gap in their history": """SELECT count(*) FROM (SELECT 1 AS one FROM answers
        GROUP BY subscription_no, chunk_no HAVING count(*) <> max(place) + 1) gaps""",
    "tallies without their answer": """SELECT count(*) FROM answer_tallies t
        LEFT JOIN answers a ON a.subscription_no = t.subscription_no AND a.chunk_no = t.chunk_no AND a.place = t.place
        WHERE a.place IS NULL""",
    "tallies that do not add up": """SELECT count(*) FROM (SELECT 1 AS one FROM answer_tallies t
        JOIN answers a ON a.subscription_no = t.subscription_no AND a.chunk_no = t.chunk_no AND a.place = 0
        GROUP BY t.subscription_no, t.chunk_no HAVING sum(t.delta) < 0 OR sum(t.delta) > max(a.numbers)) wrong""",
    "cursors whose keys are missing": """SELECT count(*) FROM cursors c
        LEFT JOIN subscription_keys s ON s.subscription_no = c.subscription_no WHERE s.subscription_no IS NULL""",
}


def _faults(conn: Connection) -> list[Finding]:
    findings = [Finding("schema", tables.revision(conn) == REVISION, str(tables.revision(conn)))]
    for what, query in _BROKEN.items():
        count = conn.scalar(text(query))
        findings.append(Finding(what, count == 0, str(count)))
    return findings


def _compared(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[Finding]:
    findings = []
    for name, (rows, total) in before.items():
        same = after.get(name) == (rows, total)
        there = after.get(name, (0, 0))[0]
        said = f"{rows:,} rows, the same" if same else f"{rows:,} rows, restored {there:,}; the content differs"
        if rows or not same:
            findings.append(Finding(name, same, said))
    return findings


@contextmanager
def _database(url: URL, name: str) -> Iterator[None]:
    """An empty database beside that of ``url``, for the time being."""
    _run(url, "createdb", name)
    try:
        yield
    finally:
        _run(url, "dropdb", "--force", name)


def _run(url: URL, program: str, *arguments: str) -> None:
    """One of PostgreSQL's own programs; the password goes by the environment, which other users cannot read."""
    newest = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: -int(path.parts[-3]))
    found = str(newest[0]) if newest else shutil.which(program)
    if found is None:
        raise BackupFailed(f"{program} is not installed here; it comes with PostgreSQL's client programs")
    values = {"PGHOST": url.host, "PGPORT": url.port, "PGUSER": url.username, "PGPASSWORD": url.password}
    env = {**os.environ, **{name: str(value) for name, value in values.items() if value}}
    env["PGDATABASE"] = str(url.database)
    done = subprocess.run([found, *arguments], env=env, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["it said nothing"]
        raise BackupFailed(f"{program} failed: {lines[0]}")


def _on(url: URL, operation: Any) -> Any:
    """Carry out ``operation`` in a transaction of its own."""
    if url.get_backend_name() == "postgresql":
        return on_server(url, operation)
    engine = create_engine(url, poolclass=NullPool, connect_args={"timeout": 5})
    try:
        with translating(), engine.begin() as conn:
            return operation(conn)
    finally:
        engine.dispose()
