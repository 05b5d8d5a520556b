"""App platforms: each knows only its own accounts and uses the client library to receive and answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import uvicorn
from numhub_client import AsyncClient, NumhubError
from numhub_client.errors import WebhookError
from numhub_client.webhooks import Chunk, Pointer, Proof, Receiver

from hub.app.demo.world import Accounts, PlatformPlan, Temper
from hub.domain.dispositions import Disposition
from hub.domain.parties import DeliveryMode

CORRECTIONS = 400
INSIST_SECONDS = 120.0
SLOW_SECONDS = 0.15
REVIEW_AFTER = timedelta(days=30)

T = TypeVar("T")
Codes = npt.NDArray[np.uint8]


class Platform:
    """One subscriber with one app. ``received`` and ``said`` are its own books, compared with the hub's at the end."""

    def __init__(self, plan: PlatformPlan, accounts: Accounts, client: AsyncClient) -> None:
        self.plan = plan
        self.accounts = accounts
        self.client = client
        self.subscription_id = ""
        self.received: dict[str, tuple[str, npt.NDArray[np.int64]]] = {}  # chunk id -> (event type, numbers)
        self.said: dict[str, Codes] = {}  # chunk id -> disposition numbers, one per row
        self.duplicates = 0
        self.deliveries = 0
        self.failures_left = 3 if plan.temper is Temper.failing else 0
        self.mistaken: list[tuple[Chunk, int]] = []
        self._receiver: Receiver | None = None
        self._withdrawn: dict[int, tuple[int, int]] = {}  # number -> version of the newest withdrawal
        self._inbox: asyncio.Queue[Chunk | Pointer] = asyncio.Queue()
        self._busy = 0

    def trust(self, secret: str) -> None:
        self._receiver = Receiver(secret, subscription_id=self.subscription_id)

    # -- receiving

    async def hook(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """What the platform's endpoint does with one POST: (status, body)."""
        if self._receiver is None:
            return 503, b""
        if self.plan.temper is Temper.slow:
            await asyncio.sleep(SLOW_SECONDS)
        try:
            message = self._receiver.open(headers, body)
        except WebhookError:
            return 400, b""
        if isinstance(message, Proof):
            return 200, json.dumps(message.answer()).encode()
        if self.failures_left:
            self.failures_left -= 1
            return 500, b""
        if isinstance(message, (Chunk, Pointer)):
            self.deliveries += 1
            self._inbox.put_nowait(message)
        self._receiver.done(headers)
        return 200, b""

    async def pull(self) -> None:
        """Iterate the feed for ever; a page is committed when the next one is asked for."""
        while True:
            try:
                async for page in self.client.feed.pages(self.subscription_id, wait_seconds=5):
                    for message in page.messages:
                        if isinstance(message, Chunk):
                            self.deliveries += 1
                            await self._work(message)
            except NumhubError:
                await asyncio.sleep(0.3)

    async def work(self) -> None:
        """Work off what the endpoint took in: the books first, then the answer, repeated until the hub has it."""
        while True:
            message = await self._inbox.get()
            self._busy += 1
            try:
                chunk = message if isinstance(message, Chunk) else await self._fetch(message)
                await self._work(chunk)
            finally:
                self._busy -= 1

    @property
    def idle(self) -> bool:
        return self._inbox.empty() and not self._busy

    async def _fetch(self, pointer: Pointer) -> Chunk:
        return await insist(self.client.chunks.get, self.subscription_id, pointer)

    async def _work(self, chunk: Chunk) -> None:
        numbers = np.array(chunk.numbers, np.int64)
        if chunk.chunk_id in self.received:
            self.duplicates += 1
            return
        if chunk.event_type in ("restored", "release_cancelled"):
            for row in chunk.rows():
                self._withdrawn[row.number] = row.version
        elif chunk.orders_unbind:
            await self._unbind(chunk, numbers)
        self.received[chunk.chunk_id] = (chunk.event_type, numbers)

    # -- answering

    def _decide(self, chunk: Chunk, row: int, number: int, bound_at: int) -> Disposition:
        event = chunk.row(row)
        withdrawn = self._withdrawn.get(number)
        if event.superseded or (withdrawn is not None and withdrawn > event.version):
            return Disposition.rejected_cutoff  # the line went back to its holder: nothing is foreign any more
        if bound_at == 0:
            return Disposition.needs_holder_action
        if not event.covers(datetime.fromtimestamp(bound_at, UTC)):
            return Disposition.rejected_cutoff
        return self.accounts.held.get(number, Disposition.unbound)

    async def _unbind(self, chunk: Chunk, numbers: npt.NDArray[np.int64]) -> None:
        mine = self.accounts
        places = np.searchsorted(mine.numbers, numbers)
        places = np.minimum(places, max(0, len(mine.numbers) - 1))
        hits = np.flatnonzero(mine.numbers[places] == numbers) if len(mine.numbers) else np.empty(0, np.int64)
        codes = np.full(len(numbers), Disposition.no_account.number, np.uint8)
        answer = chunk.answer(default="no_account")
        review_at = datetime.now(UTC).replace(microsecond=0) + REVIEW_AFTER
        for row in hits.tolist():
            number = int(numbers[row])
            said = self._decide(chunk, row, number, int(mine.bound_at[places[row]]))
            codes[row] = said.number
            if self.plan.temper is Temper.correcting and len(self.mistaken) < CORRECTIONS and chunk.lane == "bulk":
                self.mistaken.append((chunk, row))
                continue  # overlooked for now: the default says no_account
            answer.row(row, said.value, review_at=review_at if said.needs_review_at else None)
        await insist(self.client.acks.send, answer)
        self.said[chunk.chunk_id] = codes

    async def correct(self) -> int:
        """Send right what was said wrongly: single rows, each a new fact. Returns how many."""
        by_chunk: dict[str, list[tuple[Chunk, int]]] = {}
        for chunk, row in self.mistaken:
            by_chunk.setdefault(chunk.chunk_id, []).append((chunk, row))
        review_at = datetime.now(UTC).replace(microsecond=0) + REVIEW_AFTER
        for rows in by_chunk.values():
            answer = rows[0][0].answer()
            for chunk, row in rows:
                said = BY_CODE[int(self.said[chunk.chunk_id][row])]
                answer.row(row, said.value, review_at=review_at if said.needs_review_at else None)
            await insist(self.client.acks.send, answer)
        return len(self.mistaken)


BY_CODE = {disposition.number: disposition for disposition in Disposition}


async def insist(call: Callable[..., Awaitable[T]], *args: Any, **options: Any) -> T:
    """Repeat a call that may be repeated until the hub, which is killed now and then, answers."""
    deadline = asyncio.get_running_loop().time() + INSIST_SECONDS
    while True:
        try:
            return await call(*args, **options)
        except NumhubError as error:
            if not error.retriable or asyncio.get_running_loop().time() > deadline:
                raise
            await asyncio.sleep(0.2)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # the demo handles signals itself


class Endpoint:
    """A platform's web server on a port of its own; can go away and come back."""

    def __init__(self, platform: Platform, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/hook"
        self._platform, self._port = platform, port
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        config = uvicorn.Config(
            self._app, host="127.0.0.1", port=self._port, log_level="error", lifespan="off", interface="asgi3"
        )
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(), name=f"endpoint {self._platform.plan.app_id}")
        while not self._server.started:  # noqa: ASYNC110 - uvicorn offers no event
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        if self._server is None or self._task is None:
            return
        self._server.should_exit = True
        self._server.force_exit = True
        await self._task
        self._server = None

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        status, answer = await self._platform.hook(headers, body)
        kind = (b"content-type", b"application/json")
        await send({"type": "http.response.start", "status": status, "headers": [kind]})
        await send({"type": "http.response.body", "body": answer})


def receives_by_webhook(platform: Platform) -> bool:
    return platform.plan.mode is not DeliveryMode.pull
