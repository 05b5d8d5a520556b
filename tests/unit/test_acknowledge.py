"""Answers: what is judged before they are committed, and what a repeat or a correction does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from hub.domain.dispositions import Disposition
from hub.domain.errors import InvalidRequest, NotFound, Unavailable
from hub.domain.events import EventType
from hub.flow.acknowledge import Acknowledge, Said, SaidException
from tests.feed_world import START, World, replace, world

EVEN = 13_800_000_000
REVIEW = START + timedelta(days=30)
D = Disposition


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def codes(hub: World, chunk: str, count: int, subscription: str = "sub_a") -> list[int]:
    found = await hub.ledger.standings([(chunk, count)], [subscription])
    return found[0].codes.tolist() if found else []


async def test_a_default_and_exceptions_by_row_and_by_number(hub: World) -> None:
    """Rows and numbers name the same rows; the default fills the rest."""
    chunk = await hub.publish("a", EVEN, 10)
    said = Said(
        chunk,
        D.no_account,
        exceptions=[
            SaidException(D.unbound, rows=[7, 2], numbers=[f"+86{EVEN + 5}", str(EVEN)]),
            SaidException(D.held_funds, rows=[9], review_at=REVIEW),
        ],
    )
    assert await hub.acknowledge.answer(hub.subscription("sub_a"), [said]) == [True]
    expected = [D.no_account.number] * 10
    for row in (0, 2, 5, 7):
        expected[row] = D.unbound.number
    expected[9] = D.held_funds.number
    assert await codes(hub, chunk, 10) == expected
    assert await codes(hub, chunk, 10, "sub_b") == []
    stored = (await hub.ledger.answers_of("sub_a", chunk))[0]
    assert (stored.position, stored.count, stored.answered_at) == (hub.position(chunk), 10, START)


async def test_the_same_said_otherwise_is_a_repeat(hub: World) -> None:
    """By row or number, joined or apart, in any order: one content, one fact. Another content is a new fact."""
    chunk = await hub.publish("a", EVEN, 10)
    mine = hub.subscription("sub_a")
    first = Said(chunk, D.no_account, exceptions=[SaidException(D.unbound, rows=[1, 3])])
    second = Said(
        chunk,
        D.no_account,
        exceptions=[SaidException(D.unbound, numbers=[str(EVEN + 3)]), SaidException(D.unbound, rows=[1, 1])],
    )
    assert await hub.acknowledge.answer(mine, [first]) == [True]
    for _ in range(3):
        assert await hub.acknowledge.answer(mine, [second]) == [False]
    correction = Said(chunk, exceptions=[SaidException(D.failed_final, rows=[3])])
    assert await hub.acknowledge.answer(mine, [correction]) == [True]
    assert (await codes(hub, chunk, 10))[:4] == [
        *(D.no_account.number, D.unbound.number, D.no_account.number, D.failed_final.number)
    ]
    assert len(await hub.ledger.answers_of("sub_a", chunk)) == 2


async def test_an_answer_before_the_receipt_is_kept(hub: World) -> None:
    """An answer that overtakes its receipt is committed, and the receipt recorded later changes nothing of it."""
    chunk = await hub.publish("a", EVEN, 3)
    mine = hub.subscription("sub_a")
    page = await hub.pull.page(mine)
    assert await hub.acknowledge.answer(mine, [Said(chunk, D.unbound)]) == [True]
    assert await hub.received("sub_a", [chunk]) == set()
    assert await codes(hub, chunk, 3) == [D.unbound.number] * 3
    assert (await hub.pull.commit(mine, page.cursor)).receipts == 1
    assert await codes(hub, chunk, 3) == [D.unbound.number] * 3
    assert await hub.acknowledge.answer(mine, [Said(chunk, D.unbound)]) == [False]


async def test_only_addressees_may_answer(hub: World) -> None:
    """S8: another app's renewal, a void record and an id never heard of are refused alike, and nothing is stored."""
    theirs = await hub.publish("a", EVEN, apps="app-sub-b")
    good = await hub.publish("b", EVEN + 10)
    void = await hub.publish("void", EVEN + 10, seq=7)
    for unknown in (theirs, void, "evt_" + "0" * 32):
        with pytest.raises(NotFound):
            await hub.acknowledge.answer(hub.subscription("sub_a"), [Said(good, D.unbound), Said(unknown, D.unbound)])
    assert await codes(hub, good, 1) == []
    assert await hub.acknowledge.answer(hub.subscription("sub_b"), [Said(theirs, D.unbound)]) == [True]


async def test_who_has_a_receipt_may_answer_after_the_agreement(hub: World) -> None:
    """The agreement ran out: a chunk that was received can still be answered, one that was not cannot."""
    received = await hub.publish("a", EVEN)
    mine = hub.subscription("sub_a")
    await hub.pull.commit(mine, (await hub.pull.page(mine)).cursor)
    late = await hub.publish("b", EVEN + 10)
    hub.clock.advance(timedelta(days=400))
    assert await hub.acknowledge.answer(mine, [Said(received, D.unbound)]) == [True]
    with pytest.raises(NotFound):
        await hub.acknowledge.answer(mine, [Said(late, D.unbound)])


def exception(**members: object) -> SaidException:
    return SaidException(**({"disposition": D.unbound} | members))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("members", "code", "pointer"),
    [
        ({}, "says_nothing", "/answers/0"),
        ({"default": D.held_debt}, "review_at_missing", "/answers/0/default"),
        ({"review_at": REVIEW, "exceptions": [exception(rows=[1])]}, "review_at_alone", "/answers/0/review_at"),
        ({"default": D.soft_locked}, "disposition_not_for_event", "/answers/0/default"),
        ({"exceptions": [exception()]}, "no_rows", "/answers/0/exceptions/0"),
        ({"exceptions": [exception(rows=[10, 11])]}, "row_outside_chunk", "/answers/0/exceptions/0/rows"),
        ({"exceptions": [exception(rows=[-1])]}, "row_outside_chunk", "/answers/0/exceptions/0/rows"),
        (
            {"exceptions": [exception(rows=[1]), exception(rows=[2, 1])]},
            "rows_overlap",
            "/answers/0/exceptions/1",
        ),
        (
            {"exceptions": [exception(rows=[1]), exception(numbers=[str(EVEN + 1)], disposition=D.no_account)]},
            "rows_overlap",
            "/answers/0/exceptions/1",
        ),
        (
            {"exceptions": [exception(disposition=D.held_legal, rows=[1])]},
            "review_at_missing",
            "/answers/0/exceptions/0",
        ),
        ({"exceptions": [exception(numbers=["12345"])]}, "invalid_number", "/answers/0/exceptions/0/numbers"),
        (
            {"exceptions": [exception(numbers=[str(EVEN + 10), str(EVEN + 1), "19999999999"])]},
            "number_not_in_chunk",
            "/answers/0/exceptions/0/numbers",
        ),
    ],
)
async def test_what_is_wrong_is_named_without_a_number(
    hub: World, members: dict[str, object], code: str, pointer: str
) -> None:
    """Each fault has its code and place; no message holds a number; nothing is stored."""
    chunk = await hub.publish("a", EVEN, 10, event=EventType.release_scheduled)
    with pytest.raises(InvalidRequest) as refused:
        await hub.acknowledge.answer(hub.subscription("sub_a"), [Said(chunk, **members)])  # type: ignore[arg-type]
    part = refused.value.details["parts"][0]
    assert (part["code"], part["pointer"]) == (code, pointer)
    assert "138000" not in refused.value.message and "19999999999" not in refused.value.message
    if code == "number_not_in_chunk":
        assert "2 numbers" in refused.value.message
    assert await codes(hub, chunk, 10) == []


async def test_soft_locked_answers_deactivated(hub: World) -> None:
    """The one disposition that belongs to one event type."""
    chunk = await hub.publish("a", EVEN, 2)
    assert await hub.acknowledge.answer(hub.subscription("sub_a"), [Said(chunk, D.soft_locked)]) == [True]


async def test_one_fault_sinks_the_whole_call(hub: World) -> None:
    """All answers of a call are committed, or none is."""
    chunks = [await hub.publish(name, EVEN + 100 * place, 5) for place, name in enumerate("ab")]
    mine = hub.subscription("sub_a")
    with pytest.raises(InvalidRequest):
        await hub.acknowledge.answer(mine, [Said(chunks[0], D.unbound), Said(chunks[1], D.held_funds)])
    assert await codes(hub, chunks[0], 5) == []
    assert await hub.acknowledge.answer(mine, [Said(chunk, D.unbound) for chunk in chunks]) == [True, True]


async def test_a_full_chunk_answered_by_number(hub: World) -> None:
    """10,000 numbers in one exception are worked on away from the loop and land in their rows."""
    chunk = await hub.publish("a", EVEN, 10_000)
    numbers = [str(EVEN + row) for row in range(9_999, -1, -2)]
    said = Said(chunk, D.no_account, exceptions=[SaidException(D.unbound, numbers=numbers)])
    assert await hub.acknowledge.answer(hub.subscription("sub_a"), [said]) == [True]
    assert await codes(hub, chunk, 10_000) == [D.no_account.number, D.unbound.number] * 5_000


async def test_no_word_of_success_before_the_commit(hub: World) -> None:
    """If the ledger cannot commit, the caller hears so and the answer is not there."""

    class Down:
        async def answer(self, answers: object) -> list[bool]:
            raise Unavailable

    chunk = await hub.publish("a", EVEN)
    broken = Acknowledge(Down(), hub.fold, hub.index, hub.reader, hub.codec, hub.members, hub.clock)  # type: ignore[arg-type]
    with pytest.raises(Unavailable):
        await broken.answer(hub.subscription("sub_a"), [Said(chunk, D.unbound)])
    assert await codes(hub, chunk, 1) == []


async def test_an_index_entry_that_names_another_record_is_not_believed(
    hub: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The index may name a wrong record for an id; the id in the log decides."""
    position = hub.position(await hub.publish("a", EVEN))
    monkeypatch.setattr(hub.index, "find", lambda _: position)
    with pytest.raises(NotFound):
        await hub.acknowledge.answer(hub.subscription("sub_a"), [Said("evt_other", D.unbound)])


async def test_a_pushed_subscription_answers_the_same_way(hub: World) -> None:
    """How a chunk arrived does not matter for its answer."""
    chunk = await hub.publish("a", EVEN, 4)
    mine = replace(hub.subscription("sub_push"))
    assert await hub.acknowledge.answer(mine, [Said(chunk, D.unbound)]) == [True]
    assert await codes(hub, chunk, 4, "sub_push") == [D.unbound.number] * 4
