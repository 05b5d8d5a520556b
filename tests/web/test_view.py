"""What the page says, made from the figures; no HTTP."""

from __future__ import annotations

import string
from datetime import timedelta

import pytest

from hub.domain.dispositions import Disposition
from hub.domain.events import EventType
from hub.domain.parties import AppClass, SubscriptionState
from hub.web import texts
from hub.web.texts import Texts, share
from hub.web.view import build
from tests.web_world import PROVINCES, Rows, example_rows, example_waivers, make_world

SUBSCRIPTION = "sub_bank-sunrise"
ABOUT = {"carrier_id": "cmcc", "event_type": "release_scheduled", "lane": "bulk", "day": "2026-03-18"}


def rows(delivered: int = 0, answered: int = 0, published: int = 100) -> Rows:
    found = {name: [] for name in example_rows(days=0)} | {
        "published": [{**ABOUT, "chunks": 1, "numbers": published}],
        "delivery": [
            {
                "subscription_id": SUBSCRIPTION,
                **ABOUT,
                "chunks_owed": 1,
                "chunks_received": 0,
                "chunks_parked": 0,
                "numbers_owed": published,
                "numbers_received": delivered,
            }
        ],
    }
    if answered:
        found["answers"] = [
            {**ABOUT, "subscription_id": SUBSCRIPTION, "disposition": "no_account", "numbers": answered}
        ]
    return found


async def view_of(given: Rows, language: str = "en", withhold: bool = False) -> dict:
    world = await make_world(given)
    return build(await world.app.state.context.report.overview(), Texts(language), withhold=withhold)


async def test_a_receipt_is_never_a_disposition() -> None:
    """Everything delivered and nothing answered: delivered 100 %, answered 0, no disposition listed anywhere."""
    view = await view_of(rows(delivered=100))
    assert (view["cells"]["delivered"], view["cells"]["delivered.share"]) == ("100", "100%")
    assert (view["cells"]["answered"], view["cells"]["answered.share"]) == ("0", "0.0%")
    assert view["tables"]["mix"] == [] and view["charts"]["mix"] is None
    stages = {bar["name"]: bar["customdata"] for bar in view["charts"]["classes"]["data"]}
    assert stages["Delivered, no answer"] == [100] and stages["Done"] == [0]


async def test_an_answer_counts_although_its_receipt_is_not_there_yet() -> None:
    """Stages still add up to what is owed when an answer overtook the receipt."""
    view = await view_of(rows(delivered=0, answered=60))
    stages = {bar["name"]: bar["customdata"][0] for bar in view["charts"]["classes"]["data"]}
    assert stages == {
        "Done": 60, "Held": 0, "Failed": 0, "Answered, not final": 0, "Delivered, no answer": 0, "Not delivered": 40,
    }  # fmt: skip
    assert view["cells"]["delivered"] == "0"


async def test_events_that_only_inform_do_not_wait_for_answers() -> None:
    """The share of answers is taken of the pairs that ask for one."""
    given = rows(delivered=100, answered=50)
    given["delivery"].append({**given["delivery"][0], "event_type": "released"})
    view = await view_of(given)
    assert view["cells"]["delivered.more"] == "of 200 pairs owed"
    assert view["cells"]["answered.share"] == "50.0%"


async def test_small_counts_are_withheld_from_the_operator() -> None:
    """Below ten pairs an operator sees that there are some, the regulator sees how many."""
    given = rows(delivered=9, answered=4)
    assert (await view_of(given))["cells"]["answered"] == "4"
    hidden = await view_of(given, withhold=True)
    assert (hidden["cells"]["delivered"], hidden["cells"]["answered"]) == ("<10", "<10")
    assert hidden["tables"]["mix"][0]["cells"][2:] == ["<10", "–"]
    assert hidden["tables"]["classes"][0]["cells"][2:4] == ["<10", "–"]
    assert hidden["charts"]["mix"] is None


@pytest.mark.parametrize("language", texts.LANGUAGES)
async def test_nothing_at_all_is_a_view_too(language: str) -> None:
    """Before the first batch every table is empty, every chart absent, every number 0."""
    world = await make_world()
    view = build(await world.app.state.context.report.overview(), Texts(language))
    assert view["empty"]
    assert set(view["charts"].values()) == {None}
    assert not any(view["tables"].values())
    assert view["cells"]["published"] == "0"


async def test_rows_have_as_many_cells_as_the_table_has_columns() -> None:
    """The template's columns and the view's cells agree, for every table and language."""
    world = await make_world(example_rows(days=3))
    world.ledger.signed = example_waivers()
    view = build(await world.app.state.context.report.overview(), Texts("en"))
    widths = {name: {len(row["cells"]) for row in rows} for name, rows in view["tables"].items()}
    assert widths == {
        "late": {9}, "days": {9}, "mix": {4}, "provinces": {3}, "classes": {8}, "apps": {9}, "events": {9},
        "carriers": {12}, "clearances": {6}, "waivers": {6},
    }  # fmt: skip


async def test_the_watermark_tells_when_the_figures_lag_behind_the_log() -> None:
    """Listed up to 1,000 of 1,234 records: both positions stand there."""
    world = await make_world(rows())
    world.ledger.listed = {0: 700, 1: 300}
    view = build(await world.app.state.context.report.overview(), Texts("en"))
    assert view["watermark"] == "As of 2026-03-20 14:30:00 China time, log position 1,000 / 1,234"


def test_every_domain_value_has_a_name_in_both_languages() -> None:
    """No code of the program shows through on the page."""
    families = {
        "event": [e.value for e in EventType],
        "class": [c.value for c in AppClass],
        "disposition": [d.value for d in Disposition],
        "standing": [d.standing.name for d in Disposition],
        "state": [s.value for s in SubscriptionState if s is not SubscriptionState.deleted],
        "province": list(PROVINCES),
    }
    missing = [f"{f}.{v}" for f, values in families.items() for v in values if f"{f}.{v}" not in texts._TEXTS]
    assert missing == []


def test_both_languages_take_the_same_values() -> None:
    """A text's placeholders are the same in Chinese and in English."""
    for key, versions in texts._TEXTS.items():
        first, second = ({name for _, name, _, _ in string.Formatter().parse(text) if name} for text in versions)
        assert first == second, key
        assert all(versions), key


@pytest.mark.parametrize(
    ("part", "whole", "shown"),
    [(0, 0, "–"), (0, 5, "0.0%"), (1, 3, "33.3%"), (9_999, 10_000, "99.9%"), (5, 5, "100%"), (1, 100_000, "<0.1%")],
)
def test_shares_are_never_rounded_up(part: int, whole: int, shown: str) -> None:
    """100 % is said only when nothing is missing."""
    assert share(part, whole) == shown


@pytest.mark.parametrize(
    ("span", "shown"),
    [
        (timedelta(minutes=5), "5 min"),
        (timedelta(hours=3, minutes=7), "3 h 7 min"),
        (timedelta(days=12, hours=2), "12 d 2 h"),
    ],
)
def test_spans_read_well(span: timedelta, shown: str) -> None:
    """Lateness in the two units that matter."""
    assert Texts("en").span(span) == shown
