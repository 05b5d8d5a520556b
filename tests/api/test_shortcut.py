"""The short way to hot routes, on real sockets: whatever is sent, it answers as the whole application would."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from hub.api.server import serve
from hub.api.shortcut import MAX_BODY
from tests.api.intake_door import open_intake_door
from tests.api.test_events_api import event
from tests.intake_world import Intake

JSON = b"Content-Type: application/json"
CMCC = b"Authorization: Bearer cmcc"
KEY = b'Idempotency-Key: "k"'
GOOD = json.dumps({"events": [event()]}).encode()
CHECK = b'{"checks": [{"number": "+8613800138000", "since": "2026-01-01"}]}'


def post(path: bytes, *headers: bytes, body: bytes = b"", length: int | None = None) -> bytes:
    told = b"Content-Length: %d" % (len(body) if length is None else length)
    return b"\r\n".join((b"POST " + path + b" HTTP/1.1", b"Host: x", told, *headers, b"", body))


SENT: dict[str, bytes] = {
    "good": post(b"/v1/events", JSON, CMCC, KEY, body=GOOD),
    "repeated": post(b"/v1/events", JSON, CMCC, KEY, body=GOOD),
    "same key, other body": post(
        b"/v1/events", JSON, CMCC, KEY, body=json.dumps({"events": [event(13_800_138_001)]}).encode()
    ),
    "no token": post(b"/v1/events", JSON, KEY, body=GOOD),
    "bad token": post(b"/v1/events", JSON, b"Authorization: Bearer nobody", KEY, body=GOOD),
    "two tokens": post(b"/v1/events", JSON, CMCC, CMCC, KEY, body=GOOD),
    "other scheme": post(b"/v1/events", JSON, b"Authorization: Basic Y21jYzo=", KEY, body=GOOD),
    "wrong scope": post(b"/v1/events", JSON, b"Authorization: Bearer app", KEY, body=GOOD),
    "no key": post(b"/v1/events", JSON, CMCC, body=GOOD),
    "no body": post(b"/v1/events", JSON, CMCC, KEY),
    "not JSON": post(b"/v1/events", JSON, CMCC, KEY, body=b"{"),
    "other member": post(b"/v1/events", JSON, CMCC, KEY, body=b'{"events": [], "more": 1}'),
    "same member twice": post(b"/v1/events", JSON, CMCC, KEY, body=b'{"events": [], "events": []}'),
    "not UTF-8": post(b"/v1/events", JSON, CMCC, KEY, body=b'{"events": "\xff"}'),
    "other media type": post(b"/v1/events", b"Content-Type: text/plain", CMCC, KEY, body=GOOD),
    "content coding": post(b"/v1/events", JSON, b"Content-Encoding: gzip", CMCC, KEY, body=GOOD),
    "foreign number": post(
        b"/v1/events", JSON, CMCC, b"Idempotency-Key: f", body=json.dumps({"events": [event(13_010_000_000)]}).encode()
    ),
    "query": post(b"/v1/events?x=1", JSON, CMCC, KEY, body=GOOD),
    "percent": post(b"/v1/%65vents", JSON, CMCC, KEY, body=GOOD),
    "slash": post(b"/v1/events/", JSON, CMCC, KEY, body=GOOD),
    "get": b"GET /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "length and range": post(b"/v1/events", JSON, CMCC, KEY, b"Range: bytes=" + b"0-1," * 20, body=GOOD),
    "bad length": post(b"/v1/events", JSON, CMCC, KEY, body=GOOD, length=2 << 20),
    "head of 40 kB": post(b"/v1/events", JSON, CMCC, KEY, b"X-Long: " + b"a" * 40_000, body=GOOD),
    "header fields without end": post(b"/v1/events", JSON, CMCC, KEY, *[b"X-A: b"] * 110, body=GOOD),
    "beyond the short way": post(b"/v1/events", JSON, CMCC, KEY, body=b" " * MAX_BODY + GOOD),
    "broken inside": post(b"/v1/check", JSON, b"Authorization: Bearer app", body=CHECK),  # there is no such use case
    "chunked": b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
}  # fmt: skip

Door = tuple[Intake, FastAPI]


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_intake_door(tmp_path / "hub") as (intake, client):
        yield intake, _app(client)


def _app(client: httpx.AsyncClient) -> FastAPI:
    app = client._transport.app  # type: ignore[attr-defined]
    assert isinstance(app, FastAPI)
    return app


@asynccontextmanager
async def served(app: FastAPI) -> AsyncIterator[int]:
    ports: asyncio.Queue[int] = asyncio.Queue()
    stop = asyncio.Event()
    task = asyncio.create_task(serve(app, port=0, bound=ports.put_nowait, stop=stop))
    try:
        yield await ports.get()
    finally:
        stop.set()
        await asyncio.wait_for(task, 30)


class Line:
    """One connection, and the answers that come on it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def answer(self) -> tuple[bytes, dict[bytes, bytes], bytes]:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 30)
        status, *lines = head[:-4].split(b"\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(b": ") for line in lines)}
        assert len(headers) == len(lines), "a header field stands twice"
        return status, headers, await self.reader.readexactly(int(headers[b"content-length"]))

    async def ask(self, data: bytes) -> tuple[bytes, dict[bytes, bytes], bytes]:
        self.writer.write(data)
        return await self.answer()


@asynccontextmanager
async def line_to(port: int) -> AsyncIterator[Line]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Line(reader, writer)
    finally:
        writer.close()


async def _said(home: Path, short: bool) -> tuple[dict[str, tuple[bytes, dict[bytes, bytes], bytes]], list[str]]:
    """What is answered to everything in SENT, and how it was counted."""
    async with open_intake_door(home) as (_, client):
        app = _app(client)
        if not short:
            app.state.shortcut = None
        found = {}
        async with served(app) as port:
            for name, data in SENT.items():
                async with line_to(port) as line:
                    status, headers, body = await line.ask(data)
                    headers.pop(b"date", None)
                    found[name] = (status, headers, body)
        page = app.state.context.metrics.exposition()[1].decode()
        counted = [each for each in page.splitlines() if each.startswith("numhub_http_requests_total{")]
    return found, sorted(counted)


async def test_whatever_is_sent_the_answer_is_the_same(tmp_path: Path) -> None:
    """Status, header fields, body and counts: good requests, and all that can be wrong with one."""
    short, counted_short = await _said(tmp_path / "short", True)
    whole, counted_whole = await _said(tmp_path / "whole", False)
    for name in SENT:
        assert short[name] == whole[name], name
    assert counted_short == counted_whole
    assert short["good"][0] == b"HTTP/1.1 202 Accepted" and json.loads(short["good"][2])["accepted"] == 1
    assert short["good"][1][b"ratelimit-policy"] == b'"party";q=20000;w=10'
    assert short["good"][1][b"ratelimit"].startswith(b'"party";r=19999;t=')
    assert b"ratelimit" not in short["no token"][1]
    assert short["broken inside"][0].startswith(b"HTTP/1.1 500")


async def test_plain_requests_take_it_and_no_others(door: Door) -> None:
    """Without this the comparison above would compare the application with itself."""
    _, app = door
    calls: list[object] = []
    taken: set[str] = set()
    answer = app.state.shortcut.answer

    async def watched(*arguments: object) -> object:
        calls.append(arguments)
        return await answer(*arguments)

    app.state.shortcut.answer = watched
    async with served(app) as port:
        for name, data in SENT.items():
            before = len(calls)
            async with line_to(port) as line:
                await line.ask(data)
            if len(calls) > before:
                taken.add(name)
    around = {"query", "percent", "slash", "get", "length and range", "bad length", "head of 40 kB", "chunked"}
    around |= {"header fields without end", "beyond the short way"}
    assert taken == set(SENT) - around


async def test_pieces_pipelines_and_the_last_request(door: Door) -> None:
    """A request byte by byte, several at once (some the short way, some not), and one that asks to close."""
    _, app = door
    async with served(app) as port, line_to(port) as line:
        for at in range(len(SENT["good"])):
            line.writer.write(SENT["good"][at : at + 1])
            if at % 50 == 0:
                await asyncio.sleep(0)
        assert (await line.answer())[0] == b"HTTP/1.1 202 Accepted"
        names = ["repeated", "no token", "query", "repeated", "no key", "get"]
        line.writer.write(b"".join(SENT[name] for name in names))
        assert [(await line.answer())[0][9:12] for _ in names] == [b"202", b"401", b"202", b"202", b"400", b"405"]
        status, headers, _ = await line.ask(post(b"/v1/events", JSON, CMCC, KEY, b"Connection: close", body=GOOD))
        assert status == b"HTTP/1.1 202 Accepted" and headers[b"connection"] == b"close"
        assert await asyncio.wait_for(line.reader.read(), 30) == b""


async def test_who_leaves_in_the_middle_is_counted_and_forgotten(door: Door) -> None:
    """Half a body and a closed connection: nothing is published, the route counts one request without a status."""
    intake, app = door
    async with served(app) as port:
        async with line_to(port) as line:
            line.writer.write(SENT["good"][:-10])
            await line.writer.drain()
        lost = 'numhub_http_requests_total{route="/v1/events",status="0"} 1.0'
        async with asyncio.timeout(30):
            while lost not in app.state.context.metrics.exposition()[1].decode():
                await asyncio.sleep(0.01)
        async with line_to(port) as line:
            assert (await line.ask(SENT["no key"]))[0].startswith(b"HTTP/1.1 400")
    assert not await intake.chunks()


async def test_stopping_waits_for_what_is_under_way(door: Door) -> None:
    """The body comes after the order to stop: the answer still arrives, and says that the connection ends."""
    _, app = door
    ports: asyncio.Queue[int] = asyncio.Queue()
    stop = asyncio.Event()
    task = asyncio.create_task(serve(app, port=0, bound=ports.put_nowait, stop=stop))
    async with line_to(await ports.get()) as line:
        line.writer.write(SENT["good"][:-10])
        await asyncio.sleep(0.2)
        stop.set()
        await asyncio.sleep(0.2)
        status, headers, _ = await line.ask(SENT["good"][-10:])
        assert status == b"HTTP/1.1 202 Accepted" and headers[b"connection"] == b"close"
        await asyncio.wait_for(task, 30)
