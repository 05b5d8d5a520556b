"""The scaled-out hub on real engines while these, or its own workers, fail under load; then the whole history is
judged (`tests.history`): nothing lost, changed, reordered or taken back, and the hub comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import httpx
import pytest
from numhub_client import AsyncClient, PrivateKey

from hub.app.demo.hub_process import NumhubProcess, free_port
from hub.app.local import LocalPostgres
from hub.domain.events import EventType
from hub.domain.parties import AppClass
from tests.contracts.kafka_world import ANY_TIME, delete_topic, make_topic
from tests.history import History, Wishes, check
from tests.integration.killed_world import (
    ONCE,
    SETTINGS,
    Carrier,
    Platform,
    drained,
    enrol,
    listen,
    now,
    read_kept,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

LEASE = 3.0
ALL = Wishes(frozenset(kind.value for kind in EventType), frozenset({"bulk", "live"}))
APPS = {
    "bank": (AppClass.bank, "webhook_full"),
    "mail": (AppClass.social_mail, "webhook_full"),
    "chat": (AppClass.social_mail, "webhook_pointer"),
    "games": (AppClass.games, "webhook_full"),
    "shop": (AppClass.e_commerce, "pull"),
}


@dataclass
class World:
    api: NumhubProcess
    workers: list[NumhubProcess]
    postgres: LocalPostgres
    carriers: list[Carrier]
    platforms: list[Platform]
    history: History
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    load: list[asyncio.Task[None]] = field(default_factory=list)

    def begin(self) -> None:
        for carrier in self.carriers:
            self.load.append(asyncio.create_task(carrier.publish_live(0, self.stop, 0.3)))
            self.load.append(asyncio.create_task(carrier.publish_batches(self.stop, 3.0)))

    async def progress(self, within: float = 60.0) -> None:
        """Until what is accepted from now on has come to every webhook, and an answer has been taken."""
        since = now()
        await self._until(lambda: any(call.started > since and call.heard for call in self.history.calls), within)
        new = {
            event_id
            for call in self.history.calls
            if call.started > since and call.heard
            for event_id in call.heard[-1]
            if event_id is not None
        }
        names = {platform.subscription_id for platform in self.platforms if platform.mode == "webhook_full"}
        wanted = {(name, event_id) for name in names for event_id in new}

        def missing() -> set[tuple[str, str]]:
            return wanted - {(one.subscription_id, one.chunk_id) for one in self.history.deliveries if one.at > since}

        try:
            await self._until(lambda: not missing(), within)
        except AssertionError as error:
            raise AssertionError(f"{missing()} never came; {error}") from None
        answered = sum(1 for answer in self.history.answers if answer.ended)
        await self._until(lambda: sum(1 for answer in self.history.answers if answer.ended) > answered, within)

    async def _until(self, seen: Callable[[], bool], within: float) -> None:
        deadline = now() + within
        while not seen():
            for task in (*self.tasks, *self.load):
                if task.done():
                    task.result()
            assert now() < deadline, f"nothing moves: {await self.states()}; the processes say: {self.words()}"
            await asyncio.sleep(0.05)

    async def judge(self) -> None:
        self.stop.set()
        await asyncio.wait_for(asyncio.gather(*self.load), 120)
        await drained(self.platforms, self.history, self.tasks)
        for process in (self.api, *self.workers):
            await process.stop()
        findings = check(self.history, await read_kept(self.postgres.url, self.history))
        assert not findings, "\n".join(str(finding) for finding in findings[:20]) + self.words()

    async def states(self) -> str:
        """How the processes see themselves."""
        told = []
        async with httpx.AsyncClient(trust_env=False, timeout=5.0) as asking:
            for process in (self.api, *self.workers):
                try:
                    lines = (await asking.get(process.url + "/metrics")).text.splitlines()
                except httpx.TransportError as error:
                    told.append(f"{process.url}: {error!r}")
                    continue
                kept = [line for line in lines if line.startswith(("numhub_fold_pos", "numhub_log_end", "numhub_sha"))]
                told.append(f"{process.log_file.name}: {kept}")
        return "\n".join(told)

    def words(self) -> str:
        logs = {process.log_file for process in (self.api, *self.workers)}
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in sorted(logs))


@pytest.fixture
async def world(
    kafka_bootstrap: str, redis_url: str, make_postgres: Callable[..., LocalPostgres], tmp_path: Path
) -> AsyncIterator[World]:
    """An API process, two workers, two carriers and five platforms."""
    prefix = f"f{secrets.token_hex(4)}."
    await make_topic(kafka_bootstrap, f"{prefix}log", 4, max_message_bytes="4194304", **ANY_TIME)
    postgres = make_postgres()
    keys = await enrol(postgres.url, ["cmcc", "cucc"], {name: app[0] for name, app in APPS.items()})
    settings = SETTINGS | {
        "NUMHUB_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "NUMHUB_KAFKA_TOPIC_PREFIX": prefix,
        "NUMHUB_LEDGER_URL": postgres.url,
        "NUMHUB_REDIS_URL": redis_url,
        "NUMHUB_KEYS_DIR": str(tmp_path / "keys"),
        "NUMHUB_BATCHES_DIR": str(tmp_path / "batches"),
        "NUMHUB_LEASE_SECONDS": str(LEASE),
    }

    def process(command: str, name: str) -> NumhubProcess:
        arguments = [command, "--data", str(tmp_path / name)]
        return NumhubProcess(arguments, free_port(), tmp_path / f"{name}.log", settings)

    api, workers = process("api", "api"), [process("worker", f"worker-{place}") for place in (1, 2)]
    history, random, port = History(), Random(5), free_port()

    def client(key: PrivateKey) -> AsyncClient:
        return AsyncClient(api.url, key, timeout=10.0, retry=ONCE)

    platforms = [
        Platform(name, client(keys[name]), history, Random(random.random()), mode, ALL)
        for name, (_, mode) in APPS.items()
    ]
    carriers = [
        Carrier(client(keys[name]), history, Random(random.random()), name, first)
        for name, first in (("cmcc", 13_800_000_000), ("cucc", 13_000_000_000))
    ]
    world = World(api, workers, postgres, carriers, platforms, history)
    server, serving = await listen(platforms, port)
    try:
        await api.start()
        await asyncio.gather(*(worker.start() for worker in workers))
        for platform in platforms:
            await platform.subscribe(port)
            world.tasks.append(asyncio.create_task(platform.pull() if platform.mode == "pull" else platform.work()))
        yield world
    finally:
        for process_ in (api, *workers):
            if process_.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process_.pid, signal.SIGCONT)
            await process_.stop()
        for task in (*world.tasks, *world.load):
            task.cancel()
        await asyncio.gather(*world.tasks, *world.load, return_exceptions=True)
        for each in (*platforms, *carriers):
            await each.client.aclose()
        server.should_exit = server.force_exit = True
        await serving
        await delete_topic(kafka_bootstrap, f"{prefix}log")


async def test_a_worker_that_slept_through_its_lease_does_no_harm(world: World) -> None:
    """Each worker in turn is stopped (SIGSTOP) for longer than its lease, in the middle of its deliveries: the other
    one serves all subscribers meanwhile; woken, it neither reorders nor takes back anything."""
    world.begin()
    await world.progress()
    for worker in world.workers:
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGSTOP)
        stopped = now()
        await world.progress()
        await asyncio.sleep(max(0.0, stopped + 2.5 * LEASE - now()))
        os.kill(worker.pid, signal.SIGCONT)
        await world.progress()
    await world.judge()


async def test_the_ledger_is_killed_under_load_and_comes_back(world: World) -> None:
    """kill -9 of PostgreSQL with answers, receipts and files under way, twice: no process ends, everything acknowledged
    stands, and work goes on without a hand."""
    world.begin()
    await world.progress()
    for _ in range(2):
        await asyncio.to_thread(world.postgres.kill)
        await asyncio.sleep(1.5)
        await asyncio.to_thread(world.postgres.start)
        await world.progress()
    await world.judge()
