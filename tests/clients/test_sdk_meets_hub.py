"""Every public call of the client, sync over a socket and async in-process, against the whole hub: the calls, their
values and their errors are those of the real thing."""

from __future__ import annotations

import asyncio
import inspect
import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from numhub_client import AsyncClient, Client, Event, PrivateKey, errors
from numhub_client.models import AckException

from hub.adapters.oauth.keys import generate
from hub.app.settings import Settings
from hub.app.wiring import Hub, running
from hub.domain.parties import AppClass, Role
from tests.serving import served

N = 13_800_000_000
LOOPBACK = {"dangerous_allow_loopback_receivers": True}
RESOURCES = (
    "batches", "events", "subscriptions", "feed", "chunks", "acks", "check", "renewals", "clearance", "waivers",
    "reports", "apps",
)  # fmt: skip
Connect = Callable[[str], Any]


class Spy:
    """A resource that notes which of its public calls were used."""

    def __init__(self, name: str, resource: Any, used: set[str]) -> None:
        self._name, self._resource, self._used = name, resource, used

    def __getattr__(self, call: str) -> Any:
        self._used.add(f"{self._name}.{call}")
        return getattr(self._resource, call)


def spied(client: Any, used: set[str]) -> Any:
    for name in RESOURCES:
        setattr(client, name, Spy(name, getattr(client, name), used))
    return client


def public_calls(client: Any) -> set[str]:
    return {
        f"{name}.{call}"
        for name in RESOURCES
        for call, _ in inspect.getmembers(type(getattr(client, name)), callable)
        if not call.startswith("_")
    }


async def value(said: Any) -> Any:
    """What a call of either client gives."""
    return await said if inspect.isawaitable(said) else said


async def listed(walk: Any) -> list[Any]:
    return [each async for each in walk] if hasattr(walk, "__aiter__") else list(walk)


@pytest.fixture
def receiver() -> Iterator[str]:
    """A webhook endpoint that answers proofs and takes everything else."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            event = json.loads(self.rfile.read(int(self.headers["content-length"])))
            challenge = event.get("data", {}).get("challenge")
            body = json.dumps({"challenge": challenge}).encode() if challenge else b""
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Quiet."""

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, name="receiver")
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    thread.join()
    server.server_close()


async def enrol(hub: Hub) -> dict[str, PrivateKey]:
    keys = {}
    for role, party_id in ((Role.carrier, "cmcc"), (Role.subscriber, "shop-co"), (Role.regulator, "regulator")):
        private, public = generate("ES256")
        keys[party_id] = PrivateKey.parse(private, party_id)
        await hub.enrol.add_party(role, party_id, party_id, keys=[public])
    await hub.enrol.add_app("shop", "shop-co", AppClass.e_commerce, "Shop")
    await hub.enrol.add_agreement("shop-co", pia_ref="PIA-1")
    return keys


async def test_every_async_call_against_the_app_in_process(tmp_path: Path, receiver: str) -> None:
    """All calls of AsyncClient over httpx.ASGITransport."""
    used: set[str] = set()
    async with running(Settings(data_dir=tmp_path / "hub", **LOOPBACK), public_url="http://hub.test") as hub:
        keys = await enrol(hub)
        transport = httpx.ASGITransport(app=hub.app)
        clients = {party: AsyncClient("http://hub.test", key, transport=transport) for party, key in keys.items()}
        assert await clients["cmcc"].token()
        expected = public_calls(clients["cmcc"])
        for client in clients.values():
            spied(client, used)
        await everything(clients.__getitem__, tmp_path, receiver)
        for client in clients.values():
            await client.aclose()
    assert used == expected


def test_every_sync_call_over_a_socket(tmp_path: Path, receiver: str) -> None:
    """All calls of Client against the hub's own server."""
    used: set[str] = set()
    with served(tmp_path / "hub", **LOOPBACK) as place:
        keys = place.run(enrol)
        clients = {party: Client(place.url, key) for party, key in keys.items()}
        assert clients["cmcc"].token()
        expected = public_calls(clients["cmcc"])
        for client in clients.values():
            spied(client, used)
        asyncio.run(everything(clients.__getitem__, tmp_path, receiver))
        for client in clients.values():
            client.close()
    assert used == expected


async def everything(connect: Connect, folder: Path, endpoint: str) -> None:
    """One story that uses each call at least once."""
    carrier, shop, regulator = connect("cmcc"), connect("shop-co"), connect("regulator")
    now = datetime.now(UTC).replace(microsecond=0)
    ended = (now - timedelta(days=100)).isoformat()

    # subscriptions
    pulled = await value(shop.subscriptions.create("shop", mode="pull", start="earliest"))
    made = await value(shop.subscriptions.create("shop", endpoint=endpoint, event_types=["released"], lanes=["bulk"]))
    assert made.secret.key.startswith("whsec_") and made.endpoint == endpoint
    proof = await value(shop.subscriptions.prove(made.subscription_id))
    assert (proof.proven, proof.state, proof.status) == (True, "active", 200)
    assert (await value(shop.subscriptions.test(made.subscription_id))).delivered
    rotated = await value(shop.subscriptions.rotate(made.subscription_id, overlap_seconds=60))
    assert rotated.secret.key != made.secret.key
    patched = await value(shop.subscriptions.patch(made.subscription_id, event_types=["restored"]))
    assert patched.event_types == ("restored",)
    assert (await value(shop.subscriptions.pause(made.subscription_id))).state == "paused"
    assert (await value(shop.subscriptions.resume(made.subscription_id))).state == "active"
    assert (await value(shop.subscriptions.get(made.subscription_id))).secret is None
    both = {made.subscription_id, pulled.subscription_id}
    assert {one.subscription_id for one in await value(shop.subscriptions.list())} == both

    # batches
    file = folder / "night.csv"
    file.write_text(f"number,terminated_at\n{N},{ended}\n{N + 1},{ended}\nwrong,{ended}\n")
    steps: list[str] = []
    batch = await value(carrier.batches.upload(file, batch_seq=1, progress=lambda told: steps.append(told.stage)))
    assert (batch.state, batch.rows_accepted, batch.rows_refused) == ("committed", 2, 1)
    assert {"digest", "upload", "validate"} <= set(steps)
    assert (await value(carrier.batches.get(batch.batch_id))).batch_id == batch.batch_id
    assert (await value(carrier.batches.wait(batch.batch_id))).rows_accepted == 2
    assert [row.reason for row in await value(carrier.batches.result(batch.batch_id))] == ["invalid_number"]
    await value(carrier.batches.save_result(batch.batch_id, folder / "refused.csv"))
    assert "invalid_number" in (folder / "refused.csv").read_text()
    empty = await value(carrier.batches.empty(batch_seq=2))
    assert [one.batch_id for one in await value(carrier.batches.list())] == [empty.batch_id, batch.batch_id]

    # feed, chunks, answers
    [page] = await listed(shop.feed.pages(pulled.subscription_id, follow=False, commit=False))
    [chunk] = page.chunks
    assert chunk.numbers == [N, N + 1]
    assert (await value(shop.feed.commit(pulled.subscription_id, page.cursor))).receipts == 1
    assert (await value(shop.chunks.get(pulled.subscription_id, chunk.chunk_id))).raw == page.bodies()[0]
    [sent] = await value(shop.acks.send(chunk.answer(default="no_account").row(0, "unbound")))
    assert sent.new
    late = [AckException("needs_holder_action", rows=[1])]
    assert (await value(shop.acks.answer(pulled.subscription_id, chunk.chunk_id, exceptions=late))).new
    published = await value(carrier.events.publish([Event(str(N + 2), "deactivated", now)]))
    [event] = await listed(shop.feed.events(pulled.subscription_id, follow=False))
    assert event.chunk_id == published.results[0].event_id
    deliveries = await value(shop.subscriptions.deliveries(pulled.subscription_id))
    assert [one.state for one in deliveries] == ["received", "received"]
    assert await value(shop.subscriptions.redrive(made.subscription_id, parked=True)) == 0

    # clearance, waivers, renewals, check, reports, apps
    told = await value(carrier.clearance.batch(batch.batch_id, detail="all"))
    assert [one.verdict for one in told.numbers] == ["go", "go_with_exceptions"]
    waiver = await value(regulator.waivers.sign_and_put("shop-co", person="Li", reason="closed"))
    assert await value(regulator.waivers.list()) == [waiver]
    [verdict] = (await value(carrier.clearance.numbers([str(N)]))).numbers
    assert verdict.verdict == "go" and verdict.number == "138****0000"
    renewal = await value(
        carrier.renewals.request(
            str(N + 9), activated_at=now - timedelta(days=1), apps=["shop"], consent_sha256="0" * 64
        )
    )
    [pressed] = await listed(shop.feed.events(pulled.subscription_id, follow=False))
    await value(shop.acks.send(pressed.answer(default="no_account")))
    assert (await value(carrier.renewals.wait(renewal.renewal_id, within=10))).state == "completed"
    assert (await value(carrier.renewals.get(renewal.renewal_id))).apps[0].state == "clear"
    since = (now - timedelta(days=300)).date()
    assert (await value(shop.check.one(str(N), since))).answer == "yes"
    assert [one.answer for one in await value(shop.check.many([(str(N), since), (str(N + 77), since)]))] == [
        "yes",
        "no_data",
    ]
    summary = await value(regulator.reports.get("summary"))
    assert summary["name"] == "summary" and summary["rows"]
    assert (await value(regulator.reports.csv("delivery"))).startswith("carrier_id,")
    assert [one.app_id for one in await value(carrier.apps.list())] == ["shop"]
    await value(shop.subscriptions.delete(made.subscription_id))
    with pytest.raises(errors.NotFound):
        await value(shop.subscriptions.get(made.subscription_id))
