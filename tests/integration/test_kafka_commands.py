"""`numhub topics` and `numhub doctor` on a running broker."""

from __future__ import annotations

import asyncio
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner, Result

from hub.app.cli import app
from hub.app.kafka import UnsafeLog, open_kafka_log
from hub.app.settings import Settings
from hub.domain.errors import LogUnavailable


@pytest.fixture
def prefix(kafka_bootstrap: str, monkeypatch: pytest.MonkeyPatch) -> str:
    prefix = f"t{uuid4().hex[:8]}."
    monkeypatch.setenv("NUMHUB_KAFKA_BOOTSTRAP", kafka_bootstrap)
    monkeypatch.setenv("NUMHUB_KAFKA_TOPIC_PREFIX", prefix)
    monkeypatch.setenv("COLUMNS", "200")
    return prefix


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_topics_are_planned_applied_and_verified(prefix: str, tmp_path: Path) -> None:
    """plan changes nothing, apply makes what is missing, verify is content then; a changed wish is set."""
    assert "make" in run("topics", "plan", "--development").output
    assert run("topics", "verify", "--development").exit_code == 1
    applied = run("topics", "apply", "--development", "--carrier", "cmcc")
    assert (applied.exit_code, "all topics are as wished" in applied.output) == (0, True), applied.output
    verified = run("topics", "verify", "--development")
    assert verified.exit_code == 0
    assert f"{prefix}ingress.cmcc" in verified.output
    changed = tmp_path / "topics.yaml"
    shipped = Path(__file__).parents[2] / "deploy" / "topics.yaml"
    changed.write_text(shipped.read_text("utf-8").replace("max.message.bytes: 4194304", "max.message.bytes: 3145728"))
    seen = run("topics", "verify", "--development", "--file", str(changed))
    assert (seen.exit_code, "max.message.bytes: 4 MiB -> 3 MiB" in seen.output) == (1, True), seen.output
    assert run("topics", "apply", "--development", "--file", str(changed)).exit_code == 0
    assert run("topics", "verify", "--development", "--file", str(changed)).exit_code == 0


def test_one_broker_is_too_few_for_three_copies(prefix: str) -> None:
    """Nothing is made, and the way out is told."""
    refused = run("topics", "apply")
    assert refused.exit_code == 1
    assert run("topics", "plan").output.count("make") == 2


def test_production_refuses_an_unsafe_topic(prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """doctor and the start say what is wrong; in development doctor only mentions it."""
    data = str(tmp_path / "data")
    assert "numhub topics apply" in run("doctor", "--data", data).output
    assert run("topics", "apply", "--development").exit_code == 0
    relaxed = run("doctor", "--data", data)
    assert (relaxed.exit_code, "fine in development" in relaxed.output) == (0, True), relaxed.output
    monkeypatch.setenv("NUMHUB_PROFILE", "production")
    strict = run("doctor", "--data", data)
    assert (strict.exit_code, "min.insync.replicas is 1" in strict.output) == (1, True), strict.output
    with pytest.raises(UnsafeLog, match="not safe for production"):
        asyncio.run(open_kafka_log(Settings()))
    monkeypatch.setenv("NUMHUB_DANGEROUS_ALLOW_UNSAFE_KAFKA", "true")
    assert "could be lost" in run("doctor", "--data", data).output

    async def opened() -> int:
        log = await open_kafka_log(Settings())
        await log.close()
        return log.partitions

    assert asyncio.run(opened()) == 16


def test_the_number_of_partitions_comes_from_the_topic(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A setting that says something else is told so; none at all is right."""
    assert run("topics", "apply", "--development").exit_code == 0
    monkeypatch.setenv("NUMHUB_PARTITIONS", "4")
    with pytest.raises(LogUnavailable, match="has 16 partitions, the setting says 4"):
        asyncio.run(open_kafka_log(Settings()))
