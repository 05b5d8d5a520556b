"""What every ledger must do. An adapter's test derives from `LedgerContract` and says how to make one."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hub.domain.batches import Batch, BatchState, ContentEncoding, ContentFormat
from hub.domain.dispositions import BY_NUMBER, Disposition
from hub.domain.errors import BatchConflict, InvalidRequest
from hub.domain.events import EventType, Lane, Purpose
from hub.domain.lifecycle import CHINA
from hub.domain.parties import (
    Agreement,
    App,
    AppClass,
    DeliveryMode,
    Party,
    PartyKey,
    Role,
    SigningSecret,
    Subscription,
    SubscriptionState,
)
from hub.domain.policies import ClearancePolicy, Policy
from hub.ports.ledger import (
    Answer,
    AnswerException,
    AttemptRecord,
    CatalogueEntry,
    ClearanceRecord,
    Cursor,
    Directory,
    IngressPositions,
    Ledger,
    ParkedChunk,
    Receipt,
    RenewalRecord,
    Rows,
    Told,
    Waiver,
)
from hub.ports.log import Position

NOW = datetime(2026, 3, 1, 4, 0, 0, 123456, tzinfo=UTC)  # noon in China
SECOND, DAY = timedelta(seconds=1), timedelta(days=1)


class FixedClock:
    """Stands at NOW; measures nothing."""

    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(0)


def rows(*numbers: int) -> Rows:
    return np.array(numbers, np.uint16)


def chunk_id(n: int) -> str:
    return "evt_" + hashlib.sha256(str(n).encode()).hexdigest()[:32]


def receipt(sub: str = "sub_a", n: int = 0, at: datetime = NOW, attempts: int = 1) -> Receipt:
    return Receipt(sub, chunk_id(n), Position(n % 8, n), at, attempts, "webhook_full")


def parked(sub: str = "sub_a", n: int = 0, at: datetime = NOW) -> ParkedChunk:
    return ParkedChunk(sub, chunk_id(n), Position(n % 8, n), at, 12, "connect")


def attempt(number: int, sub: str = "sub_a", n: int = 0) -> AttemptRecord:
    at = NOW + number * SECOND
    return AttemptRecord(sub, chunk_id(n), at, number, 500, "status 500", at + SECOND)


def cursor(offset: int, sub: str = "sub_a", partition: int = 0, lane: Lane = Lane.bulk, start: int = 0) -> Cursor:
    return Cursor(sub, partition, lane, start, offset)


def answer(
    default: Disposition | None = Disposition.no_account,
    *exceptions: AnswerException,
    sub: str = "sub_a",
    n: int = 0,
    count: int = 100,
    at: datetime = NOW,
) -> Answer:
    text = repr((default, [(e.disposition, e.rows.tolist(), e.review_at) for e in exceptions]))
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Answer(sub, chunk_id(n), Position(n % 8, n), count, default, exceptions, digest, at)


def entry(n: int = 0, **changes: Any) -> CatalogueEntry:
    usual = CatalogueEntry(
        chunk_id=chunk_id(n),
        position=Position(n % 8, n),
        event_type=EventType.release_scheduled,
        lane=Lane.bulk,
        carrier_id="cmcc",
        count=100,
        reported_at=NOW,
        due_at=NOW + 20 * DAY,
        batch_id="bat_1",
        provinces={"广东": 60, "北京": 40},
    )
    return replace(usual, **changes)


def batch(n: int = 1, **changes: Any) -> Batch:
    usual = Batch(
        batch_id=f"bat_{n}",
        carrier_id="cmcc",
        acting_for=None,
        batch_seq=n,
        event_type=EventType.release_scheduled,
        declared_rows=1000,
        declared_sha256="ab" * 32,
        content_format=ContentFormat.csv,
        content_encoding=ContentEncoding.zstd,
        idempotency_key=f"key-{n}",
        request_digest="cd" * 32,
        state=BatchState.announced,
        created_at=NOW + n * SECOND,
    )
    return replace(usual, **changes)


def subscription(sub: str = "sub_a", **changes: Any) -> Subscription:
    usual = Subscription(
        subscription_id=sub,
        subscriber_id="bank",
        app_id="bank-app",
        app_class=AppClass.bank,
        purpose=Purpose.account_unbind,
        event_types=frozenset(EventType),
        lanes=frozenset(Lane),
        mode=DeliveryMode.webhook_full,
        state=SubscriptionState.active,
        created_at=NOW,
        endpoint="https://bank.example/hook",
        secrets=(SigningSecret("v1", b"\x01" * 32, NOW), SigningSecret("v1a", b"\x02" * 32, NOW, NOW + DAY)),
    )
    return replace(usual, **changes)


def agreement(**changes: Any) -> Agreement:
    usual = Agreement(
        "agr_1", "*", "bank", Purpose.account_unbind, "PIA-1", NOW - 30 * DAY, NOW + 365 * DAY, NOW - 30 * DAY
    )
    return replace(usual, **changes)


ROWS = 12  # in the chunks of the random answers
Said = tuple[Disposition | None, list[tuple[Disposition, set[int]]]]
_dispositions = st.sampled_from(list(Disposition)[:5])
said = st.tuples(
    st.none() | _dispositions,
    st.lists(st.tuples(_dispositions, st.sets(st.integers(0, ROWS - 1))), max_size=3),
)


def as_answer(n: int, one: Said) -> Answer:
    exceptions = [AnswerException(disposition, rows(*sorted(some))) for disposition, some in one[1]]
    return answer(one[0], *exceptions, n=n, count=ROWS)


def naive_replay(before: list[int], one: Answer) -> list[int]:
    """One row after the other, as the port's words have it."""
    after = list(before) if one.default is None else [one.default.number] * len(before)
    for exception in one.exceptions:
        for row in exception.rows:
            after[int(row)] = exception.disposition.number
    return after


def china(moment: datetime) -> str:
    return moment.astimezone(CHINA).date().isoformat()


async def answer_for_ever(ledger: Ledger, callers: int, first: int) -> None:
    """What the process does that is killed: answer, and print the number of each answer that was acknowledged."""

    async def one_caller(n: int) -> None:
        while True:
            assert await ledger.answer([answer(Disposition.unbound, n=n)]) == [True]
            await ledger.deliver(receipts=[receipt(n=n)])
            os.write(1, f"{n}\n".encode())  # unbuffered: printed means printed
            n += callers

    await asyncio.gather(*(one_caller(first + place) for place in range(callers)))


class LedgerContract:
    """Derive, name the class Test.. and implement `make_ledger`."""

    async def make_ledger(self, where: Any) -> tuple[Directory, Ledger]:
        """Open the ledger that lives in ``where``; opening it twice gives two views of one ledger."""
        raise NotImplementedError

    @pytest.fixture
    async def both(self, tmp_path: Any) -> AsyncIterator[tuple[Directory, Ledger]]:
        directory, ledger = await self.make_ledger(tmp_path)
        yield directory, ledger
        await ledger.close()

    @pytest.fixture
    async def ledger(self, both: tuple[Directory, Ledger]) -> Ledger:
        return both[1]

    @pytest.fixture
    async def directory(self, both: tuple[Directory, Ledger]) -> Directory:
        return both[0]

    # -- directory

    async def test_the_snapshot_shows_everything_put(self, directory: Directory) -> None:
        """What is put comes back equal, retired keys and deleted subscriptions left out."""
        party = Party("bank", Role.subscriber, "Bank", NOW, sandbox=True, client_secret_hash="x", coverage_since=NOW)
        key = PartyKey("bank", "k1", {"kty": "OKP", "x": "abc"}, NOW)
        app = App("bank-app", "bank", AppClass.bank, "Bank App", NOW)
        assert await directory.put_party(party) == party
        await directory.put_key(key)
        await directory.put_key(PartyKey("bank", "k0", {"kty": "OKP"}, NOW, retired_at=NOW))
        await directory.put_app(app)
        await directory.put_agreement(agreement())
        await directory.put_subscription(subscription())
        await directory.put_subscription(subscription("sub_gone", state=SubscriptionState.deleted))
        await directory.put_policy(Policy(clearance=ClearancePolicy.strict).to_mapping())
        seen = await directory.snapshot()
        assert seen.parties == {"bank": party}
        assert seen.keys == {"bank": (key,)}
        assert seen.apps == {"bank-app": app}
        assert seen.agreements == (agreement(),)
        assert seen.subscriptions == {"sub_a": subscription()}
        assert Policy.from_mapping(seen.policy).clearance is ClearancePolicy.strict
        assert seen.version == await directory.version() == 8

    async def test_a_change_raises_the_version_and_a_repeat_does_not(self, directory: Directory) -> None:
        """The version counts changes: putting the same again is none."""
        changes = [
            lambda: directory.put_party(Party("cmcc", Role.carrier, "C", NOW, block_holders=("cmcc",))),
            lambda: directory.put_party(Party("cmcc", Role.carrier, "C", NOW, suspended=True)),
            lambda: directory.put_key(PartyKey("cmcc", "k1", {"kty": "EC"}, NOW)),
            lambda: directory.put_app(App("a", "bank", AppClass.bank, "A", NOW)),
            lambda: directory.put_agreement(agreement()),
            lambda: directory.put_subscription(subscription()),
            lambda: directory.put_subscription(subscription(secrets=())),
            lambda: directory.put_policy({"freeze_days": 120}),
        ]
        for times, change in enumerate(changes, start=1):
            await change()
            assert await directory.version() == times
            await change()
            assert await directory.version() == times

    async def test_carriers_get_numbers_of_their_own(self, directory: Directory) -> None:
        """A carrier is numbered once, keeps its number when replaced; nobody else has one."""
        first = await directory.put_party(Party("cmcc", Role.carrier, "C", NOW))
        second = await directory.put_party(Party("cucc", Role.carrier, "U", NOW))
        again = await directory.put_party(Party("cmcc", Role.carrier, "China M", NOW))
        other = await directory.put_party(Party("bank", Role.subscriber, "B", NOW))
        assert (first.carrier_no, second.carrier_no, again.carrier_no, other.carrier_no) == (1, 2, 1, 0)
        assert (await directory.snapshot()).parties["cmcc"] == again

    async def test_two_processes_see_one_directory(self, tmp_path: Any) -> None:
        """A party added through one opening is seen through another that was open before."""
        one, first = await self.make_ledger(tmp_path)
        two, second = await self.make_ledger(tmp_path)
        await one.put_party(Party("cmcc", Role.carrier, "C", NOW))
        await two.put_party(Party("cucc", Role.carrier, "U", NOW))
        assert (await one.snapshot()) == (await two.snapshot())
        assert {p.carrier_no for p in (await one.snapshot()).parties.values()} == {1, 2}
        await first.close()
        await second.close()

    # -- cursors and receipts

    async def test_open_cursors_keeps_what_exists(self, ledger: Ledger) -> None:
        """Opening a cursor again neither moves nor doubles it."""
        await ledger.open_cursors([cursor(5, start=5), cursor(7, start=7, lane=Lane.live)])
        await ledger.open_cursors([cursor(99, start=99)])
        assert await ledger.cursors("sub_a") == [cursor(5, start=5), cursor(7, start=7, lane=Lane.live)]
        assert await ledger.cursors("sub_b") == []
        assert len(await ledger.cursors()) == 2

    async def test_deliver_never_moves_a_cursor_back(self, ledger: Ledger) -> None:
        """Only rewind does; concurrent deliveries end at the furthest."""
        await ledger.open_cursors([cursor(0)])
        await asyncio.gather(*(ledger.deliver(cursors=[cursor(offset)]) for offset in (3, 9, 4)))
        await ledger.deliver(cursors=[cursor(2)])
        assert await ledger.cursors() == [cursor(9)]
        await ledger.rewind("sub_a", [cursor(2)])
        await ledger.rewind("sub_a", [cursor(2)])
        assert await ledger.cursors() == [cursor(2)]

    async def test_a_receipt_that_exists_stays(self, ledger: Ledger) -> None:
        """Delivering again does not change when it was first received."""
        await ledger.deliver(receipts=[receipt(n=1), receipt(n=2, attempts=3)])
        await ledger.deliver(receipts=[receipt(n=1, at=NOW + DAY, attempts=7)])
        found = await ledger.receipts_of("sub_a", [chunk_id(1), chunk_id(2), chunk_id(3)])
        assert found == {chunk_id(1): receipt(n=1), chunk_id(2): receipt(n=2, attempts=3)}
        assert await ledger.receipts_of("sub_b", [chunk_id(1)]) == {}

    async def test_a_receipt_clears_parking_and_attempts(self, ledger: Ledger) -> None:
        """A chunk taken at last is neither parked nor being retried; a parked one is listed as parked only."""
        await ledger.deliver(attempts=[attempt(1), attempt(2), attempt(1, n=1)])
        listed = await ledger.deliveries_of("sub_a")
        assert [(row.chunk_id, row.state, row.attempts) for row in listed] == [
            (chunk_id(0), "retrying", 2),
            (chunk_id(1), "retrying", 1),
        ]
        await ledger.deliver(parked=[parked(n=0)])
        await ledger.deliver(parked=[parked(n=0)])
        assert await ledger.parked_of("sub_a") == [parked(n=0)]
        assert await ledger.parked_total() == 1
        assert {row.chunk_id: row.state for row in await ledger.deliveries_of("sub_a")} == {
            chunk_id(0): "parked",
            chunk_id(1): "retrying",
        }
        await ledger.deliver(receipts=[receipt(n=0), receipt(n=1)])
        assert await ledger.parked_of("sub_a") == []
        assert await ledger.parked_total() == 0
        assert {row.state for row in await ledger.deliveries_of("sub_a")} == {"received"}
        assert (await ledger.receipts_of("sub_a", [chunk_id(1)]))[chunk_id(1)].position == Position(1, 1)

    async def test_attempts_are_bounded(self, ledger: Ledger) -> None:
        """However often a chunk is tried, its row in the list is one and names the newest attempt."""
        for number in range(1, 40):
            await ledger.deliver(attempts=[attempt(number)])
        (row,) = await ledger.deliveries_of("sub_a")
        assert (row.attempts, row.at, row.reason) == (39, NOW + 39 * SECOND, "status 500")

    async def test_unpark_counts_and_starts_afresh(self, ledger: Ledger) -> None:
        """Unparking tells how many were parked, and a second time none; other subscriptions' stay."""
        await ledger.deliver(
            parked=[parked(n=0), parked(n=1), parked("sub_b", 0)], attempts=[attempt(12, n=0), attempt(12, n=1)]
        )
        assert await ledger.unpark("sub_a", [chunk_id(0), chunk_id(5)]) == 1
        assert await ledger.unpark("sub_a", [chunk_id(0)]) == 0
        assert await ledger.unpark("sub_unknown", [chunk_id(0)]) == 0
        assert [chunk.chunk_id for chunk in await ledger.parked_of("sub_a")] == [chunk_id(1)]
        assert await ledger.parked_of("sub_b") == [parked("sub_b", 0)]
        assert [row.state for row in await ledger.deliveries_of("sub_a")] == ["parked"]

    async def test_deliveries_come_newest_first_and_limited(self, ledger: Ledger) -> None:
        """The list is cut after the newest."""
        await ledger.deliver(receipts=[receipt(n=n, at=NOW + ((n * 7) % 10) * SECOND) for n in range(10)])
        listed = await ledger.deliveries_of("sub_a", limit=4)
        assert [row.at for row in listed] == [NOW + n * SECOND for n in (9, 8, 7, 6)]

    # -- catalogue

    async def test_the_catalogue_lists_once_and_remembers_its_position(self, ledger: Ledger) -> None:
        """Listing again changes nothing; the position only moves forward; clearing removes all of it."""
        listed = [
            entry(8, position=Position(0, 8)),
            entry(1, renewal_id="ren_1", apps=("wallet", "bank-app"), batch_id=None, lane=Lane.live, count=1),
        ]
        for _ in range(2):
            await ledger.catalogue(listed, {0: 9, 1: 2})
        await ledger.catalogue([], {0: 3})
        assert await ledger.catalogue_positions() == {0: 9, 1: 2}
        assert await ledger.chunk(chunk_id(8)) == listed[0]
        assert await ledger.chunk(chunk_id(1)) == listed[1]
        assert await ledger.chunk(chunk_id(77)) is None
        assert await ledger.chunks_of_batch("bat_1") == [listed[0]]
        await ledger.clear_catalogue()
        await ledger.clear_catalogue()
        assert await ledger.catalogue_positions() == {}
        assert await ledger.chunk(chunk_id(8)) is None
        await ledger.catalogue(listed, {0: 9})
        assert await ledger.chunk(chunk_id(8)) == listed[0]

    # -- answers

    async def test_an_answer_is_new_once(self, ledger: Ledger) -> None:
        """The newest answer repeated is nothing new; an older one said again is a new fact."""
        first, second = answer(Disposition.no_account), answer(Disposition.unbound)
        assert await ledger.answer([]) == []
        assert await ledger.answer([first]) == [True]
        assert await ledger.answer([first]) == [False]
        assert await ledger.answer([second, answer(n=1)]) == [True, True]
        assert await ledger.answer([first]) == [True]
        assert await ledger.answers_of("sub_a", chunk_id(0)) == [first, second, first]
        assert await ledger.answers_of("sub_b", chunk_id(0)) == []

    async def test_a_call_with_several_answers_of_one_pair_may_be_repeated(self, ledger: Ledger) -> None:
        """Repeating the whole call adds nothing, although its first answer is not the newest one."""
        call = [answer(Disposition.no_account), answer(Disposition.unbound), answer(Disposition.unbound)]
        assert await ledger.answer(call) == [True, True, False]
        assert await ledger.answer(call[:2]) == [False, False]
        assert len(await ledger.answers_of("sub_a", chunk_id(0))) == 2

    async def test_answers_keep_their_exceptions(self, ledger: Ledger) -> None:
        """Rows, review dates and order come back as given."""
        held = AnswerException(Disposition.held_funds, rows(3, 50, 99), NOW + 30 * DAY)
        unbound = AnswerException(Disposition.unbound, rows(*range(0, 100, 2)))
        said = replace(answer(Disposition.no_account, held, unbound), default_review_at=NOW)
        await ledger.answer([said])
        (found,) = await ledger.answers_of("sub_a", chunk_id(0))
        assert replace(found, exceptions=()) == replace(said, exceptions=())
        assert [(e.disposition, e.rows.tolist(), e.review_at) for e in found.exceptions] == [
            (Disposition.held_funds, [3, 50, 99], NOW + 30 * DAY),
            (Disposition.unbound, list(range(0, 100, 2)), None),
        ]

    async def test_rows_outside_the_chunk_are_refused_and_nothing_is_kept(self, ledger: Ledger) -> None:
        """All or none: one bad answer keeps its whole call out."""
        bad = answer(None, AnswerException(Disposition.unbound, rows(5, 100)), n=1)
        unordered = answer(None, AnswerException(Disposition.unbound, rows(5, 3)), n=1)
        for wrong in (bad, unordered):
            with pytest.raises(InvalidRequest):
                await ledger.answer([answer(n=0), wrong])
        assert await ledger.answers_of("sub_a", chunk_id(0)) == []

    async def test_standings_show_the_effective_codes(self, ledger: Ledger) -> None:
        """A default answers every row anew, rows alone change only themselves, pairs without answers are left out."""
        await ledger.answer([answer(None, AnswerException(Disposition.unbound, rows(1, 2)), count=5)])
        assert await self._codes(ledger, 0, 5) == [0, 1, 1, 0, 0]
        await ledger.answer([answer(Disposition.no_account, AnswerException(Disposition.unbound, rows(4)), count=5)])
        await ledger.answer([answer(None, AnswerException(Disposition.failed_final, rows(0, 4)), count=5)])
        assert await self._codes(ledger, 0, 5) == [13, 2, 2, 2, 13]
        await ledger.answer([answer(Disposition.soft_locked, n=1, sub="sub_b", count=3)])
        found = await ledger.standings([(chunk_id(1), 3), (chunk_id(0), 5), (chunk_id(9), 1)], ["sub_b", "sub_a", "x"])
        assert [(s.chunk_id, s.subscription_id, len(s.codes)) for s in found] == [
            (chunk_id(1), "sub_b", 3),
            (chunk_id(0), "sub_a", 5),
        ]
        assert all(s.codes.dtype == np.uint8 for s in found)

    async def _codes(self, ledger: Ledger, n: int, count: int, sub: str = "sub_a") -> list[int]:
        (standing,) = await ledger.standings([(chunk_id(n), count)], [sub])
        return [int(code) for code in standing.codes]

    async def test_two_hundred_parallel_calls_all_count(self, ledger: Ledger) -> None:
        """Concurrent receipts, answers and cursors: each is there, a guilty one among them fails alone."""
        outcome = await asyncio.gather(
            *(ledger.answer([answer(Disposition.unbound, sub=f"sub_{n}", n=n)]) for n in range(80)),
            ledger.put_batch(batch(1)),
            ledger.put_batch(batch(2, batch_seq=1)),
            *(ledger.deliver(receipts=[receipt(f"sub_{n}", n)], cursors=[cursor(n, f"sub_{n}")]) for n in range(120)),
            return_exceptions=True,
        )
        failed = [result for result in outcome if isinstance(result, BaseException)]
        assert [type(error) for error in failed] == [BatchConflict]
        assert outcome[:80] == [[True]] * 80
        for n in range(80):
            assert await self._codes(ledger, n, 100, f"sub_{n}") == [1] * 100
        assert len(await ledger.cursors()) == 120
        assert all([await ledger.receipts_of(f"sub_{n}", [chunk_id(n)]) for n in range(120)])

    def test_tallies_equal_a_recount_whatever_is_answered(self, tmp_path: Any) -> None:
        """Random answers and corrections: the codes are those of a naive replay, and the report counts just them."""
        with asyncio.Runner() as runner:
            _, ledger = runner.run(self.make_ledger(tmp_path))
            worlds = itertools.count()

            @settings(max_examples=60, deadline=None, database=None)
            @given(st.lists(st.lists(said, max_size=3), min_size=1, max_size=4))
            def check(calls: list[list[Said]]) -> None:
                runner.run(self._check_calls(ledger, next(worlds), calls))

            check()
            runner.run(ledger.close())

    async def _check_calls(self, ledger: Ledger, n: int, calls: list[list[Said]]) -> None:
        day = NOW + n * DAY  # each world has a day of its own, so that the report shows it alone
        await ledger.catalogue([entry(n, count=ROWS, reported_at=day)], {})
        naive: list[int] = [0] * ROWS
        newest: str | None = None
        for call in calls:
            given_ = [as_answer(n, one) for one in call]
            whole_repeat = len(given_) > 1 and await self._ends_with(ledger, n, [one.digest for one in given_])
            expected = []
            for one in given_:
                expected.append(not whole_repeat and one.digest != newest)
                if expected[-1]:
                    newest = one.digest
                    naive = naive_replay(naive, one)
            assert await ledger.answer(given_) == expected
        standings = await ledger.standings([(chunk_id(n), ROWS)], ["sub_a"])
        assert [list(map(int, s.codes)) for s in standings] == ([naive] if newest is not None else [])
        counted = {
            row["disposition"]: row["numbers"]
            for row in await ledger.report("answers", since=china(day), until=china(day))
        }
        assert counted == {BY_NUMBER[code].value: naive.count(code) for code in set(naive) if code}

    async def _ends_with(self, ledger: Ledger, n: int, digests: list[str]) -> bool:
        stored = [one.digest for one in await ledger.answers_of("sub_a", chunk_id(n))]
        return stored[-len(digests) :] == digests

    # -- batches, clearance, renewals

    async def test_batches_are_replaced_by_id(self, ledger: Ledger) -> None:
        """Every field comes back; the newest stand first; filters by carrier and state."""
        first, second = batch(1), batch(2, acting_for="mvno", reasons=(("invalid_number", 3),), committed_at=NOW)
        await ledger.put_batch(first)
        await ledger.put_batch(second)
        grown = replace(first, state=BatchState.committed, rows_seen=1000, rows_accepted=997, rows_refused=3)
        await ledger.put_batch(grown)
        await ledger.put_batch(grown)
        assert await ledger.batch("bat_1") == grown
        assert await ledger.batch("bat_9") is None
        assert await ledger.batch_by_key("cmcc", "key-2") == second
        assert await ledger.batch_by_key("cucc", "key-2") is None
        assert await ledger.batches() == [second, grown]
        assert await ledger.batches(state="committed") == [grown]
        assert await ledger.batches("cucc") == []
        assert await ledger.batches("cmcc", limit=1) == [second]

    async def test_a_batch_number_or_key_belongs_to_one_batch(self, ledger: Ledger) -> None:
        """The same sequence number or key under another id is a conflict; another carrier may use it."""
        await ledger.put_batch(batch(1))
        for wrong in (batch(2, batch_seq=1), batch(2, idempotency_key="key-1")):
            with pytest.raises(BatchConflict):
                await ledger.put_batch(wrong)
        await ledger.put_batch(batch(3, carrier_id="cucc", batch_seq=1, idempotency_key="key-1"))
        assert [b.batch_id for b in await ledger.batches()] == ["bat_3", "bat_1"]

    async def test_waivers_clearances_and_renewals_are_kept(self, ledger: Ledger) -> None:
        """Each is one by its id, however often it is put."""
        waiver = Waiver("wai_1", "bank", None, "Li", "court order", "regulator", NOW, "jws", NOW + DAY)
        proof = ClearanceRecord("clr_1", "cmcc", "bat_1", NOW, (1, 2, 3), "tiered", 10, 2, 3, ("wai_1",))
        renewal = RenewalRecord("ren_1", "cmcc", chunk_id(1), ("a", "b"), "d1", "d2", NOW, NOW + DAY, True)
        for _ in range(2):
            await ledger.put_waiver(waiver)
            since = await ledger.moment()
            assert await ledger.record_clearance(proof, since=since, chunk_ids=[chunk_id(1)])
            await ledger.put_renewal(renewal)
        assert await ledger.waivers() == [waiver]
        assert await ledger.renewal("ren_1") == renewal
        assert await ledger.renewal("ren_2") is None
        assert await ledger.report("clearances") == [
            {
                "carrier_id": "cmcc",
                "judged_at": NOW,
                "batch_id": "bat_1",
                "go": 10,
                "go_with_exceptions": 2,
                "wait": 3,
            }
        ]

    async def test_a_clearance_is_refused_when_what_it_rests_on_has_changed(
        self, both: tuple[Directory, Ledger]
    ) -> None:
        """A corrected answer to one of its chunks, a waiver, a cursor, the directory: judge anew. Nothing is kept."""
        directory, ledger = both
        waiver = Waiver("wai_1", "bank", None, "Li", "court order", "regulator", NOW, "jws", NOW + DAY)
        await ledger.answer([answer(Disposition.unbound, n=1)])
        changes: list[Callable[[], Awaitable[object]]] = [
            lambda: ledger.answer([answer(Disposition.failed_final, n=1)]),
            lambda: ledger.answer([answer(None, AnswerException(Disposition.unbound, rows(7)), n=1)]),
            lambda: ledger.put_waiver(waiver),
            lambda: ledger.put_waiver(replace(waiver, ends_at=NOW)),
            lambda: ledger.open_cursors([cursor(0, "sub_new")]),
            lambda: directory.put_subscription(subscription("sub_new")),
            lambda: directory.put_agreement(agreement()),
            lambda: directory.put_policy({"freeze_days": 120}),
            lambda: directory.put_party(Party("bank", Role.subscriber, "Bank", NOW)),
        ]
        for n, change in enumerate(changes):
            since = await ledger.moment()
            await change()
            assert await ledger.moment() == since + 1, n
            proof = ClearanceRecord(f"clr_{n}", "cmcc", None, NOW, (1,), "tiered", 1, 0, 0, ())
            assert not await ledger.record_clearance(proof, since=since, chunk_ids=[chunk_id(1)]), n
            assert await ledger.report("clearances") == []

    async def test_a_clearance_stands_beside_what_does_not_concern_it(self, ledger: Ledger) -> None:
        """First answers, more rows answered, repeats, corrections of other chunks; and a proof kept stays kept."""
        await ledger.answer([answer(Disposition.unbound, n=2), answer(Disposition.unbound, n=1)])
        await ledger.answer([answer(None, AnswerException(Disposition.unbound, rows(1)), n=3)])
        since = await ledger.moment()
        await ledger.answer([answer(Disposition.failed_final, sub="sub_b", n=1)])  # silent until now
        await ledger.answer([answer(None, AnswerException(Disposition.unbound, rows(2)), n=3)])
        await ledger.answer([answer(Disposition.unbound, n=1)])
        await ledger.deliver(receipts=[receipt(n=1)])
        assert await ledger.moment() == since
        await ledger.answer([answer(Disposition.failed_final, n=2)])
        proof = ClearanceRecord("clr_1", "cmcc", None, NOW, (1,), "tiered", 1, 0, 0, ())
        mine = [chunk_id(1), chunk_id(3)]
        assert await ledger.record_clearance(proof, since=since, chunk_ids=mine)
        await ledger.answer([answer(Disposition.failed_final, n=1)])
        assert await ledger.record_clearance(proof, since=since, chunk_ids=mine)  # a repeat in doubt
        assert len(await ledger.report("clearances")) == 1

    async def test_no_go_is_recorded_while_an_answer_says_failed(self, tmp_path: Any) -> None:
        """Two processes, one corrects to and fro, one judges: no go is kept that had gone stale before its record."""
        corrector, judge = [(await self.make_ledger(tmp_path))[1] for _ in range(2)]
        await corrector.answer([answer(Disposition.unbound, n=1)])
        failed, flips, over = False, 0, False
        chance = random.Random(1)

        async def correct() -> None:
            nonlocal failed, flips
            while not over:
                await corrector.answer([answer(Disposition.failed_final, n=1)])
                failed, flips = True, flips + 1
                await asyncio.sleep(0)
                failed, flips = False, flips + 1
                await corrector.answer([answer(Disposition.unbound, n=1)])
                await asyncio.sleep(0.05 * chance.random())

        going = asyncio.create_task(correct())
        kept = refused = 0
        for n in range(1_500):
            since = await judge.moment()
            (standing,) = await judge.standings([(chunk_id(1), 100)], ["sub_a"])
            if set(standing.codes.tolist()) != {Disposition.unbound.number}:
                continue
            if n % 2:
                await asyncio.sleep(0.001)
            before = (failed, flips)
            proof = ClearanceRecord(f"clr_{n}", "cmcc", None, NOW, (1,), "strict", 1, 0, 0, ())
            if await judge.record_clearance(proof, since=since, chunk_ids=[chunk_id(1)]):
                kept += 1
                assert not (before[0] and before == (failed, flips)), "a correction acknowledged before was not seen"
            else:
                refused += 1
            if kept >= 10 and refused >= 10:
                break
        over = True
        await going
        assert kept >= 10
        assert refused >= 10
        await corrector.close()
        await judge.close()

    # -- reports

    async def _world(self, directory: Directory, ledger: Ledger) -> None:
        """One bank (everything, from the start) and one game (bulk, release_scheduled only, late), four chunks."""
        await directory.put_agreement(agreement())
        await directory.put_agreement(agreement(agreement_id="agr_2", subscriber_id="game", carrier_id="cmcc"))
        await directory.put_subscription(subscription())
        await directory.put_subscription(
            subscription(
                "sub_g",
                subscriber_id="game",
                app_id="game-app",
                app_class=AppClass.games,
                event_types=frozenset({EventType.release_scheduled, EventType.renewal_requested}),
            )
        )
        await ledger.open_cursors([cursor(0), cursor(0, lane=Lane.live), cursor(1, "sub_g", start=1)])
        await ledger.open_cursors([cursor(0, "sub_g", lane=Lane.live)])
        due = NOW - DAY
        await ledger.catalogue(
            [
                entry(0, position=Position(0, 0), due_at=due),
                entry(1, position=Position(0, 1), carrier_id="cucc", provinces={"北京": 100}),
                entry(2, position=Position(0, 2), reported_at=NOW + timedelta(hours=13)),
                entry(3, position=Position(0, 3), event_type=EventType.released),
                entry(
                    4,
                    position=Position(0, 4),
                    event_type=EventType.renewal_requested,
                    lane=Lane.live,
                    count=1,
                    apps=("bank-app",),
                    batch_id=None,
                    provinces={"北京": 1},
                ),
            ],
            {0: 5},
        )

    async def test_published_counts_the_catalogue(self, both: tuple[Directory, Ledger]) -> None:
        """By carrier, type, lane and day in China; days are included at both ends; provinces add up."""
        await self._world(*both)
        ledger = both[1]
        found = await ledger.report("published")
        key = ("carrier_id", "event_type", "lane", "day", "chunks", "numbers")
        assert [tuple(row[name] for name in key) for row in found] == [
            ("cmcc", "release_scheduled", "bulk", "2026-03-01", 1, 100),
            ("cmcc", "release_scheduled", "bulk", "2026-03-02", 1, 100),
            ("cmcc", "released", "bulk", "2026-03-01", 1, 100),
            ("cmcc", "renewal_requested", "live", "2026-03-01", 1, 1),
            ("cucc", "release_scheduled", "bulk", "2026-03-01", 1, 100),
        ]
        assert len(await ledger.report("published", since="2026-03-02", until="2026-03-02")) == 1
        assert len(await ledger.report("published", carrier_id="cucc", since=None)) == 1
        assert await ledger.report("provinces", until="2026-03-01") == [
            {"province": "北京", "event_type": "release_scheduled", "numbers": 140},
            {"province": "广东", "event_type": "release_scheduled", "numbers": 60},
            {"province": "广东", "event_type": "released", "numbers": 60},
            {"province": "北京", "event_type": "released", "numbers": 40},
            {"province": "北京", "event_type": "renewal_requested", "numbers": 1},
        ]

    async def test_regions_count_pairs_by_province(self, both: tuple[Directory, Ledger]) -> None:
        """Owed and received as in the delivery report; answered where the whole chunk is, overdue where it is not."""
        await self._world(*both)
        ledger = both[1]
        await ledger.deliver(receipts=[receipt(n=0), receipt(n=1)])
        await ledger.answer([answer(None, AnswerException(Disposition.unbound, rows(*range(30))), n=0)])
        await ledger.answer([answer(n=1)])
        names = ("province", "event_type", "numbers_owed", "numbers_received", "numbers_answered", "numbers_overdue")
        found = [
            tuple(row[name] for name in names)
            for row in await ledger.report("regions", subscriber_id="bank", until="2026-03-01")
        ]
        scheduled = [row for row in found if row[1] == "release_scheduled"]
        assert scheduled == [
            ("北京", "release_scheduled", 140, 140, 100, 40),
            ("广东", "release_scheduled", 60, 60, 0, 60),
        ]
        for name, column in (("delivery", "numbers_owed"), ("delivery", "numbers_received")):
            whole = sum(row[column] for row in await ledger.report(name))
            assert sum(row[column] for row in await ledger.report("regions")) == whole

    async def test_delivery_counts_what_is_owed(self, both: tuple[Directory, Ledger]) -> None:
        """Owed by start, lane, event type, named apps and agreement; received and parked against it."""
        await self._world(*both)
        directory, ledger = both
        await ledger.deliver(receipts=[receipt(n=0), receipt(n=2), receipt("sub_g", 2)], parked=[parked(n=1)])
        await ledger.deliver(parked=[parked(n=2)])  # a redrive that failed does not take the receipt back
        found = {
            (row["subscription_id"], row["carrier_id"], row["event_type"], row["day"][-2:]): tuple(
                row[name]
                for name in ("chunks_owed", "chunks_received", "chunks_parked", "numbers_owed", "numbers_received")
            )
            for row in await ledger.report("delivery")
        }
        assert found == {
            ("sub_a", "cmcc", "release_scheduled", "01"): (1, 1, 0, 100, 100),
            ("sub_a", "cmcc", "release_scheduled", "02"): (1, 1, 0, 100, 100),
            ("sub_a", "cucc", "release_scheduled", "01"): (1, 0, 1, 100, 0),
            ("sub_a", "cmcc", "released", "01"): (1, 0, 0, 100, 0),
            ("sub_a", "cmcc", "renewal_requested", "01"): (1, 0, 0, 1, 0),
            ("sub_g", "cmcc", "release_scheduled", "02"): (1, 1, 0, 100, 100),
        }
        assert {row["subscription_id"] for row in await ledger.report("delivery", app_class="games")} == {"sub_g"}
        assert {row["subscription_id"] for row in await ledger.report("delivery", subscriber_id="bank")} == {"sub_a"}
        await directory.put_agreement(agreement(ends_at=NOW + SECOND))
        assert {row["subscription_id"] for row in await ledger.report("delivery")} == {"sub_a", "sub_g"}
        await directory.put_agreement(agreement(ends_at=NOW))
        assert {row["subscription_id"] for row in await ledger.report("delivery")} == {"sub_g"}

    async def test_a_deleted_subscription_is_owed_what_it_passed(self, both: tuple[Directory, Ledger]) -> None:
        """Its past stays in the figures, nothing is added, and nothing is open."""
        await self._world(*both)
        directory, ledger = both
        await ledger.deliver(cursors=[cursor(2)], receipts=[receipt(n=0)])
        await directory.put_subscription(subscription(state=SubscriptionState.deleted))
        rows_ = await ledger.report("delivery", subscriber_id="bank")
        assert sum(row["chunks_owed"] for row in rows_) == 2
        assert await ledger.report("open", subscriber_id="bank") == []

    async def test_open_counts_what_is_not_fully_answered(self, both: tuple[Directory, Ledger]) -> None:
        """Partly answered chunks are open with the rest; events that only inform are never open."""
        await self._world(*both)
        ledger = both[1]
        await ledger.answer([answer(None, AnswerException(Disposition.unbound, rows(*range(30))), n=0)])
        await ledger.answer([answer(n=1), answer(n=4, count=1)])
        bank = await ledger.report("open", subscriber_id="bank")
        assert bank == [
            {
                "subscription_id": "sub_a",
                "event_type": "release_scheduled",
                "chunks_open": 2,
                "numbers_open": 170,
                "oldest_reported_at": NOW,
                "overdue_chunks": 1,
                "oldest_due_at": NOW - DAY,
            }
        ]
        assert [row["chunks_open"] for row in await ledger.report("open", app_class="games")] == [1]
        await ledger.answer([answer(n=0), answer(n=2)])
        assert await ledger.report("open", subscriber_id="bank") == []

    async def test_answers_that_come_before_the_catalogue_count_later(self, both: tuple[Directory, Ledger]) -> None:
        """An answer and a receipt for a chunk not listed yet are figures as soon as it is listed, and again after."""
        directory, ledger = both
        await ledger.answer([answer(Disposition.unbound, n=0)])
        await ledger.deliver(receipts=[receipt(n=0)])
        assert await ledger.report("answers") == []
        await self._world(directory, ledger)
        expected = [
            {
                "subscription_id": "sub_a",
                "carrier_id": "cmcc",
                "event_type": "release_scheduled",
                "day": "2026-03-01",
                "disposition": "unbound",
                "numbers": 100,
            }
        ]
        assert await ledger.report("answers") == expected
        await ledger.clear_catalogue()
        assert await ledger.report("answers") == []
        await self._world(directory, ledger)
        assert await ledger.report("answers", app_class="bank", since="2026-03-01") == expected
        assert sum(row["chunks_received"] for row in await ledger.report("delivery")) == 1

    async def test_batches_and_renewals_are_summed(self, ledger: Ledger) -> None:
        """Per carrier, and per day of request in China."""
        await ledger.put_batch(batch(1, rows_seen=10, rows_accepted=8, rows_refused=2))
        await ledger.put_batch(batch(2, rows_seen=5, rows_accepted=5))
        await ledger.put_batch(batch(3, carrier_id="cucc", created_at=NOW - 9 * DAY))
        assert await ledger.report("batches", since="2026-03-01") == [
            {"carrier_id": "cmcc", "batches": 2, "rows_seen": 15, "rows_accepted": 13, "rows_refused": 2}
        ]
        assert len(await ledger.report("batches", until="2026-02-28")) == 1
        await ledger.put_batch(batch(4, carrier_id="cucc", acting_for="mvno", rows_seen=7, rows_accepted=7))
        hosted = {"carrier_id": "mvno", "batches": 1, "rows_seen": 7, "rows_accepted": 7, "rows_refused": 0}
        assert await ledger.report("batches", carrier_id="mvno") == [hosted]
        for n, at in enumerate((NOW, NOW + timedelta(hours=11), NOW + timedelta(hours=12))):
            await ledger.put_renewal(
                RenewalRecord(f"ren_{n}", "cmcc", chunk_id(n), ("a", "b"), "d", "d", at, at + DAY, False)
            )
        assert await ledger.report("renewals") == [
            {"day": "2026-03-01", "requested": 2, "app_requests": 4},
            {"day": "2026-03-02", "requested": 1, "app_requests": 2},
        ]

    async def test_unknown_reports_and_filters_are_refused(self, ledger: Ledger) -> None:
        """A misspelt filter must not pass for an unlimited one."""
        for name, filters in (("nothing", {}), ("published", {"carier_id": "x"}), ("published", {"since": "soon"})):
            with pytest.raises(InvalidRequest):
                await ledger.report(name, **filters)

    # -- the parties' topics

    async def test_ingress_positions_move_forwards_within_one_topic(self, ledger: Ledger) -> None:
        """A process that slept cannot set a position back, and nobody moves into a topic made anew by himself."""
        assert await ledger.ingress_positions("cmcc") is None
        await ledger.move_ingress("cmcc", IngressPositions("topic-1", {0: 5, 1: 0}))
        await ledger.move_ingress("cmcc", IngressPositions("topic-1", {0: 9}))
        await ledger.move_ingress("cmcc", IngressPositions("topic-1", {0: 7, 2: 3}))
        await ledger.move_ingress("cmcc", IngressPositions("topic-2", {0: 100, 3: 1}))
        assert await ledger.ingress_positions("cmcc") == IngressPositions("topic-1", {0: 9, 1: 0, 2: 3})
        assert await ledger.ingress_positions("cucc") is None

    async def test_forgotten_ingress_begins_anew(self, ledger: Ledger) -> None:
        """After an operator's act the topic that is there now may be taken in."""
        await ledger.move_ingress("cmcc", IngressPositions("topic-1", {0: 5}))
        assert await ledger.forget_ingress("cmcc")
        assert not await ledger.forget_ingress("cmcc")
        await ledger.move_ingress("cmcc", IngressPositions("topic-2", {0: 1}))
        assert await ledger.ingress_positions("cmcc") == IngressPositions("topic-2", {0: 1})

    async def test_new_answers_wait_in_the_outbox(self, ledger: Ledger) -> None:
        """One entry per new answer, in order; repeats make none; without an outbox there is nothing."""
        assert await ledger.answer([answer(n=9)]) == [True]
        assert await ledger.outbox_size() == 0
        ledger.keeps_outbox = True
        await ledger.answer([answer(n=0), answer(n=1, sub="sub_b")])
        await ledger.answer([answer(n=0)])
        await ledger.answer([answer(Disposition.unbound, n=0)])
        entries = await ledger.outbox()
        assert [(one.subscription_id, one.chunk_id, one.place) for one in entries] == [
            ("sub_a", chunk_id(0), 0), ("sub_b", chunk_id(1), 0), ("sub_a", chunk_id(0), 1),
        ]  # fmt: skip
        numbers = [one.number for one in entries]
        assert numbers == sorted(set(numbers))
        assert await ledger.outbox(numbers[1]) == entries[2:]
        assert await ledger.outbox(0, 2) == entries[:2]
        await ledger.settle_outbox(numbers[:2])
        await ledger.settle_outbox(numbers[:2])
        assert await ledger.outbox() == entries[2:]
        assert await ledger.outbox_size() == 1

    async def test_an_answer_that_failed_leaves_nothing_in_the_outbox(self, ledger: Ledger) -> None:
        """All or none, the outbox included."""
        ledger.keeps_outbox = True
        bad = answer(None, AnswerException(Disposition.unbound, rows(3, 1)), n=1)
        with pytest.raises(InvalidRequest):
            await ledger.answer([answer(n=0), bad])
        assert await ledger.outbox() == []

    async def test_what_carriers_were_told_is_kept_by_chunk_and_class(self, ledger: Ledger) -> None:
        """The newest replaces the one before."""
        ledger.keeps_outbox = True
        await ledger.answer([answer(n=0), answer(n=1)])
        first, second = Told(chunk_id(0), "bank", 1, b"a"), Told(chunk_id(1), "games", 1, b"b")
        await ledger.settle_outbox([], [first, second])
        await ledger.settle_outbox([], [replace(first, version=2, digest=b"c")])
        found = await ledger.told([chunk_id(0), chunk_id(1), chunk_id(2)])
        assert sorted(found, key=lambda one: one.app_class) == [replace(first, version=2, digest=b"c"), second]

    # ---- itself

    async def test_a_ledger_belongs_to_the_first_log_it_was_asked_about(self, ledger: Ledger) -> None:
        """Asked about another one it still names the first; told to, it belongs to the other."""
        assert await ledger.belongs_to("one") == "one"
        assert await ledger.belongs_to("two") == "one"
        assert await ledger.belongs_to("two", replace=True) == "two"
        assert await ledger.belongs_to("one") == "two"
