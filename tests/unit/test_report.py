"""Reports: who sees what, what is withheld, and a page whose parts add up."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

import pytest

from hub.api.routers.reports import to_csv
from hub.domain.errors import Forbidden, InvalidRequest, NotFound
from hub.domain.parties import SCOPES, AppClass, Principal, Role
from hub.flow.report import NAMES, OTHERS, Filters, Report, Table, Watermark, grouped, pooled
from tests.judgement_world import START, World

DAY = "2026-06-01"


def row(subscription: str, numbers: int, carrier: str = "cmcc", event: str = "release_scheduled", **more: Any) -> dict:
    return {"subscription_id": subscription, "carrier_id": carrier, "event_type": event, "day": DAY} | more | {
        "numbers": numbers
    }  # fmt: skip


def owed(subscription: str, owed: int, received: int, carrier: str = "cmcc") -> dict:
    chunks = {"chunks_owed": 2, "chunks_received": 1, "chunks_parked": 1, "lane": "bulk"}
    return row(subscription, 0, carrier, **chunks, numbers_owed=owed, numbers_received=received)


def region(province: str, event_type: str, *counts: int) -> dict:
    names = ("numbers_owed", "numbers_received", "numbers_answered", "numbers_overdue")
    return {"province": province, "event_type": event_type, **dict(zip(names, counts, strict=True))}


LATE = START - timedelta(days=2)
ROWS: dict[str, list[dict]] = {
    "published": [
        {
            "carrier_id": "cmcc",
            "event_type": "release_scheduled",
            "lane": "bulk",
            "day": DAY,
            "chunks": 2,
            "numbers": 100,
        },
        {"carrier_id": "cucc", "event_type": "released", "lane": "live", "day": DAY, "chunks": 1, "numbers": 40},
    ],
    "provinces": [
        {"province": "广东", "event_type": "release_scheduled", "numbers": 50},
        {"province": "广东", "event_type": "released", "numbers": 40},
        {"province": "北京", "event_type": "release_scheduled", "numbers": 3},
    ],
    "regions": [
        region("广东", "release_scheduled", 100, 80, 50, 30),
        region("广东", "released", 80, 80, 0, 0),
        region("北京", "release_scheduled", 6, 6, 6, 0),
    ],
    "delivery": [owed("sub_bank", 100, 60), owed("sub_games", 100, 100), owed("sub_gone", 5, 5)],
    "answers": [
        row("sub_bank", 50, disposition="no_account"),
        row("sub_bank", 4, disposition="held_funds"),
        row("sub_games", 90, disposition="unbound"),
        row("sub_games", 7, disposition="failed_retryable"),
    ],
    "open": [
        {
            "subscription_id": "sub_bank",
            "event_type": "release_scheduled",
            "chunks_open": 1,
            "numbers_open": 46,
            "oldest_reported_at": LATE - timedelta(days=20),
            "overdue_chunks": 1,
            "oldest_due_at": LATE,
        },
        {
            "subscription_id": "sub_games",
            "event_type": "release_scheduled",
            "chunks_open": 1,
            "numbers_open": 3,
            "oldest_reported_at": START,
            "overdue_chunks": 0,
            "oldest_due_at": START + timedelta(days=20),
        },
    ],
    "clearances": [
        {"carrier_id": "cmcc", "judged_at": START, "batch_id": "b1", "go": 70, "go_with_exceptions": 5, "wait": 25},
        {"carrier_id": "cmcc", "judged_at": LATE, "batch_id": "b1", "go": 10, "go_with_exceptions": 0, "wait": 90},
        {"carrier_id": "cmcc", "judged_at": LATE, "batch_id": None, "go": 9, "go_with_exceptions": 0, "wait": 0},
    ],
    "batches": [{"carrier_id": "cmcc", "batches": 1, "rows_seen": 101, "rows_accepted": 100, "rows_refused": 1}],
    "renewals": [{"day": DAY, "requested": 2, "app_requests": 9}],
}


@pytest.fixture
async def world() -> World:
    made = World()
    made.party("cmcc", acting_for=("mvno",))
    made.app("bank", AppClass.bank)
    made.app("games", AppClass.games)
    made.asked = []  # type: ignore[attr-defined]

    async def report(name: str, **filters: str) -> list[dict]:
        made.asked.append((name, filters))  # type: ignore[attr-defined]
        whose = filters.get("subscriber_id", "").removeprefix("of-")
        carrier = filters.get("carrier_id")
        return [
            dict(found)
            for found in ROWS[name]
            if (not whose or found.get("subscription_id", f"sub_{whose}") == f"sub_{whose}")
            and (not carrier or found.get("carrier_id", "cmcc") == carrier)
        ]

    made.ledger.report = report  # type: ignore[attr-defined]
    await made.members.refresh()
    return made


def reporter(world: World) -> Report:
    return Report(world.ledger, world.members, world.fold, world.clock)  # type: ignore[arg-type]


def caller(party_id: str, role: Role) -> Principal:
    return Principal(party_id, role, SCOPES[role])


async def make(world: World, name: str, role: Role, party_id: str = "cmcc", **filters: Any) -> Table:
    return await reporter(world).make(caller(party_id, role), name, Filters(**filters))


async def test_every_report_names_its_watermark(world: World) -> None:
    """Log and catalogue positions, and the moment."""
    for name in NAMES:
        table = await make(world, name, Role.regulator)
        assert table.watermark.judged_at == START
        assert len(table.watermark.log_positions) == len(table.watermark.catalogue_positions) == 4
        assert all(set(found) >= set(table.columns) for found in table.rows), name


async def test_the_regulator_sees_all(world: World) -> None:
    """Carrier, subscriber and app; nothing is withheld; a receipt is in no column of answers."""
    delivery = await make(world, "delivery", Role.regulator)
    assert delivery.columns[:4] == ("carrier_id", "subscriber_id", "app_id", "app_class")
    assert {found["app_id"] for found in delivery.rows} == {"bank", "games", None}
    answers = await make(world, "answers", Role.regulator)
    assert not any("received" in column for column in answers.columns)
    assert {(f["disposition"], f["numbers"]) for f in answers.rows} >= {("held_funds", 4), ("unbound", 90)}
    assert answers.suppressed_below is None


async def test_a_carrier_sees_classes_and_standings_of_its_own_numbers(world: World) -> None:
    """No subscriber, no app, no disposition; small counts are withheld; also of the MVNO it acts for, of no other."""
    answers = await make(world, "answers", Role.carrier)
    assert answers.columns == ("app_class", "event_type", "day", "standing", "numbers")
    assert {(f["app_class"], f["standing"], f["numbers"]) for f in answers.rows} == {
        ("bank", "done", 50),
        ("bank", "held", None),
        ("games", "done", 90),
        ("games", "pending", None),
    }
    assert [limits["carrier_id"] for _, limits in world.asked] == ["cmcc", "mvno"]  # type: ignore[attr-defined]
    with pytest.raises(Forbidden):
        await make(world, "answers", Role.carrier, carrier="cucc")
    lateness = await make(world, "lateness", Role.carrier)
    assert "subscription_id" not in lateness.columns and "app_id" not in lateness.columns
    assert [(f["app_class"], f["numbers_open"]) for f in lateness.rows] == [("bank", 46), ("games", None)]


async def test_a_subscriber_sees_its_own_and_no_carrier(world: World) -> None:
    """Exact figures about itself; nothing by which carriers could be counted."""
    for name in ("summary", "delivery", "answers", "lateness"):
        table = await make(world, name, Role.subscriber, "of-bank")
        assert "carrier_id" not in table.columns and "numbers_published" not in table.columns
        assert table.rows and table.suppressed_below is None
        assert all(limits["subscriber_id"] == "of-bank" for _, limits in world.asked)  # type: ignore[attr-defined]
    for name in ("provinces", "batches", "clearances"):
        with pytest.raises(Forbidden):
            await make(world, name, Role.subscriber, "of-bank")
    with pytest.raises(Forbidden):
        await make(world, "delivery", Role.subscriber, "of-bank", carrier="cmcc")


async def test_an_operator_gets_no_small_counts(world: World) -> None:
    """Chunks are exact, counts of numbers below ten are withheld."""
    table = await make(world, "delivery", Role.operator)
    gone = next(found for found in table.rows if found["app_id"] is None)
    assert (gone["numbers_owed"], gone["chunks_owed"], table.suppressed_below) == (None, 2, 10)


async def test_the_summary_keeps_receipts_and_answers_apart(world: World) -> None:
    """By event type: published, owed, received, answered, and what was answered."""
    table = await make(world, "summary", Role.regulator)
    found = {f["event_type"]: f for f in table.rows}["release_scheduled"]
    assert found["numbers_published"] == 100
    assert (found["pairs_owed"], found["pairs_received"], found["pairs_answered"]) == (205, 165, 151)
    assert (found["done"], found["held"], found["failed"], found["pending"]) == (140, 4, 0, 7)
    only = await make(world, "summary", Role.regulator, event_type="released")
    assert [f["event_type"] for f in only.rows] == ["released"]


async def test_lateness_is_worst_first(world: World) -> None:
    """By how much, not only whether."""
    table = await make(world, "lateness", Role.regulator)
    assert [(f["app_id"], f["late_seconds"]) for f in table.rows] == [("bank", 2 * 86_400), ("games", 0)]


async def test_wrong_questions(world: World) -> None:
    """No such report; days the wrong way round."""
    with pytest.raises(NotFound):
        await make(world, "secrets", Role.regulator)
    with pytest.raises(InvalidRequest):
        await make(world, "summary", Role.regulator, since=date(2026, 2, 2), until=date(2026, 2, 1))


async def test_provinces_tell_how_far_their_pairs_have_come(world: World) -> None:
    """The regulator reads the country exactly; a narrower question names no province of fewer than ten numbers."""
    whole = await make(world, "provinces", Role.regulator)
    assert [tuple(row.values()) for row in whole.rows] == [("广东", 90, 180, 160, 50, 30), ("北京", 3, 6, 6, 6, 0)]
    for narrower in ({"event_type": "release_scheduled"}, {"carrier": "cmcc"}, {"since": date(2026, 1, 1)}):
        table = await make(world, "provinces", Role.regulator, **narrower)
        assert [row["province"] for row in table.rows] == [OTHERS], narrower
    scheduled = await make(world, "provinces", Role.regulator, event_type="release_scheduled")
    assert [tuple(row.values()) for row in scheduled.rows] == [(OTHERS, 53, 106, 86, 56, 30)]
    assert [row["province"] for row in (await make(world, "provinces", Role.operator)).rows] == [OTHERS]


def test_small_provinces_are_pooled_until_ten() -> None:
    """None is lost from the totals, none below ten is named, and one alone takes the next smallest with it."""

    def counted(**numbers: int) -> dict[str, int]:
        zeros = dict.fromkeys(("pairs_owed", "pairs_received", "pairs_answered", "pairs_overdue"), 0)
        rows = [{"province": name, "numbers_published": count, **zeros} for name, count in numbers.items()]
        return {row["province"]: row["numbers_published"] for row in pooled(rows)}

    assert counted(a=10, b=11) == {"a": 10, "b": 11}
    assert counted(a=9, b=9, c=50) == {"c": 50, OTHERS: 18}
    assert counted(a=3, b=50, c=60) == {"c": 60, OTHERS: 53}
    assert counted(a=3) == {OTHERS: 3}
    assert counted() == {}


async def test_a_filter_that_a_report_does_not_know_is_refused(world: World) -> None:
    """A figure that ignored it would be wrong."""
    for name in ("batches", "clearances"):
        for filters in ({"app_class": "bank"}, {"event_type": "released"}):
            with pytest.raises(InvalidRequest):
                await make(world, name, Role.regulator, **filters)


async def test_the_overview_adds_up(world: World) -> None:
    """The funnel only narrows, and every breakdown sums to it."""
    seen = await reporter(world).overview()
    pairs, numbers = seen["funnel"]["pairs"], seen["funnel"]["numbers"]
    assert pairs == {"published": 205, "delivered": 165, "answered": 151, "final": 144}
    assert numbers == {"published": 140, "scheduled": 100, "cleared": 75, "released": 40}
    for part in ("days", "event_types", "carriers"):
        assert sum(f["owed"] for f in seen[part]) == pairs["published"]
        assert sum(f["answered"] for f in seen[part]) == pairs["answered"]
    assert [(f["app_id"], f["late_seconds"]) for f in seen["late"]] == [("bank", 2 * 86_400)]
    assert sum(f["numbers"] for f in seen["dispositions"]) == pairs["answered"]
    assert seen["watermark"]["judged_at"] == START
    assert seen["provinces"] == [{"province": "广东", "numbers": 90}, {"province": "北京", "numbers": 3}]
    assert [row["carrier_name"] for row in seen["clearances"]] == [row["carrier_id"] for row in seen["clearances"]]
    for found in seen["classes"]:
        assert found["answered"] <= found["asked"] <= found["owed"] and found["reached"] <= found["delivered"]
    assert {f["app_class"]: f["delivered"] for f in seen["classes"]} == {"bank": 60, "games": 100}


async def test_the_overview_of_an_empty_hub(world: World) -> None:
    """Zeros and empty lists, no error."""

    async def nothing(name: str, **_: str) -> list[dict]:
        return []

    world.ledger.report = nothing  # type: ignore[attr-defined]
    seen = await reporter(world).overview(date(2026, 1, 1), date(2026, 1, 2))
    assert set(seen["funnel"]["pairs"].values()) == {0}
    assert seen["late"] == seen["days"] == seen["carriers"] == []


def test_rows_are_added_up_in_their_order() -> None:
    """Sums, and the oldest of moments; None is nothing."""
    rows = [{"a": "y", "n": 2, "t": 5}, {"a": "x", "n": 1, "t": None}, {"a": "y", "n": 3, "t": 4}]
    assert grouped(rows, ("a",), ("n",), ("t",)) == [{"a": "x", "n": 1, "t": None}, {"a": "y", "n": 5, "t": 4}]


def test_no_csv_cell_is_a_formula() -> None:
    """What a spreadsheet would run is made a text; withheld counts say so; commas and quotes are escaped."""
    names = ("=1+1", "+1", "-1", "@x", "\tx", 'a,"b"')
    rows = [{"app_id": name, "numbers": None, "oldest_due_at": None} for name in names]
    table = Table("t", Watermark(START, (0,), (0,), 0), ("app_id", "numbers", "oldest_due_at"), rows, 10)
    lines = to_csv(table).split("\r\n")
    assert lines[0] == "app_id,numbers,oldest_due_at"
    assert lines[1:6] == [f"'{name},<10," for name in names[:5]]
    assert lines[6] == '"a,""b""",<10,'
