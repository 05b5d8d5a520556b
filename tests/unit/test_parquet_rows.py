"""Carriers' Parquet files: the same rows, reasons and lines as CSV; what is no such file fails clearly."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from hub.adapters.files import parquet_rows
from hub.adapters.files.store import DiskBatchFiles
from hub.domain.batches import ContentEncoding, ContentFormat
from hub.domain.refusals import BY_NUMBER
from hub.ports.batch_files import ContentProblem, Rows

BATCH = "bat_" + "0" * 24
DAY = 1_767_196_800  # 2026-01-01T00:00+08:00
N = "13800138000"


@pytest.fixture
def files(tmp_path: Path) -> DiskBatchFiles:
    return DiskBatchFiles(tmp_path)


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pl.DataFrame(columns).write_parquet(out, **options)
    return out.getvalue()


async def taken(files: DiskBatchFiles, data: bytes) -> list[Rows]:
    async def pieces() -> AsyncIterator[bytes]:
        yield data

    await files.receive(BATCH, 0, pieces())
    count = await files.verify(BATCH, hashlib.sha256(data).hexdigest(), ContentFormat.parquet, ContentEncoding.identity)
    parts = [await files.read_slice(BATCH, number) for number in range(await files.slices(BATCH))]
    assert sum(map(len, parts)) == count
    return parts


async def test_values_of_all_types_arrive(files: DiskBatchFiles) -> None:
    """Text, whole numbers, dates and moments with a zone mean what they mean in CSV; null is "not stated"."""
    moment = datetime(2025, 12, 31, 16, 0, 0, 900_000, tzinfo=UTC)
    (rows,) = await taken(
        files,
        parquet(
            {
                "Number": [13_800_138_000, 13_800_138_001, 13_800_138_002],
                "event_type": pl.Series(["deactivated", None, "released"], dtype=pl.Categorical),
                "occurred_at": [date(2026, 1, 1), None, date(2026, 1, 1)],
                "terminated_at": pl.Series([moment, None, moment], dtype=pl.Datetime("us", "Asia/Shanghai")),
                "release_planned_at": [DAY, None, DAY + 1],
                "reason": ["arrears", None, ""],
            }
        ),
    )
    assert rows.refusal.tolist() == [0, 0, 0]
    assert rows.number.tolist() == [13_800_138_000, 13_800_138_001, 13_800_138_002]
    assert rows.event.tolist()[:2] == [1, 0] and rows.event[2] > 1
    assert rows.occurred_at.tolist() == [DAY, 0, DAY]
    assert rows.terminated_at.tolist() == [DAY, 0, DAY]
    assert rows.release_planned_at.tolist() == [DAY, 0, DAY + 1]
    assert rows.reason.tolist() == [2, 0, 0]
    assert rows.line.tolist() == [1, 2, 3]


async def test_odd_rows_are_judged_alone(files: DiskBatchFiles) -> None:
    """Each with the reason that CSV gives it; no value can join or split rows."""
    odd: dict[str | None, str | None] = {
        "+86 138-0013-8000": None,
        "１３８００１３８０００": None,
        "1380013800": "invalid_number",
        "": "invalid_number",
        None: "invalid_number",
        f"{N}\n{N}": "invalid_number",
        f"{N},2026-01-01": "invalid_number",
        f'"{N}"': "invalid_number",
        "1" * 100_000: "invalid_number",
        "号码": "invalid_value",
        "\r": "invalid_number",
    }
    numbers = [N, *odd, N]
    (rows,) = await taken(files, parquet({"number": numbers}))
    reasons = [BY_NUMBER[code].value if code else None for code in rows.refusal.tolist()]
    assert reasons == [None, *odd.values(), None]
    assert rows.line.tolist() == list(range(1, len(numbers) + 1))
    (rows,) = await taken(
        files,
        parquet({"number": [N] * 4, "occurred_at": ["2026-13-01", "x,y", '"', "2026-01-01"], "reason": ["?", *"abc"]}),
    )
    assert [BY_NUMBER[code].value for code in rows.refusal.tolist()] == ["invalid_time"] * 3 + ["invalid_value"]


@pytest.mark.parametrize(
    ("columns", "hint"),
    [
        ({"number": [N], "colour": ["red"]}, 'unknown column "colour" in the Parquet schema'),
        ({"msisdn": [N]}, "unknown column"),
        ({"reason": ["arrears"]}, "number is missing"),
        ({"number": [1.38e10]}, "number is of type Float64"),
        ({"number": [[N]]}, "number is of type List"),
        ({"number": [N.encode()]}, "number is of type Binary"),
        ({"number": [N], "occurred_at": [datetime(2026, 1, 1)]}, "without a time zone"),  # noqa: DTZ001
        ({"number": [N], "reason": [7]}, "reason is of type Int64; text is needed"),
        ({"number": [N], "Number": [N]}, "twice"),
        ({"number": [N], **{f"c{i}": [1] for i in range(100)}}, "101 columns"),
    ],
)
def test_a_schema_that_is_not_understood_is_told(columns: dict[str, Any], hint: str, tmp_path: Path) -> None:
    """What is wrong and what is allowed, before any row is read."""
    (tmp_path / "x").write_bytes(parquet(columns))
    with pytest.raises(ContentProblem, match=hint):
        parquet_rows._write_csv(str(tmp_path / "x"), io.BytesIO())


async def test_the_schema_s_problem_comes_out_of_the_reading_process(files: DiskBatchFiles) -> None:
    """In the same words; a file of no rows is one."""
    with pytest.raises(ContentProblem, match=r'^unknown column "colour" in the Parquet schema; allowed: number, '):
        await taken(files, parquet({"number": [N], "colour": ["red"]}))
    assert await taken(files, parquet({"number": pl.Series([], dtype=pl.String)})) == []


@pytest.mark.parametrize(
    ("change", "hint"),
    [
        (lambda data: b"number\n13800138000\n", "not Parquet"),
        (lambda data: b"", "not Parquet"),
        (lambda data: b"PAR1", "too early"),
        (lambda data: data[:-1], "too early"),
        (lambda data: data[: len(data) // 2], "too early"),
        (lambda data: b"PARE" + data[4:-4] + b"PARE", "encrypted"),
        (lambda data: data[:-8] + b"\xff\xff\xff\x7f" + data[-4:], "footer cannot be that large"),
        (lambda data: data[:-8] + b"\x00\x00\x00\x00" + data[-4:], "damaged"),
        (lambda data: b"PAR1" + bytes(len(data) // 2) + data[4 + len(data) // 2 :], "damaged"),
    ],
    ids=["csv", "empty", "mark", "cut-1", "cut-half", "encrypted", "huge-footer", "no-footer", "zeros"],
)
async def test_what_is_damaged_is_told(files: DiskBatchFiles, change: Any, hint: str) -> None:
    """Nothing of it is taken; the words do not quote the content."""
    data = parquet({"number": [str(13_800_138_000 + place) for place in range(5_000)]}, compression="uncompressed")
    with pytest.raises(ContentProblem, match=hint) as caught:
        await taken(files, change(data))
    assert "1380" not in str(caught.value)


async def test_a_digest_that_differs_comes_first(files: DiskBatchFiles) -> None:
    """A file cut on its way is told as that, not as a damaged one."""

    async def pieces() -> AsyncIterator[bytes]:
        yield parquet({"number": [N]})[:-20]

    await files.receive(BATCH, 0, pieces())
    with pytest.raises(ContentProblem, match="SHA-256"):
        await files.verify(BATCH, "0" * 64, ContentFormat.parquet, ContentEncoding.identity)


def test_a_bomb_ends_its_own_process(tmp_path: Path) -> None:
    """100 MB of text in a file of a few kilobytes do not fit the reading process; what fits is read by it."""
    small, bomb = tmp_path / "small", tmp_path / "bomb"
    small.write_bytes(parquet({"number": [N]}))
    assert b"".join(parquet_rows.as_csv(small, memory=256 << 20)) == f"number\n{N}\n".encode()
    # each value another one, so that a dictionary cannot share them
    bomb.write_bytes(parquet({"number": [f"{place:03}" + "1" * 1_000_000 for place in range(100)]}))
    assert bomb.stat().st_size < 200_000
    with pytest.raises(ContentProblem, match="with 256 MiB of memory"):
        list(parquet_rows.as_csv(bomb, memory=256 << 20))


async def test_slices_cover_every_row_once(files: DiskBatchFiles) -> None:
    """Over row groups and pieces of other sizes, in the file's order."""
    numbers = pl.int_range(13_800_000_000, 13_800_600_000, eager=True)
    parts = await taken(files, parquet({"number": numbers}, row_group_size=70_001))
    assert len(parts) == 2
    assert [number for part in parts for number in part.number.tolist()] == numbers.to_list()
    assert [line for part in parts for line in part.line.tolist()] == list(range(1, 600_001))


def test_a_reading_process_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Out of memory, the decoder may wait for its own dead threads."""
    path, program = tmp_path / "x", tmp_path / "python"
    path.write_bytes(parquet({"number": [N]}))
    program.write_text("#!/bin/sh\necho number\nexec sleep 100\n")
    program.chmod(0o755)
    monkeypatch.setattr(parquet_rows.sys, "executable", str(program))
    monkeypatch.setattr(parquet_rows, "SILENT_SECONDS", 0.2)
    with pytest.raises(ContentProblem, match="cannot be decoded"):
        list(parquet_rows.as_csv(path))


def test_a_reading_process_that_is_killed_is_not_the_file_s_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub tries again instead of failing the batch."""
    path = tmp_path / "x"
    path.write_bytes(parquet({"number": [N]}))
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(parquet_rows.sys, "executable", str(program))
    with pytest.raises(OSError, match="killed"):
        list(parquet_rows.as_csv(path))
