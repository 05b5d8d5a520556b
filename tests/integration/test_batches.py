"""A carrier's file into the log: every row ends exactly once, in the log or in the result file, whatever happens."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from hub.adapters.files import content as content_module
from hub.domain.batches import Batch, BatchState, ContentEncoding, ContentFormat
from hub.domain.errors import BatchConflict, Forbidden, IdempotencyMismatch, NotFound
from hub.domain.events import EventType, Lane
from hub.domain.lifecycle import Phase
from hub.flow.ingest import chunks as chunks_module
from hub.flow.ingest.batches import Announcement
from hub.flow.ingest.events import Item
from hub.ports.log import Header
from tests.intake_world import DAY, NOW_EPOCH, Intake, open_intake

OWN = 13_800_138_000  # cmcc
FOREIGN = 13_010_000_000  # cucc
MVNO = 17_050_000_000  # mvno:cmcc


@pytest.fixture
async def intake(tmp_path: Path) -> AsyncIterator[Intake]:
    async with open_intake(tmp_path / "hub") as opened:
        yield opened


def day(ago: int) -> int:
    return NOW_EPOCH - ago * DAY


def complete(batch: Batch) -> None:
    assert batch.state is BatchState.committed, batch
    assert batch.rows_seen == batch.declared_rows == batch.rows_accepted + batch.rows_refused
    assert sum(rows for _, rows in batch.reasons) == batch.rows_refused


async def test_good_and_bad_rows(intake: Intake) -> None:
    """Good rows stand in the log as chunks, each bad one in the result file with line, reason and masked number."""
    rows = [f"{OWN + place},{day(30)}" for place in range(50)]
    rows += [f"{FOREIGN},{day(30)}", "1380013800,", f"{OWN},{day(30)}", f"{OWN + 60},{day(-5)}", f"{OWN + 61},"]
    rows += [f"15400000000,{day(30)}", f"{OWN + 62},{day(30)},x"]
    batch = await intake.send(rows)
    complete(batch)
    assert dict(batch.reasons) == {
        "foreign_block": 1, "invalid_number": 1, "duplicate": 1, "future_time": 1, "missing_field": 1,
        "no_such_block": 1, "unknown_column": 1,
    }  # fmt: skip
    assert await intake.accepted() == [(OWN + place, "deactivated") for place in range(50)]
    assert await intake.reasons(batch) == {
        52: "foreign_block", 53: "invalid_number", 54: "duplicate", 55: "future_time", 56: "missing_field",
        57: "no_such_block", 58: "unknown_column",
    }  # fmt: skip
    assert (await intake.result(batch))[0].endswith(",130****0000")
    (record, chunk), *others = await intake.chunks()
    assert not others and batch.chunks == 1
    assert record.headers[Header.batch] == batch.batch_id and record.headers[Header.lane] == Lane.bulk
    assert record.headers[Header.carrier] == "cmcc" and record.headers[Header.count] == "50"
    assert set(chunk.binding_cutoff_at.tolist()) == {day(30)} and set(chunk.seq.tolist()) == {1}
    assert intake.metrics.counts["numhub_rows_refused_total", "duplicate"] == 1
    home = intake.home / "batches" / batch.batch_id
    assert not any(str(OWN).encode() in path.read_bytes() for path in home.iterdir())


async def test_several_events_of_one_number_in_one_file(intake: Intake) -> None:
    """A number's later rows are judged after its earlier ones, in the order of the file."""
    header = "number,event_type,occurred_at"
    rows = [
        f"{OWN},deactivated,{day(30)}",
        f"{OWN + 1},deactivated,{day(30)}",
        f"{OWN},restored,{day(20)}",
        f"{OWN},restored,{day(20)}",
        f"{OWN},deactivated,{day(10)}",
        f"{OWN},release_scheduled,",
        f"{OWN},reassigned,{day(1)}",
    ]
    batch = await intake.send(rows, header=header)
    complete(batch)
    assert await intake.reasons(batch) == {5: "duplicate", 8: "lifecycle_conflict"}
    assert intake.state(OWN)["phase"] == Phase.clearing and intake.state(OWN)["seq"] == 4
    assert intake.state(OWN)["ended_at"] == day(10)


async def test_the_second_file_meets_what_the_first_left(intake: Intake) -> None:
    """The same event again is a duplicate, a release by the default event type follows the known end."""
    complete(await intake.send([f"{OWN + place},{day(60)}" for place in range(20)]))
    again = await intake.send([f"{OWN + place},{day(60)}" for place in range(30)], seq=2)
    assert dict(again.reasons) == {"duplicate": 20} and again.rows_accepted == 10
    scheduled = await intake.send([f"{OWN + place}," for place in range(30)], seq=3, event=EventType.release_scheduled)
    assert scheduled.rows_accepted == 30
    other = await intake.send([f"{OWN},{day(60)}"], seq=1, caller="cucc")
    assert dict(other.reasons) == {"foreign_block": 1}


async def test_an_mvno_s_numbers_through_its_host(intake: Intake) -> None:
    """The numbers are the MVNO's: its blocks, its name in the record, and it sees the batch; others may not act."""
    batch = await intake.send([f"{MVNO},{day(30)}", f"{OWN},{day(30)}"], acting_for="mvno-a")
    complete(batch)
    assert await intake.reasons(batch) == {3: "foreign_block"}
    (record,) = await intake.records()
    assert record.headers[Header.carrier] == "mvno-a"
    assert (await intake.batches.get("mvno-a", batch.batch_id)).rows_accepted == 1
    with pytest.raises(Forbidden):
        await intake.uploaded([], acting_for="mvno-a", caller="cucc")
    with pytest.raises(NotFound):
        await intake.batches.get("cucc", batch.batch_id)
    with pytest.raises(NotFound):
        await intake.batches.commit("mvno-a", batch.batch_id)


async def test_released_needs_clearance(intake: Intake) -> None:
    """Only rows that clearance lets go are released; it is asked in the name of the carrier."""
    await intake.send([f"{OWN + place},{day(120)}" for place in range(3)], event=EventType.release_scheduled)
    intake.not_cleared.add(OWN + 1)
    batch = await intake.send(
        [f"{OWN + place},{day(1)}" for place in range(3)], seq=2, header="number,occurred_at", event=EventType.released
    )
    complete(batch)
    assert await intake.reasons(batch) == {3: "not_cleared"}
    assert intake.asked == [("cmcc", [OWN, OWN + 1, OWN + 2])]


async def test_wrong_count_or_digest_sinks_the_file_before_anything_is_appended(intake: Intake) -> None:
    """The failure says what is wrong; the log is untouched; the file may be uploaded again."""
    rows = [f"{OWN + place},{day(30)}" for place in range(5)]
    batch = await intake.uploaded(rows, rows=6)
    await intake.batches.commit("cmcc", batch.batch_id)
    await intake.batches.settled(batch.batch_id)
    batch = await intake.batches.get("cmcc", batch.batch_id)
    assert batch.state is BatchState.failed and batch.failure == "6 rows were declared, the content has 5"
    broken = await intake.uploaded(rows, seq=2, sha256="0" * 64)
    await intake.batches.commit("cmcc", broken.batch_id)
    await intake.batches.settled(broken.batch_id)
    assert "SHA-256" in str((await intake.batches.get("cmcc", broken.batch_id)).failure)
    assert await intake.records() == []
    assert await intake.batches.uploaded_bytes("cmcc", broken.batch_id) == 0

    good = await intake.uploaded([*rows, f"{OWN + 9},{day(30)}"], seq=3)
    await intake.batches.commit("cmcc", good.batch_id)
    await intake.batches.settled(good.batch_id)
    complete(await intake.batches.get("cmcc", good.batch_id))


async def test_a_failed_file_uploaded_again(intake: Intake) -> None:
    """After wrong bytes the right ones are taken under the same announcement."""
    rows = [f"{OWN + place},{day(30)}" for place in range(5)]
    data = ("number,terminated_at\n" + "\n".join(rows) + "\n").encode()
    batch = await intake.uploaded(rows[:4], rows=5, sha256=hashlib.sha256(data).hexdigest())
    await intake.batches.commit("cmcc", batch.batch_id)
    await intake.batches.settled(batch.batch_id)

    async def content() -> AsyncIterator[bytes]:
        yield data

    await intake.batches.upload("cmcc", batch.batch_id, 0, content())
    await intake.batches.commit("cmcc", batch.batch_id)
    await intake.batches.settled(batch.batch_id)
    complete(await intake.batches.get("cmcc", batch.batch_id))


async def test_announcing_twice(intake: Intake) -> None:
    """One key is one batch; another content under it, or a sequence number used before, is refused."""
    first = await intake.uploaded([f"{OWN},{day(30)}"])
    again = await intake.uploaded([f"{OWN},{day(30)}"])
    assert first.batch_id == again.batch_id
    with pytest.raises(IdempotencyMismatch):
        await intake.uploaded([f"{OWN + 1},{day(30)}"])
    other = Announcement(1, 0, "0" * 64, EventType.deactivated, first.content_format, first.content_encoding)
    with pytest.raises(BatchConflict):
        await intake.batches.announce("cmcc", "another key", other)
    assert [batch.batch_id for batch in await intake.batches.newest("cmcc")] == [first.batch_id]


async def test_an_explicitly_empty_batch(intake: Intake) -> None:
    """Nothing to report this time is said by a batch of no rows, with or without content."""
    said = Announcement(
        1, 0, hashlib.sha256(b"").hexdigest(), EventType.deactivated, ContentFormat.csv, ContentEncoding.identity
    )
    batch, new = await intake.batches.announce("cmcc", "empty", said)
    assert new
    complete(await intake.batches.commit("cmcc", batch.batch_id))
    complete(await intake.send([], seq=2))


async def test_commit_waits_for_content_and_ends_the_upload(intake: Intake) -> None:
    """No commit without content; repeated commits are one; nothing is uploaded behind a commit."""
    rows = [f"{OWN},{day(30)}"]
    batch = await intake.uploaded(rows)

    async def broken() -> AsyncIterator[bytes]:
        yield b"number"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await intake.batches.upload("cmcc", batch.batch_id, 0, broken())
    with pytest.raises(BatchConflict):
        await intake.batches.commit("cmcc", batch.batch_id)
    assert await intake.batches.uploaded_bytes("cmcc", batch.batch_id) == 6
    await intake.uploaded(rows)
    first = await intake.batches.commit("cmcc", batch.batch_id)
    second = await intake.batches.commit("cmcc", batch.batch_id)
    assert first.state is second.state is BatchState.validating
    with pytest.raises(BatchConflict):
        await intake.uploaded(rows)
    await intake.batches.settled(batch.batch_id)
    complete(await intake.batches.commit("cmcc", batch.batch_id))


async def test_a_rival_takes_some_numbers_first(intake: Intake) -> None:
    """Another writer changes two numbers between judging and appending: the chunk is void, the others still get in."""
    batch = await intake.uploaded([f"{OWN + place},{day(30)}" for place in range(10)])
    await intake.steal("cmcc", [Item(OWN + place, EventType.deactivated, day(30)) for place in (3, 7)])
    await intake.batches.commit("cmcc", batch.batch_id)
    await intake.batches.settled(batch.batch_id)
    batch = await intake.batches.get("cmcc", batch.batch_id)
    complete(batch)
    assert await intake.reasons(batch) == {5: "duplicate", 9: "duplicate"}
    assert len(await intake.accepted()) == 10
    assert intake.metrics.counts["numhub_records_void_total", "void"] == 1


@pytest.mark.parametrize("where", ["die_before", "die_after"])
@pytest.mark.parametrize("append", [1, 2, 3, 5, 8, 11])
async def test_killed_and_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, append: int
) -> None:
    """Wherever the process dies, the next one brings every row in exactly once and the counts come out the same."""
    monkeypatch.setattr(content_module, "SLICE_ROWS", 40)
    monkeypatch.setattr(chunks_module.pieces, "__defaults__", (6,))
    rows = [f"{OWN + place * 1234},{day(30)}" for place in range(100)] + [f"{OWN},{day(30)}", "x,", f"{OWN},{day(9)}"]
    async with open_intake(tmp_path / "hub", in_flight=4) as intake:
        batch = await intake.uploaded(rows)
        setattr(intake.writer, where, append)
        await intake.batches.commit("cmcc", batch.batch_id)
        await intake.until_dead()
    async with open_intake(tmp_path / "hub", in_flight=4) as intake:
        await intake.batches.resume_all()
        await intake.batches.settled(batch.batch_id)
        batch = await intake.batches.get("cmcc", batch.batch_id)
        complete(batch)
        accepted = await intake.accepted()
        assert len(accepted) == len(set(accepted)) == batch.rows_accepted
        reasons = await intake.reasons(batch)
        assert reasons[102] == "duplicate" and reasons[103] == "invalid_number" and reasons[104] == "duplicate"
        assert batch.rows_accepted == 100 - (len(reasons) - 3)
        assert batch.chunks == len(await intake.records())


async def test_killed_after_a_chunk_was_shortened(tmp_path: Path) -> None:
    """The log holds fewer rows than the plan under the chunk's id: the missing ones are refused, none is lost."""
    async with open_intake(tmp_path / "hub") as intake:
        batch = await intake.uploaded([f"{OWN + place},{day(30)}" for place in range(10)])
        await intake.steal("cmcc", [Item(OWN + 3, EventType.deactivated, day(30))])
        intake.writer.die_after = 2
        await intake.batches.commit("cmcc", batch.batch_id)
        await intake.until_dead()
    async with open_intake(tmp_path / "hub") as intake:
        assert await intake.batches.resume_all() == 1
        await intake.batches.settled(batch.batch_id)
        batch = await intake.batches.get("cmcc", batch.batch_id)
        complete(batch)
        assert await intake.reasons(batch) == {5: "number_changed_meanwhile"}
        assert len(await intake.accepted()) == 10


async def test_a_suspended_carrier_s_file_waits(intake: Intake) -> None:
    """Suspension stops a running batch; it goes on once the carrier is back."""
    batch = await intake.uploaded([f"{OWN},{day(30)}"])
    party = intake.members.party("cmcc")
    assert party is not None
    await intake.directory.put_party(replace(party, suspended=True))
    await intake.members.refresh()
    await intake.batches.commit("cmcc", batch.batch_id)
    for _ in range(200):
        await intake.clock.sleep(0.01)
    assert await intake.records() == []
    await intake.directory.put_party(party)
    await intake.members.refresh()
    await intake.batches.settled(batch.batch_id)
    complete(await intake.batches.get("cmcc", batch.batch_id))
