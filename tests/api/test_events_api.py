"""Single events over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from hub.domain.events import EventType
from hub.domain.lifecycle import Phase
from hub.flow.ingest.events import Item
from hub.ports.log import Header
from tests.api.intake_door import open_intake_door
from tests.intake_world import DAY, NOW, NOW_EPOCH, Intake

OWN = 13_800_138_000
Door = tuple[Intake, httpx.AsyncClient]


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_intake_door(tmp_path / "hub") as opened:
        yield opened


def event(number: int | str = OWN, kind: str = "deactivated", days_ago: float = 1, **more: Any) -> dict[str, Any]:
    at = (NOW - timedelta(days=days_ago)).isoformat()
    return {"number": f"+86{number}", "event_type": kind, "occurred_at": at} | more


async def publish(client: httpx.AsyncClient, *events: dict[str, Any], key: str = "a", **headers: str) -> httpx.Response:
    headers = {"idempotency-key": f'"{key}"'} | headers
    return await client.post("/v1/events", json={"events": list(events)}, headers=headers)


async def test_accepted_means_in_the_log(door: Door) -> None:
    """202 with the id under which the record stands in the log, in the live lane, folded."""
    intake, client = door
    answer = await publish(client, event(terminate_reason="arrears"))
    assert answer.status_code == 202
    body = answer.json()
    assert (body["accepted"], body["refused"]) == (1, 0)
    ((record, chunk),) = await intake.chunks()
    assert record.record_id == body["results"][0]["event_id"]
    assert record.headers[Header.lane] == "live" and record.headers[Header.carrier] == "cmcc"
    assert chunk.numbers.tolist() == [OWN] and chunk.reason is not None and chunk.reason.tolist() == [2]
    assert chunk.binding_cutoff_at.tolist() == [NOW_EPOCH - DAY]
    assert intake.state(OWN)["phase"] == Phase.frozen


async def test_items_have_their_own_verdicts(door: Door) -> None:
    """Refused items say why; the others are in the log; the answer keeps the order of the request."""
    intake, client = door
    answer = await publish(
        client,
        event(OWN),
        event("12345"),
        event(13_010_000_000),
        event(OWN + 1, "renewal_requested"),
        event(OWN + 2, "release_scheduled"),
        event(OWN + 3, days_ago=-3),
        event(OWN + 4),
        event(15_400_000_000),
        event(OWN + 5, "restored"),
    )
    results = answer.json()["results"]
    assert [result["reason"] for result in results] == [
        None, "invalid_number", "foreign_block", "invalid_value", "missing_field", "future_time", None,
        "no_such_block", "lifecycle_conflict",
    ]  # fmt: skip
    assert all(result["detail"] for result in results if result["status"] == "refused")
    assert await intake.accepted() == [(OWN, "deactivated"), (OWN + 4, "deactivated")]


async def test_items_about_one_number_are_taken_in_order(door: Door) -> None:
    """Each is judged after the one before it."""
    intake, client = door
    answer = await publish(
        client,
        event(kind="deactivated", days_ago=5),
        event(OWN + 1),
        event(kind="restored", days_ago=4),
        event(kind="restored", days_ago=4),
        event(kind="deactivated", days_ago=3),
        event(kind="release_scheduled", days_ago=2),
    )
    assert [result["reason"] for result in answer.json()["results"]] == [
        None,
        None,
        None,
        "lifecycle_conflict",
        None,
        None,
    ]
    state = intake.state(OWN)
    assert (state["phase"], state["seq"], state["ended_at"]) == (Phase.clearing, 4, NOW_EPOCH - 3 * DAY)


async def test_a_repeated_call_changes_nothing(door: Door) -> None:
    """The same key and body: the same ids, nothing appended; another body under the key is refused as a whole."""
    intake, client = door
    body = [event(OWN + place) for place in range(20)]
    first, second = await publish(client, *body), await publish(client, *body)
    assert first.json() == second.json() and first.json()["accepted"] == 20
    assert len(await intake.records()) == 20
    changed = await publish(client, *body[:5], event(OWN + 30), *body[6:], event(OWN + 31))
    assert (changed.status_code, changed.json()["code"]) == (422, "idempotency_mismatch")
    assert len(await intake.records()) == 20
    other = await publish(client, *body, key="b")
    assert {result["reason"] for result in other.json()["results"]} == {"duplicate"}


async def test_the_same_call_twice_at_once(door: Door) -> None:
    """One of them works, the other is told to wait or finds it done."""
    intake, client = door
    answers = await asyncio.gather(*(publish(client, event()) for _ in range(5)))
    assert sorted({answer.status_code for answer in answers}) in ([202], [202, 409])
    assert len(await intake.records()) == 1


async def test_racing_calls_leave_one_truth(door: Door) -> None:
    """Twenty calls write the same number at once: one wins, the others are refused, the log holds one event."""
    intake, client = door
    answers = await asyncio.gather(*(publish(client, event(), key=f"k{place}") for place in range(20)))
    results = [answer.json()["results"][0] for answer in answers]
    assert sum(result["status"] == "accepted" for result in results) == 1
    assert {result["reason"] for result in results} == {None, "duplicate"}
    assert len(await intake.records()) == 1


async def test_a_rival_comes_first(door: Door) -> None:
    """A void record is judged anew: refused if the rival said the same, appended behind it if there is still room."""
    intake, client = door
    await intake.steal("cmcc", [Item(OWN, EventType.deactivated, NOW_EPOCH - DAY)])
    answer = await publish(client, event(), event(OWN + 1))
    assert [result["reason"] for result in answer.json()["results"]] == ["duplicate", None]

    await intake.steal("cmcc", [Item(OWN, EventType.restored, NOW_EPOCH)])
    answer = await publish(client, event(kind="release_scheduled", days_ago=0), key="b")
    assert answer.json()["results"][0]["reason"] == "lifecycle_conflict"

    await intake.steal("cmcc", [Item(OWN + 5, EventType.owner_transferred, NOW_EPOCH - DAY)])
    answer = await publish(client, event(OWN + 5, "owner_transferred", days_ago=0), key="c")
    assert answer.json()["accepted"] == 1 and intake.state(OWN + 5)["generation"] == 2


async def test_released_asks_for_clearance(door: Door) -> None:
    """Not cleared is refused and may be sent again."""
    intake, client = door
    ended = (NOW - timedelta(days=120)).isoformat()
    await publish(client, *(event(OWN + place, "release_scheduled", terminated_at=ended) for place in range(2)))
    intake.not_cleared.add(OWN)
    answer = await publish(client, *(event(OWN + place, "released", days_ago=0) for place in range(2)), key="b")
    first, second = answer.json()["results"]
    assert (first["reason"], first["retriable"], second["status"]) == ("not_cleared", True, "accepted")


async def test_for_an_mvno(door: Door) -> None:
    """The record names the MVNO; acting for somebody without being enrolled refuses that item alone."""
    intake, client = door
    answer = await publish(client, event(17_050_000_000, acting_for="mvno-a"))
    assert answer.json()["accepted"] == 1
    (record,) = await intake.records()
    assert record.headers[Header.carrier] == "mvno-a"
    mixed = await publish(client, event(acting_for="cucc"), event(17_050_000_001, acting_for="mvno-a"), key="b")
    stranger, mvno = mixed.json()["results"]
    assert (stranger["status"], stranger["reason"]) == ("refused", "not_acting_for")
    assert mvno["status"] == "accepted"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"events": []}, 422),
        ({"events": [event()] * 1001}, 422),
        ({"events": [event() | {"name": "x"}]}, 422),
        ({"events": [event() | {"occurred_at": "2026-01-01"}]}, 422),
        ({"events": [event() | {"occurred_at": 1}]}, 422),
        ({"events": [event() | {"number": 13800138000}]}, 422),
        ({"events": [event() | {"event_type": "lost"}]}, 422),
        ({"events": [{"number": "13800138000"}]}, 422),
        ([], 422),
    ],
)
async def test_bodies_that_do_not_fit(door: Door, body: Any, status: int) -> None:
    """Refused as a whole with a problem document that repeats nothing of what was sent."""
    intake, client = door
    answer = await client.post("/v1/events", json=body, headers={"idempotency-key": '"a"'})
    assert answer.status_code == status
    assert "13800138000" not in answer.text
    assert await intake.records() == []


async def test_keys_belong_to_one_carrier(door: Door) -> None:
    """The same key of another carrier is another call."""
    _, client = door
    mine = await publish(client, event())
    theirs = await publish(client, event(13_010_000_000), authorization="Bearer cucc")
    assert theirs.json()["accepted"] == 1
    assert mine.json()["results"][0]["event_id"] != theirs.json()["results"][0]["event_id"]


async def test_a_key_is_never_continued_with_other_items(door: Door) -> None:
    """The same first item with another one behind it is another request: refused as a whole, nothing appended."""
    intake, client = door
    assert (await publish(client, event())).status_code == 202
    longer = await publish(client, event(), event(OWN + 1))
    assert (longer.status_code, longer.json()["code"]) == (422, "idempotency_mismatch")
    assert await intake.accepted() == [(OWN, "deactivated")]


async def test_who_is_not_known_learns_nothing_else(door: Door) -> None:
    """Without a token the answer is 401, whatever else is wrong with the request."""
    _, client = door
    for path in ("/v1/events", "/v1/batches"):
        answer = await client.post(path, json={}, headers={"authorization": "Bearer nobody"})
        assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
