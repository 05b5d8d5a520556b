"""Reading carriers' files: every odd row is refused alone, every odd file fails clearly, nothing crashes."""

import gzip
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import zstandard

from hub.adapters.files import content as content_module
from hub.adapters.files.store import DiskBatchFiles
from hub.domain.batches import ContentEncoding, ContentFormat
from hub.domain.errors import BatchConflict, InvalidRequest, PayloadTooLarge
from hub.domain.refusals import BY_NUMBER, Refusal
from hub.ports.batch_files import ContentProblem, Rows, SliceSummary

BATCH = "bat_" + "0" * 24
DAY = 1_767_196_800  # 2026-01-01T00:00+08:00
CSV, NDJSON = ContentFormat.csv, ContentFormat.ndjson


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.fixture
def files(tmp_path: Path) -> DiskBatchFiles:
    return DiskBatchFiles(tmp_path)


async def rows_of(
    files: DiskBatchFiles, data: bytes, form: ContentFormat = CSV, encoding: ContentEncoding = ContentEncoding.identity
) -> Rows:
    await files.receive(BATCH, 0, pieces(data))
    count = await files.verify(BATCH, hashlib.sha256(data).hexdigest(), form, encoding)
    parts = [await files.read_slice(BATCH, number) for number in range(await files.slices(BATCH))]
    assert sum(map(len, parts)) == count
    return Rows(
        *(
            np.concatenate([getattr(part, name) for part in parts]) if parts else np.zeros(0, np.int64)
            for name in Rows.__dataclass_fields__
        )
    )


def refusals(rows: Rows) -> list[str | None]:
    return [BY_NUMBER[code].value if code else None for code in rows.refusal.tolist()]


async def test_plain_csv(files: DiskBatchFiles) -> None:
    """All columns of a plain file arrive as values; what is not stated is 0."""
    rows = await rows_of(
        files,
        b"number,event_type,occurred_at,terminated_at,release_planned_at,reason\n"
        b"13800138000,deactivated,2026-01-01,,,arrears\n"
        b"+8613800138001,,2026-01-01T00:00:00+08:00,2025-12-31T16:00:00Z,1767196800,\n",
    )
    assert refusals(rows) == [None, None]
    assert rows.number.tolist() == [13800138000, 13800138001]
    assert rows.event.tolist() == [1, 0]
    assert rows.occurred_at.tolist() == [DAY, DAY]
    assert rows.terminated_at.tolist() == [0, DAY]
    assert rows.release_planned_at.tolist() == [0, DAY]
    assert rows.reason.tolist() == [2, 0]
    assert rows.line.tolist() == [2, 3]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (b"13800138000,2026-01-01", None),
        (b"+86 138-0013-8000,2026-01-01", None),
        (b"008613800138000, 2026-01-01 ", None),
        ("１３８００１３８０００,2026-01-01".encode(), None),
        (b'"13800138000","2026-01-01"', None),
        (b"13800138000", None),
        (b"13800138000,", None),
        (b"1380013800,2026-01-01", "invalid_number"),
        (b"138001380000,2026-01-01", "invalid_number"),
        (b"+1381234567,2026-01-01", "invalid_number"),
        (b"02112345678,2026-01-01", "invalid_number"),
        (b"1064912345678,2026-01-01", "invalid_number"),
        (b"=13800138000+1,2026-01-01", "invalid_number"),
        (b"=cmd|' /C calc'!A0,2026-01-01", "invalid_number"),
        (b"1.38e10,2026-01-01", "invalid_number"),
        (b"13800138000.0,2026-01-01", "invalid_number"),
        (b",2026-01-01", "invalid_number"),
        (b" ", "invalid_number"),
        (b"13800138000;2026-01-01", "invalid_number"),
        (b"13800138000,2026-13-01", "invalid_time"),
        (b"13800138000,2026-02-30", "invalid_time"),
        (b"13800138000,2026-01-01T00:00:00", "invalid_time"),
        (b"13800138000,1999-01-01", "invalid_time"),
        (b"13800138000,99999999999", "invalid_time"),
        (b"13800138000,-1", "invalid_time"),
        (b"13800138000,2026-01-01,more", "unknown_column"),
        (b'"13800138000,2026-01-01', "invalid_value"),
        ("13800138000,二〇二六".encode("gbk"), "invalid_value"),
        ("13800138000,二〇二六".encode(), "invalid_value"),
        (b"13800138000,2026-01-01\0", "invalid_value"),
        (b"13800138000\r,2026-01-01", "invalid_value"),
        (b"1" * 1_000_000, "invalid_number"),
        (b'"' + b"x" * 1_000_000, "invalid_value"),
        (b"\xff\xfe\xff", "invalid_value"),
    ],
)
async def test_odd_rows_are_judged_alone(files: DiskBatchFiles, row: bytes, expected: str | None) -> None:
    """A row is taken or refused with its own reason and line; its neighbours are never touched."""
    good = b"13911112222,2026-01-01"
    rows = await rows_of(files, b"number,occurred_at\n" + good + b"\n" + row + b"\r\n\n" + good)
    assert refusals(rows) == [None, expected, None]
    assert rows.line.tolist() == [2, 3, 5]
    assert rows.number.tolist()[::2] == [13911112222, 13911112222]
    assert rows.occurred_at.tolist()[::2] == [DAY, DAY]
    if expected is None:
        assert rows.number[1] == 13800138000


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("event_type", b"released", None),
        ("event_type", b" RELEASED", "invalid_value"),
        ("event_type", b"vanished", "invalid_value"),
        ("reason", b"deceased ", None),
        ("reason", b"because", "invalid_value"),
    ],
)
async def test_words(files: DiskBatchFiles, column: str, value: bytes, expected: str | None) -> None:
    """Event types and reasons are closed lists; blanks around a word are forgiven."""
    rows = await rows_of(files, b"number," + column.encode() + b"\n13800138000," + value + b"\n")
    assert refusals(rows) == [expected]


@pytest.mark.parametrize(
    ("data", "hint"),
    [
        (b"", "empty"),
        (b"13800138000\n13800138001\n", "unknown column"),
        (b"number;event_type\n13800138000;deactivated\n", "unknown column"),
        (b"number,colour\n13800138000,red\n", "colour"),
        (b"event_type\ndeactivated\n", "number is missing"),
        (b"number,number\n1,1\n", "twice"),
        ("number,二\n".encode("gbk"), "UTF-8"),
        ("number\n13800138000\n".encode("utf-16"), "UTF-8"),
        (b'"number\n13800138000\n', "CSV form"),
        (b"\x00\x01\x02\x03", "unknown column"),
    ],
)
async def test_a_header_that_is_not_understood_fails_the_file(files: DiskBatchFiles, data: bytes, hint: str) -> None:
    """The message says what is wrong and what is allowed, and quotes no number."""
    with pytest.raises(ContentProblem, match=hint) as caught:
        await rows_of(files, data)
    assert "138001" not in str(caught.value)


async def test_byte_order_mark_and_crlf(files: DiskBatchFiles) -> None:
    """What spreadsheets write is understood."""
    rows = await rows_of(files, b"\xef\xbb\xbfNumber,Event_Type\r\n13800138000,restored\r\n13800138001,restored\r\n")
    assert refusals(rows) == [None, None] and rows.event.tolist() == [2, 2]


async def test_ndjson(files: DiskBatchFiles) -> None:
    """Objects per line; numbers as text or integer; unknown members, broken and nested lines refused alone."""
    rows = await rows_of(
        files,
        b'{"number": 13800138000, "occurred_at": 1767196800}\n'
        b'{"number": "+8613800138001", "occurred_at": "2026-01-01"}\r\n'
        b"\n"
        b'{"number": "13800138002", "colour": "red"}\n'
        b'{"number": "13800138003", "occurred_at": [1]}\n'
        b'{"number": true}\n'
        b"[1]\n" + b"[" * 100_000 + b"\n"
        b'{"number": NaN}\n'
        b'{"number": null}\n'
        b'{"number": 13800138009, "event_type": "restored"}',
        NDJSON,
    )
    assert refusals(rows) == [None, None, "unknown_column", *["invalid_value"] * 5, "invalid_number", None]
    assert rows.line.tolist() == [1, 2, 4, 5, 6, 7, 8, 9, 10, 11]
    assert rows.occurred_at.tolist()[:2] == [DAY, DAY] and rows.event[-1] == 2


@pytest.mark.parametrize("encoding", [ContentEncoding.gzip, ContentEncoding.zstd])
async def test_compressed_content(files: DiskBatchFiles, encoding: ContentEncoding) -> None:
    """Compressed files, in several members or frames too, read like plain ones."""
    compress = gzip.compress if encoding is ContentEncoding.gzip else zstandard.ZstdCompressor().compress
    rows = await rows_of(files, compress(b"number\n13800138000\n") + compress(b"13800138001\n"), CSV, encoding)
    assert rows.number.tolist() == [13800138000, 13800138001]


@pytest.mark.parametrize(
    ("data", "encoding", "hint"),
    [
        (gzip.compress(b"number\n" + b"\n" * 30_000_000, mtime=0), ContentEncoding.gzip, "100 times"),
        (zstandard.ZstdCompressor().compress(b"number\n" + b"\n" * 30_000_000), ContentEncoding.zstd, "100 times"),
        (gzip.compress(b"number\n13800138000\n", mtime=0)[:-5], ContentEncoding.gzip, "too early"),
        (gzip.compress(b"number\n13800138000\n", mtime=0) + b"rubbish", ContentEncoding.gzip, "damaged"),
        (b"number\n13800138000\n", ContentEncoding.gzip, "damaged"),
        (b"number\n13800138000\n", ContentEncoding.zstd, "damaged"),
    ],
)
async def test_bombs_and_damage(files: DiskBatchFiles, data: bytes, encoding: ContentEncoding, hint: str) -> None:
    """Inflating stops at the ratio; damage is told, not guessed around."""
    with pytest.raises(ContentProblem, match=hint):
        await rows_of(files, data, CSV, encoding)


async def test_limits(tmp_path: Path) -> None:
    """Uploads and inflated content have absolute limits."""
    files = DiskBatchFiles(tmp_path, max_bytes=1000)
    with pytest.raises(PayloadTooLarge):
        await files.receive(BATCH, 0, pieces(b"x" * 999, b"xx"))
    with pytest.raises(ContentProblem, match="1000 bytes"):
        await rows_of(files, gzip.compress(b"number\n" + b"\n" * 2000), CSV, ContentEncoding.gzip)


async def test_a_line_without_end_fails_the_file(files: DiskBatchFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that never breaks its line is no table; memory stays bounded."""
    monkeypatch.setattr(content_module, "LINE_LIMIT", 1000)
    with pytest.raises(ContentProblem, match="line is longer"):
        await rows_of(files, b"number\n" + b"1" * 2000)


async def test_slices_cover_every_row_once(files: DiskBatchFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut into many slices and pieces, with blank lines between, the file reads as in one."""
    monkeypatch.setattr(content_module, "SLICE_ROWS", 7)
    monkeypatch.setattr(content_module, "PIECE", 101)
    lines = [b"number"]
    for place in range(100):
        lines += [b"%d" % (13_800_000_000 + place)] + ([b"\r"] if place % 3 == 0 else [])
    data = b"\n".join(lines)
    rows = await rows_of(files, data)
    assert rows.number.tolist() == [13_800_000_000 + place for place in range(100)]
    assert [lines[line - 1] for line in rows.line.tolist()] == [b"%d" % number for number in rows.number.tolist()]
    assert await files.slices(BATCH) == 15


async def test_resumed_upload(files: DiskBatchFiles) -> None:
    """An upload that broke continues at its size; a wrong offset is told where to continue; 0 starts anew."""

    async def breaking() -> AsyncIterator[bytes]:
        yield b"number\n138"
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        await files.receive(BATCH, 0, breaking())
    assert await files.size(BATCH) == 10
    with pytest.raises(BatchConflict) as caught:
        await files.receive(BATCH, 7, pieces(b"x"))
    assert caught.value.details["uploaded_bytes"] == 10
    assert await files.receive(BATCH, 10, pieces(b"00138000\n")) == 19
    digest = hashlib.sha256(b"number\n13800138000\n").hexdigest()
    assert await files.verify(BATCH, digest, CSV, ContentEncoding.identity) == 1
    assert await files.receive(BATCH, 0, pieces(b"new")) == 3


async def test_a_wrong_digest_is_told(files: DiskBatchFiles) -> None:
    """Other bytes than declared are never read as rows."""
    await files.receive(BATCH, 0, pieces(b"number\n13800138000\n"))
    with pytest.raises(ContentProblem, match="SHA-256"):
        await files.verify(BATCH, "0" * 64, CSV, ContentEncoding.identity)
    assert await files.verified(BATCH) is None


async def test_the_later_upload_wins(files: DiskBatchFiles) -> None:
    """An upload that hangs is superseded by the next one and cannot write any more."""

    async def slow() -> AsyncIterator[bytes]:
        yield b"old"
        assert await files.receive(BATCH, 0, pieces(b"new!")) == 4
        yield b"er"

    with pytest.raises(BatchConflict):
        await files.receive(BATCH, 0, slow())
    assert await files.size(BATCH) == 4


async def test_result_is_masked_and_by_line(files: DiskBatchFiles) -> None:
    """The result file lists refused rows by line with reason, meaning and masked number only."""
    summary = SliceSummary(rows=3, accepted=1, refused=2, chunks=1, reasons={"duplicate": 1, "invalid_number": 1})
    await files.finish_slice(
        BATCH,
        0,
        np.array([9, 4]),
        np.array([Refusal.duplicate.number, Refusal.invalid_number.number], np.uint8),
        np.array([13800138000, 0]),
        summary,
    )
    text = b"".join([piece async for piece in files.result(BATCH)]).decode()
    first, second, third = text.splitlines()
    assert first == "line,reason,meaning,number"
    assert second.startswith("4,invalid_number,") and second.endswith('",')
    assert third.startswith("9,duplicate,") and third.endswith(",138****8000")
    assert await files.finished(BATCH) == {0: summary}


async def test_plans_are_whole_or_absent(files: DiskBatchFiles) -> None:
    """A plan comes back as saved; one never saved is None."""
    assert await files.load_plan(BATCH, "0.0") is None
    await files.receive(BATCH, 0, pieces(b""))
    await files.save_plan(BATCH, "0.0", {"a": np.arange(3)})
    loaded = await files.load_plan(BATCH, "0.0")
    assert loaded is not None and loaded["a"].tolist() == [0, 1, 2]


@pytest.mark.parametrize("batch_id", ["../x", "bat_" + "0" * 23 + "/", "bat_" + "g" * 24, ""])
async def test_ids_cannot_leave_the_directory(files: DiskBatchFiles, batch_id: str) -> None:
    """Only ids the hub made name a directory."""
    with pytest.raises(InvalidRequest):
        await files.size(batch_id)
