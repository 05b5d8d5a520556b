"""A night's file on its whole way: ten thousand numbers, three apps, one of them down for two days, and what the
regulator sees at the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from numhub_client import AsyncClient

from hub.domain.parties import AppClass
from tests.acceptance.conftest import Stack
from tests.factories import TODAY, holds, night_file, release_file, town

COUNT = 10_000
FIRST = 13_800_000_000
NUMBERS = [FIRST + 731 * place for place in range(COUNT)]  # over all partitions
RESTED = 8_000  # their freeze is over; the others' is not
HELD = NUMBERS[:40]  # money lies on these accounts
MINE = NUMBERS[40:200]
STILL_RESTING = NUMBERS[RESTED:]


def ended(place: int) -> datetime:
    return TODAY - timedelta(days=100 if place < RESTED else 30)


async def test_a_night_file_is_delivered_answered_cleared_released_and_reported(tmp_path: Path, stack: Stack) -> None:
    """10,000 numbers reach three apps, one of them two days late; clearance says go where the rest is over, wait where
    it is not, go with exceptions where money is held; releases follow it; the regulator's figures add up."""
    await the_night(tmp_path, stack, _nothing)


async def _nothing(chapter: int) -> None:
    """What happens behind the story's back between two chapters, when nothing does."""


async def the_night(home: Path, stack: Stack, between: Callable[[int], Awaitable[None]], **more: Any) -> None:
    """The whole story; ``between`` is called after each of its chapters, from 1 on."""
    review_at = TODAY + timedelta(days=60)
    async with town(home, **stack, **more) as place:
        carrier, regulator = await place.carrier("cmcc"), await place.regulator()
        bank = await place.app(
            "bank",
            AppClass.bank,
            handle=holds(dict.fromkeys(HELD, "held_funds") | dict.fromkeys(MINE, "unbound"), review_at=review_at),
        )
        mail = await place.app("mail", AppClass.social_mail, mode="webhook_pointer")
        shop = await place.app("shop", AppClass.e_commerce, mode="pull", handle=holds({NUMBERS[5]: "unbound"}))
        mail.up = False

        content = night_file(
            [(number, ended(n)) for n, number in enumerate(NUMBERS)],
            f"123,{TODAY.isoformat()}",
            f"{NUMBERS[0]},{ended(0).isoformat()}",
        )
        batch = await carrier.batches.upload(content, format="csv", batch_seq=1)
        assert (batch.rows_seen, batch.rows_accepted, batch.rows_refused) == (COUNT + 2, COUNT, 2)
        refused = {row.line: row.reason for row in await carrier.batches.result(batch.batch_id)}
        assert refused == {COUNT + 2: "invalid_number", COUNT + 3: "duplicate"}
        await between(1)

        await shop.pull()
        await place.quiet([bank, shop], "release_scheduled", COUNT)
        waiting = await carrier.clearance.batch(batch.batch_id)
        assert (waiting.go, waiting.go_with_exceptions, waiting.wait) == (0, 0, COUNT)
        assert waiting.waiting_for == {"answers_pending": COUNT, "freeze": COUNT - RESTED}  # one is silent: no answer
        await between(2)

        await place.later(timedelta(days=2), steps=60)
        assert mail.attempts > 8 and not mail.got
        parked = (await mail.client.subscriptions.get(mail.subscription_id)).parked
        assert parked == 0  # two days are within the schedule
        mail.up = True
        await place.later(timedelta(hours=11), steps=30)
        await place.quiet([mail], "release_scheduled", COUNT)

        for app in (bank, mail, shop):
            assert app.numbers("release_scheduled") == NUMBERS  # each exactly once
        bodies = [{got.chunk_id: got.body for got in app.got} for app in (bank, mail)]
        assert bodies[0] == bodies[1]  # the same bytes for everybody
        assert {got.chunk_id for got in shop.got} == set(bodies[0])

        told = await carrier.clearance.batch(batch.batch_id, detail="not_go")
        assert (told.go, told.go_with_exceptions, told.wait) == (RESTED - len(HELD), len(HELD), COUNT - RESTED)
        assert told.waiting_for == {"freeze": COUNT - RESTED}
        exceptions = [number for number in told.numbers if number.verdict == "go_with_exceptions"]
        assert {classes for number in exceptions for classes in number.app_classes} == {"bank"}
        assert all("*" in number.number for number in told.numbers)
        await between(3)

        # On sale: what is clear is released, what still rests is refused for its own reason.
        tried = NUMBERS[: RESTED + 5]
        at = place.clock.now()
        sold = await carrier.batches.upload(release_file(tried, at), format="csv", batch_seq=2, event_type="released")
        assert (sold.rows_accepted, sold.rows_refused) == (RESTED, 5)
        assert {reason.reason for reason in sold.reasons} == {"freeze_too_short"}
        again = await carrier.clearance.numbers([str(NUMBERS[0]), str(NUMBERS[-1])])
        assert [number.reasons for number in again.numbers] == [("already_released",), ("freeze",)]

        # Sixty days on, the others are through as well.
        await place.later(timedelta(days=61))
        rest = await carrier.clearance.numbers([str(number) for number in STILL_RESTING])
        assert (rest.go, rest.wait) == (COUNT - RESTED, 0)

        await shop.pull()
        await place.quiet([bank, mail, shop], "released", RESTED)
        await the_figures_add_up(regulator)


async def the_figures_add_up(regulator: AsyncClient) -> None:
    """Every figure of the regulator equals what was seen from outside."""
    summary = await regulator.reports.get("summary")
    by_type = {row["event_type"]: row for row in summary["rows"]}
    scheduled = by_type["release_scheduled"]
    assert scheduled["numbers_published"] == COUNT
    assert scheduled["pairs_owed"] == scheduled["pairs_received"] == scheduled["pairs_answered"] == 3 * COUNT
    assert (scheduled["done"], scheduled["held"]) == (3 * COUNT - len(HELD), len(HELD))
    assert by_type["released"]["pairs_received"] == 3 * RESTED
    answers = await regulator.reports.get("answers", event_type="release_scheduled")
    by_app: Counter[tuple[str, str]] = Counter()
    for row in answers["rows"]:
        by_app[row["app_id"], row["disposition"]] += row["numbers"]
    assert by_app == {
        ("bank", "held_funds"): len(HELD),
        ("bank", "unbound"): len(MINE),
        ("bank", "no_account"): COUNT - len(HELD) - len(MINE),
        ("mail", "no_account"): COUNT,
        ("shop", "unbound"): 1,
        ("shop", "no_account"): COUNT - 1,
    }
    provinces = await regulator.reports.get("provinces")
    assert sum(row["numbers_published"] for row in provinces["rows"]) == COUNT + RESTED
    text = await regulator.reports.csv("delivery")
    assert text.splitlines()[0].startswith("carrier_id,")
