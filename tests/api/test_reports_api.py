"""Reports over HTTP, counted by the real ledger."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.domain.dispositions import Disposition
from hub.flow.report import NAMES
from tests.api.judgement_door import OWN, Court, open_court

NUMBERS = [OWN + n for n in range(30)]


@pytest.fixture
async def court(tmp_path: Path) -> AsyncIterator[Court]:
    async with open_court(tmp_path / "hub") as opened:
        await opened.schedule(NUMBERS)
        await opened.say("games", Disposition.no_account, {OWN: Disposition.unbound})
        await opened.say("bank", None)
        yield opened


async def test_what_was_delivered_is_not_what_was_answered(court: Court) -> None:
    """The bank received everything and answered nothing: its receipts show in no disposition."""
    summary = (await court.get("/v1/reports/summary", "miit")).json()
    [row] = summary["rows"]
    assert row == {
        "event_type": "release_scheduled",
        "numbers_published": 30,
        "pairs_owed": 60,
        "pairs_received": 60,
        "pairs_answered": 30,
        "done": 30,
        "held": 0,
        "failed": 0,
        "pending": 0,
    }
    answers = (await court.get("/v1/reports/answers", "miit")).json()["rows"]
    assert {(r["app_id"], r["disposition"], r["numbers"]) for r in answers} == {
        ("games", "no_account", 29),
        ("games", "unbound", 1),
    }
    late = (await court.get("/v1/reports/lateness", "miit")).json()["rows"]
    assert [(r["app_id"], r["numbers_open"], r["late_seconds"]) for r in late] == [("bank", 30, 0)]


async def test_a_correction_is_counted_once(court: Court) -> None:
    """The newest answer counts; the sum stays."""
    await court.say("games", Disposition.unbound)
    answers = (await court.get("/v1/reports/answers", "miit")).json()["rows"]
    assert [(r["disposition"], r["numbers"]) for r in answers] == [("unbound", 30)]


async def test_every_report_answers_every_role_it_is_for(court: Court) -> None:
    """200 with the watermark, or 403; suppression is named."""
    for name in NAMES:
        for who in ("miit", "desk", "cmcc", "of-bank"):
            answer = await court.get(f"/v1/reports/{name}", who)
            if who == "of-bank" and name in ("provinces", "batches", "clearances"):
                assert answer.status_code == 403
                continue
            assert answer.status_code == 200, (name, who, answer.text)
            told = answer.json()
            assert sum(told["watermark"]["log_positions"]) == sum(told["watermark"]["catalogue_positions"]) == 1
            assert "of-games" not in answer.text or who in ("miit", "desk")
            assert "cmcc" not in answer.text or who != "of-bank"
    assert (await court.get("/v1/reports/answers", "desk")).json()["suppressed_below"] == 10
    assert (await court.get("/v1/reports/answers", "cucc")).json()["rows"] == []


async def test_filters(court: Court) -> None:
    """By day, class, carrier and event type; what cannot be meant is refused."""
    for query, rows in (
        ({"since": "2026-04-01", "until": "2026-04-01"}, 2),
        ({"since": "2026-04-02"}, 0),
        ({"app_class": "bank"}, 1),
        ({"carrier": "cucc"}, 0),
        ({"event_type": "released"}, 0),
    ):
        assert len((await court.get("/v1/reports/delivery", "miit", **query)).json()["rows"]) == rows, query
    for query in ({"since": "2026-02-30"}, {"since": "x"}, {"app_class": "x"}, {"format": "xml"}):
        assert (await court.get("/v1/reports/delivery", "miit", **query)).status_code == 422, query
    assert (await court.get("/v1/reports/secrets", "miit")).status_code in (404, 422)


async def test_csv_carries_its_watermark(court: Court) -> None:
    """The same rows as JSON, the watermark in a header field."""
    answer = await court.get("/v1/reports/answers", "miit", format="csv")
    assert answer.headers["content-type"].startswith("text/csv")
    assert "judged_at=" in answer.headers["numhub-watermark"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    told = (await court.get("/v1/reports/answers", "miit")).json()["rows"]
    assert rows == [{name: str(value) for name, value in row.items()} for row in told]
    hidden = await court.get("/v1/reports/answers", "cmcc", format="csv")
    assert "30" in hidden.text and "unbound" not in hidden.text


async def test_the_regulators_page_counts_the_same(court: Court) -> None:
    """The overview's funnel equals the summary."""
    batch = (await court.intake.ledger.batches("cmcc"))[0]
    await court.get(f"/v1/batches/{batch.batch_id}/clearance")
    report = court.client._transport.app.state.context.report  # type: ignore[attr-defined]
    seen = await report.overview()
    assert seen["funnel"]["pairs"] == {"published": 60, "delivered": 60, "answered": 30, "final": 30}
    assert seen["funnel"]["numbers"] == {"published": 30, "scheduled": 30, "cleared": 0, "released": 0}
    assert seen["provinces"][0]["numbers"] == 30
    assert seen["clearances"][0]["wait"] == 30
