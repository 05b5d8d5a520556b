"""Hostile requests: each gets its exact refusal, and none a 5xx."""

from __future__ import annotations

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from door_world import Door, open_door

from hub.api.limits import body_limit
from hub.api.server import DeadlineProtocol, serve
from hub.wire.problems import Problem


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with open_door(tmp_path) as opened:
        yield opened


GOOD = b'{"number":"13812345678","count":1}'
JSON = "application/json"

BODIES: dict[str, tuple[bytes, int, str]] = {
    "bom": (b"\xef\xbb\xbf" + GOOD, 400, "invalid_json"),
    "utf-16": (GOOD.decode().encode("utf-16"), 400, "invalid_json"),
    "trailing data": (GOOD + b"{}", 400, "invalid_json"),
    "duplicate keys": (b'{"number":"13812345678","count":1,"count":2}', 400, "invalid_json"),
    "nan": (b'{"number":"13812345678","count":NaN}', 400, "invalid_json"),
    "lone surrogate": (b'{"number":"\\ud800","count":1}', 400, "invalid_json"),
    "nul": (b'{"number":"\\u000013812345678","count":1}', 400, "invalid_json"),
    "a million digits": (b'{"number":"13812345678","count":' + b"9" * 1_000_000 + b"}", 400, "invalid_json"),
    "depth 100,000": (b'{"a":' * 100_000, 400, "invalid_json"),
    "brackets 500,000": (b"[" * 500_000 + b"]" * 500_000, 400, "invalid_json"),
    "overlong utf-8": (b'{"number":"\xc0\xaf","count":1}', 400, "invalid_json"),
    "cut": (GOOD[:-1], 400, "invalid_json"),
    "empty": (b"", 422, "invalid_request"),
    "null": (b"null", 422, "invalid_request"),
    "array": (b"[]", 422, "invalid_request"),
    "text": (b'"a"', 422, "invalid_request"),
    "1.0 as int": (b'{"number":"13812345678","count":1.0}', 422, "invalid_request"),
    '"1" as int': (b'{"number":"13812345678","count":"1"}', 422, "invalid_request"),
    "true as int": (b'{"number":"13812345678","count":true}', 422, "invalid_request"),
    "null as int": (b'{"number":"13812345678","count":null}', 422, "invalid_request"),
    "number as text": (b'{"number":13812345678,"count":1}', 422, "invalid_request"),
    "18 digits": (b'{"number":"13812345678","count":999999999999999999}', 422, "invalid_request"),
    "unknown field": (b'{"number":"13812345678","count":1,"a":1}', 422, "invalid_request"),
    "100,000 keys": (json.dumps({f"k{n}": 1 for n in range(60_000)}).encode(), 422, "invalid_request"),  # fmt: skip
    "long text": (b'{"number":"' + b"1" * 1000 + b'","count":1}', 422, "invalid_request"),
    "too large": (b" " * (1 << 20) + GOOD, 413, "payload_too_large"),
}


@pytest.mark.parametrize("name", BODIES)
async def test_a_bad_body_gets_its_exact_refusal(door: Door, name: str) -> None:
    """Status and code are exact, the body small and free of what was sent; the next request works."""
    body, status, code = BODIES[name]
    answer = await door.client.post("/t/open", content=body, headers={"content-type": JSON})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert "13812345678" not in answer.text
    assert len(answer.content) < 4000
    good = await door.client.post("/t/open", content=GOOD, headers={"content-type": JSON})
    assert good.json() == {"count": 1}


HEADERS: dict[str, tuple[dict[str, str], bytes, int, str]] = {
    "form": ({"content-type": "application/x-www-form-urlencoded"}, GOOD, 415, "unsupported_media_type"),
    "text": ({"content-type": "text/plain"}, GOOD, 415, "unsupported_media_type"),
    "none": ({}, GOOD, 415, "unsupported_media_type"),
    "utf-16 announced": ({"content-type": "application/json; charset=utf-16"}, GOOD, 415, "unsupported_media_type"),
    "gzip": ({"content-type": JSON, "content-encoding": "gzip"}, gzip.compress(GOOD), 415, "unsupported_media_type"),
    "nested": ({"content-type": JSON, "content-encoding": "gzip, gzip"}, b"x", 415, "unsupported_media_type"),
    "unknown coding": ({"content-type": JSON, "content-encoding": "zebra"}, GOOD, 415, "unsupported_media_type"),
    "length too large": ({"content-type": JSON, "content-length": "99999999999"}, GOOD, 413, "payload_too_large"),
    "length no number": ({"content-type": JSON, "content-length": "1e3"}, GOOD, 400, "bad_request"),
    "length negative": ({"content-type": JSON, "content-length": "-1"}, GOOD, 400, "bad_request"),
    "many ranges": ({"range": "bytes=" + ",".join("0-1" for _ in range(1000))}, b"", 416, "range_not_satisfiable"),
    "many headers": ({f"x-{place}": "1" for place in range(200)}, b"", 431, "headers_too_large"),
    "large header": ({"x-large": "a" * 40_000}, b"", 431, "headers_too_large"),
}


@pytest.mark.parametrize("name", HEADERS)
async def test_bad_headers_get_their_exact_refusal(door: Door, name: str) -> None:
    """Wrong type, coding, length, range or too much of anything."""
    headers, body, status, code = HEADERS[name]
    answer = await door.client.post("/t/open", content=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)


@pytest.mark.parametrize(
    "kind", ["application/json", "Application/JSON; charset=UTF-8", "application/cloudevents+json"]
)
async def test_every_way_to_announce_json_is_taken(door: Door, kind: str) -> None:
    """Case, parameters and +json types are fine."""
    assert (await door.client.post("/t/open", content=GOOD, headers={"content-type": kind})).status_code == 200


PATHS: dict[str, tuple[str, int]] = {
    "long path": ("/" + "a" * 64_000, 414),
    "long query": ("/health/live?" + "a" * 10_000, 414),
    "nul": ("/a%00b", 400),
    "overlong": ("/%c0%ae%c0%ae/etc", 404),
    "dots": ("/v1/..;/health/live", 404),
    "encoded slash": ("/health%2flive", 404),
    "trailing slash": ("/health/live/", 404),
}


@pytest.mark.parametrize("name", PATHS)
async def test_bad_paths_get_their_exact_refusal(door: Door, name: str) -> None:
    """Nothing is normalised into something that exists; nothing is redirected."""
    path, status = PATHS[name]
    answer = await door.client.get(path)
    if name == "encoded slash":  # in-process the client has decoded it already
        assert answer.status_code in (200, 404)
        return
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_endless_body_is_cut_at_the_limit(door: Door) -> None:
    """Chunks without a length are counted while they come."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 64 << 20:
            sent += 65_536
            yield b" " * 65_536

    answer = await door.client.post("/t/open", content=endless(), headers={"content-type": JSON})
    assert (answer.status_code, answer.json()["code"]) == (413, "payload_too_large")


async def test_only_batch_content_and_answers_may_be_larger(door: Door) -> None:
    """The streamed upload counts for itself; answers have 4 MiB; nothing else of that address does."""
    assert body_limit("PUT", "/v1/batches/bat_1/content", 10) is None
    assert body_limit("POST", "/v1/batches/bat_1/content", 10) == 10
    assert body_limit("PUT", "/v1/batches/bat_1/content/x", 10) == 10
    assert body_limit("PUT", "/v1/batches/a/b/content", 10) == 10
    assert body_limit("POST", "/v1/acks", 10) == 4 << 20
    answer = await door.client.put("/v1/batches/bat_1/content", content=b"x" * (3 << 20))
    assert answer.status_code == 401


KEYS: dict[str, tuple[list[str], int, str]] = {
    "missing": ([], 400, "idempotency_key_missing"),
    "empty": ([""], 400, "idempotency_key_malformed"),
    "empty quotes": (['""'], 400, "idempotency_key_malformed"),
    "open quote": (['"abc'], 400, "idempotency_key_malformed"),
    "long": (['"' + "a" * 129 + '"'], 400, "idempotency_key_malformed"),
    "two": (['"a"', '"b"'], 400, "idempotency_key_malformed"),
    "list": (['"a", "b"'], 400, "idempotency_key_malformed"),
}


@pytest.mark.parametrize("name", KEYS)
async def test_idempotency_keys_are_judged(door: Door, name: str) -> None:
    """Missing and malformed are told apart."""
    values, status, code = KEYS[name]
    answer = await door.client.post("/t/keyed", headers=[("idempotency-key", value) for value in values])
    assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_good_idempotency_keys_are_read(door: Door) -> None:
    """A structured-field string, and the bare form many clients send, name the same key."""
    for given in ('"a-key 1"', "plain-key"):
        answer = await door.client.post("/t/keyed", headers={"idempotency-key": given})
        assert answer.json() == {"key": given.strip('"')}


# ---- on the wire ------------------------------------------------------------------------------------------------


class Hasty(DeadlineProtocol):
    """The same deadlines, told in a fraction of the time."""

    headers_within = 0.3
    body_grace = 0.2
    tick = 0.1
    linger = 0.3


Talk = Callable[[bytes], Awaitable[bytes]]


@asynccontextmanager
async def served(door: Door) -> AsyncIterator[tuple[Talk, int]]:
    """The door behind a real server; ``talk`` sends bytes and returns all that comes until the server closes."""
    ports: asyncio.Queue[int] = asyncio.Queue()
    stop = asyncio.Event()
    task = asyncio.create_task(serve(door.app, port=0, bound=ports.put_nowait, stop=stop, protocol=Hasty))
    port = await ports.get()

    async def talk(data: bytes) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            return await asyncio.wait_for(reader.read(), 30)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    try:
        yield talk, port
    finally:
        stop.set()
        await task


def _post(*headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join((b"POST /t/open HTTP/1.1", b"Host: x", b"Content-Type: application/json", *headers, b"", body))


RAW: dict[str, tuple[bytes, bytes]] = {
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"400"),
    "length twice": (_post(b"Content-Length: 3", b"Content-Length: 4", body=b"{} "), b"400"),
    "lying length": (_post(b"Content-Length: 1000", body=b"{}"), b"408"),
    "te and cl": (_post(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), b"400"),
    "bad chunk": (_post(b"Transfer-Encoding: chunked", body=b"zz\r\n{}\r\n0\r\n\r\n"), b"400"),
    "unknown transfer coding": (_post(b"Transfer-Encoding: zebra", body=b"{}"), b"400"),
    "obs-fold": (_post(b"X-A: b", b" c", b"Content-Length: 2", body=b"{}"), b"400"),
    "space before colon": (_post(b"Content-Length : 2", body=b"{}"), b"400"),
    "nul in a header": (_post(b"X-A: \x00", body=b""), b"400"),
    "bad version": (b"GET / HTTP/9.9\r\n\r\n", b"400"),
    "unknown method": (b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
    "long path": (b"GET /" + b"a" * 64_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"414"),
    "megabyte header": (b"GET / HTTP/1.1\r\nX-A: " + b"a" * 1_000_000 + b"\r\n\r\n", b"431"),
    "hundred thousand headers": (b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 100_000 + b"\r\n", b"431"),
    "trace": (b"TRACE /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"405"),
    "star": (b"OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"4"),
    "header drip": (b"GET / HTTP/1.1\r\nHost:", b"408"),
    "body drip": (_post(b"Content-Length: 10", body=b"{"), b"408"),
}


async def test_bytes_that_are_no_request_are_refused_and_closed(door: Door) -> None:
    """Each raw request gets its status (or a closed connection), never 5xx, and the server goes on serving."""
    async with served(door) as (talk, _):
        for name, (data, status) in RAW.items():
            answer = await talk(data)
            if answer:
                assert answer.startswith(b"HTTP/1.1 " + status), (name, answer[:100])
                told = Problem.model_validate_json(answer.partition(b"\r\n\r\n")[2])
                assert told.code and told.remedy, name
            assert b"500" not in answer[:20], name
        good = await talk(_post(b"Connection: close", b"Content-Length: %d" % len(GOOD), body=GOOD))
        assert good.startswith(b"HTTP/1.1 200")
        assert good.endswith(b'{"count":1}')
        assert b"server:" not in good.lower().split(b"\r\n\r\n")[0]


async def test_a_silent_connection_is_closed(door: Door) -> None:
    """Who says nothing is let go without a word."""
    async with served(door) as (talk, _):
        assert await talk(b"") == b""


async def test_a_connection_lives_on_between_requests(door: Door) -> None:
    """The deadline for headers begins with the first byte of a request, not with the end of the last one."""
    async with served(door) as (_, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(2 * Hasty.headers_within)
        writer.close()


async def test_a_refused_upload_still_reads_its_refusal(door: Door) -> None:
    """413 arrives although the client goes on sending for a moment."""
    async with served(door) as (talk, _):
        answer = await talk(_post(b"Content-Length: 4000000", body=b" " * 3_000_000))
        assert answer.startswith(b"HTTP/1.1 413")


async def test_stopping_lets_running_requests_finish(door: Door) -> None:
    """A request that is half sent when the server is told to stop gets its answer."""
    ports: asyncio.Queue[int] = asyncio.Queue()
    stop = asyncio.Event()
    task = asyncio.create_task(serve(door.app, port=0, bound=ports.put_nowait, stop=stop))
    reader, writer = await asyncio.open_connection("127.0.0.1", await ports.get())
    writer.write(_post(b"Content-Length: %d" % len(GOOD), body=GOOD[:5]))
    await asyncio.sleep(0.2)
    stop.set()
    await asyncio.sleep(0.2)
    writer.write(GOOD[5:])
    assert (await asyncio.wait_for(reader.read(), 30)).startswith(b"HTTP/1.1 200")
    writer.close()
    await asyncio.wait_for(task, 30)
