"""The sender against receivers that hang, drip, flood, lie and redirect (R1-R10, R14), over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hub.adapters.webhook.guard import Guard
from hub.adapters.webhook.request import receiver_tls_context
from hub.adapters.webhook.sender import WebhookSender
from hub.ports.sender import Response, SendError

HEADERS = {"content-type": "application/json", "webhook-id": "msg_1"}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Hands:
    """A clock whose time can be moved."""

    def __init__(self) -> None:
        self.offset = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.offset)

    def monotonic(self) -> float:
        return time.monotonic() + self.offset

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Receiver:
    """Serves ``handler`` per connection on loopback; ``requests`` holds what arrived, head and body."""

    def __init__(self, handler: Handler | bytes) -> None:
        self.handler = handler
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0

    async def read(self, reader: asyncio.StreamReader) -> bytes:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self.requests.append(head + await reader.readexactly(length))
        return self.requests[-1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if isinstance(self.handler, bytes):
                while True:
                    await self.read(reader)
                    writer.write(self.handler)
            else:
                await self.handler(reader, writer)
        writer.close()


@contextlib.asynccontextmanager
async def receiver(handler: Handler | bytes, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    made = Receiver(handler)
    tasks: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await made.serve(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=tls)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


@contextlib.asynccontextmanager
async def sender(clock: Hands | None = None, **options: object) -> AsyncIterator[WebhookSender]:
    # Deadlines that a busy machine does not reach; a test that waits for one sets it short.
    settings: dict[str, object] = {"total_seconds": 10.0, "connect_seconds": 5.0, "tls_seconds": 5.0}
    made = WebhookSender(clock or Hands(), allow_loopback=True, **(settings | options))  # type: ignore[arg-type]
    try:
        yield made
    finally:
        await made.close()
        await asyncio.sleep(0.01)


async def post_to(
    handler: Handler | bytes, body: bytes = b"{}", **options: object
) -> tuple[Response | SendError, Receiver]:
    async with receiver(handler) as there, sender(**options) as made:
        try:
            return await made.post(f"http://127.0.0.1:{there.port}/in?a=1", HEADERS, body), there
        except SendError as error:
            return error, there


# ---- the ordinary case -----------------------------------------------------------------------------------------


async def test_one_post_arrives_as_sent() -> None:
    """The receiver sees our headers, its own name, no compression offer, and the body byte for byte."""
    body = b"x" * 120_000
    answer, there = await post_to(OK, body)
    assert answer == Response(200, None, b"ok", False)
    head, _, arrived = there.requests[0].partition(b"\r\n\r\n")
    assert arrived == body
    assert head.split(b"\r\n")[0] == b"POST /in?a=1 HTTP/1.1"
    lines = set(head.lower().split(b"\r\n")[1:])
    assert {b"accept-encoding: identity", b"content-length: 120000", b"webhook-id: msg_1"} <= lines
    assert f"host: 127.0.0.1:{there.port}".encode() in lines


async def test_a_clean_connection_is_used_again() -> None:
    """Ten posts one after another travel on one connection, chunked and counted answers mixed."""
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    place = iter(range(20))

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await there.read(reader)
            writer.write(OK if next(place) % 2 else chunked)

    async with receiver(handler) as there, sender() as made:
        for _ in range(10):
            assert (await made.post(f"http://127.0.0.1:{there.port}/", HEADERS, b"{}")).body == b"ok"
        assert (there.connections, len(there.requests)) == (1, 10)


@pytest.mark.parametrize("status", [200, 202, 204, 301, 302, 303, 307, 308, 400, 410, 429, 500, 503])
async def test_every_status_is_an_answer_and_no_redirect_is_followed(status: int) -> None:
    """R6, R11: the status is handed back as it came; the place a Location names is never asked."""
    async with receiver(OK) as elsewhere:
        head = f"HTTP/1.1 {status} X\r\nLocation: http://127.0.0.1:{elsewhere.port}/\r\nRetry-After: -5\r\n"
        answer, there = await post_to(head.encode() + b"Content-Length: 0\r\nSet-Cookie: a=b\r\n\r\n")
        assert isinstance(answer, Response) and (answer.status, answer.retry_after) == (status, "-5")
        assert (len(there.requests), elsewhere.connections) == (1, 0)


# ---- R1, R2: silence and drips ---------------------------------------------------------------------------------


async def test_a_silent_receiver_ends_at_the_deadline() -> None:
    """R1: accepted, then nothing: timeout, and the body may have left."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    answer, _ = await post_to(silent, total_seconds=0.6)
    assert isinstance(answer, SendError) and answer.kind == "timeout" and answer.sent and not answer.reused


async def test_a_connect_that_hangs_ends_at_its_own_deadline() -> None:
    """R1: a full backlog swallows the SYN; the connect deadline ends it with nothing sent."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        port = listening.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            await asyncio.sleep(0.05)
            async with sender(connect_seconds=0.2, total_seconds=5.0) as made:
                with pytest.raises(SendError) as error:
                    await made.post(f"http://127.0.0.1:{port}/", HEADERS, b"{}")
            assert error.value.kind in ("connect", "timeout")
        finally:
            for filler in fillers:
                filler.close()


async def test_a_tls_handshake_that_stops_ends_at_its_own_deadline() -> None:
    """R1: TCP is there, TLS never answers: kind tls, nothing sent."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    async with receiver(silent) as there, sender(tls_seconds=0.3) as made:
        with pytest.raises(SendError) as error:
            await made.post(f"https://127.0.0.1:{there.port}/", HEADERS, b"{}")
    assert error.value.kind == "tls" and not error.value.sent


@pytest.mark.parametrize(("first", "status"), [(b"HTTP/1.1 200 OK\r\nx: ", 0), (OK[:-2], 200)])
async def test_a_drip_does_not_stretch_the_deadline(first: bytes, status: int) -> None:
    """R2: one byte at a time: a dripping head is a timeout, a dripping body is judged by the status there."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first if not status else first.replace(b"Length: 2", b"Length: 9999"))
        for _ in range(600):
            writer.write(b"a")
            await asyncio.sleep(0.05)

    started = time.monotonic()
    answer, _ = await post_to(drip, total_seconds=0.6)
    assert time.monotonic() - started < 20  # the drip goes on for thirty
    if status:
        assert isinstance(answer, Response) and (answer.status, answer.truncated) == (status, True)
    else:
        assert isinstance(answer, SendError) and answer.kind == "timeout"


# ---- R3, R4, R5: too much, packed, malformed -------------------------------------------------------------------


async def endless(writer: asyncio.StreamWriter, start: bytes, more: bytes) -> None:
    writer.write(start)
    while True:
        writer.write(more)
        await writer.drain()


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1000\r\n" + b"a" * 4096 + b"\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=", b"y" * 4096),  # one chunk extension
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10737418240\r\n\r\n", b"a" * 4096),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", b"a" * 4096),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 4096),
    ],
)
async def test_a_body_without_end_is_cut_off_and_judged_by_the_status(start: bytes, more: bytes) -> None:
    """R3: not more than 64 KiB is taken; the 200 stands, flagged (a length nobody can mean is an error)."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await there_read(reader)
        await endless(writer, start, more)

    async def there_read(reader: asyncio.StreamReader) -> None:
        await reader.readuntil(b"\r\n\r\n")

    answer, _ = await post_to(handler, total_seconds=10.0)
    if isinstance(answer, SendError):
        assert answer.kind == "protocol" and b"99999999999" in start
    else:
        assert answer.status == 200 and answer.truncated and len(answer.body) <= 65_536


async def test_a_packed_body_is_never_unpacked() -> None:
    """R4: the bytes of a gzip bomb are handed on as they came."""
    bomb = gzip.compress(b"\0" * 20_000_000)
    packed = bomb[:40_000]
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed)
    answer, _ = await post_to(head + packed)
    assert isinstance(answer, Response) and answer.body == packed


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\na: " + b"b" * 1_000_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a" * 1_000_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 9 + OK,
        b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" * 100_000,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"<html>HTTP/0.9</html>",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/3.7 200 OK\r\nContent-Length: 0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" * 1000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\na\rb: c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
        b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 2000 X\r\nContent-Length: 0\r\n\r\n",
        b"\0" * 70_000,
        b"\x15\x03\x01\x00\x02\x02F",  # a TLS alert in plain
    ],
)
async def test_malformed_answers_are_refused(answer: bytes) -> None:
    """R5: floods of headers and interim answers, other protocols, contradictory lengths: a protocol error."""
    got, there = await post_to(answer, total_seconds=5.0)
    assert isinstance(got, SendError), got
    assert got.kind == "protocol" and got.sent and not got.reused
    assert len(there.requests) == 1


async def test_a_few_interim_answers_are_waited_through() -> None:
    """Up to eight 1xx answers before the final one are no offence."""
    got, _ = await post_to(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * 8 + OK)
    assert isinstance(got, Response) and (got.status, got.body) == (200, b"ok")


@pytest.mark.parametrize("piece", [b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n"])
async def test_a_close_before_the_head_is_no_answer(piece: bytes) -> None:
    """Closed without or within the head: kind closed, sent is true (the receiver may have acted)."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(piece)

    got, _ = await post_to(handler)
    assert isinstance(got, SendError) and got.kind == "closed" and got.sent


@pytest.mark.parametrize(
    ("answer", "truncated"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nok", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", True),
        (b"HTTP/1.0 200 OK\r\n\r\nok", False),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok", False),
    ],
)
async def test_a_body_shorter_than_announced_is_flagged(answer: bytes, truncated: bool) -> None:
    """The status stands; `truncated` says that the body did not end as announced."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)

    got, _ = await post_to(handler)
    assert isinstance(got, Response) and (got.status, got.body, got.truncated) == (200, b"ok", truncated)


# ---- reuse: smuggling, dying connections ------------------------------------------------------------------------


@pytest.mark.parametrize("delay", [0.0, 0.05])
async def test_a_smuggled_second_answer_is_never_taken(delay: float) -> None:
    """A receiver that sends two answers at once or late gets no second request on that connection."""
    smuggled = b"HTTP/1.1 410 Gone\r\nContent-Length: 0\r\n\r\n"

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await there.read(reader)
            writer.write(OK if delay else OK + smuggled)
            if delay:
                await asyncio.sleep(delay)
                writer.write(smuggled)

    async with receiver(handler) as there, sender() as made:
        for _ in range(4):
            assert (await made.post(f"http://127.0.0.1:{there.port}/", HEADERS, b"{}")).status == 200
            await asyncio.sleep(delay * 2)
        assert (there.connections, len(there.requests)) == (4, 4)


@pytest.mark.parametrize("extra", [b"x", b"\0" * 100, b"HTTP/1.1", b"a" * 200_000])
async def test_extra_bytes_forbid_reuse(extra: bytes) -> None:
    """Anything behind a complete answer: the answer stands, the connection is not used again."""
    async with receiver(OK + extra) as there, sender() as made:
        for _ in range(2):
            assert (await made.post(f"http://127.0.0.1:{there.port}/", HEADERS, b"{}")).body == b"ok"
            await asyncio.sleep(0.02)
        assert there.connections == 2


async def test_a_connection_closed_while_idle_is_not_used() -> None:
    """The receiver closes after each answer without saying so: the next post opens anew and arrives once."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await there.read(reader)
        writer.write(OK)

    async with receiver(handler) as there, sender() as made:
        for _ in range(3):
            assert (await made.post(f"http://127.0.0.1:{there.port}/", HEADERS, b"{}")).status == 200
            await asyncio.sleep(0.02)
        assert (there.connections, len(there.requests)) == (3, 3)


async def test_a_connection_that_dies_under_a_request_is_never_repeated_inside() -> None:
    """The second request dies on the reused connection: one error that says reused and sent, and one arrival."""
    seen = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        while True:
            await there.read(reader)
            seen += 1
            if seen == 2:
                writer.transport.abort()
                return
            writer.write(OK)

    async with receiver(handler) as there, sender() as made:
        url = f"http://127.0.0.1:{there.port}/"
        assert (await made.post(url, HEADERS, b"1")).status == 200
        with pytest.raises(SendError) as error:
            await made.post(url, HEADERS, b"2")
        assert error.value.kind == "closed" and error.value.reused and error.value.sent
        assert [request[-1:] for request in there.requests] == [b"1", b"2"]
        assert (await made.post(url, HEADERS, b"3")).status == 200
        assert len(there.requests) == 3


async def test_a_cancelled_post_leaves_no_connection_behind() -> None:
    """Cancelling the caller closes the connection; its late answer reaches nobody."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await there.read(reader)
        await asyncio.sleep(0.1)
        writer.write(OK)
        await there.read(reader)

    async with receiver(handler) as there, sender(total_seconds=5.0) as made:
        task = asyncio.create_task(made.post(f"http://127.0.0.1:{there.port}/", HEADERS, b"{}"))
        while not there.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(made._pool) == 0 and not len(made._limit)


async def test_idle_connections_are_bounded_and_reaped() -> None:
    """At most `idle_connections` are kept, and none longer than `idle_seconds`."""
    async with receiver(OK) as there, sender(idle_connections=3, idle_seconds=0.2, total_seconds=5.0) as made:
        url = f"http://127.0.0.1:{there.port}/"
        await asyncio.gather(*(made.post(url, HEADERS, b"{}") for _ in range(8)))
        assert there.connections == 8 and len(made._pool) == 3
        for _ in range(100):
            await asyncio.sleep(0.02)
            if not len(made._pool):
                break
        assert len(made._pool) == 0


async def test_a_host_holds_no_more_requests_than_its_limit() -> None:
    """Beyond `per_host` a post waits its turn, under its own deadline."""
    running = peak = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal running, peak
        while True:
            await there.read(reader)
            running += 1
            peak = max(peak, running)
            await asyncio.sleep(0.02)
            running -= 1
            writer.write(OK)

    async with receiver(handler) as there, sender(per_host=2, total_seconds=5.0) as made:
        url = f"http://127.0.0.1:{there.port}/"
        answers = await asyncio.gather(*(made.post(url, HEADERS, b"{}") for _ in range(10)))
        assert [a.status for a in answers] == [200] * 10 and peak <= 2 and not len(made._limit)


# ---- R7: names ---------------------------------------------------------------------------------------------------


class FakeResolver:
    def __init__(self, *answers: list[str] | SendError | float) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(self, host: str, port: int) -> list[str]:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, float):
            await asyncio.sleep(answer)
            return []
        if isinstance(answer, SendError):
            raise answer
        return answer

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (["10.0.0.1"], "address_refused"),
        (["93.184.216.34", "127.0.0.1"], "address_refused"),
        (["93.184.216.34", "::ffff:127.0.0.1"], "address_refused"),
        (["169.254.169.254"], "address_refused"),
        ([], "dns"),
        (SendError("dns", detail="NXDOMAIN"), "dns"),
        (30.0, "dns"),
    ],
)
async def test_a_name_that_leads_inwards_or_nowhere_is_refused(answer: list[str] | SendError, kind: str) -> None:
    """R7: one internal address of several, a mapped one, none, or a slow name server: refused, nothing sent."""
    async with sender(resolver=FakeResolver(answer), resolve_seconds=0.2, total_seconds=5.0) as made:
        with pytest.raises(SendError) as error:
            await made.post("https://hooks.example.com/", HEADERS, b"{}")
    assert error.value.kind == kind and not error.value.sent


async def test_a_rebinding_name_is_judged_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """R7: the first answer is fine, the second leads inwards: refused, though a connection to the first is idle.

    For this test alone 127.0.0.1 counts as public and 127.0.0.2 does not.
    """
    monkeypatch.setattr(Guard, "is_public", lambda _, address: address == ip_address("127.0.0.1"))
    names = FakeResolver(["127.0.0.1"], ["127.0.0.2"])
    async with receiver(OK) as there:
        options = {"ports": (there.port,), "allow_http": True, "resolver": names, "addresses_live_seconds": 0.0}
        async with sender(**options) as made:
            url = f"http://hooks.example.com:{there.port}/"
            assert (await made.post(url, HEADERS, b"{}")).status == 200
            with pytest.raises(SendError, match="address_refused"):
                await made.post(url, HEADERS, b"{}")
            assert (there.connections, len(there.requests), names.asked) == (1, 1, 2)
            assert f"host: hooks.example.com:{there.port}".encode() in there.requests[0].lower()


async def test_checked_addresses_stand_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name is not asked again for every post, but again after its time, whatever the record's own TTL says."""
    monkeypatch.setattr(Guard, "is_public", lambda *_: True)
    names, clock = FakeResolver(["127.0.0.1"]), Hands()
    async with receiver(OK) as there, sender(clock, ports=(there.port,), allow_http=True, resolver=names) as made:
        for _ in range(3):
            await made.post(f"http://hooks.example.com:{there.port}/", HEADERS, b"{}")
        assert names.asked == 1
        clock.offset = 31.0
        await made.post(f"http://hooks.example.com:{there.port}/", HEADERS, b"{}")
        assert names.asked == 2


# ---- R8, headers, R14 -------------------------------------------------------------------------------------------


async def test_odd_hosts_never_reach_a_resolver() -> None:
    """R8: refused by their form, before any look-up."""
    names = FakeResolver(["93.184.216.34"])
    async with sender(resolver=names) as made:
        for host in ("2130706433", "0x7f000001", "0177.0.0.1", "127.1", "0", "user@a.example", "a.example."):
            with pytest.raises(SendError, match="bad_url"):
                await made.post(f"https://{host}/", HEADERS, b"{}")
    assert names.asked == 0


@pytest.mark.parametrize(
    "headers",
    [{"a": "b\r\nc: d"}, {"a": "b\nc"}, {"a": "b\rc"}, {"a": "\0"}, {"a": "\u4e2d"}]
    + [{"a\r\n": "b"}, {"": "b"}, {"Host": "x"}, {"content-length": "1"}, {"Connection": "close"}, {"a b": "c"}],
)
async def test_headers_that_would_split_the_request_are_refused(headers: dict[str, str]) -> None:
    """CR, LF, NUL, names that are no token, and the headers the sender owns: ValueError, nothing is opened."""
    async with receiver(OK) as there, sender() as made:
        with pytest.raises(ValueError):
            await made.post(f"http://127.0.0.1:{there.port}/", headers, b"{}")
        assert there.connections == 0


async def test_nothing_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """R14: proxies, .netrc and a key log named in the environment are ignored."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login a password b\n")
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    answer, there = await post_to(OK)
    assert isinstance(answer, Response) and answer.status == 200
    assert b"authorization" not in there.requests[0].lower()
    assert receiver_tls_context().keylog_filename is None and os.listdir(tmp_path) == [".netrc"]


# ---- R10: certificates ------------------------------------------------------------------------------------------


class Authority:
    """A certificate authority for one test run."""

    def __init__(self) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        start = datetime.now(UTC) - timedelta(days=9)
        builder = x509.CertificateBuilder().subject_name(self.name).issuer_name(self.name)
        builder = builder.public_key(self.key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(start).not_valid_after(start + timedelta(days=20))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(
            x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), critical=False
        )
        self.pem = builder.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def context(
        self, folder: Path, host: str = "localhost", *, ends_in: float = 86_400, trusted: bool = True
    ) -> ssl.SSLContext:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self.name if trusted else name)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=2)).not_valid_after(now + timedelta(seconds=ends_in))
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key((self.key if trusted else key).public_key()),
            critical=False,
        )
        leaf = builder.sign(self.key if trusted else key, hashes.SHA256())
        file = folder / "leaf.pem"
        file.write_bytes(
            leaf.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return context

    def client(self) -> ssl.SSLContext:
        context = receiver_tls_context()
        context.load_verify_locations(cadata=self.pem.decode())
        return context


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


async def tls_post(authority: Authority, server: ssl.SSLContext, clock: Hands | None = None) -> SendError | Response:
    async with receiver(OK, server) as there:
        options = {"tls_context": authority.client(), "tls_seconds": 5.0, "total_seconds": 10.0}
        async with sender(clock, **options) as made:
            try:
                return await made.post(f"https://localhost:{there.port}/", HEADERS, b"{}")
            except SendError as error:
                return error


async def test_a_good_certificate_passes(authority: Authority, tmp_path: Path) -> None:
    """The chain leads to a trusted root, the name fits: the post arrives over TLS."""
    got = await tls_post(authority, authority.context(tmp_path))
    assert isinstance(got, Response) and got.body == b"ok"


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ({"trusted": False}, "self-signed"),
        ({"host": "elsewhere.example"}, "mismatch"),
        ({"ends_in": -60}, "expired"),
    ],
)
async def test_a_bad_certificate_is_told_apart(
    authority: Authority, tmp_path: Path, case: dict[str, object], words: str
) -> None:
    """R10: self-signed, wrong name, expired: kind tls_certificate with the reason, nothing sent."""
    got = await tls_post(authority, authority.context(tmp_path, **case))  # type: ignore[arg-type]
    assert isinstance(got, SendError) and got.kind == "tls_certificate" and words in str(got).lower()
    assert not got.sent


async def test_a_receiver_with_an_old_protocol_or_none_is_refused(authority: Authority) -> None:
    """R10: plain HTTP where TLS is expected is a TLS error; so is a context below TLS 1.2."""

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with receiver(plain) as there, sender(tls_context=authority.client()) as made:
        with pytest.raises(SendError) as error:
            await made.post(f"https://localhost:{there.port}/", HEADERS, b"{}")
        assert error.value.kind == "tls" and not error.value.sent
    assert receiver_tls_context().minimum_version is ssl.TLSVersion.TLSv1_2


async def test_a_kept_connection_does_not_outlive_its_certificate(authority: Authority, tmp_path: Path) -> None:
    """R10: idle connections are used again while the certificate is valid, and dropped once it has run out."""
    clock = Hands()
    async with receiver(OK, authority.context(tmp_path, ends_in=20)) as there:
        options = {"tls_context": authority.client(), "tls_seconds": 5.0, "total_seconds": 10.0, "idle_seconds": 600.0}
        async with sender(clock, **options) as made:
            url = f"https://localhost:{there.port}/"
            for _ in range(3):
                await made.post(url, HEADERS, b"{}")
                await asyncio.sleep(0.02)
            assert there.connections == 1
            clock.offset = 25.0
            await made.post(url, HEADERS, b"{}")
            assert there.connections == 2
