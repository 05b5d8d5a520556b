"""A carrier's topic on a real log, index and ledger: exactly once, refusals told, visible when it cannot go on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from hub.domain.errors import LogUnavailable
from hub.domain.events import EventType
from hub.flow.ingest.events import Item
from hub.flow.ingest.lists import Lists
from hub.flow.ingest.topic import TopicIntake
from hub.ports.ledger import IngressPositions
from hub.ports.topics import TopicNames
from hub.workers.ingress import CarrierIngress, Ingress, publishing_carriers
from tests.intake_world import NOW_EPOCH, PLAN, Intake, open_intake
from tests.making import CODEC
from tests.topic_world import MemoryTopics, event, numbers

CMCC = 13_800_138_000  # a block of cmcc
CUCC = 18_600_008_000  # a block of cucc
NAMES = TopicNames("t.")
SOURCE, REJECTS = NAMES.ingress("cmcc"), NAMES.rejects("cmcc")
SPREAD = [CMCC + 10_000 * block + row for block in range(5) for row in range(4)]
ENDED = 1_772_294_400


def lists_of(intake: Intake) -> Lists:
    async def cleared(carrier_id: str, asked: Any) -> Any:
        return asked > 0

    return Lists(
        intake.members, intake.index, intake.fold, intake.log, intake.writer, CODEC, PLAN, intake.clock,
        intake.metrics, cleared,  # type: ignore[arg-type]
    )  # fmt: skip


def ingress_of(intake: Intake, topics: MemoryTopics, carrier_id: str = "cmcc") -> CarrierIngress:
    taking = TopicIntake(intake.events, lists_of(intake))
    return CarrierIngress(carrier_id, topics, NAMES, taking, intake.ledger, intake.clock, intake.metrics)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def following(ingress: CarrierIngress) -> AsyncIterator[None]:
    task = asyncio.create_task(ingress.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool], within: float = 20.0) -> None:
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)


async def offset(intake: Intake, carrier_id: str = "cmcc") -> int:
    saved = await intake.ledger.ingress_positions(carrier_id)
    return saved.offsets.get(0, 0) if saved else -1


async def taken(intake: Intake, end: int, within: float = 20.0) -> None:
    """Until the position stands at ``end``."""
    async with asyncio.timeout(within):
        while await offset(intake) < end:
            await asyncio.sleep(0.005)


@pytest.fixture
async def intake(tmp_path: Path) -> AsyncIterator[Intake]:
    async with open_intake(tmp_path / "hub") as opened:
        yield opened


@pytest.fixture
def topics() -> MemoryTopics:
    world = MemoryTopics()
    world.make(SOURCE)
    return world


async def test_events_and_lists_come_out_in_the_log(intake: Intake, topics: MemoryTopics) -> None:
    """Accepted numbers stand in the log, each under an id that the summary names with the source offset."""
    topics.send(SOURCE, event("e1", CMCC))
    topics.send(SOURCE, event("e2", CMCC + 1))
    topics.send(SOURCE, numbers("l1", SPREAD[4:]))
    async with following(ingress_of(intake, topics)):
        await taken(intake, 3)
    assert await intake.accepted() == sorted((n, "deactivated") for n in [CMCC, CMCC + 1, *SPREAD[4:]])
    (summary,) = topics.told("summary")
    assert summary["source"] == {"topic": SOURCE, "partition": 0, "from_offset": 0, "to_offset": 2}
    assert (summary["records"], summary["accepted"], summary["refused"]) == (3, 2 + len(SPREAD[4:]), 0)
    assert [(one["offset"], one["id"]) for one in summary["events"]] == [(0, "e1"), (1, "e2")]
    by_id = {record.record_id: chunk for record, chunk in await intake.chunks()}
    assert all(len(by_id[one["event_id"]]) == 1 for one in summary["events"])
    (told,) = summary["lists"]
    for chunk in told["chunks"]:
        assert [SPREAD[4:][row] for row in chunk["rows"]] == by_id[chunk["chunk_id"]].numbers.tolist()
    assert topics.told("refusal") == []
    assert {message.topic for message in topics.published} == {REJECTS}


async def test_what_is_sent_again_is_the_same_thing(intake: Intake, topics: MemoryTopics) -> None:
    """A producer repeats after a lost ack: the same id is accepted again, with the same event, and stands once."""
    for _ in range(3):
        topics.send(SOURCE, event("e1", CMCC))
        topics.send(SOURCE, numbers("l1", SPREAD[4:]))
    async with following(ingress_of(intake, topics)):
        await taken(intake, 6)
    assert len(await intake.accepted()) == 1 + len(SPREAD[4:])
    (summary,) = topics.told("summary")
    assert len({one["event_id"] for one in summary["events"]}) == 1
    assert [one["chunks"] for one in summary["lists"]] == [summary["lists"][0]["chunks"]] * 3
    assert summary["refused"] == 0


async def test_the_same_id_over_http_is_the_same_event(intake: Intake, topics: MemoryTopics) -> None:
    """A carrier may change over from one way to the other in the middle."""
    item = Item(CMCC, EventType.deactivated, 1_772_301_600)
    (over_http,) = await intake.events.publish("cmcc", "e1", [item])
    topics.send(SOURCE, event("e1", CMCC))
    async with following(ingress_of(intake, topics)):
        await taken(intake, 1)
    assert topics.told("summary")[0]["events"][0]["event_id"] == over_http.event_id
    assert len(await intake.accepted()) == 1


async def test_an_id_used_for_something_else_is_refused(intake: Intake, topics: MemoryTopics) -> None:
    """Nothing of the second content is taken, in the same stretch or later, of events and lists alike."""
    topics.send(SOURCE, event("x", CMCC))
    topics.send(SOURCE, event("x", CMCC + 1))
    topics.send(SOURCE, numbers("y", SPREAD[4:8]))
    topics.send(SOURCE, numbers("y", SPREAD[8:]))
    async with following(ingress_of(intake, topics)):
        await taken(intake, 4)
        topics.send(SOURCE, event("x", CMCC + 2))
        await taken(intake, 5)
    assert [number for number, _ in await intake.accepted()] == [CMCC, *SPREAD[4:8]]
    told = topics.told("refusal")
    assert [(one["source"]["offset"], one["id"], one["reason"]) for one in told] == [
        (1, "x", "id_reused"), (3, "y", "id_reused"), (4, "x", "id_reused"),
    ]  # fmt: skip


async def test_another_carriers_numbers_are_refused(intake: Intake, topics: MemoryTopics) -> None:
    """The topic says who speaks; the judgement is the one of the API. Only masked numbers are told."""
    topics.send(SOURCE, event("e1", CUCC))
    topics.send(SOURCE, event("e2", CMCC))
    topics.send(SOURCE, numbers("l1", [CMCC + 1, CUCC, CUCC + 1, CMCC + 2, CMCC + 1]))
    topics.send(SOURCE, event("e3", CMCC + 3, acting_for="cucc"))
    topics.send(SOURCE, numbers("l2", [CMCC + 4], shared={"terminated_at": ENDED, "acting_for": "cucc"}))
    async with following(ingress_of(intake, topics)):
        await taken(intake, 5)
    assert [number for number, _ in await intake.accepted()] == [CMCC, CMCC + 1, CMCC + 2]
    first, rows, acting, acting_list = topics.told("refusal")
    assert (first["reason"], first["number"], first["source"]) == (
        "foreign_block", "186****8000", {"topic": SOURCE, "partition": 0, "offset": 0},
    )  # fmt: skip
    assert {one["reason"]: one["rows"] for one in rows["rows"]} == {"foreign_block": [1, 2], "duplicate": [4]}
    assert rows["reason"] is None and rows["rows_refused"] == 3
    assert acting["reason"] == "not_acting_for"
    assert acting_list["rows"][0] | {"meaning": ""} == {
        "reason": "not_acting_for", "meaning": "", "retriable": False, "rows": [0],
    }  # fmt: skip
    assert all(str(CUCC) not in message.value.decode() for message in topics.published)


async def test_poison_is_set_aside_and_the_rest_goes_on(intake: Intake, topics: MemoryTopics) -> None:
    """Each poison record is told with its offset and counted; what stands around it is taken."""
    poison = [None, b"", b"no json", b"x" * 10_000_000, b"\xff\xfe", b'{"id":"a","id":"b"}', b'{"schema":"other.v1"}']
    for place, value in enumerate(poison):
        topics.send(SOURCE, event(f"e{place}", CMCC + place))
        topics.send(SOURCE, value)
    topics.send(SOURCE, event("last", CMCC + 100), headers=[("h", b"")] * 100)
    async with following(ingress_of(intake, topics)):
        await taken(intake, 2 * len(poison) + 1)
    assert [number for number, _ in await intake.accepted()] == [CMCC + place for place in range(len(poison))]
    told = {one["source"]["offset"]: one["reason"] for one in topics.told("refusal")}
    reasons = ["empty", "empty", "invalid_json", "too_large", "invalid_json", "invalid_json", "schema_unknown"]
    assert told == {2 * place + 1: reason for place, reason in enumerate(reasons)} | {14: "headers_too_large"}
    counts = intake.metrics.counts
    assert counts["numhub_ingress_records_total", "quarantined"] == len(reasons) + 1
    assert counts["numhub_ingress_records_total", "accepted"] == len(poison)
    assert counts["numhub_ingress_quarantined_total", "invalid_json"] == 3


async def test_events_of_one_number_keep_their_order(intake: Intake, topics: MemoryTopics) -> None:
    """Each is judged after the one before it, within a stretch and across an event, a list and an event."""
    topics.send(SOURCE, event("e1", CMCC))
    topics.send(SOURCE, event("e2", CMCC, "restored"))
    topics.send(SOURCE, event("e3", CMCC))
    topics.send(SOURCE, numbers("l", [CMCC], "restored", shared={"occurred_at": ENDED + 90_000}))
    topics.send(SOURCE, event("e4", CMCC))
    async with following(ingress_of(intake, topics)):
        await taken(intake, 5)
    assert topics.told("refusal") == []
    assert [chunk.seq.tolist() for _, chunk in await intake.chunks()] == [[1], [2], [3], [4], [5]]


@pytest.mark.parametrize("dies", ["before append", "after append", "before the report", "before the position"])
async def test_killed_at_any_point_every_number_counts_once(tmp_path: Path, dies: str) -> None:
    """The next process reads again what was not committed; log and reports come out the same."""
    topics = MemoryTopics()
    topics.make(SOURCE)
    topics.send(SOURCE, event("e1", CMCC))
    topics.send(SOURCE, numbers("l1", [*SPREAD[4:], CUCC]))
    topics.send(SOURCE, event("e2", CMCC + 1))
    async with open_intake(tmp_path / "hub") as intake:
        if dies == "before append":
            intake.writer.die_before = 2
        elif dies == "after append":
            intake.writer.die_after = 2
        ingress = ingress_of(intake, topics)
        dead = asyncio.Event()

        def die() -> None:
            dead.set()
            raise LogUnavailable

        if dies == "before the report":
            topics.before_publish = die
        if dies == "before the position":
            intake.ledger.move_ingress, move = _only_first(intake.ledger.move_ingress, dead), intake.ledger.move_ingress
        async with following(ingress):
            await until(lambda: dead.is_set() or intake.writer.dead)
        if dies == "before the position":
            intake.ledger.move_ingress = move
        assert await offset(intake) == 0
    topics.before_publish = None
    async with open_intake(tmp_path / "hub") as intake:
        async with following(ingress_of(intake, topics)):
            await taken(intake, 3)
        assert await intake.accepted() == sorted((n, "deactivated") for n in [CMCC, CMCC + 1, *SPREAD[4:]])
    rows = topics.told("refusal")[-1]
    assert [(one["reason"], one["rows"]) for one in rows["rows"]] == [("foreign_block", [len(SPREAD[4:])])]
    summary = topics.told("summary")[-1]
    assert (summary["records"], summary["accepted"], summary["refused"]) == (3, 2 + len(SPREAD[4:]), 1)
    assert len(topics.told("summary")) == (2 if dies == "before the position" else 1)


def _only_first(move: Any, dead: asyncio.Event) -> Any:
    async def wrapped(carrier_id: str, positions: IngressPositions) -> None:
        if any(positions.offsets.values()):
            dead.set()
            await asyncio.Event().wait()
        await move(carrier_id, positions)

    return wrapped


async def test_a_row_taken_by_somebody_else_meanwhile_is_told_and_the_rest_is_taken(
    intake: Intake, topics: MemoryTopics
) -> None:
    """A rival's event lands between judging and appending: the chunk is void, judged anew, and lacks that row."""
    await intake.steal("cmcc", [Item(SPREAD[5], EventType.deactivated, ENDED, ENDED)])
    topics.send(SOURCE, numbers("l1", SPREAD[4:]))
    async with following(ingress_of(intake, topics)):
        await taken(intake, 1)
    assert [number for number, _ in await intake.accepted()] == SPREAD[4:]
    (told,) = topics.told("refusal")
    assert [(one["reason"], one["rows"]) for one in told["rows"]] == [("duplicate", [1])]


async def test_without_the_log_it_stands_still_and_goes_on_by_itself(
    intake: Intake, topics: MemoryTopics, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says so, nothing is lost or skipped, another says that it goes on."""
    caplog.set_level(logging.INFO, "numhub.ingress")
    append, tries = intake.writer.append, 0

    async def fails(records: Any) -> list[bool]:
        nonlocal tries
        tries += 1
        if tries <= 4:
            raise LogUnavailable
        return await append(records)

    intake.writer.append = fails  # type: ignore[method-assign]
    topics.send(SOURCE, event("e1", CMCC))
    async with following(ingress_of(intake, topics)):
        await taken(intake, 1)
        await until(lambda: "ingress_goes_on" in caplog.messages)
    assert [number for number, _ in await intake.accepted()] == [CMCC]
    assert caplog.messages.count("ingress_waits") == 1
    assert tries == 5


async def test_without_the_topic_of_rejects_nothing_is_passed_over(intake: Intake, topics: MemoryTopics) -> None:
    """What cannot be reported is not committed: the position waits."""
    topics.failing.add(REJECTS)
    topics.send(SOURCE, event("e1", CUCC))
    ingress = ingress_of(intake, topics)
    async with following(ingress):
        await until(lambda: ingress.waiting)
        assert await offset(intake) == 0
        topics.failing.clear()
        await taken(intake, 1)
    assert [one["reason"] for one in topics.told("refusal")] == ["foreign_block"]


async def _broken(intake: Intake, topics: MemoryTopics, how: Callable[[], None]) -> CarrierIngress:
    """Three records taken, then ``how``; returns the ingress, stopped."""
    for place in range(3):
        topics.send(SOURCE, event(f"e{place}", CMCC + place))
    ingress = ingress_of(intake, topics)
    async with following(ingress):
        await taken(intake, 3)
        how()
        await until(lambda: ingress.stopped is not None)
        assert intake.metrics.gauges["numhub_ingress_stopped", "cmcc"] == 1
        reads = topics.reads
        await asyncio.sleep(0.05)
        assert ingress.stopped is not None
        assert topics.reads <= reads + 3, "a stopped ingress does not read on"
    return ingress


async def test_a_topic_made_again_stops_visibly_until_an_operator_acts(
    intake: Intake, topics: MemoryTopics, caplog: pytest.LogCaptureFixture
) -> None:
    """Its old positions mean nothing there: no jump, an alarm, and a restart from the beginning when told so."""

    def again() -> None:
        topics.make(SOURCE)
        for place in range(5):
            topics.send(SOURCE, event(f"n{place}", CMCC + 10 + place))

    ingress = await _broken(intake, topics, again)
    assert ingress.stopped == "topic_replaced"
    assert caplog.messages.count("ingress_stopped") == 1
    assert len(await intake.accepted()) == 3
    assert await intake.ledger.forget_ingress("cmcc")
    async with following(ingress):
        await taken(intake, 5)
        await until(lambda: ingress.stopped is None)
    assert len(await intake.accepted()) == 8
    assert intake.metrics.gauges["numhub_ingress_stopped", "cmcc"] == 0


@pytest.mark.parametrize("reason", ["position_expired", "topic_missing", "topic_cut"])
async def test_what_is_gone_stops_visibly(intake: Intake, topics: MemoryTopics, reason: str) -> None:
    """Retention passed the position, the topic went, or its end stepped back: each is told by its name."""

    def happens() -> None:
        topic = topics.topics[SOURCE]
        if reason == "position_expired":
            for place in range(9):
                topics.send(SOURCE, event(f"late{place}", CMCC + 50 + place))
            topic.first[0] = 5
        elif reason == "topic_missing":
            del topics.topics[SOURCE]
        else:
            topic.partitions[0] = topic.partitions[0][:1]

    ingress = await _broken(intake, topics, happens)
    assert ingress.stopped == reason
    assert len(await intake.accepted()) == 3


async def test_a_new_partition_is_read_from_its_beginning(intake: Intake, topics: MemoryTopics) -> None:
    """A topic may grow while it is read."""
    topics.send(SOURCE, event("e1", CMCC))
    async with following(ingress_of(intake, topics)):
        await taken(intake, 1)
        topics.topics[SOURCE].partitions.append([])
        topics.send(SOURCE, event("e2", CMCC + 1), partition=1)
        await until(lambda: any(one["source"]["partition"] == 1 for one in topics.told("summary")))
    assert len(await intake.accepted()) == 2


async def test_only_carriers_that_may_publish_are_followed(intake: Intake, topics: MemoryTopics) -> None:
    """A suspended carrier's topic waits; reinstated, it goes on where it stood."""
    carriers: set[str] = {"cmcc"}
    running = Ingress(lambda name: ingress_of(intake, topics, name).run(), lambda: carriers, intake.clock)
    task = asyncio.create_task(running.run())
    topics.send(SOURCE, event("e1", CMCC))
    await taken(intake, 1)
    carriers.clear()
    await until(lambda: running.carriers == [])
    topics.send(SOURCE, event("e2", CMCC + 1))
    await asyncio.sleep(0.05)
    assert await offset(intake) == 1
    carriers.add("cmcc")
    await taken(intake, 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert publishing_carriers(intake.members) == ["cmcc", "cucc", "mvno-a"]


async def test_a_full_list_of_ten_thousand_is_taken_whole(intake: Intake, topics: MemoryTopics) -> None:
    """The largest list allowed, with columns; every row is in a chunk that names it."""
    column = [CMCC + place for place in range(10_000)]
    topics.send(
        SOURCE, numbers("big", column, shared={}, columns={"terminated_at": [ENDED - row for row in range(10_000)]})
    )
    async with following(ingress_of(intake, topics)):
        await taken(intake, 1)
    accepted = await intake.accepted()
    assert len(accepted) == 10_000
    (summary,) = topics.told("summary")
    chunks = summary["lists"][0]["chunks"]
    assert sorted(row for chunk in chunks for row in chunk["rows"]) == list(range(10_000))
    assert NOW_EPOCH > ENDED
