"""The way to Redis: questions of many callers gathered into one round trip, under a deadline, with a fuse.

No caller's cancellation ever reaches the connection: a caller waits for a future of its own, and only the one task
that sends reads replies. A command is sent once and never repeated, so nothing is counted twice. When Redis does not
answer in time, whoever waits is told at once and the fuse is out: from then on callers are told without asking, until a
probe in the background gets an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from hub.adapters.redis.errors import Gone, translated
from hub.domain.errors import NumhubError
from hub.ports.metrics import Metrics

log = logging.getLogger("numhub.coordination")

ANSWER_WITHIN = 0.5
"""Seconds. A healthy Redis answers within a millisecond; a request waits for a silent one twice this at most."""
PROBE_EVERY = 0.5
MOST_AT_ONCE = 256


def connect(url: str, **more: Any) -> Redis:
    """A client that repeats nothing and waits for nothing long. Raises ValueError for what is no address."""
    return Redis.from_url(
        url,
        socket_timeout=ANSWER_WITHIN,
        socket_connect_timeout=ANSWER_WITHIN,
        retry=Retry(NoBackoff(), 0),
        protocol=2,
        client_name="numhub",
        **more,
    )


@dataclass(slots=True)
class _Question:
    arguments: Sequence[Any]
    reply: asyncio.Future[Any] | None  # None: nobody waits for it


class Link:
    """``on_back`` is called when Redis answers again after it did not; ``probe`` is the command that finds out."""

    def __init__(
        self, url: str, metrics: Metrics, *, probe: Callable[[], Sequence[Any]], on_back: Callable[[], None]
    ) -> None:
        self.client = connect(url)
        self._metrics, self._probe, self._on_back = metrics, probe, on_back
        self._waiting: list[_Question] = []
        self._sending: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None
        self._up = True
        self._closed = False
        metrics.set("numhub_dependency_up", 1, dependency="redis")

    @property
    def up(self) -> bool:
        return self._up

    async def ask(self, *arguments: Any) -> Any:
        """The reply to one command. Raises Gone (at once while Redis is down), Misplaced, NumhubError."""
        if not self._up or self._closed:
            raise Gone
        reply: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._put(_Question(arguments, reply))
        return await reply

    def tell(self, *arguments: Any) -> None:
        """Send a command whose reply nobody needs; dropped while Redis is down."""
        if self._up and not self._closed:
            self._put(_Question(arguments, None))

    def lost(self, error: BaseException) -> None:
        """Somebody found out that Redis does not answer."""
        if not self._up or self._closed:
            return
        self._up = False
        self._metrics.set("numhub_dependency_up", 0, dependency="redis")
        log.warning("coordination_lost", extra={"error": type(error).__name__})
        self._probing = asyncio.create_task(self._probe_until_back(), name="redis probe")

    async def close(self) -> None:
        self._closed = True
        for task in (self._probing, self._sending):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        self._refuse(self._waiting, Gone())
        with contextlib.suppress(Exception):
            async with asyncio.timeout(ANSWER_WITHIN):
                await self.client.aclose()

    def _put(self, question: _Question) -> None:
        self._waiting.append(question)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.create_task(self._send_all(), name="redis questions")

    async def _send_all(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            try:
                replies = await self._round_trip([question.arguments for question in batch])
            except Exception as error:
                known = translated(error)
                self._refuse(batch, known or error)
                self._refuse(self._waiting, Gone())
                self.lost(error)
                return
            except asyncio.CancelledError:
                self._refuse(batch, Gone())
                raise
            for question, reply in zip(batch, replies, strict=True):
                _answer(question, reply)
            gone = next((reply for reply in replies if isinstance(translated(reply), Gone)), None)
            if gone is not None:
                self._refuse(self._waiting, Gone())
                self.lost(gone)
                return

    async def _round_trip(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        async with asyncio.timeout(ANSWER_WITHIN):
            pipeline = self.client.pipeline(transaction=False)
            for command in commands:
                pipeline.execute_command(*command)
            return list(await pipeline.execute(raise_on_error=False))

    def _refuse(self, questions: list[_Question], error: BaseException) -> None:
        for question in questions:
            _answer(question, error)
        if questions is self._waiting:
            self._waiting = []

    async def _probe_until_back(self) -> None:
        while True:
            await asyncio.sleep(PROBE_EVERY)
            # What the last attempt may have left half-read must not answer the next question.
            await self.client.connection_pool.disconnect(inuse_connections=True)
            try:
                (reply,) = await self._round_trip([self._probe()])
            except Exception as error:
                log.debug("coordination_still_lost", extra={"error": type(error).__name__})
                continue
            if isinstance(reply, Exception):
                continue
            self._up = True
            self._metrics.set("numhub_dependency_up", 1, dependency="redis")
            log.warning("coordination_back")
            self._on_back()
            return


def _answer(question: _Question, reply: Any) -> None:
    """Hand a reply over, unless its caller has left."""
    future = question.reply
    if future is None or future.done():
        return
    if isinstance(reply, BaseException):
        future.set_exception(reply if isinstance(reply, NumhubError) else translated(reply) or reply)
    else:
        future.set_result(reply)
