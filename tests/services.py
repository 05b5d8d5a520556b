"""Where tests get the real services from: an address in the environment, a container where Docker runs, local binaries.

Read at import: fixtures ask here before the environment of a test is cleaned.
"""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import warnings
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import redis

from hub.app.local import LocalKafka, LocalPostgres, LocalRedis, jars

ADDRESSES = {
    service: os.environ.get(f"NUMHUB_TEST_{service.upper()}", "") for service in ("kafka", "postgresql", "redis")
}


KAFKA_VERSION = os.environ.get("NUMHUB_TEST_KAFKA_VERSION") or jars.KAFKA_VERSION
"""Of the brokers that are started from jars."""


def docker_engine() -> bool:
    """Does a Docker engine answer here?"""
    import docker
    from docker.errors import DockerException

    if not os.environ.get("DOCKER_HOST") and not Path("/var/run/docker.sock").is_socket():
        return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # docker leaves its socket open when nobody answers
        try:
            client = docker.from_env(timeout=5)
            try:
                return bool(client.ping())
            finally:
                client.close()
        except DockerException:
            gc.collect()
            return False


@contextmanager
def kafka(folder: Path) -> Iterator[str]:
    """host:port of a broker."""
    if ADDRESSES["kafka"]:
        yield ADDRESSES["kafka"]
    elif docker_engine():
        from testcontainers.community.kafka import KafkaContainer

        with KafkaContainer("confluentinc/cp-kafka:7.9.0").with_kraft() as container:
            yield container.get_bootstrap_server()
    else:
        with LocalKafka(folder, quick=True, version=KAFKA_VERSION) as local:
            yield local.bootstrap


@contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """URL of a database whose user may create others."""
    if ADDRESSES["postgresql"]:
        yield ADDRESSES["postgresql"]
    elif docker_engine():
        from testcontainers.community.postgres import PostgresContainer

        with PostgresContainer("postgres:15-alpine", driver=None) as container:
            yield container.get_connection_url()
    else:
        with LocalPostgres(folder, fsync=False) as local:
            yield local.url


@contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """URL of a database that may be flushed."""
    if ADDRESSES["redis"]:
        yield ADDRESSES["redis"]
    elif docker_engine():
        from testcontainers.community.redis import RedisContainer

        with RedisContainer("redis:7-alpine") as container:
            yield f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(6379)}/0"
    else:
        with LocalRedis(folder) as local:
            yield local.url


@contextmanager
def fresh_database(server: str) -> Iterator[str]:
    """URL of an empty database on this server; dropped at the end, whoever is still connected."""
    name = f"numhub_test_{secrets.token_hex(6)}"
    _blocking(lambda: _run_sql(server, f'CREATE DATABASE "{name}"'))
    try:
        yield urlunsplit(urlsplit(server)._replace(path=f"/{name}"))
    finally:
        _blocking(lambda: _run_sql(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


def flush(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        client.flushdb()


async def _run_sql(server: str, statement: str) -> None:
    connection = await asyncpg.connect(server, timeout=30)
    try:
        await connection.execute(statement)
    finally:
        await connection.close(timeout=10)


def _blocking(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run to the end on a loop of its own, in a thread: fixtures must not touch the loop of the test."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: asyncio.run(work())).result()
