"""A whole hub for a story: real adapters and the real HTTP surface in-process, a clock that the test moves, and
receivers that are called without a socket.

```python
async with town(tmp_path) as place:
    carrier = await place.carrier("cmcc")
    bank = await place.app("bank", AppClass.bank, mode="webhook_full")
```
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, Protocol

import httpx
from numhub_client import Answer, AsyncClient, Chunk, Event, PrivateKey, Receiver, Retry
from numhub_client.webhooks import Message, Pointer, Proof

from hub.adapters.oauth.keys import generate
from hub.adapters.system.clock import ManualClock
from hub.app.settings import Settings
from hub.app.wiring import Hub, running
from hub.domain.parties import AppClass, Role
from hub.ports.sender import Response, SendError

HUB = "http://hub.test"
TODAY = datetime(2026, 6, 1, 4, tzinfo=UTC)  # noon in China
FIRST = 13_800_000_000
PATIENT = Retry(attempts=4, first=0.01, longest=0.05)


# ---- what carriers send


def night_file(rows: Iterable[tuple[int, datetime]], *more: str) -> bytes:
    """A file of scheduled releases: (number, end of the line) per row, then ``more`` rows word for word."""
    lines = [f"{number},{ended.isoformat()}" for number, ended in rows]
    return "\n".join(["number,terminated_at", *lines, *more, ""]).encode()


def release_file(numbers: Iterable[int], at: datetime) -> bytes:
    return "\n".join(["number,occurred_at", *(f"{number},{at.isoformat()}" for number in numbers), ""]).encode()


def event(number: int, event_type: str, at: datetime, **more: Any) -> Event:
    return Event(str(number), event_type, at, **more)  # type: ignore[arg-type]


# ---- time


@dataclass(frozen=True)
class DatedKey:
    """A party's key used at the story's own time: the client would ask the machine."""

    key: PrivateKey
    clock: ManualClock

    def grant(self, issuer: str, now: float) -> tuple[dict[str, str], dict[str, str]]:
        return self.key.grant(issuer, self.clock.now().timestamp())

    def sign(self, payload: Mapping[str, Any]) -> str:
        return self.key.sign({**payload, "iat": int(self.clock.now().timestamp())})


async def tick(clock: ManualClock) -> None:
    """Let time pass: half a minute of the story in a second."""
    while True:
        await asyncio.sleep(0.002)
        clock.advance(0.06)


async def until(seen: Callable[[], bool], within: float = 20.0) -> None:
    """Wait (real seconds) until something is so; fails the test if it never is."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not seen():
        assert loop.time() < deadline, "what was waited for did not come"
        await asyncio.sleep(0.003)


# ---- who receives


class Handles(Protocol):
    def __call__(self, chunk: Chunk) -> Answer | None: ...


@dataclass(frozen=True, slots=True)
class Got:
    chunk_id: str
    event_type: str
    numbers: tuple[int, ...] = field(repr=False)
    at: datetime
    body: bytes = field(repr=False)
    signatures: int = 0


@dataclass
class App:
    """One app with one subscription: its own books, and what it does with a chunk (``handle``; None: say nothing)."""

    app_id: str
    client: AsyncClient
    clock: ManualClock
    mode: str
    handle: Handles
    subscription_id: str = ""
    up: bool = True
    status: int | None = None  # what a failing endpoint answers
    got: list[Got] = field(default_factory=list)
    attempts: int = 0
    receiver: Receiver | None = None
    inbox: asyncio.Queue[Chunk | Pointer] = field(default_factory=asyncio.Queue)
    busy: int = 0
    last: tuple[Mapping[str, str], bytes] | None = None  # the newest request it took

    @property
    def url(self) -> str:
        return f"https://{self.app_id}.example.com/hook"

    def trust(self, *secrets: str) -> None:
        self.receiver = Receiver(
            secrets, subscription_id=self.subscription_id, now=lambda: self.clock.now().timestamp(), tolerance=600
        )

    def post(self, headers: Mapping[str, str], body: bytes) -> Response:
        """The endpoint. A message is taken in before the 2xx, and worked off afterwards."""
        if self.status is not None:
            self.attempts += 1
            return Response(self.status)
        if self.receiver is None:  # before the secret arrived; proofs come later
            return Response(503)
        message: Message = self.receiver.open(headers, body)
        if isinstance(message, Proof):
            return Response(200, body=json.dumps(message.answer()).encode())
        self.attempts += 1
        self.last = (headers, body)
        if isinstance(message, Chunk | Pointer):
            if isinstance(message, Chunk):
                self._book(message, body, len(headers["webhook-signature"].split()))
            self.inbox.put_nowait(message)
        return Response(204)

    def _book(self, chunk: Chunk, body: bytes, signatures: int = 0) -> None:
        entry = Got(chunk.chunk_id, chunk.event_type, tuple(chunk.numbers), self.clock.now(), body, signatures)
        self.got.append(entry)

    async def work(self) -> None:
        """Webhook apps: work off what the endpoint took in."""
        while True:
            message = await self.inbox.get()
            self.busy += 1
            if isinstance(message, Pointer):
                chunk = await self.client.chunks.get(self.subscription_id, message)
                self._book(chunk, chunk.raw or b"")
            else:
                chunk = message
            await self._answer(chunk)
            self.busy -= 1

    async def pull(self) -> None:
        """Pull apps: read to the end of the feed, answering page by page."""
        async for page in self.client.feed.pages(self.subscription_id, follow=False):
            for chunk, body in zip(page.chunks, page.bodies(), strict=True):
                self._book(chunk, body)
                await self._answer(chunk)

    async def _answer(self, chunk: Chunk) -> None:
        said = self.handle(chunk)
        if said is not None and not said.empty:
            await self.client.acks.send(said)

    def numbers(self, event_type: str) -> list[int]:
        """All numbers received for an event type, repeats included, ascending."""
        return sorted(number for got in self.got if got.event_type == event_type for number in got.numbers)


class Street:
    """A Sender whose receivers are objects: the hub's requests reach them as they would leave the machine."""

    def __init__(self) -> None:
        self.apps: dict[str, App] = {}
        self.posts = 0

    def check_url(self, url: str) -> None:
        """Every address of the street is fine."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        await asyncio.sleep(0)
        self.posts += 1
        app = self.apps[url]
        if not app.up:
            app.attempts += 1
            raise SendError("connect", detail="nobody listens")
        return app.post(headers, body)

    async def close(self) -> None:
        return None


# ---- the hub and those around it


class Town:
    def __init__(self, hub: Hub, clock: ManualClock, street: Street, retry: Retry = PATIENT) -> None:
        self.hub, self.clock, self.street, self.retry = hub, clock, street, retry
        self.transport = httpx.ASGITransport(app=hub.app)
        self.clients: dict[str, AsyncClient] = {}
        self.keys: dict[str, Any] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def party(self, role: Role, party_id: str, **more: Any) -> AsyncClient:
        private, public = generate("ES256")
        await self.hub.enrol.add_party(role, party_id, party_id, keys=[public], **more)
        dated: Any = DatedKey(PrivateKey.parse(private, party_id), self.clock)
        self.keys[party_id] = dated
        client = AsyncClient(HUB, dated, transport=self.transport, timeout=30, retry=self.retry)
        self.clients[party_id] = client
        return client

    async def carrier(self, party_id: str, **more: Any) -> AsyncClient:
        more.setdefault("coverage_since", self.clock.now() - timedelta(days=900))
        return await self.party(Role.carrier, party_id, **more)

    async def regulator(self, party_id: str = "regulator") -> AsyncClient:
        return await self.party(Role.regulator, party_id)

    async def app(
        self,
        app_id: str,
        app_class: AppClass,
        *,
        mode: str = "webhook_full",
        handle: Handles | None = None,
        agreement: bool = True,
        **wishes: Any,
    ) -> App:
        """Enrol a subscriber with one app, subscribe from the log's start, prove the endpoint."""
        client = await self.party(Role.subscriber, f"{app_id}-co")
        await self.hub.enrol.add_app(app_id, f"{app_id}-co", app_class, app_id.title())
        if agreement:
            await self.hub.enrol.add_agreement(
                f"{app_id}-co", pia_ref="PIA-1", ends_at=self.clock.now() + timedelta(days=3650)
            )
        app = App(app_id, client, self.clock, mode, handle or no_account)
        self.street.apps[app.url] = app
        endpoint = None if mode == "pull" else app.url
        made = await client.subscriptions.create(app_id, mode=mode, endpoint=endpoint, start="earliest", **wishes)  # type: ignore[arg-type]
        app.subscription_id = made.subscription_id
        if endpoint is not None:
            assert made.secret is not None
            app.trust(made.secret.key)
            proof = await client.subscriptions.prove(made.subscription_id)
            assert proof.proven and proof.state == "active"
            self.run(app.work())
        return app

    def run(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self.tasks.append(task)
        return task

    def nobody_failed(self) -> None:
        for task in self.tasks:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    async def quiet(self, apps: Sequence[App], event_type: str, rows: int, within: float = 20.0) -> None:
        """Wait until each of ``apps`` has booked ``rows`` rows of an event type and answered what it took in."""

        def seen() -> bool:
            self.nobody_failed()
            return all(not app.busy and app.inbox.empty() and len(set(app.numbers(event_type))) >= rows for app in apps)

        await until(seen, within)

    async def later(self, span: timedelta, steps: int = 20) -> None:
        """Let ``span`` pass in steps; between two leaps everybody has a few turns, so that no request is under way for
        hours."""
        for _ in range(steps):
            self.clock.advance(span / steps)
            for _ in range(40):
                await asyncio.sleep(0)
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        for client in self.clients.values():
            await client.aclose()


@contextlib.asynccontextmanager
async def town(
    folder: Path, *, today: datetime = TODAY, tracing: Any = None, retry: Retry = PATIENT, **settings: Any
) -> AsyncIterator[Town]:
    """A running hub in ``folder`` at noon of ``today``; time passes by itself and leaps by ``later``. ``retry`` is how
    patient the parties' clients are."""
    clock, street = ManualClock(today), Street()
    async with running(
        Settings(data_dir=folder, **settings),
        public_url=HUB,
        clock=clock,
        sender=street,
        random=Random(7),
        tracing=tracing,
    ) as hub:
        place = Town(hub, clock, street, retry)
        ticking = asyncio.create_task(tick(clock))
        try:
            yield place
            place.nobody_failed()
        finally:
            await place.close()
            ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ticking


# ---- what apps do with a chunk


def no_account(chunk: Chunk) -> Answer | None:
    """Everybody is a stranger; what orders nothing is not answered."""
    return chunk.answer(default="no_account") if chunk.orders_unbind else None


def silent(chunk: Chunk) -> Answer | None:
    """Takes everything and says nothing."""
    return None


def holds(accounts: Mapping[int, str], *, review_at: datetime | None = None) -> Handles:
    """Numbers -> disposition; all others are strangers. Rows withdrawn meanwhile are left alone."""

    def handle(chunk: Chunk) -> Answer | None:
        if not chunk.orders_unbind:
            return None
        answer = chunk.answer(default="no_account")
        for row in chunk.among(accounts):
            said = "rejected_cutoff" if row.superseded else accounts[row.number]
            answer.row(row.row, said, review_at=review_at if said.startswith("held_") else None)  # type: ignore[arg-type]
        return answer

    return handle
