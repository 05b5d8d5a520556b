"""Rate limits, replay nonces and wake-ups that many processes share, in one Redis 7.

What each call does while Redis is down, or silent for longer than a moment:

- `allow` goes on with what this process alone has seen: a limit then holds per process instead of per hub.
- `first_use` refuses with Unavailable: without the memory of used nonces nothing can be called new.
- wake-ups reach this process's own waiters only; the others look by themselves after a while.

When Redis comes back everybody is woken once, because wake-ups may have been missed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import Any

from hub.adapters.redis import scripts
from hub.adapters.redis.errors import Gone, translated
from hub.adapters.redis.link import ANSWER_WITHIN, PROBE_EVERY, Link, connect
from hub.domain.errors import NumhubError, Unavailable
from hub.ports.clock import Clock
from hub.ports.coordination import Coordination, Wait, Wakeups
from hub.ports.metrics import Metrics

log = logging.getLogger("numhub.coordination")

MARGIN = 1.0
"""Seconds by which the clocks of the hub's processes may differ."""
FRESH = 10.0
"""Issued within so many seconds, something too old for a memory that began just now deserves "in a moment"."""
MARK_EVERY = 5.0
"""Seconds between looks at the mark: how soon a flush is noticed, and so how soon fresh assertions are taken again."""


class RedisCoordination:
    """Implements `ports.coordination.Coordination`. ``local`` is the same for this process alone: it holds the waiters
    and counts limits while Redis is down. ``prefix`` keeps hubs that share a Redis apart."""

    def __init__(self, url: str, clock: Clock, metrics: Metrics, *, local: Coordination, prefix: str) -> None:
        self._clock, self._metrics, self._local, self._prefix = clock, metrics, local, prefix
        self._url = url
        self._link = Link(url, metrics, probe=self._begin, on_back=self._wake_all)
        self._topics: set[str] = set()
        self._channel = f"{prefix}wake"
        self._me = secrets.token_hex(8)
        self._heard: dict[str, dict[str, tuple[float, float]]] = {}  # figure -> who -> value, when

    # ---- what has to be asked

    async def first_use(self, nonce: str, ttl: float, *, issued_at: float) -> bool:
        now = self._now()
        keys = (f"{self._prefix}began", f"{self._prefix}used:{nonce}")
        try:
            verdict = await self._link.ask("EVAL", scripts.FIRST_USE, 2, *keys, now, MARGIN, issued_at, ttl)
        except NumhubError as error:
            self._count("first_use")
            raise Unavailable("Whether this was used before cannot be told right now.", retry_after=1) from error
        if int(verdict) == -1 and now - issued_at < FRESH:
            raise Unavailable("The memory of what was used began a moment ago.", retry_after=2)
        return int(verdict) == 1

    async def allow(self, key: str, *, limit: int, window: float) -> Wait:
        try:
            arguments = ("EVAL", scripts.ALLOW, 1, f"{self._prefix}limit:{key}", self._now(), limit, window)
            seconds, left, resets_after = (await self._link.ask(*arguments))[0].split()
            return Wait(float(seconds), int(left), float(resets_after))
        except NumhubError:
            self._count("allow")
            return await self._local.allow(key, limit=limit, window=window)

    async def begin(self) -> None:
        """Let the memory of nonces begin now, unless it has. A Redis that is not there yet is only warned about."""
        try:
            await self._link.ask(*self._begin())
        except NumhubError as error:
            self._link.lost(error)

    # ---- wake-ups

    def wake(self, topic: str) -> None:
        self._local.wake(topic)
        self._link.tell("PUBLISH", self._channel, f"{self._me} {topic}")

    def subscribe(self, topic: str) -> Wakeups:
        self._topics.add(topic)
        return self._local.subscribe(topic)

    # ---- figures: said on the same channel, kept by who hears them

    def say(self, figure: str, value: float) -> None:
        self._local.say(figure, value)
        self._link.tell("PUBLISH", self._channel, f"{self._me} {figure}={value:.3f}")

    def heard(self, figure: str, within: float) -> list[float]:
        said = self._heard.get(figure, {})
        since = self._clock.monotonic() - within
        for gone in [who for who, (_, at) in said.items() if at < since]:
            del said[gone]
        return [*self._local.heard(figure, within), *(value for value, _ in said.values())]

    async def run(self) -> None:
        while True:
            try:
                await self._listen()
            except Gone as error:
                self._link.lost(error)
            except Exception as error:
                if translated(error) is None:
                    raise
                self._link.lost(error)
            await asyncio.sleep(PROBE_EVERY)

    async def _listen(self) -> None:
        """Hand on what others publish; returns, or raises what redis-py does, when the connection is no good."""
        loop = asyncio.get_running_loop()
        client = connect(self._url)
        try:
            async with client.pubsub(ignore_subscribe_messages=True) as channel:
                await channel.subscribe(self._channel)
                self._wake_all()
                heard_at = marked_at = loop.time()
                while True:
                    message = await channel.get_message(timeout=ANSWER_WITHIN)
                    now = loop.time()
                    if message is not None:
                        heard_at = now
                        self._hear(message)
                    elif now - heard_at > MARK_EVERY + 2 * ANSWER_WITHIN:
                        raise Gone  # not even its answer to the ping below
                    if now - marked_at >= MARK_EVERY:
                        marked_at = now
                        await channel.ping()
                        await self.begin()
        finally:
            await client.aclose()

    def _hear(self, message: dict[str, Any]) -> None:
        if message["type"] != "message":
            return
        sender, _, topic = message["data"].decode().partition(" ")
        if sender == self._me:
            return
        figure, said, value = topic.partition("=")
        if not said:
            self._local.wake(topic)
            return
        with contextlib.suppress(ValueError):
            self._heard.setdefault(figure, {})[sender] = float(value), self._clock.monotonic()

    def _wake_all(self) -> None:
        for topic in self._topics:
            self._local.wake(topic)

    # ----

    async def close(self) -> None:
        await self._link.close()
        await self._local.close()

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def _begin(self) -> tuple[Any, ...]:
        return ("EVAL", scripts.BEGIN, 1, f"{self._prefix}began", self._now(), MARGIN)

    def _count(self, call: str) -> None:
        self._metrics.count("numhub_coordination_fallbacks_total", call=call)
