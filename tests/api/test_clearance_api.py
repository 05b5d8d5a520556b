"""Clearance and waivers over HTTP, on the real ledger, log and index."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hub.domain.dispositions import Disposition
from tests.api.judgement_door import OWN, Court, open_court

NUMBERS = [OWN, OWN + 1, OWN + 2]


@pytest.fixture
async def court(tmp_path: Path) -> AsyncIterator[Court]:
    async with open_court(tmp_path / "hub") as opened:
        yield opened


async def test_a_batch_from_silence_to_go(court: Court) -> None:
    """Nobody answered: wait. All answered, one holds funds: go, one with an exception; no app is named."""
    batch_id = await court.schedule(NUMBERS)
    silent = (await court.get(f"/v1/batches/{batch_id}/clearance")).json()
    assert (silent["go"], silent["wait"], silent["waiting_for"]) == (0, 3, {"answers_pending": 3})
    await court.say("games", Disposition.no_account)
    await court.say("bank", Disposition.no_account, {OWN + 1: Disposition.held_funds})
    answer = await court.get(f"/v1/batches/{batch_id}/clearance", detail="not_go")
    told = answer.json()
    assert (told["go"], told["go_with_exceptions"], told["wait"]) == (2, 1, 0)
    assert told["numbers"] == [
        {
            "index": 1,
            "number": "138****8001",
            "verdict": "go_with_exceptions",
            "until": None,
            "reasons": [],
            "app_classes": ["bank"],
        }
    ]
    assert "sub_" not in answer.text and "of-bank" not in answer.text and str(OWN + 1) not in answer.text
    proofs = await court.intake.ledger.report("clearances")
    assert sorted((p["go"], p["go_with_exceptions"], p["wait"]) for p in proofs) == [(0, 0, 3), (2, 1, 0)]


async def test_numbers_are_judged_one_by_one(court: Court) -> None:
    """A freeze that runs, an unknown number, another carrier's and an unreadable one; none sinks the others."""
    await court.schedule(NUMBERS[:1])
    await court.schedule(NUMBERS[1:2], days_ago=80, seq=2)
    await court.say("games", Disposition.no_account)
    await court.say("bank", Disposition.unbound)
    asked = [f"+86{OWN}", str(OWN + 1), str(OWN + 2), "no number"]
    answer = await court.post("/v1/clearance", {"numbers": asked})
    assert answer.status_code == 200
    told = answer.json()["numbers"]
    assert [one["verdict"] for one in told] == ["go", "wait", "wait", "wait"]
    assert [one["reasons"] for one in told] == [[], ["freeze"], ["unknown_number"], ["invalid_number"]]
    assert told[1]["until"] == "2026-04-11T16:00:00Z"
    assert [one["number"] for one in told] == ["138****8000", "138****8001", "138****8002", ""]
    foreign = (await court.post("/v1/clearance", {"numbers": asked[:1]}, "cucc")).json()
    assert foreign["numbers"][0]["reasons"] == ["unknown_number"]


async def test_who_may_ask(court: Court) -> None:
    """Another carrier's batch is not found; subscribers and regulators have no such scope."""
    batch_id = await court.schedule(NUMBERS)
    assert (await court.get(f"/v1/batches/{batch_id}/clearance", "cucc")).status_code == 404
    assert (await court.get("/v1/batches/bat_unknown/clearance")).status_code == 404
    for who in ("of-bank", "miit"):
        assert (await court.get(f"/v1/batches/{batch_id}/clearance", who)).status_code == 403
    assert (await court.get(f"/v1/batches/{batch_id}/clearance", detail="some")).status_code == 422


async def test_an_uncommitted_batch_conflicts(court: Court) -> None:
    """Announced and uploaded, but not committed."""
    batch = await court.intake.uploaded([f"{OWN},2026-01-01T00:00:00Z"])
    answer = await court.get(f"/v1/batches/{batch.batch_id}/clearance")
    assert (answer.status_code, answer.json()["code"]) == (409, "batch_conflict")


async def test_a_waiver_is_a_signed_listed_act(court: Court) -> None:
    """Signed by the regulator, it ends the waiting for one subscriber and stands in the clearance and in the list."""
    batch_id = await court.schedule(NUMBERS)
    await court.say("games", Disposition.no_account)
    statement = court.sign("miit", batch_id=batch_id)
    made = await court.post("/v1/waivers", {"statement": statement}, "miit")
    assert made.status_code == 201, made.text
    told = (await court.get(f"/v1/batches/{batch_id}/clearance")).json()
    assert (told["go"], told["waivers"]) == (3, [made.json()["waiver_id"]])
    again = await court.post("/v1/waivers", {"statement": statement}, "miit")
    assert again.json() == made.json()
    for who, count in (("miit", 1), ("desk", 1), ("of-bank", 1), ("of-games", 0)):
        assert len((await court.get("/v1/waivers", who)).json()["waivers"]) == count
    assert (await court.get("/v1/waivers")).status_code == 403
    assert (await court.intake.ledger.waivers())[0].statement == statement


WRONG: list[dict[str, Any]] = [
    {"iat": 1_700_000_000},
    {"iat": 1_900_000_000},
    {"waiver": None},
    {"waiver": "other/v1"},
    {"reason": None},
    {"reason": " "},
    {"subscriber_id": "cmcc"},
    {"subscriber_id": "nobody"},
    {"batch_id": "bat_unknown"},
    {"jti": "x"},
    {"jti": 12345678},
    {"ends_at": 1_700_000_000},
    {"ends_at": "soon"},
    {"iss": "somebody"},
    {"extra": "member"},
]


async def test_a_statement_that_says_too_little_or_too_late(court: Court) -> None:
    """Each is refused with a problem; nothing is waived."""
    for claims in WRONG:
        answer = await court.post("/v1/waivers", {"statement": court.sign("miit", **claims)}, "miit")
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_statement"), claims
    assert await court.intake.ledger.waivers() == []


async def test_only_a_regulator_with_its_own_key_waives(court: Court) -> None:
    """A stranger's signature, another role, a jti used for something else."""
    forged = court.sign("of-bank")
    assert (await court.post("/v1/waivers", {"statement": forged}, "miit")).json()["code"] == "invalid_statement"
    for who in ("of-bank", "cmcc", "desk"):
        assert (await court.post("/v1/waivers", {"statement": forged}, who)).status_code == 403
    assert (await court.post("/v1/waivers", {"statement": court.sign("miit")}, "miit")).status_code == 201
    other = court.sign("miit", reason="something else")
    answer = await court.post("/v1/waivers", {"statement": other}, "miit")
    assert (answer.status_code, answer.json()["code"]) == (409, "statement_reused")
