"""What the hub of a bench stands on: its own files, or Kafka, PostgreSQL and Redis started for this bench alone.

Everything goes by the data directory: the services that belong to one are begun and ended with it. Without any it is
the embedded stack.
"""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import psutil
import yaml

from hub.adapters.sqlite.log import SqliteLog
from hub.app.demo.hub_process import HubProcess, free_port
from hub.app.local import LocalKafka, LocalPostgres, LocalRedis
from hub.app.settings import LEDGER_FILE, LOG_FILE, Settings
from hub.app.wiring import open_log as open_hub_log
from hub.ports.log import EventLog, NewRecord, Record
from tests.bench.processes import ROOT, environment

PARTITIONS = 8
HUB_SETTINGS = {"NUMHUB_DANGEROUS_ALLOW_LOOPBACK_RECEIVERS": "true", "NUMHUB_REQUESTS_PER_SECOND": "0"}


class Services:
    def __init__(self, data: Path) -> None:
        """One broker, with its usual settings; PostgreSQL with fsync; Redis."""
        home = data / "services"
        self.kafka = LocalKafka(home / "kafka").start()
        self.postgres = LocalPostgres(home / "postgresql").start()
        self.redis = LocalRedis(home / "redis").start()
        self.environment = {
            "NUMHUB_KAFKA_BOOTSTRAP": self.kafka.bootstrap,
            "NUMHUB_LEDGER_URL": self.postgres.url,
            "NUMHUB_REDIS_URL": self.redis.url,
        }
        wished = yaml.safe_load((ROOT / "deploy/topics.yaml").read_text("utf-8"))
        wished["topics"][0]["partitions"] = PARTITIONS  # as many as the embedded log has: the same chunks on both
        (home / "topics.yaml").write_text(yaml.safe_dump(wished), "utf-8")
        command = [sys.executable, "-m", "hub.app.cli", "topics", "apply", "--development"]
        command += ["--file", str(home / "topics.yaml")]
        env = {**environment(), **self.environment}
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"numhub topics apply: {done.stdout}{done.stderr}")

    def cpu(self) -> float:
        """Seconds of all their processes, those that ended among PostgreSQL's included."""
        pids = [self.kafka.nodes[0].pid, self.postgres.child.pid, self.redis.child.pid]
        return sum(_with_children(psutil.Process(pid)) for pid in pids)

    def end(self) -> None:
        for service in (self.kafka, self.postgres, self.redis):
            service.kill()


def _with_children(process: psutil.Process) -> float:
    times = process.cpu_times()
    total = times.user + times.system + times.children_user + times.children_system
    for child in process.children():
        try:
            total += _with_children(child)
        except psutil.NoSuchProcess:  # it has just ended: its parent counts it from now on
            continue
    return float(total)


_begun: dict[Path, Services] = {}
_on_services = False


def choose(name: str) -> None:
    """For all data directories that are begun from here on."""
    global _on_services
    _on_services = name == "services"


def begin(data: Path) -> None:
    if _on_services:
        _begun[data] = Services(data)


def end(data: Path) -> None:
    if (services := _begun.pop(data, None)) is not None:
        services.end()


def is_embedded(data: Path) -> bool:
    return data not in _begun


def settings(data: Path) -> Mapping[str, str]:
    return HUB_SETTINGS if is_embedded(data) else {**HUB_SETTINGS, **_begun[data].environment}


def hub(data: Path) -> HubProcess:
    """`numhub serve` on this stack, not started yet."""
    return HubProcess(data, free_port(), settings(data))


def ledger_address(data: Path) -> str | Path:
    return data / LEDGER_FILE if is_embedded(data) else _begun[data].postgres.url


async def open_log(data: Path) -> EventLog:
    if is_embedded(data):
        return SqliteLog(data / LOG_FILE, PARTITIONS)
    return await open_hub_log(Settings(data_dir=data, kafka_bootstrap=_begun[data].kafka.bootstrap))


@asynccontextmanager
async def counting(data: Path, table: str) -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """How many rows ``table`` of the ledger has, asked beside the hub."""
    query = f"SELECT count(*) FROM {table}"
    if is_embedded(data):
        file = sqlite3.connect(f"file:{data / LEDGER_FILE}?mode=ro", uri=True)

        async def count() -> int:
            return int(file.execute(query).fetchone()[0])

        try:
            yield count
        finally:
            file.close()
    else:
        server = await asyncpg.connect(_begun[data].postgres.url)

        async def ask() -> int:
            return int(await server.fetchval(query))

        try:
            yield ask
        finally:
            await server.close()


async def copy_log(source: EventLog, target: EventLog) -> None:
    """Every record of an empty ``target``'s older brother, in the order of each partition."""
    for partition, stop in enumerate(await source.ends()):
        offset = 0
        while offset < stop:
            records: list[Record] = list(await source.read(partition, offset))
            await target.append([NewRecord(r.partition, r.record_id, r.headers, r.body) for r in records])
            offset += len(records)


async def log_file(data: Path) -> Path:
    """The log as a file below ``data``, for who cannot read Kafka's."""
    if not is_embedded(data) and not (data / LOG_FILE).exists():
        source, target = await open_log(data), SqliteLog(data / LOG_FILE, PARTITIONS)
        await copy_log(source, target)
        await source.close()
        await target.close()
    return data / LOG_FILE


@dataclass(slots=True)
class Meter:
    """What the services use between its making and `stop`."""

    data: Path
    began: float = 0.0
    used: float = 0.0

    def __post_init__(self) -> None:
        self.began = 0.0 if is_embedded(self.data) else _begun[self.data].cpu()

    def stop(self) -> None:
        self.used = 0.0 if is_embedded(self.data) else _begun[self.data].cpu() - self.began

    def figures(self) -> dict[str, float]:
        return {} if is_embedded(self.data) and not self.used else {"services_cpu_s": self.used}
