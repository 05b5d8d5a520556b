"""Coordination on a real Redis keeps the same contract, across processes, flushes, kills and silence."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import time
from collections.abc import AsyncIterator, Callable

import pytest
import redis
import redis.exceptions
from coordination_contract import CoordinationContract

from hub.adapters.memory.coordination import MemoryCoordination
from hub.adapters.redis import coordination as adapter
from hub.adapters.redis import link as link_module
from hub.adapters.redis.coordination import RedisCoordination
from hub.adapters.redis.errors import Gone, Misplaced, Refused, translated, translating
from hub.adapters.system.clock import ManualClock, SystemClock
from hub.adapters.telemetry.prometheus import PrometheusMetrics
from hub.app.local import LocalRedis
from hub.domain.errors import NumhubError, Unavailable
from hub.ports.clock import Clock
from hub.ports.coordination import Coordination


def opened(url: str, clock: Clock | None = None) -> RedisCoordination:
    clock = clock or SystemClock()
    return RedisCoordination(url, clock, PrometheusMetrics(), local=MemoryCoordination(clock), prefix="test.")


@contextlib.asynccontextmanager
async def running(url: str, clock: Clock | None = None) -> AsyncIterator[RedisCoordination]:
    """One process of a hub: listening, its memory of nonces begun."""
    made = opened(url, clock)
    await made.begin()
    listening = asyncio.create_task(made.run())
    try:
        yield made
        assert not listening.done(), "no fault of Redis may end it"
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await made.close()


async def until(true: Callable[[], bool], within: float = 10.0) -> None:
    async with asyncio.timeout(within):
        while not true():
            await asyncio.sleep(0.02)


def series(made: RedisCoordination, name: str) -> str:
    _, page = made._metrics.exposition()  # type: ignore[attr-defined]
    return "\n".join(line for line in page.decode().splitlines() if line.startswith(name))


class TestRedisCoordination(CoordinationContract):
    @pytest.fixture
    def url(self, redis_url: str) -> str:
        return redis_url

    @pytest.fixture
    async def coordination(self, url: str, clock: ManualClock) -> AsyncIterator[Coordination]:
        made = opened(url, clock)
        await made.begin()
        clock.advance(2)  # what is issued now was issued after the beginning
        yield made
        await made.close()

    async def test_processes_share_limits_and_nonces(self, url: str, clock: ManualClock) -> None:
        """What one process counted and saw, another one knows."""
        async with running(url, clock) as one, running(url, clock) as other:
            clock.advance(2)
            waits = [await each.allow("a", limit=3, window=10) for each in (one, other, one, other)]
            assert waits[:3] == [0.0, 0.0, 0.0]
            assert waits[3] > 0
            assert await self.first(one, clock, "a")
            assert not await self.first(other, clock, "a")

    async def test_a_clock_a_little_behind_does_not_reset_a_limit(self, url: str, clock: ManualClock) -> None:
        """Two processes on both sides of a window's border count into the same window."""
        late = ManualClock(clock.now())
        clock.advance(9.95)
        late.advance(10.05)
        async with running(url, clock) as one, running(url, late) as other:
            waits = []
            for _ in range(20):
                waits += [await each.allow("a", limit=10, window=10) for each in (one, other)]
        assert waits.count(0.0) <= 11

    async def test_a_wake_up_reaches_other_processes_in_milliseconds(self, url: str) -> None:
        """Nobody has to look by himself."""
        async with running(url) as one, running(url) as other:
            waiter = other.subscribe("directory")
            await until(lambda: subscribers(url) == 2)
            await waiter.wait(0.01)  # the one that follows every connection
            took = []
            for _ in range(20):
                began = time.perf_counter()
                one.wake("directory")
                assert await waiter.wait(5)
                took.append(time.perf_counter() - began)
        assert sorted(took)[10] < 0.05, took

    async def test_a_flush_refuses_what_was_issued_before_it(self, url: str, clock: ManualClock) -> None:
        """FLUSHALL forgets the nonces; what might have been used before is refused, what is issued afterwards taken."""
        async with running(url, clock) as made:
            clock.advance(2)
            issued = clock.now().timestamp()
            assert await made.first_use("used", 300, issued_at=issued)
            with redis.Redis.from_url(url) as client:
                client.flushall()
            clock.advance(0.5)
            with pytest.raises(Unavailable) as told:
                await made.first_use("used", 300, issued_at=issued)
            assert told.value.details["retry_after"] == 2
            clock.advance(60)
            assert not await made.first_use("used", 300, issued_at=issued)
            assert await self.first(made, clock, "fresh")

    async def test_cancelled_callers_leave_no_reply_to_others(self, url: str, clock: ManualClock) -> None:
        """Whoever gives up waiting, every other caller gets the answer to his own question."""
        async with running(url, clock) as made:
            for round_ in range(50):
                leaving = [asyncio.create_task(made.allow("full", limit=0, window=10)) for _ in range(10)]
                staying = [asyncio.create_task(made.allow(f"own {round_}", limit=5, window=10)) for _ in range(5)]
                await asyncio.sleep(0 if round_ % 2 else 0.0005)
                for task in leaving:
                    task.cancel()
                assert await asyncio.gather(*staying) == [0.0] * 5
                assert await made.allow("full", limit=0, window=10) > 0
                await asyncio.gather(*leaving, return_exceptions=True)

    async def test_hubs_that_share_a_redis_do_not_meet(self, url: str, clock: ManualClock) -> None:
        """The prefix keeps them apart."""
        other = RedisCoordination(url, clock, PrometheusMetrics(), local=MemoryCoordination(clock), prefix="other.")
        async with running(url, clock) as made:
            await other.begin()
            clock.advance(2)
            assert await self.first(made, clock, "a")
            assert await self.first(other, clock, "a")
        await other.close()


def subscribers(url: str) -> int:
    with redis.Redis.from_url(url) as client:
        return int(client.pubsub_numsub("test.wake")[0][1])


async def test_a_killed_redis_changes_no_answer_and_comes_back(
    make_redis: Callable[..., LocalRedis], caplog: pytest.LogCaptureFixture
) -> None:
    """While it is gone: limits hold in the process, nonces are refused for now, wake-ups stay at home. Back again
    without a memory it refuses what was issued before, and other processes hear wake-ups again."""
    caplog.set_level(logging.WARNING, "numhub.coordination")
    server = make_redis()
    async with running(server.url) as one, running(server.url) as other:
        await asyncio.sleep(1.1)
        issued = time.time()
        assert await one.first_use("used", 300, issued_at=issued)
        server.kill()
        waits = [await one.allow("a", limit=3, window=60) for _ in range(5)]
        assert [wait > 0 for wait in waits] == [False, False, False, True, True]
        for _ in range(2):
            with pytest.raises(Unavailable) as told:
                await one.first_use("another", 300, issued_at=time.time())
            assert told.value.details["retry_after"] == 1
        own, far = one.subscribe("directory"), other.subscribe("directory")
        await own.wait(0.01)
        one.wake("directory")
        assert await own.wait(1)
        assert 'dependency="redis"} 0.0' in series(one, "numhub_dependency_up")
        assert "numhub_coordination_fallbacks_total" in series(one, "numhub_coordination_fallbacks_total")
        server.start()
        await until(lambda: one._link.up and other._link.up)
        await until(lambda: subscribers(server.url) == 2)
        with pytest.raises(Unavailable):
            await one.first_use("used", 300, issued_at=issued)
        await asyncio.sleep(1.1)
        assert await one.first_use("fresh", 300, issued_at=time.time())
        await far.wait(0.01)
        one.wake("directory")
        assert await far.wait(2)
        assert 'dependency="redis"} 1.0' in series(one, "numhub_dependency_up")
    said = [record.message for record in caplog.records]
    assert said.count("coordination_lost") == said.count("coordination_back") == 2  # once per process, not per call


async def test_a_restart_counts_as_a_beginning_even_with_its_data(make_redis: Callable[..., LocalRedis]) -> None:
    """A Redis that keeps a file may have lost its last writes: the run of the server is part of the mark."""
    server = make_redis(persist=True)
    async with running(server.url) as made:
        await asyncio.sleep(1.1)
        issued = time.time()
        assert await made.first_use("used", 300, issued_at=issued)
        server.kill()
        server.start()
        await until(lambda: made._link.up)
        with pytest.raises(Unavailable):
            await made.first_use("never seen", 300, issued_at=issued)


async def test_a_silent_redis_holds_nobody_up(
    make_redis: Callable[..., LocalRedis], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGSTOP, for so long that even a ping goes unanswered: those who wait are answered within about a second, those
    who come then at once; and it recovers."""
    monkeypatch.setattr(adapter, "MARK_EVERY", 0.5)
    server = make_redis()
    async with running(server.url) as made:
        await made.allow("a", limit=10_000, window=60)
        server.pause()
        began = time.perf_counter()
        answers = await asyncio.gather(*(made.allow("a", limit=1000, window=60) for _ in range(600)))
        assert time.perf_counter() - began < 1.5
        assert answers == [0.0] * 600
        slowest = 0.0
        end = time.perf_counter() + 3
        while time.perf_counter() < end:
            began = time.perf_counter()
            await made.allow("b", limit=10_000, window=60)
            with pytest.raises(Unavailable):
                await made.first_use("x", 60, issued_at=time.time())
            slowest = max(slowest, time.perf_counter() - began)
            await asyncio.sleep(0.01)
        assert slowest < 0.4
        server.resume()
        await until(lambda: made._link.up, within=5)
        assert await made.first_use("y", 60, issued_at=time.time() + 2)


async def test_a_hub_starts_before_its_redis(make_redis: Callable[..., LocalRedis]) -> None:
    """What is not there yet is warned about and found later."""
    server = make_redis()
    server.stop()
    async with running(server.url) as made:
        assert not made._link.up
        assert await made.allow("a", limit=1, window=60) == 0.0
        server.start()
        await until(lambda: made._link.up)


async def test_a_wrong_password_is_unavailable_not_a_crash(redis_url: str) -> None:
    """The operator sees a warning; callers are told what a Redis that is down would tell them."""
    host = redis_url.rpartition("@")[2]
    async with running(f"redis://:wrong@{host}") as made:
        assert await made.allow("a", limit=1, window=60) == 0.0
        with pytest.raises(Unavailable):
            await made.first_use("x", 60, issued_at=time.time())


def test_every_error_of_redis_has_a_translation() -> None:
    """No class of the library gets past the border; who sees which is chosen, not left over."""
    classes = {
        error for _, error in inspect.getmembers(redis.exceptions, inspect.isclass) if issubclass(error, Exception)
    }
    assert len(classes) > 25
    untold = set()
    for error in classes:
        raised = error.__new__(error)
        known = translated(raised)
        if not isinstance(known, NumhubError):
            untold.add(error.__name__)
            continue
        with pytest.raises(type(known)), translating():
            raise raised
    assert untold == set()
    expected = {
        redis.exceptions.ConnectionError: Gone,
        redis.exceptions.TimeoutError: Gone,
        redis.exceptions.BusyLoadingError: Gone,
        redis.exceptions.ReadOnlyError: Gone,
        redis.exceptions.AuthenticationError: Refused,
        redis.exceptions.NoPermissionError: Refused,
        redis.exceptions.MovedError: Misplaced,
        redis.exceptions.ResponseError: NumhubError,
    }
    assert {error: type(translated(error.__new__(error))) for error in expected} == expected
    with pytest.raises(KeyError), translating():
        raise KeyError("a mistake of the program")


def test_the_client_repeats_nothing() -> None:
    """redis-py repeats commands ten times unless told otherwise: one INCR would count three."""
    client = link_module.connect("redis://127.0.0.1:1/0")
    retry = client.connection_pool.connection_kwargs["retry"]
    assert retry._retries == 0
    assert adapter.ANSWER_WITHIN <= 0.5


async def test_figures_are_heard_in_every_process(redis_url: str) -> None:
    """Each process' last word beside one's own; rubbish on the channel is passed over."""
    async with running(redis_url) as one, running(redis_url) as other:
        async with asyncio.timeout(10):
            while sorted(other.heard("lag", 30)) != [1.25, 4.0]:  # who has just begun to listen may miss the first
                one.say("lag", 4.0)
                other.say("lag", 1.25)
                one._link.tell("PUBLISH", one._channel, "somebody lag=much")
                await asyncio.sleep(0.02)
