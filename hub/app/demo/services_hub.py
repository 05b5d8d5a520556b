"""The scaled-out hub of a demo: real Kafka, PostgreSQL and Redis, one API process and several workers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from hub.app.demo.hub_process import NumhubProcess, free_port, run_numhub
from hub.app.local import LocalKafka, LocalPostgres, LocalRedis

LEASE_SECONDS = "3"
"""Shorter than the default: the story is over in two minutes, and a dead worker's lanes must move in it."""


class ServicesHub:
    """`HubUnderTest` on services of its own below ``data``. Kills hit the API process and each worker in turn."""

    def __init__(self, data: Path, port: int, settings: Mapping[str, str], *, workers: int, brokers: int) -> None:
        self._data, self._settings, self._workers = data, settings, workers
        self._port = port
        self._kafka = LocalKafka(data / "kafka", brokers=brokers, quick=True)
        self._postgres = LocalPostgres(data / "postgresql")
        self._redis = LocalRedis(data / "redis")
        self._brokers = brokers
        self._processes: list[NumhubProcess] = []
        self.environment: Mapping[str, str] = {}
        self.url = f"http://127.0.0.1:{port}"
        self.log_file = data / "api.log"
        self.kills = 0
        self.down_seconds = 0.0

    @property
    def ledger_address(self) -> str:
        return self._postgres.url

    @property
    def keys_folder(self) -> Path:
        return self._data / "keys"

    @property
    def pid(self) -> int | None:
        return self._processes[0].pid if self._processes else None

    @property
    def next_victim(self) -> str:
        place = self.kills % len(self._processes)
        name = "the API process" if place == 0 else f"worker {place}"
        return f"{name} (pid {self._processes[place].pid})"

    async def prepare(self) -> None:
        services = (self._kafka, self._postgres, self._redis)
        started = await asyncio.gather(
            *(asyncio.to_thread(service.start) for service in services), return_exceptions=True
        )
        failed = next((each for each in started if isinstance(each, BaseException)), None)
        if failed is not None:
            raise failed
        self.environment = {
            "NUMHUB_KAFKA_BOOTSTRAP": self._kafka.bootstrap,
            "NUMHUB_LEDGER_URL": self._postgres.url,
            "NUMHUB_REDIS_URL": self._redis.url,
            "NUMHUB_KEYS_DIR": str(self.keys_folder),
            "NUMHUB_BATCHES_DIR": str(self._data / "batches"),
            "NUMHUB_LEASE_SECONDS": LEASE_SECONDS,
        }
        few = [] if self._brokers >= 3 else ["--development"]
        await run_numhub(["topics", "apply", *few], self.environment)

    async def start(self) -> None:
        settings = {**self._settings, **self.environment}
        self._processes = [
            NumhubProcess(["api", "--data", str(self._data / "api")], self._port, self.log_file, settings)
        ]
        for place in range(1, self._workers + 1):
            arguments = ["worker", "--data", str(self._data / f"worker-{place}")]
            log_file = self._data / f"worker-{place}.log"
            self._processes.append(NumhubProcess(arguments, free_port(), log_file, settings))
        await self._processes[0].start()  # alone: it makes the keys and the ledger's tables that the others share
        await asyncio.gather(*(process.start() for process in self._processes[1:]))

    async def kill(self) -> None:
        process = self._processes[self.kills % len(self._processes)]
        began = time.monotonic()
        await process.kill()
        self.kills += 1
        await process.start()
        self.down_seconds += time.monotonic() - began

    def abandon(self) -> None:
        for process in self._processes:
            process.abandon()
        for service in (self._kafka, self._postgres, self._redis):
            service.kill()

    async def stop(self) -> None:
        await asyncio.gather(*(process.stop() for process in self._processes))
        for service in (self._kafka, self._postgres, self._redis):
            await asyncio.to_thread(service.stop)
