"""Those around a hub that is killed again and again: carriers, subscribers, one that asks for clearance, and a killer.

Each writes what it did and heard into one `History`. A call whose answer was lost is repeated, under the same key,
until it is answered for good; nobody else knows of the kills.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from typing import Any, TypeVar

import httpx
import uvicorn
from numhub_client import Answer, AsyncClient, Chunk, Event, PrivateKey, Receiver, Retry
from numhub_client.errors import IdempotencyMismatch, NumhubError, WebhookError
from numhub_client.webhooks import Pointer, Proof

from hub.adapters.oauth.keys import JwkReader, generate
from hub.adapters.sql.ledger import open_ledger
from hub.adapters.system.clock import SystemClock
from hub.domain.dispositions import BY_NUMBER
from hub.domain.parties import AppClass, Role
from hub.flow.enrol import Enrol
from hub.flow.members import Members
from hub.ports.ledger import Answer as Fact
from tests.history import AnswerSent, BatchSent, Delivery, EventsCall, History, Kept, Said, VerdictsHeard, Wishes

T = TypeVar("T")
STEM = Path(__file__).with_name("hub_stem.py")
ONCE = Retry(attempts=1)
SETTINGS = {
    "NUMHUB_DANGEROUS_ALLOW_LOOPBACK_RECEIVERS": "true",
    "NUMHUB_PUSH_RETRY_AFTER": json.dumps([0.2, 0.3, 0.5, *[1.0] * 200]),
    "NUMHUB_LOG_LEVEL": "WARNING",
}
LAST_RESORT = 90.0  # seconds after which a call that is never answered is given up (and found by the checker)
DRAIN_WITHIN = 60.0
REVIEW_AT = datetime(2030, 1, 1, tzinfo=UTC)


def now() -> float:
    return asyncio.get_running_loop().time()


@dataclass
class Tries:
    doubts: int = 0


async def insist(call: Callable[[], Awaitable[T]], tries: Tries | None = None) -> T:
    """Repeat ``call`` until it is answered for good."""
    began = now()
    while True:
        try:
            return await call()
        except NumhubError as error:
            if not error.retriable or now() - began > LAST_RESORT:
                raise
            if tries is not None:
                tries.doubts += 1
            await asyncio.sleep(0.1)


# ---- the hub's process


class HubStem:
    """Forks hubs on one data directory and port, kills them, and notes every end it did not bring about."""

    def __init__(self, data: Path, port: int) -> None:
        self.data, self.url = data, f"http://127.0.0.1:{port}"
        self.log_file = data / "hub.log"
        self.pid = 0
        self.kills = 0
        self._port = port
        self._process: asyncio.subprocess.Process | None = None

    async def load(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, str(STEM), str(self.log_file), str(self.data), str(self._port),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env={**os.environ, **SETTINGS},
        )  # fmt: skip

    async def _say(self, word: str) -> int:
        assert self._process is not None and self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{word}\n".encode())
        return int(await asyncio.wait_for(self._process.stdout.readline(), 60))

    async def start(self) -> None:
        self.pid = await self._say("start")

    async def ready(self, within: float = 30.0) -> None:
        deadline = now() + within
        async with httpx.AsyncClient(trust_env=False, timeout=2.0, verify=False) as probe:
            while now() < deadline:
                with contextlib.suppress(httpx.TransportError):
                    if (await probe.get(self.url + "/health/ready")).status_code == 200:
                        return
                await asyncio.sleep(0.02)
        raise AssertionError(f"the hub was not ready within {within} s; its log: {self.log_tail()}")

    async def kill(self) -> None:
        """SIGKILL: no handler runs, nothing is flushed."""
        os.kill(self.pid, signal.SIGKILL)
        status = await self._say("reap")
        self.kills += 1
        ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
        assert ended == signal.SIGKILL, f"the hub had ended by itself ({ended}): {self.log_tail()}"

    async def stop(self) -> None:
        """SIGTERM and a clean end."""
        os.kill(self.pid, signal.SIGTERM)
        status = await self._say("reap")
        assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0, f"no clean end: {self.log_tail()}"

    async def close(self) -> None:
        if self._process is not None and self._process.returncode is None:
            if self.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            assert self._process.stdin is not None
            self._process.stdin.close()
            await self._process.wait()

    def log_tail(self) -> str:
        return self.log_file.read_text()[-4000:] if self.log_file.exists() else "(empty)"


async def kill_at_random(hub: HubStem, random: Random, kills: int, tell: Callable[[str], None]) -> None:
    """Some hubs live long enough to work, some die while they start."""
    took: list[float] = []
    for _ in range(kills):
        if random.random() < 0.2:
            await asyncio.sleep(random.uniform(0.02, 0.6))  # somewhere in its start
        else:
            began = now()
            await hub.ready()
            took.append(now() - began)
            await asyncio.sleep(random.uniform(0.05, 1.0))
        await hub.kill()
        await hub.start()
    await hub.ready()
    mean, most = sum(took) / max(1, len(took)), max(took, default=0.0)
    tell(f"{hub.kills} kills; starts took {mean:.2f} s on average, {most:.2f} s at most")


# ---- carriers


@dataclass
class Carrier:
    """``first``: where its own numbers begin; carriers never share a number."""

    client: AsyncClient
    history: History
    random: Random
    name: str
    first: int
    calls: int = 0
    batches: int = 0
    state: dict[int, str] = field(default_factory=dict)  # live numbers: active or frozen
    cleared: list[int] = field(default_factory=list)  # numbers it heard go for

    async def publish_live(self, worker: int, stop: asyncio.Event, pause: float) -> None:
        """Lines end and come back, each number in its own order, a few numbers a call."""
        numbers = [self.first + worker * 500_000 + 977 * place for place in range(60)]
        while not stop.is_set():
            items = []
            for number in self.random.sample(numbers, self.random.randint(1, 4)):
                was = self.state.get(number, "active")
                items.append((number, "deactivated" if was == "active" else "restored"))
                self.state[number] = "frozen" if was == "active" else "active"
            await self._call(items)
            await asyncio.sleep(pause * self.random.random() * 2)

    async def _call(self, items: list[tuple[int, str]], at: datetime | None = None) -> EventsCall:
        self.calls += 1
        call = EventsCall(self.name, f"{self.name}-live-{self.calls}", items, now())
        self.history.calls.append(call)
        moment = at or datetime.now(UTC).replace(microsecond=0)
        events = [Event(str(number), kind, moment) for number, kind in items]  # type: ignore[arg-type]
        for _ in range(2 if self.random.random() < 0.15 else 1):
            call.heard.append(await self._publish(call, events))
            call.ended = now()
        if self.random.random() < 0.05 and call.heard[0][0] is not None:
            other = [Event(str(items[0][0]), items[0][1], moment - timedelta(days=1)), *events[1:]]  # type: ignore[arg-type]
            try:
                await insist(lambda: self.client.events.publish(other, idempotency_key=call.key))
                call.misused = "accepted"
            except IdempotencyMismatch:
                call.misused = "refused"
        return call

    async def _publish(self, call: EventsCall, events: list[Event]) -> list[str | None]:
        tries = Tries()
        heard = await insist(lambda: self.client.events.publish(events, idempotency_key=call.key), tries)
        call.doubts += tries.doubts
        call.refused += [(place, str(r.reason)) for place, r in enumerate(heard.results) if not r.accepted]
        call.open |= {place for place, r in enumerate(heard.results) if r.retriable}
        return [result.event_id if result.accepted else None for result in heard.results]

    async def publish_batches(self, stop: asyncio.Event, pause: float) -> None:
        """Small files of scheduled releases with a few bad rows; then clearance until it says go, now and then a
        release or a withdrawal."""
        while not stop.is_set():
            sent = await self._batch()
            await self._ask(sent)
            await asyncio.sleep(pause * self.random.random() * 2)

    async def _batch(self) -> BatchSent:
        self.batches += 1
        base = self.first + 5_000_000 + self.batches * 3_000
        good = sorted(base + place for place in self.random.sample(range(3_000), self.random.randint(50, 400)))
        resting = frozenset(good[:5])
        lines = ["number,terminated_at"]
        today = datetime.now(UTC).replace(microsecond=0)
        for number in good:
            ended = today - timedelta(days=30 if number in resting else 100)
            lines.append(f"{number},{ended.isoformat()}")
        lines += ["12345,2026-01-01", f"{good[0]},{(today - timedelta(days=30)).isoformat()}"]
        key = f"{self.name}-batch-{self.batches}"
        sent = BatchSent(self.name, key, "release_scheduled", good, resting, 2, now())
        self.history.batches.append(sent)
        content = "\n".join([*lines, ""]).encode()
        for _ in range(2 if self.random.random() < 0.2 else 1):
            done = await insist(
                lambda: self.client.batches.upload(content, format="csv", batch_seq=self.batches, idempotency_key=key)
            )
            sent.batch_ids.append(done.batch_id)
            sent.accepted, sent.refused_told = done.rows_accepted, done.rows_refused
            sent.ended = sent.ended or now()
        return sent

    async def _ask(self, sent: BatchSent) -> None:
        """A few numbers of the batch, asked for now and again until most may go."""
        asked = [*sorted(sent.resting)[:2], *self.random.sample(sent.good[5:], 20)]
        for _ in range(4):
            heard = await self.ask(asked)
            go = [number for number, verdict in heard.items() if verdict != "wait"]
            if go:
                break
            await asyncio.sleep(0.3 * self.random.random())
        if go and self.random.random() < 0.7:
            await self._call([(number, "released") for number in go[:2]])
        if self.random.random() < 0.5:
            await self._call([(self.random.choice(asked[10:]), "release_cancelled")])

    async def ask(self, numbers: list[int]) -> dict[int, str]:
        started = now()

        async def once() -> Any:
            nonlocal started
            started = now()
            return await self.client.clearance.numbers([str(number) for number in numbers])

        told = await insist(once)
        verdicts = {numbers[each.index]: each.verdict for each in told.numbers}
        self.history.verdicts.append(VerdictsHeard(started, now(), verdicts))
        return verdicts


# ---- subscribers


@dataclass
class Platform:
    """``flaky``: share of requests answered 500. ``late``: seconds (at most) it thinks before it answers."""

    name: str
    client: AsyncClient
    history: History
    random: Random
    mode: str
    wishes: Wishes
    flaky: float = 0.0
    late: float = 0.0
    subscription_id: str = ""
    secret: Receiver | None = None
    inbox: asyncio.Queue[Chunk | Pointer] = field(default_factory=asyncio.Queue)
    known: set[str] = field(default_factory=set)
    working: int = 0
    duplicates: int = 0
    thinking: set[asyncio.Task[None]] = field(default_factory=set)

    async def subscribe(self, port: int) -> None:
        endpoint = None if self.mode == "pull" else f"http://127.0.0.1:{port}/{self.name}"
        made = await self.client.subscriptions.create(
            self.name,
            mode=self.mode,  # type: ignore[arg-type]
            endpoint=endpoint,
            event_types=sorted(self.wishes.event_types),  # type: ignore[arg-type]
            lanes=sorted(self.wishes.lanes),  # type: ignore[arg-type]
            start="earliest",
        )
        self.subscription_id = made.subscription_id
        self.history.subscriptions[made.subscription_id] = self.wishes
        if endpoint:
            assert made.secret is not None
            self.secret = Receiver(made.secret.key, subscription_id=made.subscription_id)
            assert (await self.client.subscriptions.prove(made.subscription_id)).proven

    def post(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        if self.secret is None:
            return 503, b""
        try:
            message = self.secret.open(headers, body)
        except WebhookError:
            return 400, b""
        if isinstance(message, Proof):
            return 200, json.dumps(message.answer()).encode()
        if self.random.random() < self.flaky:
            return 500, b""
        if isinstance(message, Chunk):
            self._book(message, body)
        if isinstance(message, Chunk | Pointer):
            self.inbox.put_nowait(message)
        return 200, b""

    def _book(self, chunk: Chunk, body: bytes) -> None:
        if chunk.chunk_id in self.known:
            self.duplicates += 1
        rows = tuple((n, *version) for n, version in zip(chunk.numbers, chunk.versions(), strict=True))
        digest = hashlib.sha256(body).hexdigest()
        entry = (now(), self.subscription_id, chunk.chunk_id, chunk.event_type, chunk.lane, rows, digest)
        self.history.deliveries.append(Delivery(*entry))

    async def work(self) -> None:
        while True:
            message = await self.inbox.get()
            self.working += 1
            if isinstance(message, Pointer):
                chunk = await insist(partial(self.client.chunks.get, self.subscription_id, message))
                self._book(chunk, chunk.raw or b"")
            else:
                chunk = message
            await self._handle(chunk)
            self.working -= 1

    async def pull(self) -> None:
        while True:
            try:
                async for page in self.client.feed.pages(self.subscription_id, wait_seconds=2):
                    for chunk, body in zip(page.chunks, page.bodies(), strict=True):
                        self._book(chunk, body)
                        await self._handle(chunk)
            except NumhubError:
                await asyncio.sleep(0.05)

    async def _handle(self, chunk: Chunk) -> None:
        """Answer each chunk once; some answers are corrected at once. A late one thinks without holding up others."""
        if chunk.chunk_id in self.known or chunk.event_type not in ("release_scheduled", "deactivated"):
            self.known.add(chunk.chunk_id)
            return
        self.known.add(chunk.chunk_id)
        if not self.late:
            await self._answer(chunk)
            return
        task = asyncio.create_task(self._answer_late(chunk))
        self.thinking.add(task)

    async def _answer_late(self, chunk: Chunk) -> None:
        await asyncio.sleep(self.late * self.random.random())
        await self._answer(chunk)

    async def _answer(self, chunk: Chunk) -> None:
        if chunk.event_type == "deactivated":
            await self._send(chunk, chunk.answer(default="soft_locked"))
            return
        answer = chunk.answer(default="no_account")
        for row in self.random.sample(range(len(chunk)), min(6, len(chunk))):
            answer.row(row, self.random.choice(("unbound", "needs_holder_action", "rejected_cutoff")))
        held = self.random.randrange(len(chunk))
        answer.row(held, "held_dispute", review_at=REVIEW_AT)
        await self._send(chunk, answer)
        if self.random.random() < 0.2:
            await self._send(chunk, chunk.answer().row(held, "unbound"))

    async def _send(self, chunk: Chunk, answer: Answer) -> None:
        sent = AnswerSent(self.subscription_id, chunk.chunk_id, len(chunk), _said(answer), now())
        self.history.answers.append(sent)
        await insist(lambda: self.client.acks.send(answer))
        sent.ended = now()

    @property
    def idle(self) -> bool:
        for task in [task for task in self.thinking if task.done()]:
            self.thinking.discard(task)
            task.result()
        return self.inbox.empty() and not self.working and not self.thinking


def _said(answer: Answer) -> Said:
    message = answer.to_json()
    groups = sorted((group["disposition"], tuple(group["rows"])) for group in message["exceptions"])
    return message.get("default"), tuple(groups)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def listen(platforms: list[Platform], port: int) -> tuple[_Server, asyncio.Task[None]]:
    """One web server for all webhook platforms, one path each."""
    at = {f"/{platform.name}": platform for platform in platforms}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        status, answer = at[scope["path"]].post(headers, body)
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": answer})

    server = _Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off"))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    return server, task


# ---- before and after


async def drained(platforms: list[Platform], history: History, tasks: list[asyncio.Task[None]]) -> None:
    """Wait until everything accepted has arrived and is answered, or nothing has moved for a minute; what is missing
    then, the checker names."""
    live = {
        event_id: kind
        for call in history.calls
        for (_, kind), event_id in zip(call.items, call.heard[-1], strict=True)
        if event_id is not None
    }
    rows = sum(batch.accepted for batch in history.batches)
    done, deadline = -1, 0.0
    while True:
        if (moved := len(history.deliveries) + len(history.answers)) != done:  # a busy machine is slow, not lossy
            done, deadline = moved, now() + DRAIN_WITHIN
        if now() > deadline:
            return
        for task in tasks:
            assert not task.done(), f"a platform stopped working: {task}"
        if all(p.idle and _has_all(p, live, rows, history) for p in platforms):
            return
        await asyncio.sleep(0.1)


def _has_all(platform: Platform, live: dict[str, str], rows: int, history: History) -> bool:
    mine = [d for d in history.deliveries if d.subscription_id == platform.subscription_id]
    came = {d.chunk_id: len(d.rows) for d in mine}
    owed = {event_id for event_id, kind in live.items() if platform.wishes.want(kind, "live")}
    bulk = sum(count for chunk_id, count in came.items() if chunk_id not in live)
    return owed <= came.keys() and (not platform.wishes.want("release_scheduled", "bulk") or bulk >= rows)


async def enrol(ledger_at: Path | str, carriers: list[str], apps: dict[str, AppClass]) -> dict[str, PrivateKey]:
    """Parties straight into the ledger (a data directory or an address), before the hub starts; clearance asks
    everybody (strict)."""
    clock = SystemClock()
    directory, ledger = open_ledger(_address(ledger_at), clock)
    members = Members(directory, clock)
    await members.refresh()
    desk = Enrol(directory, members, clock, SystemRandom(), JwkReader())
    keys: dict[str, PrivateKey] = {}
    for name in carriers:
        private, public = generate("EdDSA")
        keys[name] = PrivateKey.parse(private, name)
        await desk.add_party(Role.carrier, name, name, keys=[public])
    for app_id, app_class in apps.items():
        private, public = generate("EdDSA")
        keys[app_id] = PrivateKey.parse(private, f"{app_id}-co")
        await desk.add_party(Role.subscriber, f"{app_id}-co", app_id, keys=[public])
        await desk.add_app(app_id, f"{app_id}-co", app_class, app_id)
        await desk.add_agreement(f"{app_id}-co", pia_ref="PIA-1")
    await directory.put_policy({"clearance": "strict"})
    await ledger.close()
    return keys


def _address(ledger_at: Path | str) -> Path | str:
    return ledger_at / "ledger.db" if isinstance(ledger_at, Path) else ledger_at


async def read_kept(ledger_at: Path | str, history: History) -> Kept:
    """What the ledger holds, read beside the hub."""
    _, ledger = open_ledger(_address(ledger_at), SystemClock())
    kept = Kept()
    try:
        for batch in history.batches:
            for batch_id in set(batch.batch_ids):
                entries = await ledger.chunks_of_batch(batch_id)
                kept.batch_chunks[batch_id] = {entry.chunk_id: entry.count for entry in entries}
        live = [e for call in history.calls for e in (call.heard or [[]])[-1] if e is not None]
        counts = {delivery.chunk_id: len(delivery.rows) for delivery in history.deliveries}
        chunk_ids = [*live, *(chunk_id for chunks in kept.batch_chunks.values() for chunk_id in chunks)]
        for subscription_id in history.subscriptions:
            receipts = await ledger.receipts_of(subscription_id, chunk_ids)
            kept.receipts |= {(subscription_id, chunk_id) for chunk_id in receipts}
            parked = await ledger.parked_of(subscription_id, limit=100_000)
            kept.parked |= {(subscription_id, chunk.chunk_id) for chunk in parked}
            for standing in await ledger.standings(list(counts.items()), [subscription_id]):
                codes = tuple(BY_NUMBER[code].value if code else None for code in standing.codes.tolist())
                kept.codes[subscription_id, standing.chunk_id] = codes
            answered = [chunk_id for subscription, chunk_id in kept.codes if subscription == subscription_id]
            facts = await asyncio.gather(*(ledger.answers_of(subscription_id, chunk_id) for chunk_id in answered))
            for chunk_id, found in zip(answered, facts, strict=True):
                kept.facts[subscription_id, chunk_id] = [_fact(fact) for fact in found]
    finally:
        await ledger.close()
    return kept


def _fact(fact: Fact) -> Said:
    groups = sorted((each.disposition.value, tuple(each.rows.tolist())) for each in fact.exceptions)
    return fact.default.value if fact.default else None, tuple(groups)
