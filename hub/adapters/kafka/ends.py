"""Where the log ends, asked of the brokers: a thousand callers at once cost a request or two."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from aiokafka import errors as kafka
from aiokafka.protocol.offset import OffsetRequest

from hub.adapters.kafka.cluster import Cluster
from hub.adapters.kafka.errors import NOT_TAKEN, translating
from hub.domain.errors import LogUnavailable

T = TypeVar("T")

LATEST, EARLIEST = -1, -2
WITHIN = 5.0
"""Seconds that leaders have to be found: an election takes a moment."""
_AGAIN_AFTER = 0.1
_PASSING = (kafka.KafkaConnectionError, kafka.RequestTimedOutError, kafka.UnknownError)  # Unknown: to aiokafka


class Shared(Generic[T]):
    """Runs ``act`` for all who ask while the run before is under way: every caller gets a run begun after its call."""

    def __init__(self, act: Callable[[], Awaitable[T]]) -> None:
        self._act = act
        self._next: asyncio.Future[T] | None = None
        self._task: asyncio.Task[None] | None = None
        self.runs = 0

    async def __call__(self) -> T:
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._run())
        return await asyncio.shield(self._next)

    async def _run(self) -> None:
        while (due := self._next) is not None:
            self._next = None
            self.runs += 1
            try:
                result = await self._act()
            except asyncio.CancelledError:
                due.cancel()
                raise
            except Exception as error:
                due.set_exception(error)
                due.exception()  # taken note of, also when everybody has left
            else:
                due.set_result(result)

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._next is not None:
            self._next.cancel()


async def with_leaders(cluster: Cluster, act: Callable[[], Awaitable[T]], within: float = WITHIN) -> T:
    """``act`` again, with fresh leaders, while it fails for reasons that pass; LogUnavailable at the latest after
    ``within`` seconds. Only for what may be repeated."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                return await act()
        except (*NOT_TAKEN, *_PASSING, OSError, EOFError) as error:
            if isinstance(error, TimeoutError) or loop.time() + _AGAIN_AFTER >= deadline:
                with translating():
                    raise
            await asyncio.sleep(_AGAIN_AFTER)
            try:
                async with asyncio.timeout_at(deadline):
                    await cluster.refresh()
            except TimeoutError:
                with translating():
                    raise error from None
        except kafka.KafkaError:
            with translating():
                raise


async def offsets(cluster: Cluster, which: int) -> list[int]:
    """Per partition the first kept (EARLIEST) or the next (LATEST) offset, as its leader sees it."""
    return await with_leaders(cluster, lambda: _ask(cluster, which))


async def _ask(cluster: Cluster, which: int) -> list[int]:
    topology = cluster.topology
    found = [-1] * len(topology.leaders)

    async def of(node: int, partitions: Sequence[int]) -> None:
        request = OffsetRequest(-1, 0, [(cluster.topic, [(partition, which) for partition in partitions])])
        response = await cluster.ask(node, request, "ask")
        for _, answers in response.topics:
            for partition, code, _, offset in answers:
                if code:
                    raise kafka.for_code(code)(f"partition {partition}")
                found[partition] = offset

    for outcome in await asyncio.gather(*(of(*each) for each in topology.by_leader().items()), return_exceptions=True):
        if isinstance(outcome, BaseException):
            raise outcome
    if -1 in found:
        raise LogUnavailable("a broker did not say where the log ends")
    return found
