"""Check over HTTP: what is known, what is covered, and that a day must be a day."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hub.domain.parties import Role
from tests.api.judgement_door import COVERED, OWN, Court, open_court

FREE = OWN + 9


@pytest.fixture
async def court(tmp_path: Path) -> AsyncIterator[Court]:
    async with open_court(tmp_path / "hub") as opened:
        yield opened


async def connect_all(court: Court) -> None:
    """The two basic carriers that are missing join; all four are covered and report an empty period."""
    directory, members = court.intake.directory, court.intake.members
    for code in ("ctcc", "cbn"):
        await court.join(code, Role.carrier, block_holders=(code,))
    for code in ("cmcc", "cucc", "ctcc", "cbn"):
        await directory.put_party(replace(members.snapshot.parties[code], coverage_since=COVERED))
    await members.refresh()
    for code in ("cmcc", "cucc", "ctcc", "cbn"):
        batch = await court.intake.send([], caller=code, seq=2 if code == "cmcc" else 1)
        assert batch.state.value == "committed"


def asked(*checks: tuple[int | str, str]) -> dict[str, Any]:
    return {"checks": [{"number": str(number), "since": since} for number, since in checks]}


async def test_yes_no_and_no_data(court: Court) -> None:
    """An ended line, an untouched one, one asked about before the coverage, and one that is no number."""
    await court.schedule([OWN])
    await connect_all(court)
    checks = asked((OWN, "2025-06-01"), (FREE, "2026-02-01"), (FREE, "2025-12-31"), ("11111", "2026-02-01"))
    for who in ("of-bank", "cmcc", "miit"):
        answer = await court.post("/v1/check", checks, who)
        assert answer.status_code == 200, answer.text
        assert [(one["answer"], one["reason"]) for one in answer.json()["answers"]] == [
            ("yes", "ended"),
            ("no", None),
            ("no_data", "before_coverage"),
            ("no_data", "invalid_number"),
        ]
        assert answer.json()["answers"][1]["coverage_since"] == "2026-01-01"
        assert answer.json()["as_of"].startswith("2026-04-01T00:00")
        assert str(OWN) not in answer.text


async def test_without_all_carriers_nothing_is_no(court: Court) -> None:
    """Two of four connected: what happened is yes, what is not known is no_data."""
    await court.schedule([OWN])
    answers = (await court.post("/v1/check", asked((OWN, "2025-06-01"), (FREE, "2026-02-01")))).json()["answers"]
    assert [one["answer"] for one in answers] == ["yes", "no_data"]


async def test_a_thousand_at_once(court: Court) -> None:
    """The limit; one more is refused."""
    await court.schedule([OWN])
    await connect_all(court)
    many = [(OWN + n, "2026-03-01") for n in range(1000)]
    answers = (await court.post("/v1/check", asked(*many))).json()["answers"]
    assert [one["answer"] for one in answers] == ["yes", *["no"] * 999]
    assert (await court.post("/v1/check", asked(*many, many[0]))).status_code == 422


async def test_a_day_must_be_a_day(court: Court) -> None:
    """A problem that names the place."""
    for since in ("2026-02-30", "20260201", "2026-2-1", "", "tomorrow", "0000-00-00"):
        answer = await court.post("/v1/check", asked((FREE, "2026-02-01"), (FREE, since)))
        assert answer.status_code == 422, since
        assert answer.json()["errors"][0]["pointer"] == "/checks/1/since"


async def test_who_may_check(court: Court) -> None:
    """Operators have no reason to."""
    assert (await court.post("/v1/check", asked((FREE, "2026-02-01")), "desk")).status_code == 403
    assert (await court.post("/v1/check", {"checks": []})).status_code == 422
