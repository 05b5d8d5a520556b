"""The ledger's contract on PostgreSQL, and what several processes on one database need of it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from ledger_contract import (
    NOW,
    FixedClock,
    LedgerContract,
    answer,
    attempt,
    batch,
    chunk_id,
    cursor,
    entry,
    parked,
    receipt,
    subscription,
)
from sqlalchemy import text
from test_ledger import CHILD, all_errors

from hub.adapters.sql import tasks
from hub.adapters.sql.directory import SqlDirectory
from hub.adapters.sql.errors import Gone, Raced, Refused, translated
from hub.adapters.sql.ledger import SqlLedger, open_ledger
from hub.app.local.postgres import LocalPostgres
from hub.domain.dispositions import Disposition
from hub.domain.errors import BatchConflict, InvalidRequest, NumhubError, Unavailable
from hub.domain.parties import Party, Role
from hub.ports.ledger import Directory, Ledger

Pair = tuple[tuple[SqlDirectory, SqlLedger], tuple[SqlDirectory, SqlLedger]]


class TestPostgresLedger(LedgerContract):
    @pytest.fixture(autouse=True)
    def _database(self, postgres_url: str) -> None:
        self.url = postgres_url

    async def make_ledger(self, where: Any) -> tuple[Directory, Ledger]:
        return open_ledger(self.url, FixedClock())


# ---- two processes at once


@pytest.fixture
async def pair(postgres_url: str) -> AsyncIterator[Pair]:
    """Two openings of one database: as two processes, each with its writer and its memory of keys."""
    first, second = open_ledger(postgres_url, FixedClock()), open_ledger(postgres_url, FixedClock())
    yield first, second
    await first[1].close()
    await second[1].close()


async def test_new_keys_are_the_same_for_everybody(pair: Pair) -> None:
    """Both see the same chunks and subscriptions for the first time, at once and in other orders: one key each."""
    (_, one), (_, two) = pair
    for start in range(0, 200, 20):
        some = list(range(start, start + 20))
        await asyncio.gather(
            *(one.deliver(receipts=[receipt(f"sub_{n}", n)]) for n in some),
            *(two.answer([answer(sub=f"sub_{n}", n=n)]) for n in reversed(some)),
            one.catalogue([entry(n) for n in some], {}),
            two.deliver(parked=[parked(f"sub_{n + 1}", n) for n in some]),
        )
    for ledger in (one, two):
        for n in range(200):
            assert list(await ledger.receipts_of(f"sub_{n}", [chunk_id(n)])) == [chunk_id(n)]
            assert len(await ledger.answers_of(f"sub_{n}", chunk_id(n))) == 1
    assert await one._runner.read(lambda conn: conn.scalar(text("SELECT count(*) FROM chunk_keys"))) == 200
    assert await one._runner.read(lambda conn: conn.scalar(text("SELECT count(*) FROM subscription_keys"))) == 201


async def test_answers_to_one_pair_from_two_processes_are_one_history(pair: Pair) -> None:
    """Whoever loses the race for a place judges anew: every answer is kept once, repeats are told, tallies add up."""
    (_, one), (_, two) = pair
    await one.catalogue([entry(n) for n in range(4)], {})
    told = [Disposition.unbound, Disposition.failed_final, Disposition.held_funds, Disposition.no_account]
    for _ in range(12):
        calls = [
            ledger.answer([answer(random.choice(told), n=n), answer(random.choice(told), n=3 - n)])
            for n in range(4)
            for ledger in (one, two)
        ]
        news = await asyncio.gather(*calls)
        assert all(len(some) == 2 for some in news)
    for n in range(4):
        facts = await two.answers_of("sub_a", chunk_id(n))
        assert all(a.digest != b.digest for a, b in zip(facts, facts[1:], strict=False))
        (standing,) = await one.standings([(chunk_id(n), 100)], ["sub_a"])
        assert facts[-1].default is not None
        assert standing.codes.tolist() == [facts[-1].default.number] * 100
    counted = await one.report("answers")
    assert sum(row["numbers"] for row in counted) == 400


async def test_the_same_answer_through_two_processes_is_new_once(pair: Pair) -> None:
    """A client that repeats through another process while the first call is under way adds nothing."""
    (_, one), (_, two) = pair
    for n in range(40):
        news = await asyncio.gather(one.answer([answer(n=n)]), two.answer([answer(n=n)]))
        assert sorted(news) == [[False], [True]]


async def test_a_batch_number_is_given_to_one_process(pair: Pair) -> None:
    """Of two batches with one sequence number exactly one is kept; the other is a conflict, not an outage."""
    (_, one), (_, two) = pair
    for n in range(20):
        outcome = await asyncio.gather(
            one.put_batch(batch(100 + n, batch_seq=n)),
            two.put_batch(batch(200 + n, batch_seq=n)),
            return_exceptions=True,
        )
        assert [type(result) for result in outcome if result is not None] == [BatchConflict]
    assert len(await one.batches()) == 20


async def test_carriers_that_join_at_once_get_numbers_of_their_own(pair: Pair) -> None:
    """No number twice, none left out; the version counts every change."""
    (first, _), (second, _) = pair
    await asyncio.gather(
        *(first.put_party(Party(f"a{n}", Role.carrier, "A", NOW)) for n in range(10)),
        *(second.put_party(Party(f"b{n}", Role.carrier, "B", NOW)) for n in range(10)),
        *(second.put_subscription(subscription(f"sub_{n}")) for n in range(5)),
    )
    seen = await first.snapshot()
    assert sorted(party.carrier_no for party in seen.parties.values()) == list(range(1, 21))
    assert seen.version == await second.version() == 25


async def test_cursors_end_at_the_furthest(pair: Pair) -> None:
    """Whoever commits last, a cursor never moves back; receipts and attempts of both are kept."""
    (_, one), (_, two) = pair
    await one.open_cursors([cursor(0, partition=p) for p in range(8)])
    for n in range(1, 30):
        await asyncio.gather(
            one.deliver(cursors=[cursor(n, partition=p) for p in range(8)], receipts=[receipt(n=n)]),
            two.deliver(cursors=[cursor(2 * n, partition=p) for p in reversed(range(8))], receipts=[receipt(n=n)]),
            two.deliver(attempts=[attempt(1, n=n + 100)]),
        )
    assert {c.offset for c in await one.cursors()} == {58}
    assert len(await two.receipts_of("sub_a", [chunk_id(n) for n in range(40)])) == 29


async def test_parked_chunks_are_taken_out_once(pair: Pair) -> None:
    """Two redrives at once: together they count each chunk once."""
    (_, one), (_, two) = pair
    for _ in range(10):
        await one.deliver(parked=[parked(n=n) for n in range(10)])
        wanted = [chunk_id(n) for n in range(10)]
        counts = await asyncio.gather(one.unpark("sub_a", wanted), two.unpark("sub_a", wanted[::-1]))
        assert sum(counts) == 10


async def test_a_record_waits_for_a_correction_under_way(pair: Pair) -> None:
    """A correction that is not committed yet when the record begins: the record waits for it and is refused."""
    (_, one), (_, two) = pair
    await one.answer([answer(Disposition.unbound, n=1)])
    since = await two.moment()
    before = asyncio.create_task(one._runner.write(lambda conn: conn.execute(text("SELECT pg_sleep(0.5)")).close()))
    await asyncio.sleep(0.2)  # while it runs, the next two gather for one transaction
    slow = asyncio.gather(
        one.answer([answer(Disposition.failed_final, n=1)]),
        one._runner.write(lambda conn: conn.execute(text("SELECT pg_sleep(0.5)")).close()),
    )
    await before
    await asyncio.sleep(0.2)
    from hub.ports.ledger import ClearanceRecord

    proof = ClearanceRecord("clr_1", "cmcc", None, NOW, (1,), "strict", 1, 0, 0, ())
    assert await two.moment() == since
    assert not await two.record_clearance(proof, since=since, chunk_ids=[chunk_id(1)])
    await slow


async def test_a_deadlock_is_begun_anew(pair: Pair) -> None:
    """Two transactions that wait for each other in a circle: the server ends one, and it is carried out after all."""
    (_, one), (_, two) = pair
    await one.catalogue([], {1: 1, 2: 1})
    raise_ = "UPDATE catalogue_positions SET next_offset = next_offset + 1 WHERE part = :part"

    def in_order(*parts: int) -> Callable[[Any], None]:
        def operation(conn: Any) -> None:
            for part in parts:
                conn.execute(text(raise_), {"part": part})
                conn.execute(text("SELECT pg_sleep(0.2)"))

        return operation

    await asyncio.gather(one._runner.write(in_order(1, 2)), two._runner.write(in_order(2, 1)))
    assert await one.catalogue_positions() == {1: 3, 2: 3}


# ---- connections


async def test_connections_are_what_durability_rests_on(postgres_url: str) -> None:
    """Synchronous commits whatever the database's default is, deadlines, a name an operator recognises."""
    admin = await asyncpg.connect(postgres_url)
    name = await admin.fetchval("SELECT current_database()")
    await admin.execute(f'ALTER DATABASE "{name}" SET synchronous_commit = off')
    _, ledger = open_ledger(postgres_url, FixedClock())
    names = ("synchronous_commit", "statement_timeout", "lock_timeout", "application_name", "transaction_isolation")

    def settings(conn: Any) -> list[str]:
        return [conn.exec_driver_sql(f"SHOW {name}").scalar() for name in names]

    assert await ledger._runner.write(settings) == ["on", "20s", "10s", "numhub", "read committed"]
    assert await ledger._runner.read(settings) == ["on", "20s", "10s", "numhub", "repeatable read"]
    with pytest.raises(NumhubError):
        await ledger._runner.read(lambda conn: conn.exec_driver_sql("DELETE FROM batches").close())
    await ledger.close()
    left = await admin.fetchval("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'numhub'")
    assert left == 0
    await admin.close()


async def test_text_that_cannot_be_kept_is_the_callers_fault(postgres_url: str) -> None:
    """A NUL, or a number too large: not an outage, and the others of the group are kept."""
    _, ledger = open_ledger(postgres_url, FixedClock())
    outcome = await asyncio.gather(
        ledger.put_batch(batch(1, failure="a\x00b")),
        ledger.put_batch(batch(2)),
        ledger.put_batch(batch(3, rows_seen=1 << 70)),
        return_exceptions=True,
    )
    assert [type(result) for result in outcome] == [InvalidRequest, type(None), InvalidRequest]
    await ledger.close()


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("postgresql://nobody:wrong@{}/{}", Refused),
        ("postgresql://numhub:wrong-password@{}/{}", Refused),
        ("postgresql://127.0.0.1:1/numhub", Gone),
        ("://127.0.0.1/numhub", InvalidRequest),
        ("mysql://127.0.0.1/numhub", InvalidRequest),
    ],
)
async def test_a_wrong_address_is_one_clear_line(postgres_url: str, url: str, kind: type[NumhubError]) -> None:
    """Whatever is wrong with the address: one line without the password."""
    _, _, place = postgres_url.rpartition("@")
    with pytest.raises(kind) as refusal:
        open_ledger(url.format(*place.split("/", 1)), FixedClock())
    assert "\n" not in str(refusal.value)
    assert "wrong" not in str(refusal.value)


@pytest.mark.slow
# A pooled connection that cannot be made anew while the server is frozen is left to the garbage collector by the pool.
@pytest.mark.filterwarnings("ignore:The garbage collector is trying to clean up:sqlalchemy.exc.SAWarning")
async def test_a_frozen_server_is_unavailable_and_comes_back(
    make_postgres: Callable[..., LocalPostgres], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All its processes stopped: calls end by our own deadline; woken, it goes on."""
    for name in ("WRITE_WITHIN", "READ_WITHIN", "CONNECT_WITHIN", "CLOSE_WITHIN"):
        monkeypatch.setattr(tasks, name, 0.7)
    server = make_postgres(fsync=False)
    _, ledger = open_ledger(server.url, FixedClock())
    await ledger.answer([answer(n=0)])
    processes = _processes(server)
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        calls: list[Awaitable[Any]] = [ledger.answer([answer(n=n)]) for n in range(1, 5)]
        outcome = await asyncio.gather(*calls, ledger.waivers(), return_exceptions=True)
        assert all(isinstance(result, Unavailable) for result in outcome)
        assert time.monotonic() - began < 20
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)
    await _until_it_answers(ledger)
    assert len(await ledger.answers_of("sub_a", chunk_id(0))) == 1
    await ledger.close()


@pytest.mark.slow
# A pooled connection that cannot be made anew while the server is down is left to the garbage collector by the pool.
@pytest.mark.filterwarnings("ignore:The garbage collector is trying to clean up:sqlalchemy.exc.SAWarning")
async def test_what_was_acknowledged_survives_a_kill_of_the_server(
    make_postgres: Callable[..., LocalPostgres], tmp_path: Path
) -> None:
    """kill -9 of all PostgreSQL processes under load, three times: the writers come back by themselves, and
    every acknowledged answer and receipt is there."""
    server = make_postgres()
    _, ledger = open_ledger(server.url, FixedClock())
    acknowledged: set[int] = set()
    refusals: list[type[BaseException]] = []
    over = False

    async def write(n: int) -> None:
        while not over:
            try:
                await ledger.answer([answer(Disposition.unbound, n=n)])
                await ledger.deliver(receipts=[receipt(n=n)])
            except Unavailable as error:
                refusals.append(type(error))
                await asyncio.sleep(0.02)
                continue
            acknowledged.add(n)
            n += 16

    writers = [asyncio.create_task(write(n)) for n in range(16)]
    for _ in range(3):
        there = len(acknowledged)
        while len(acknowledged) < there + 100:
            await asyncio.sleep(0.01)
        for pid in _processes(server):
            os.kill(pid, signal.SIGKILL)
        server.kill()
        await asyncio.to_thread(server.start)
    there = len(acknowledged)
    while len(acknowledged) < there + 100:
        await asyncio.sleep(0.01)
    over = True
    await asyncio.gather(*writers)
    await ledger.close()
    assert refusals
    _, again = open_ledger(server.url, FixedClock())
    wanted = {chunk_id(n) for n in acknowledged}
    assert set(await again.receipts_of("sub_a", sorted(wanted))) == wanted
    standings = await again.standings([(one, 100) for one in wanted], ["sub_a"])
    assert {standing.chunk_id for standing in standings} == wanted
    assert all(int(s.codes.sum()) == 100 * Disposition.unbound.number for s in standings)
    await again.close()


async def test_what_was_acknowledged_survives_a_kill_of_the_process(postgres_url: str) -> None:
    """kill -9 of a writing process, twice: what it said was acknowledged is there, each answer once."""
    open_ledger(postgres_url, FixedClock())
    here = Path(__file__).parent
    environment = os.environ | {"PYTHONPATH": os.pathsep.join((str(here), str(here.parent.parent)))}
    acknowledged: list[int] = []
    for life in range(2):
        command = [sys.executable, "-c", CHILD, postgres_url, str(life * 1_000_000)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
            assert child.stdout is not None
            lines: Iterator[bytes] = iter(child.stdout)
            acknowledged.append(int(next(lines)))
            time.sleep(random.random() * 0.3)
            child.kill()
            acknowledged += [int(line) for line in lines if line.endswith(b"\n")]
    _, ledger = open_ledger(postgres_url, FixedClock())
    assert len(await ledger.receipts_of("sub_a", [chunk_id(n) for n in acknowledged])) == len(acknowledged)
    for n in acknowledged[::7]:
        assert len(await ledger.answers_of("sub_a", chunk_id(n))) == 1
    await ledger.close()


async def test_a_commit_whose_answer_is_lost_is_settled_by_repeating(postgres_url: str) -> None:
    """The connection is cut after COMMIT reached the server: the caller is told Unavailable, the answer is there, and
    the repeat says so."""
    async with _swallowing_proxy(postgres_url) as (through, swallow):
        _, ledger = await asyncio.to_thread(open_ledger, through, FixedClock())
        await ledger.answer([answer(n=0)])
        swallow()
        with pytest.raises(Unavailable):
            await ledger.answer([answer(n=1)])
        assert await ledger.answer([answer(n=1)]) == [False]
        assert len(await ledger.answers_of("sub_a", chunk_id(1))) == 1
        await ledger.close()


async def test_a_session_ended_by_an_administrator_is_replaced(postgres_url: str) -> None:
    """Ended sessions, the pooled readers' too, cost at most the calls under way."""
    _, ledger = open_ledger(postgres_url, FixedClock())
    await ledger.answer([answer(n=0)])
    await asyncio.gather(*(ledger.waivers() for _ in range(8)))
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database()"
    )
    await admin.close()
    await asyncio.sleep(0.05)
    assert await ledger.waivers() == []
    await _until_it_answers(ledger)
    await ledger.close()


def test_every_error_of_the_driver_has_a_meaning() -> None:
    """Each public error class of asyncpg becomes an error of the domain; none of them shows the database's own text."""
    roots = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
    kinds = set().union(*(all_errors(root) for root in roots))
    assert len(kinds) > 200
    for kind in kinds:
        error = kind.__new__(kind)
        error.args = ("secret text",)
        known = translated(error)
        assert isinstance(known, NumhubError), kind
        assert "secret" not in str(known), kind
        assert "\n" not in str(known), kind
    assert isinstance(translated(asyncpg.SerializationError("x")), Raced)
    assert isinstance(translated(asyncpg.DeadlockDetectedError("x")), Raced)
    assert isinstance(translated(asyncpg.CannotConnectNowError("x")), Gone)
    assert isinstance(translated(asyncpg.ConnectionDoesNotExistError("x")), Gone)
    assert isinstance(translated(asyncpg.DiskFullError("x")), Unavailable)
    assert isinstance(translated(asyncpg.TooManyConnectionsError("x")), Unavailable)
    assert isinstance(translated(asyncpg.ReadOnlySQLTransactionError("x")), Unavailable)
    assert isinstance(translated(ConnectionRefusedError("x")), Gone)


# ---- helpers


async def _until_it_answers(ledger: SqlLedger) -> None:
    for _ in range(300):
        try:
            await ledger.answer([answer(n=999)])
            return
        except Unavailable:
            await asyncio.sleep(0.05)
    raise AssertionError("it did not come back")


def _processes(server: LocalPostgres) -> list[int]:
    """The postmaster and all its children."""
    first = int((server.folder / "data" / "postmaster.pid").read_text().splitlines()[0])
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(first)], capture_output=True, text=True, check=False)
    return [first, *(int(line) for line in children.stdout.split())]


@asynccontextmanager
async def _swallowing_proxy(url: str) -> AsyncIterator[tuple[str, Callable[[], None]]]:
    """Passes everything on, until told: then it passes the next COMMIT on, waits for the server's answer, and cuts the
    connection instead of passing that back."""
    head, _, rest = url.rpartition("@")
    place, _, database = rest.partition("/")
    host, _, port = place.rpartition(":")
    armed = [False]
    tasks_: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(host, int(port))
        cut = asyncio.Event()

        async def upwards() -> None:
            while data := await reader.read(65536):
                if armed[0] and b"COMMIT;" in data:
                    armed[0] = False
                    cut.set()
                up_writer.write(data)
                await up_writer.drain()
            up_writer.close()

        async def downwards() -> None:
            while data := await up_reader.read(65536):
                if cut.is_set():
                    writer.transport.abort()
                    return
                writer.write(data)
                await writer.drain()
            writer.close()

        for coroutine in (upwards(), downwards()):
            task = asyncio.ensure_future(_quietly(coroutine))
            tasks_.add(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    mine = server.sockets[0].getsockname()[1]

    def arm() -> None:
        armed[0] = True

    yield f"{head}@127.0.0.1:{mine}/{database}", arm
    server.close()
    for task in tasks_:
        task.cancel()
    await asyncio.gather(*tasks_, return_exceptions=True)


async def _quietly(coroutine: Any) -> None:
    try:
        await coroutine
    except OSError:
        return
