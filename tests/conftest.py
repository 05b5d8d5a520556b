"""Rules for all tests: what is missing is skipped with its reason, unless NUMHUB_TEST_REQUIRE names it."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, TypeVar

import pytest
import services

from hub.app.local import LocalKafka, LocalPostgres, LocalRedis, LocalUnavailable

Local = TypeVar("Local", LocalKafka, LocalPostgres, LocalRedis)

ROOT = Path(__file__).parents[1]
_CHECKOUT = [str(ROOT), str(ROOT / "clients" / "python" / "src")]
os.environ["PYTHONPATH"] = os.pathsep.join([*_CHECKOUT, *filter(None, [os.environ.get("PYTHONPATH")])])
"""Processes that tests start run this checkout, as the tests themselves do."""

REQUIRED = frozenset(filter(None, os.environ.get("NUMHUB_TEST_REQUIRE", "").split(",")))


def missing(service: str, reason: str) -> None:
    """Skip the calling test, or fail it where ``service`` is required (NUMHUB_TEST_REQUIRE=a,b)."""
    if service in REQUIRED:
        pytest.fail(f"{service} is required here but {reason}")
    pytest.skip(f"{service}: {reason}")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting or proxy of the machine reaches a test."""
    for name in list(os.environ):
        if name.startswith("NUMHUB_") and not name.startswith("NUMHUB_TEST_") or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def pytest_collection_finish() -> None:
    """What imports made is not looked at by collections of garbage: they take 20 ms instead of 300."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _leaks_fail_here(request: pytest.FixtureRequest) -> Iterator[None]:
    """A socket or file left open fails the test that left it, not the one during which it happens to be collected."""
    yield
    if request.path.parent.name in ("integration", "contracts"):
        gc.collect()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of a Chromium on this machine."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        missing("chromium", "no Chromium was found on the PATH")
    assert path is not None
    return path


def _running(service: str, opened: AbstractContextManager[str]) -> Iterator[str]:
    with ExitStack() as stack:
        try:
            address = stack.enter_context(opened)
        except LocalUnavailable as error:
            missing(service, str(error))
            raise
        yield address


@pytest.fixture(scope="session")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """host:port of a broker that all tests share: use a topic prefix of your own."""
    yield from _running("kafka", services.kafka(tmp_path_factory.mktemp("kafka")))


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from _running("postgresql", services.postgresql(tmp_path_factory.mktemp("postgres")))


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """postgresql:// address of an empty database of this test's own."""
    with services.fresh_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    yield from _running("redis", services.redis_server(tmp_path_factory.mktemp("redis")))


@pytest.fixture
def redis_url(redis_server: str) -> str:
    """redis:// address of an empty database."""
    services.flush(redis_server)
    return redis_server


def _maker(service: str, kind: Callable[..., Local], folder: Path) -> Iterator[Callable[..., Local]]:
    made: list[Local] = []

    def make(**options: Any) -> Local:
        try:
            local = kind(folder / f"{service}-{len(made)}", **options)
            made.append(local)
            return local.start()
        except LocalUnavailable as error:
            missing(service, str(error))
            raise

    yield make
    for local in made:
        local.kill()


@pytest.fixture
def make_kafka(tmp_path: Path) -> Iterator[Callable[..., LocalKafka]]:
    """Starts brokers of this test's own, which it may kill: ``make_kafka(brokers=3, users={"alice": "secret"})``."""
    yield from _maker(
        "kafka",
        lambda folder, **options: LocalKafka(folder, **({"quick": True, "version": services.KAFKA_VERSION} | options)),
        tmp_path,
    )


@pytest.fixture
def make_postgres(tmp_path: Path) -> Iterator[Callable[..., LocalPostgres]]:
    """Starts a PostgreSQL of this test's own, which it may kill."""
    yield from _maker("postgresql", lambda folder, **options: LocalPostgres(folder, **options), tmp_path)


@pytest.fixture
def make_redis(tmp_path: Path) -> Iterator[Callable[..., LocalRedis]]:
    """Starts a Redis of this test's own, which it may kill."""
    yield from _maker("redis", lambda folder, **options: LocalRedis(folder, **options), tmp_path)
