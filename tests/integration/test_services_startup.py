"""A scaled-out process that cannot reach its engines as told says why in one line, and ends."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest

from hub.app.local.process import free_ports
from tests.conftest import ROOT
from tests.contracts.kafka_world import ANY_TIME, make_topic

pytestmark = pytest.mark.slow


@pytest.fixture
async def prefix(kafka_bootstrap: str) -> str:
    made = f"s{secrets.token_hex(4)}."
    await make_topic(kafka_bootstrap, f"{made}log", 2, **ANY_TIME)
    return made


@pytest.fixture
def good(kafka_bootstrap: str, postgres_server: str, prefix: str) -> Iterator[dict[str, str]]:
    yield {
        "NUMHUB_KAFKA_BOOTSTRAP": kafka_bootstrap,
        "NUMHUB_KAFKA_TOPIC_PREFIX": prefix,
        "NUMHUB_LEDGER_URL": postgres_server,
    }


def refused(data: Path, settings: dict[str, str]) -> str:
    command = [sys.executable, "-m", "hub.app.cli", "worker", "--data", str(data), "--port", "0"]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **settings}, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert line.startswith("numhub: ") and "Traceback" not in done.stderr
    return line


@pytest.mark.timeout(240)
def test_each_wrong_address_is_one_line(good: dict[str, str], tmp_path: Path) -> None:
    """Nobody there, no such topic, SASL where none is spoken; a wrong password, no such database. No secret is told."""
    parts = urlsplit(good["NUMHUB_LEDGER_URL"])
    host = parts.netloc.rpartition("@")[2]
    stranger = urlunsplit(parts._replace(netloc=f"numhub:sesame@{host}"))
    elsewhere = urlunsplit(parts._replace(path="/nowhere"))
    (silent,) = free_ports(1)
    sasl = {"KAFKA_SECURITY": "SASL_PLAINTEXT", "KAFKA_USERNAME": "hub", "KAFKA_PASSWORD": "sesame"}
    wrong: list[tuple[dict[str, str], str]] = [
        ({"KAFKA_BOOTSTRAP": f"127.0.0.1:{silent}"}, f"127.0.0.1:{silent}"),
        ({"KAFKA_TOPIC_PREFIX": "nowhere."}, "Kafka has no topic nowhere.log; make it with `numhub topics apply`"),
        (sasl, "Kafka"),
        ({"LEDGER_URL": stranger}, "refuses the hub's login"),
        ({"LEDGER_URL": elsewhere}, "refuses the hub's login"),
    ]
    for changes, said in wrong:
        line = refused(tmp_path / "worker", good | {f"NUMHUB_{name}": value for name, value in changes.items()})
        assert said in line, line
        assert "sesame" not in line
