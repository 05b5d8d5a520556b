"""Holder renewals over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from hub.domain.dispositions import Disposition
from hub.domain.events import EventType
from hub.ports.log import Header
from tests.api.judgement_door import OWN, Court, open_court
from tests.intake_world import NOW


@pytest.fixture
async def court(tmp_path: Path) -> AsyncIterator[Court]:
    async with open_court(tmp_path / "hub") as opened:
        yield opened


def wish(number: int = OWN, **more: Any) -> dict[str, Any]:
    since = (NOW - timedelta(days=20)).isoformat()
    good = {"number": f"+86{number}", "activated_at": since, "apps": ["bank", "games"], "consent_sha256": "c" * 64}
    return good | more


async def test_from_the_key_to_the_last_answer(court: Court) -> None:
    """Queued, sent, clear: the holder sees each app's state and a next step where something is left to do."""
    made = await court.post("/v1/renewals", wish(), idempotency_key='"k1"')
    assert made.status_code == 202, made.text
    told = made.json()
    assert (told["state"], told["number"], told["due_at"]) == ("submitted", "138****8000", "2026-04-09T15:59:59Z")
    assert [app["state"] for app in told["apps"]] == ["queued", "queued"]
    path = made.headers["location"]
    await court.say("games", None)
    assert [app["state"] for app in (await court.get(path)).json()["apps"]] == ["queued", "sent"]
    await court.say("games", Disposition.no_account)
    await court.say("bank", None, {OWN: Disposition.held_debt})
    seen = (await court.get(path)).json()
    assert seen["state"] == "completed_with_exceptions"
    bank, games = seen["apps"]
    assert (bank["state"], bank["reason"], bank["review_at"] is not None) == ("held", "held_debt", True)
    assert "debt" in bank["next_step"]
    assert (games["state"], games["reason"], games["next_step"]) == ("clear", None, None)
    await court.say("bank", Disposition.unbound)
    assert (await court.get(path)).json()["state"] == "completed"
    [(record, chunk)] = await court.intake.chunks()
    assert record.headers[Header.renewal] == told["renewal_id"]
    assert chunk.renewal is not None and chunk.renewal["consent_digest"] == "c" * 64


async def test_pressing_twice(court: Court) -> None:
    """The same key is the same renewal; another key within a day cools down; the key for another wish is refused."""
    first = await court.post("/v1/renewals", wish(), idempotency_key='"k1"')
    assert (await court.post("/v1/renewals", wish(), idempotency_key='"k1"')).json() == first.json()
    other = await court.post("/v1/renewals", wish(), idempotency_key='"k2"')
    assert (other.status_code, other.json()["code"]) == (409, "renewal_cooling_down")
    mixed = await court.post("/v1/renewals", wish(OWN + 1), idempotency_key='"k1"')
    assert mixed.json()["code"] == "idempotency_mismatch"
    assert len(await court.intake.records()) == 1


async def test_what_is_refused(court: Court) -> None:
    """Each with its code; no number is echoed; nothing is appended."""
    await court.schedule([OWN + 5])
    before = len(await court.intake.records())
    later = (NOW + timedelta(days=1)).isoformat()
    for body, status, code in (
        (wish("12"), 422, "invalid_number"),
        (wish(apps=["bank", "nosuch"]), 422, "invalid_request"),
        (wish(apps=[]), 422, "invalid_request"),
        (wish(activated_at=later), 422, "future_time"),
        (wish(consent_sha256="x"), 422, "invalid_request"),
        (wish(OWN + 5), 409, "lifecycle_conflict"),
        (wish(acting_for="cucc"), 403, "forbidden"),
        (wish(extra=1), 422, "invalid_request"),
    ):
        answer = await court.post("/v1/renewals", body, idempotency_key='"k1"')
        assert (answer.status_code, answer.json()["code"]) == (status, code), body
        assert "138001380" not in answer.text
    assert (await court.post("/v1/renewals", wish(), "cucc", idempotency_key='"k"')).json()["code"] == "foreign_block"
    assert (await court.post("/v1/renewals", wish())).json()["code"] == "idempotency_key_missing"
    assert (await court.post("/v1/renewals", wish(), "of-bank", idempotency_key='"k"')).status_code == 403
    assert len(await court.intake.records()) == before


async def test_all_apps_and_the_catalogue(court: Court) -> None:
    """`all` names every app of the catalogue; carriers and subscribers may read it."""
    apps = (await court.get("/v1/apps")).json()["apps"]
    assert apps[0] == {"app_id": "bank", "name": "Bank", "app_class": "bank"}
    assert (await court.get("/v1/apps", "of-bank")).status_code == 200
    assert (await court.get("/v1/apps", "miit")).status_code == 403
    made = await court.post("/v1/renewals", wish(apps="all"), idempotency_key='"k1"')
    assert [app["app_id"] for app in made.json()["apps"]] == ["bank", "games"]


async def test_only_the_carrier_that_asked_reads_it(court: Court) -> None:
    """For everybody else it does not exist."""
    made = await court.post("/v1/renewals", wish(), idempotency_key='"k1"')
    path = made.headers["location"]
    assert (await court.get(path, "cucc")).status_code == 404
    assert (await court.get(path, "of-bank")).status_code == 403
    assert (await court.get("/v1/renewals/ren_unknown")).status_code == 404


async def test_a_renewal_after_a_reassignment_keeps_the_generation(court: Court) -> None:
    """The record stands in the new holder's generation, with the activation as cutoff."""
    sold = [f"{OWN},{(NOW - timedelta(days=20)).isoformat()}"]
    await court.intake.send(sold, header="number,occurred_at", event=EventType.owner_transferred)
    made = await court.post("/v1/renewals", wish(), idempotency_key='"k1"')
    assert made.status_code == 202, made.text
    (_, chunk) = (await court.intake.chunks())[-1]
    assert (chunk.generation.tolist(), chunk.seq.tolist()) == ([1], [2])
