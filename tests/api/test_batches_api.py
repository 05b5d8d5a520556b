"""Carrier files over HTTP."""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest

from tests.api.intake_door import open_intake_door
from tests.intake_world import NOW_EPOCH, Intake

OWN = 13_800_138_000
DATA = f"number,terminated_at\n{OWN},{NOW_EPOCH - 86_400 * 30}\n123,\n".encode()
Door = tuple[Intake, httpx.AsyncClient]


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_intake_door(tmp_path / "hub") as opened:
        yield opened


def said(data: bytes = DATA, rows: int = 2, **changes: Any) -> dict[str, Any]:
    body = {"batch_seq": 1, "rows": rows, "sha256": hashlib.sha256(data).hexdigest(), "event_type": "deactivated"}
    return body | changes


async def announce(client: httpx.AsyncClient, key: str = "a", **changes: Any) -> httpx.Response:
    return await client.post("/v1/batches", json=said(**changes), headers={"idempotency-key": f'"{key}"'})


async def test_the_whole_way(door: Door) -> None:
    """Announce, upload in two parts, commit, follow, collect: as a carrier's program does it."""
    intake, client = door
    data = gzip.compress(DATA)
    answer = await announce(client, data=data, encoding="gzip")
    assert answer.status_code == 201
    path = f"/v1/batches/{answer.json()['batch_id']}"
    assert answer.json()["state"] == "announced"
    assert (await announce(client, data=data, encoding="gzip")).status_code == 200

    assert (await client.put(f"{path}/content", content=data[:20])).status_code == 200
    assert (await client.head(f"{path}/content")).headers["upload-offset"] == "20"
    wrong = await client.put(f"{path}/content", content=data[30:], headers={"upload-offset": "30"})
    assert wrong.status_code == 409 and wrong.headers["upload-offset"] == "20"
    rest = await client.put(f"{path}/content", content=data[20:], headers={"upload-offset": "20"})
    assert rest.json()["state"] == "uploaded" and rest.json()["bytes_uploaded"] == len(data)

    assert (await client.post(f"{path}/commit")).status_code == 202
    await intake.batches.settled(answer.json()["batch_id"])
    batch = (await client.get(path)).json()
    assert batch["state"] == "committed"
    assert (batch["rows_seen"], batch["rows_accepted"], batch["rows_refused"], batch["chunks"]) == (2, 1, 1, 1)
    assert [(reason["reason"], reason["rows"]) for reason in batch["reasons"]] == [("invalid_number", 1)]
    result = await client.get(f"{path}/result")
    assert result.headers["content-type"] == "text/csv; charset=utf-8"
    assert result.text.splitlines()[1].startswith("3,invalid_number,")
    listed = (await client.get("/v1/batches")).json()["batches"]
    assert [item["batch_id"] for item in listed] == [answer.json()["batch_id"]]


async def test_a_parquet_file_goes_the_same_way(door: Door) -> None:
    """Good rows into the log, bad ones into the result file by their row; a damaged file fails before anything."""
    intake, client = door
    numbers, ended = [OWN, 123, None, OWN], [NOW_EPOCH - 86_400 * 30] * 4
    out = io.BytesIO()
    pl.DataFrame({"number": numbers, "terminated_at": ended}).write_parquet(out)
    data = out.getvalue()
    for key, content, state in (("a", data, "committed"), ("b", data[:40] + bytes(80) + data[120:], "failed")):
        seq = {"a": 1, "b": 2}[key]
        answer = await announce(client, key=key, data=content, rows=4, format="parquet", batch_seq=seq)
        path = f"/v1/batches/{answer.json()['batch_id']}"
        assert (await client.put(f"{path}/content", content=content)).status_code == 200
        assert (await client.post(f"{path}/commit")).status_code == 202
        await intake.batches.settled(answer.json()["batch_id"])
        batch = (await client.get(path)).json()
        assert batch["state"] == state
        if state == "committed":
            assert (batch["rows_accepted"], batch["rows_refused"], batch["failure"]) == (1, 3, None)
            lines = (await client.get(f"{path}/result")).text.splitlines()[1:]
            assert [line.split(",")[:2] for line in lines] == [
                ["2", "invalid_number"],
                ["3", "invalid_number"],
                ["4", "duplicate"],
            ]
            assert await intake.accepted() == [(OWN, "deactivated")]
        else:
            assert "damaged" in batch["failure"]
            assert len(await intake.records()) == 1


async def test_after_a_cut_every_answer_says_where_to_go_on(door: Door) -> None:
    """The connection breaks in the middle: HEAD, the batch, the list and a repeated announcement name the same byte."""
    intake, client = door
    batch_id = (await announce(client)).json()["batch_id"]
    path = f"/v1/batches/{batch_id}"

    async def cut() -> AsyncIterator[bytes]:
        yield DATA[:30]
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await intake.batches.upload("cmcc", batch_id, 0, cut())
    assert (await client.head(f"{path}/content")).headers["upload-offset"] == "30"
    told = [(await client.get(path)).json(), (await client.get("/v1/batches")).json()["batches"][0]]
    told.append((await announce(client)).json())
    assert [(batch["state"], batch["bytes_uploaded"]) for batch in told] == [("uploading", 30)] * 3
    assert (await client.post(f"{path}/commit")).status_code == 409
    rest = await client.put(f"{path}/content", content=DATA[30:], headers={"upload-offset": "30"})
    assert rest.json()["bytes_uploaded"] == len(DATA)


async def test_an_upload_cut_behind_its_last_byte_can_be_committed(door: Door) -> None:
    """All bytes are there, only the answer was lost: nothing is left to send, and the digest proves it."""
    intake, client = door
    batch_id = (await announce(client)).json()["batch_id"]

    async def cut() -> AsyncIterator[bytes]:
        yield DATA
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await intake.batches.upload("cmcc", batch_id, 0, cut())
    batch = (await client.get(f"/v1/batches/{batch_id}")).json()
    assert (batch["state"], batch["bytes_uploaded"]) == ("uploading", len(DATA))
    assert (await client.post(f"/v1/batches/{batch_id}/commit")).status_code == 202
    await intake.batches.settled(batch_id)
    batch = (await client.get(f"/v1/batches/{batch_id}")).json()
    assert (batch["state"], batch["rows_accepted"], batch["bytes_uploaded"]) == ("committed", 1, len(DATA))


async def test_another_s_batch_is_not_there(door: Door) -> None:
    """Every route answers 404 for a batch of somebody else, like for one that never was."""
    _, client = door
    batch_id = (await announce(client)).json()["batch_id"]
    for headers, path in (({"authorization": "Bearer cucc"}, batch_id), ({}, "bat_" + "0" * 24), ({}, "..%2f..")):
        for method, tail in (
            ("GET", ""), ("PUT", "/content"), ("HEAD", "/content"), ("POST", "/commit"), ("GET", "/result")
        ):  # fmt: skip
            answer = await client.request(method, f"/v1/batches/{path}{tail}", headers=headers)
            assert answer.status_code == 404, (method, path, tail)


@pytest.mark.parametrize(
    ("changes", "headers", "status", "code"),
    [
        ({}, {"idempotency-key": ""}, 400, "idempotency_key_malformed"),
        ({"rows": -1}, {}, 422, "invalid_request"),
        ({"rows": 50_000_001}, {}, 422, "invalid_request"),
        ({"rows": True}, {}, 422, "invalid_request"),
        ({"rows": "2"}, {}, 422, "invalid_request"),
        ({"sha256": "abc"}, {}, 422, "invalid_request"),
        ({"event_type": "vanished"}, {}, 422, "invalid_request"),
        ({"format": "xlsx"}, {}, 422, "invalid_request"),
        ({"format": "parquet", "encoding": "gzip"}, {}, 422, "invalid_request"),
        ({"colour": "red"}, {}, 422, "invalid_request"),
        ({"acting_for": "cucc"}, {}, 403, "forbidden"),
        ({}, {"authorization": "Bearer app"}, 403, "insufficient_scope"),
        ({}, {"authorization": "Bearer nobody"}, 401, "unauthenticated"),
        ({"batch_seq": 2}, {"idempotency-key": '"used"'}, 422, "idempotency_mismatch"),
        ({}, {"idempotency-key": '"other"'}, 409, "batch_conflict"),
    ],
)
async def test_refused_announcements(
    door: Door, changes: dict[str, Any], headers: dict[str, str], status: int, code: str
) -> None:
    """Each with its status and code, and no batch comes of it."""
    _, client = door
    if code in ("idempotency_mismatch", "batch_conflict"):
        assert (await announce(client, key="used")).status_code == 201
    answer = await client.post("/v1/batches", json=said(**changes), headers={"idempotency-key": '"a"'} | headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    listed = (await client.get("/v1/batches")).json()["batches"]
    assert len(listed) == (1 if code in ("idempotency_mismatch", "batch_conflict") else 0)


async def test_a_key_is_required(door: Door) -> None:
    """Without Idempotency-Key nothing is announced."""
    _, client = door
    answer = await client.post("/v1/batches", json=said())
    assert (answer.status_code, answer.json()["code"]) == (400, "idempotency_key_missing")


@pytest.mark.parametrize("offset", ["-1", "x", "1e3", "9" * 16, "٣"])
async def test_odd_offsets(door: Door, offset: str) -> None:
    """An offset is a plain count of bytes."""
    _, client = door
    batch_id = (await announce(client)).json()["batch_id"]
    headers = {"upload-offset": offset.encode("utf-8")}
    answer = await client.put(f"/v1/batches/{batch_id}/content", content=b"x", headers=headers)  # type: ignore[arg-type]
    assert answer.status_code == 422


async def test_commit_without_content(door: Door) -> None:
    """409 until the content is there; an empty announcement is committed at once."""
    _, client = door
    batch_id = (await announce(client)).json()["batch_id"]
    assert (await client.post(f"/v1/batches/{batch_id}/commit")).status_code == 409
    empty = (await announce(client, key="b", rows=0, batch_seq=2)).json()["batch_id"]
    done = await client.post(f"/v1/batches/{empty}/commit")
    assert (done.status_code, done.json()["state"]) == (202, "committed")


async def test_a_failure_is_told(door: Door) -> None:
    """A file that cannot be taken as a whole says why, and quotes nothing of it."""
    intake, client = door
    data = f"{OWN},{NOW_EPOCH}\n".encode()
    batch_id = (await announce(client, data=data, rows=1)).json()["batch_id"]
    await client.put(f"/v1/batches/{batch_id}/content", content=data)
    await client.post(f"/v1/batches/{batch_id}/commit")
    await intake.batches.settled(batch_id)
    batch = (await client.get(f"/v1/batches/{batch_id}")).json()
    assert batch["state"] == "failed" and "unknown column in the header" in batch["failure"]
    assert str(OWN) not in str(batch)
    assert (await client.get(f"/v1/batches/{batch_id}/result")).text == "line,reason,meaning,number\n"
