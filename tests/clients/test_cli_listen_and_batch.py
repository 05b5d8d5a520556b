"""The two commands built on the client: forwarding to a laptop, and a carrier's file with its reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import numhub_client
import polars as pl
import pytest
import typer
import zstandard
from joserfc.jwk import ECKey
from numhub_client import Chunk, Receiver, errors
from numhub_client.testing import FakeHub
from typer.testing import CliRunner

from hub.adapters.system.clock import ManualClock
from hub.app.cli import batch as batch_command
from hub.app.cli.listen import Forwarder, forward_feed, listen, new_session_secret
from hub.app.cli.subscription import subscription
from hub.app.cli.waiver import waiver

N = 13800138000


async def test_listen_forwards_what_the_hub_would_post_and_commits_after_2xx(hub: FakeHub) -> None:
    """Signed with the session's secret, repeated until the local URL answers 2xx, numbers masked in every line."""
    subscription = hub.subscribe()
    chunk = hub.publish("release_scheduled", [N, N + 1])
    secret, clock = new_session_secret(), ManualClock(hub.now, auto=True)
    receiver = Receiver(secret, now=lambda: clock.now().timestamp())
    got: list[Chunk] = []
    answers = [500, 0, 204]
    lines: list[str] = []

    def local(request: httpx.Request) -> httpx.Response:
        assert subscription.position == 0
        answer = answers.pop(0)
        if not answer:
            raise httpx.ConnectError("nobody there", request=request)
        message = receiver.open(request.headers, request.content)
        assert isinstance(message, Chunk)
        got.append(message)
        assert request.headers["numhub-chunk-id"] == chunk.chunk_id
        assert request.content == chunk.body
        return httpx.Response(answer)

    async with hub.async_client() as client, httpx.AsyncClient(transport=httpx.MockTransport(local)) as http:
        forwarder = Forwarder(http, "http://127.0.0.1:9000/hook", secret, clock, lines.append)
        assert await forward_feed(client, subscription.subscription_id, forwarder, follow=False) == 1
    assert subscription.position == 1
    assert [message.webhook_id for message in got] == [got[0].webhook_id] * 2
    assert len(lines) == 3
    assert all("138****8000" in line and str(N) not in line for line in lines)


async def test_listen_ends_on_errors_that_waiting_does_not_heal(hub: FakeHub) -> None:
    """A subscription that is not there stays not there; a hub that restarts is waited for."""
    lines: list[str] = []
    clock = ManualClock(hub.now, auto=True)
    async with (
        hub.async_client(retry=numhub_client.Retry(attempts=1)) as client,
        httpx.AsyncClient(transport=httpx.MockTransport(lambda request: httpx.Response(200))) as http,
    ):
        forwarder = Forwarder(http, "http://127.0.0.1:9000/hook", new_session_secret(), clock, lines.append)
        hub.fail(503, path="/v1/feed")
        with pytest.raises(errors.NotFound):
            await forward_feed(client, "sub_unknown", forwarder)
    assert len(lines) == 1 and "unavailable" in lines[0]


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    file = tmp_path / "key.json"
    file.write_text(json.dumps({**ECKey.generate_key("P-256").as_dict(private=True), "kid": "k1"}))
    return file


@pytest.fixture
def run(hub: FakeHub, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs ``numhub batch ...`` against the fake hub."""

    def connected(url: str, credentials: Any, **options: Any) -> numhub_client.Client:
        return numhub_client.Client(url, credentials, transport=hub.transport, **options)

    monkeypatch.setattr(batch_command, "Client", connected)

    def call(*words: str) -> Any:
        return CliRunner().invoke(batch_command.batch, [*words, "--client-id", "cmcc", "--key", str(key_file)])

    return call


def test_batch_upload_prints_the_reasons_grouped(hub: FakeHub, run: Any, tmp_path: Path) -> None:
    """One command from file to verdict; status and result afterwards."""
    file = tmp_path / "night.csv"
    file.write_text(f"number\n{N}\nwrong\nbad\n")
    done = run("upload", str(file), "--batch-seq", "1")
    assert done.exit_code == 0, done.output
    assert "committed" in done.output
    assert "invalid_number" in done.output
    (batch_id,) = hub.batches
    assert "2 refused" in run("status", batch_id).output
    assert run("result", batch_id).output.count("invalid_number") == 2
    assert run("result", batch_id, "--out", str(tmp_path / "result.csv")).exit_code == 0
    assert (tmp_path / "result.csv").read_text().count("invalid_number") == 2
    assert run("empty", "--batch-seq", "2").exit_code == 0


def test_batch_upload_counts_the_rows_of_zstd_content(hub: FakeHub, run: Any, tmp_path: Path) -> None:
    """The client does not look into zstd; the command does."""
    file = tmp_path / "night.csv.zst"
    file.write_bytes(zstandard.compress(f"number\n{N}\r\n\r\n{N + 1}".encode()))
    assert run("upload", str(file), "--batch-seq", "1").exit_code == 0
    (batch,) = hub.batches.values()
    assert batch["rows_declared"] == 2
    file.write_bytes(b"not zstd")
    assert run("upload", str(file), "--batch-seq", "2").exit_code == 1


def test_batch_upload_counts_the_rows_of_parquet(hub: FakeHub, run: Any, tmp_path: Path) -> None:
    """By its footer; what is no Parquet file ends with one clear line before anything is announced."""
    file = tmp_path / "night.parquet"
    pl.DataFrame({"number": [N, N + 1, N + 2]}).write_parquet(file)
    assert run("upload", str(file), "--batch-seq", "1").exit_code == 0
    (batch,) = hub.batches.values()
    assert batch["rows_declared"] == 3
    file.write_bytes(b"not parquet")
    refused = run("upload", str(file), "--batch-seq", "2")
    assert (refused.exit_code, len(hub.batches)) == (1, 1)
    assert "not Parquet" in refused.output and "Traceback" not in refused.output


def test_batch_commands_end_with_one_clear_line(run: Any, tmp_path: Path) -> None:
    """No trace, exit code 1."""
    nameless = tmp_path / "night"
    nameless.write_text(f"number\n{N}\n")
    assert "give --format" in run("upload", str(nameless), "--batch-seq", "1").output
    assert run("upload", str(nameless), "--batch-seq", "1", "--format", "csv").exit_code == 0
    unknown = run("status", "bat_unknown")
    assert unknown.exit_code == 1
    assert "Traceback" not in unknown.output


def test_a_subscription_is_made_listed_paused_and_resumed(
    hub: FakeHub, key_file: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pull subscription works at once; a webhook's secret is shown once, and its endpoint must be proven."""

    def call(*words: str) -> Any:
        return CliRunner().invoke(
            subscription, [*words, "--client-id", "shop", "--key", str(key_file)], env={"COLUMNS": "200"}
        )

    pull = call("add", "shop-app")
    assert pull.exit_code == 0, pull.output
    assert "active" in pull.output and "secret" not in pull.output
    hook = call("add", "shop-app", "--mode", "webhook_full", "--endpoint", "https://shop.example/hook")
    assert "whsec_" in hook.output and "unproven" in hook.output
    listed = call("list").output
    first = pull.output.split()[1]
    assert first in listed and "https://shop.example/hook" in listed and "whsec_" not in listed
    assert "paused" in call("pause", first).output
    assert "active" in call("resume", first).output
    assert "nothing was delivered" in call("deliveries", first).output
    assert json.loads(call("deliveries", first, "--json").output) == []
    again = call("redrive", first, "--since", "2026-01-31T08:00")
    assert "since 2026-01-31 08:00:00Z comes again" in again.output, again.output
    assert "0 parked chunks are sent again" in call("redrive", first, "--parked").output
    assert call("redrive", first).exit_code == 2
    assert call("redrive", first, "--parked", "--since", "2026-01-31").exit_code == 2
    unknown = call("pause", "sub_unknown")
    assert unknown.exit_code == 1 and "Traceback" not in unknown.output


def test_a_waiver_is_signed_put_and_listed(hub: FakeHub, key_file: Path, run: Any) -> None:
    """With the key that is given; for people as a table, for programs as JSON."""

    def call(*words: str) -> Any:
        return CliRunner().invoke(
            waiver, [*words, "--client-id", "miit", "--key", str(key_file)], env={"COLUMNS": "200"}
        )

    assert "there is no waiver" in call("list").output
    made = call("add", "shop", "--person", "Li Hua", "--reason", "bankrupt [2026]", "--ends-at", "2030-01-31")
    assert made.exit_code == 0, made.output
    assert "Li Hua" in made.output and "bankrupt [2026]" in made.output and "2030-01-31 00:00Z" in made.output
    (listed,) = json.loads(call("list", "--json").output)
    assert (listed["subscriber_id"], listed["batch_id"], listed["person"]) == ("shop", None, "Li Hua")
    assert call("add", "shop", "--person", "Li Hua").exit_code == 2


@pytest.mark.parametrize(
    "change",
    [{"--forward": "ftp://x"}, {"--secret": "whsec_short"}, {"--key": "/nonexistent"}],
    ids=["scheme", "secret", "key"],
)
def test_listen_refuses_what_cannot_work(key_file: Path, change: dict[str, str]) -> None:
    """Before anything is asked of the hub."""
    app = typer.Typer()
    app.command()(listen)
    options = {
        "--subscription": "sub_1",
        "--forward": "http://127.0.0.1:9/hook",
        "--client-id": "shop-co",
        "--key": str(key_file),
    } | change
    done = CliRunner().invoke(app, [word for pair in options.items() for word in pair])
    assert done.exit_code == 2
