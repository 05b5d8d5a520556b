"""`numhub verify`: what agrees is said to agree, and whatever is spoilt is found and named."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from hub.adapters.columns import ColumnIndex
from hub.adapters.number_plan.package import PackagePlan
from hub.app.cli.main import app
from hub.app.settings import Settings
from hub.app.wiring import running
from hub.flow.catalogue import entry_of
from hub.flow.verify import Finding, Verify
from hub.ports.ledger import Cursor
from hub.ports.log import Header, NewRecord
from hub.ports.number_index import STATE
from tests.intake_world import NOW_EPOCH, Intake, open_intake
from tests.making import CODEC, CountingMetrics

OWN = 13_800_138_000


@pytest.fixture
async def intake(tmp_path: Path) -> AsyncIterator[Intake]:
    """A batch of 40 rows, one of them refused, listed in the catalogue, and one record that is void."""
    async with open_intake(tmp_path / "home") as opened:
        ended = NOW_EPOCH - 86_400 * 30
        await opened.send([f"{OWN + place},{ended}" for place in range(39)] + ["123,"])
        (record,) = await opened.records()
        await opened.log.append([NewRecord(record.partition, record.record_id, record.headers, record.body)])
        ends = await opened.fold.catch_up()
        entry = entry_of(record, CODEC, PackagePlan(), opened.members.policy)
        await opened.ledger.catalogue([entry], dict(enumerate(ends)))
        yield opened


async def verified(intake: Intake, folder: Path, index: bool = True) -> dict[str, Finding]:
    fresh = ColumnIndex(folder / "fresh", intake.log.partitions, intake.log.log_id)
    try:
        found = await Verify(
            intake.log, intake.ledger, CODEC, CountingMetrics(), fresh=fresh, index=intake.index if index else None
        ).run()
    finally:
        fresh.close()
    return {each.what: each for each in found}


def bad(found: dict[str, Finding]) -> list[str]:
    return [what for what, finding in found.items() if not finding.good]


async def test_a_hub_in_order_agrees(intake: Intake, tmp_path: Path) -> None:
    """Everything is counted, so that a glance shows whether anything was compared at all."""
    found = await verified(intake, tmp_path)
    assert bad(found) == []
    assert found["log"].said == "1 chunks, 1 void or repeated; 39 numbers"
    assert found["number index"].said == "agrees, 39 states compared"
    assert found["ledger's catalogue"].said.startswith("1 chunks are listed")
    assert found["batches"].said == "1 batches, all 39 accepted rows are in the log"
    assert "not looked at" in (await verified(intake, tmp_path / "2", index=False))["number index"].said


async def test_another_state_in_the_index_is_found(intake: Intake, tmp_path: Path) -> None:
    """One number of 39."""
    (record,) = await intake.records()
    numbers = np.array([OWN + 7], np.int64)
    states = intake.index.lookup(record.partition, numbers).copy()
    states["seq"] += 1
    intake.index._tables[record.partition].put(numbers, states.astype(STATE))
    found = await verified(intake, tmp_path)
    assert bad(found) == ["number index"]
    assert "1 numbers have another state" in found["number index"].said
    assert "numhub rebuild" in found["number index"].said


async def test_a_record_the_index_skipped_is_found(intake: Intake, tmp_path: Path) -> None:
    """An index that believes a good record void."""
    (record,) = await intake.records()
    intake.index._skipped[record.partition].add(record.offset)
    assert bad(await verified(intake, tmp_path)) == ["number index"]


async def test_an_unreadable_record_is_found(intake: Intake, tmp_path: Path) -> None:
    """The fold passes over it; somebody should know."""
    await intake.log.append([NewRecord(0, "evt_broken", {Header.kind: "chunk"}, b"\x00")])
    await intake.fold.catch_up()
    found = await verified(intake, tmp_path)
    assert bad(found) == ["log"] and "1 unreadable" in found["log"].said


async def test_a_catalogue_that_lacks_a_chunk_or_says_something_else_is_found(intake: Intake, tmp_path: Path) -> None:
    """Reports are counted from it."""
    (record,) = await intake.records()
    entry = await intake.ledger.chunk(record.record_id)
    ends = dict(enumerate(await intake.log.ends()))
    await intake.ledger.clear_catalogue()
    await intake.ledger.catalogue([], ends)
    found = await verified(intake, tmp_path)
    assert bad(found) == ["ledger's catalogue"] and "a chunk is not listed" in found["ledger's catalogue"].said
    await intake.ledger.clear_catalogue()
    await intake.ledger.catalogue([replace(entry, count=38)], ends)
    found = await verified(intake, tmp_path / "2")
    assert bad(found) == ["ledger's catalogue"] and "something else" in found["ledger's catalogue"].said


async def test_positions_and_batches_that_the_log_does_not_bear_out_are_found(intake: Intake, tmp_path: Path) -> None:
    """A cursor beyond the end would miss events; a batch that counts more rows than the log has lost some."""
    (batch,) = await intake.ledger.batches()
    await intake.ledger.put_batch(replace(batch, rows_accepted=40))
    entry = await intake.ledger.chunk((await intake.records())[0].record_id)
    await intake.ledger.open_cursors([Cursor("sub_a", 0, entry.lane, 0, 99)])
    found = await verified(intake, tmp_path)
    assert bad(found) == ["ledger's positions", "batches"]
    assert "sub_a stands at 99" in found["ledger's positions"].said
    assert "40 rows in 1 chunks were accepted, the log has 39 in 1" in found["batches"].said


async def test_an_index_that_is_behind_is_fine(intake: Intake, tmp_path: Path) -> None:
    """After a kill it always is."""
    behind = ColumnIndex(tmp_path / "behind", intake.log.partitions, intake.log.log_id)
    intake.index, kept = behind, intake.index
    try:
        found = await verified(intake, tmp_path)
    finally:
        intake.index = kept
        behind.close()
    assert bad(found) == [] and "2 records behind" in found["number index"].said


async def test_the_command_says_it_to_people_and_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a running hub and without one; exit code 1 and a red word when something differs."""
    monkeypatch.setenv("COLUMNS", "200")
    data = tmp_path / "data"
    words = ["verify", "--data", str(data)]
    assert _invoke(words).exit_code == 1  # nothing is there
    async with running(Settings(data_dir=data)):
        beside = json.loads(_invoke([*words, "--json"]).output)
    assert beside["agrees"] is True and "a hub runs" in beside["findings"][1]["said"]
    alone = _invoke(words)
    assert (alone.exit_code, "agrees, 0 states compared" in alone.output) == (0, True), alone.output
    with sqlite3.connect(data / "ledger.db") as ledger:
        ledger.execute("UPDATE ledger_log SET log_id = 'another'")
    ledger.close()
    spoilt = _invoke(words)
    assert (spoilt.exit_code, "belongs to another log" in spoilt.output) == (1, True), spoilt.output


def _invoke(words: list[str]) -> Result:
    """In a thread: a command runs an event loop of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(CliRunner().invoke, app, words).result()
