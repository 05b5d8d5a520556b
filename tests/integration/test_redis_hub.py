"""A hub on Redis: two processes tell each other of changes at once, and Redis may vanish in the middle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from typer.testing import CliRunner

from hub.adapters.memory.coordination import MemoryCoordination
from hub.adapters.redis.coordination import RedisCoordination
from hub.adapters.system.clock import SystemClock
from hub.adapters.telemetry.prometheus import NoMetrics
from hub.app.cli.main import app
from hub.app.local import LocalRedis
from hub.app.settings import Settings
from hub.app.wiring import running
from hub.domain.errors import NumhubError
from hub.ports.coordination import DIRECTORY, REDRIVES
from hub.workers.wakeups import Wakeups


class Directory:
    """Members of one process on a version that all share."""

    version = 0

    def __init__(self) -> None:
        self.known = 0
        self.refreshed = 0
        self._callbacks: list[Callable[[], None]] = []

    def on_change(self, callback: Callable[[], None]) -> None:
        self._callbacks.append(callback)

    async def refresh(self) -> None:
        self.refreshed += 1
        if self.known != Directory.version:
            self.known = Directory.version
            for callback in self._callbacks:
                callback()


async def test_a_change_is_known_everywhere_at_once_and_told_once(redis_url: str) -> None:
    """One process's change to the directory and its redrive orders make the others look within milliseconds; nobody
    repeats what he was told."""
    clock = SystemClock()
    members = [Directory() for _ in range(3)]
    looked = [0, 0, 0]

    def look(place: int) -> Callable[[], None]:
        def count() -> None:
            looked[place] += 1

        return count

    links = [
        RedisCoordination(redis_url, clock, NoMetrics(), local=MemoryCoordination(clock), prefix="t.") for _ in members
    ]
    wakeups = [
        Wakeups(link, each, look(place))  # type: ignore[arg-type]
        for place, (link, each) in enumerate(zip(links, members, strict=True))
    ]
    tasks = [asyncio.create_task(each.run()) for each in wakeups]
    with redis.Redis.from_url(redis_url) as client:
        async with asyncio.timeout(10):
            while int(client.pubsub_numsub("t.wake")[0][1]) < 3:
                await asyncio.sleep(0.02)
        spy = client.pubsub(ignore_subscribe_messages=True)
        spy.subscribe("t.wake")
        await asyncio.sleep(0.1)
        before = [each.refreshed for each in members], list(looked)
        Directory.version += 1
        began = time.perf_counter()
        await members[0].refresh()
        async with asyncio.timeout(2):
            while not all(each.known == Directory.version for each in members):
                await asyncio.sleep(0.001)
        assert time.perf_counter() - began < 0.5
        wakeups[1].ordered()
        async with asyncio.timeout(2):
            while not all(now > then for now, then in zip(looked, before[1], strict=True)):
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.3)
        heard = [spy.get_message(timeout=0.05) for _ in range(10)]
        published = [message["data"].decode().split(" ")[1] for message in heard if message]
        spy.close()
    assert published == [DIRECTORY, REDRIVES]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for link in links:
        await link.close()


async def test_a_hub_is_wired_to_the_redis_of_its_settings(
    make_redis: Callable[..., LocalRedis], tmp_path: Path
) -> None:
    """``redis_url`` chooses the adapter; the hub goes on when its Redis is killed, and stops cleanly without it."""
    server = make_redis()
    settings = Settings(data_dir=tmp_path / "data", redis_url=server.url)  # type: ignore[arg-type]
    async with running(settings) as hub:
        assert isinstance(hub.context.coordination, RedisCoordination)
        assert await hub.context.coordination.allow("a", limit=1, window=60) == 0.0
        with redis.Redis.from_url(server.url) as client:
            assert {key.split(b".")[0] for key in client.scan_iter()} == {b"numhub"}
        server.kill()
        assert await hub.context.coordination.allow("b", limit=1, window=60) == 0.0
        await asyncio.sleep(1.5)
        assert hub.supervisor.failure is None


async def test_an_address_that_is_none_is_said_at_the_start(tmp_path: Path) -> None:
    """One clear line, without the password that may stand in it."""
    settings = Settings(data_dir=tmp_path / "data", redis_url="http://:secret@host/0")  # type: ignore[arg-type]
    with pytest.raises(NumhubError, match="redis_url is no address") as told:
        async with running(settings):
            pass
    assert "secret" not in str(told.value)


def doctor(data: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[int, str]:
    monkeypatch.setenv("NUMHUB_REDIS_URL", url)
    monkeypatch.setenv("COLUMNS", "200")
    result = CliRunner().invoke(app, ["doctor", "--data", str(data)])
    return result.exit_code, result.output


def test_the_doctor_looks_at_redis(
    make_redis: Callable[..., LocalRedis], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Good; dangerous eviction; wrong password; gone: each in one line that says what to do."""
    server = make_redis()
    code, text = doctor(tmp_path / "d", server.url, monkeypatch)
    assert code == 0, text
    assert "version 7" in text
    with redis.Redis.from_url(server.url) as client:
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
    code, text = doctor(tmp_path / "d", server.url, monkeypatch)
    assert code == 1
    assert "set noeviction" in text
    code, text = doctor(tmp_path / "d", server.url.replace(server.password, "wrong"), monkeypatch)
    assert code == 1
    assert "refuses the login" in text
    server.kill()
    code, text = doctor(tmp_path / "d", server.url, monkeypatch)
    assert code == 1
    assert "does not answer" in text
    assert server.password not in text
    code, text = doctor(tmp_path / "d", "nonsense", monkeypatch)
    assert code == 1
    assert "no address" in text
