"""Requests that are put together to confuse: judged on raw sockets against the served application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from door_world import Door, open_door

from hub.api.server import serve

HEALTH = b"/health/live HTTP/1.1\r\n"
HEADS: dict[str, tuple[bytes, bytes]] = {
    "no host": (b"GET " + HEALTH + b"\r\n", b"400"),
    "two hosts": (b"GET " + HEALTH + b"Host: a\r\nHost: b\r\n\r\n", b"400"),
    "absolute form": (b"GET http://other.example" + HEALTH + b"Host: a\r\n\r\n", b"400"),
    "connect": (b"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example\r\n\r\n", b"400"),
    "http/0.9": (b"GET /health/live\r\n\r\n", b"400"),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
    "bare line feeds": (b"GET /health/live HTTP/1.1\nHost: a\n\n", b"400"),
    "http/1.0": (b"GET /health/live HTTP/1.0\r\n\r\n", b"200"),
    "one host": (b"GET " + HEALTH + b"Host: a\r\nConnection: close\r\n\r\n", b"200"),
}


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path) as opened:
        yield opened


async def _answer(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(), 30)
    finally:
        writer.close()


async def test_an_ambiguous_head_is_refused_closed_and_counted(door: Door) -> None:
    """What a proxy in front could read differently gets 400 and a closed connection, and somebody is told."""
    ports: asyncio.Queue[int] = asyncio.Queue()
    stop, told = asyncio.Event(), list[int]()
    task = asyncio.create_task(serve(door.app, port=0, bound=ports.put_nowait, stop=stop, refused=told.append))
    port = await ports.get()
    for name, (data, status) in HEADS.items():
        answer = await _answer(port, data)
        assert answer.startswith(b"HTTP/1.1 " + status), (name, answer[:80])
        assert answer.count(b"HTTP/1.1 ") == 1, name
    assert told == [400] * 7
    stop.set()
    await task


async def test_connections_beyond_the_limit_are_told_to_come_back(door: Door) -> None:
    """Silent connections cannot use up the process: one more than allowed gets 503, and a place freed is given away."""
    ports: asyncio.Queue[int] = asyncio.Queue()
    stop = asyncio.Event()
    task = asyncio.create_task(serve(door.app, port=0, bound=ports.put_nowait, stop=stop, max_connections=2))
    port = await ports.get()
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
    answer = await _answer(port, b"")
    assert answer.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in answer and b'"unavailable"' in answer
    silent[0][1].close()
    await silent[0][1].wait_closed()
    await asyncio.sleep(0.05)
    assert (await _answer(port, HEADS["one host"][0])).startswith(b"HTTP/1.1 200")
    silent[1][1].close()
    stop.set()
    await task
