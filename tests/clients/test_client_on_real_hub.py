"""The client meets the real application in-process: no socket, no fake."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from numhub_client import Answer, AsyncClient, Chunk, Event, PrivateKey, errors, run_pull_async, unbind_all
from numhub_client.models import AckException

from hub.adapters.oauth.keys import generate
from hub.app.settings import Settings
from hub.app.wiring import running
from hub.domain.parties import AppClass, Role

N = 13800000000
Connect = Callable[[str], AsyncClient]


@pytest.fixture
async def connect(tmp_path: Path) -> AsyncIterator[Connect]:
    """A running hub with one carrier, one app and one regulator, and a client for each of them."""
    async with running(Settings(data_dir=tmp_path), public_url="http://hub.test") as hub:
        keys: dict[str, PrivateKey] = {}
        for role, party_id, kind in (
            (Role.carrier, "cmcc", "ES256"),
            (Role.subscriber, "shop-co", "EdDSA"),
            (Role.regulator, "regulator", "ES256"),
        ):
            private, public = generate(kind)  # type: ignore[arg-type]
            keys[party_id] = PrivateKey.parse(private, party_id)
            await hub.enrol.add_party(role, party_id, party_id, keys=[public])
        await hub.enrol.add_app("shop", "shop-co", AppClass.e_commerce, "Shop")
        await hub.enrol.add_agreement("shop-co", pia_ref="PIA-1")
        transport = httpx.ASGITransport(app=hub.app)
        yield lambda party_id: AsyncClient("http://hub.test", keys[party_id], transport=transport, timeout=20)


async def test_a_file_reaches_an_app_and_its_answers_come_back(connect: Connect) -> None:
    """Upload, refused row, pull, unbind, answer, correction, clearance, all through the client."""
    ended = (datetime.now(UTC) - timedelta(days=100)).isoformat(timespec="seconds")
    lines = [f"{N + n * 1000},{ended}" for n in range(2000)]
    content = "\r\n".join(["number,terminated_at", *lines, "wrong,x", ""]).encode()
    async with connect("cmcc") as carrier, connect("shop-co") as shop:
        subscription = await shop.subscriptions.create("shop", mode="pull", start="earliest")
        batch = await carrier.batches.upload(content, format="csv", batch_seq=1)
        assert (batch.rows_declared, batch.rows_accepted, batch.rows_refused) == (2001, 2000, 1)
        assert [(r.line, r.reason) for r in await carrier.batches.result(batch.batch_id)] == [(2002, "invalid_number")]
        assert (await carrier.batches.upload(content, format="csv", batch_seq=1)).batch_id == batch.batch_id
        assert (await carrier.batches.empty(batch_seq=2)).state == "committed"

        seen: list[int] = []

        async def handle(chunk: Chunk) -> Answer:
            seen.extend(chunk.numbers)
            return unbind_all(chunk, lambda e: "unbound" if e.number == N else None)

        await run_pull_async(shop, subscription.subscription_id, handle, follow=False)
        assert sorted(seen) == [N + n * 1000 for n in range(2000)]
        clearance = await carrier.clearance.batch(batch.batch_id)
        assert (clearance.go, clearance.wait) == (2000, 0)
        (delivery, *_) = await shop.subscriptions.deliveries(subscription.subscription_id)
        correction = [AckException("needs_holder_action", rows=[0])]
        done = await shop.acks.answer(subscription.subscription_id, delivery.chunk_id, exceptions=correction)
        assert done.new
        assert (await carrier.clearance.batch(batch.batch_id)).go_with_exceptions == 1


async def test_live_events_renewals_and_waivers(connect: Connect) -> None:
    """One event of three refused for its own reason; one key press followed to its end; a signed waiver listed."""
    now = datetime.now(UTC)
    async with connect("cmcc") as carrier, connect("shop-co") as shop, connect("regulator") as regulator:
        subscription = await shop.subscriptions.create("shop", mode="pull", start="earliest")
        results = await carrier.events.publish(
            [Event(str(N), "deactivated", now), Event(str(N + 1), "restored", now), Event("12345678", "restored", now)]
        )
        assert [r.reason for r in results.results] == [None, "lifecycle_conflict", "invalid_number"]
        (page,) = [page async for page in shop.feed.pages(subscription.subscription_id, follow=False)]
        (chunk,) = page.chunks
        assert chunk.chunk_id == results.results[0].event_id
        fetched = await shop.chunks.get(subscription.subscription_id, chunk.chunk_id)
        assert page.bodies() == [fetched.raw]
        renewal = await carrier.renewals.request(
            str(N + 9), activated_at=now - timedelta(days=1), apps=["shop"], consent_sha256="0" * 64
        )
        async for pressed in shop.feed.events(subscription.subscription_id, follow=False):
            await shop.acks.send(unbind_all(pressed, lambda event: "unbound"))
        assert (await carrier.renewals.wait(renewal.renewal_id, within=10)).state == "completed"
        waiver = await regulator.waivers.sign_and_put(
            "shop-co", person="Wang", reason="closed", ends_at=now + timedelta(1)
        )
        assert await regulator.waivers.list() == [waiver]
        assert (await carrier.check.one(str(N), now.date() - timedelta(days=400))).answer == "yes"


async def test_refusals_arrive_as_their_own_errors(connect: Connect) -> None:
    """Status and code of the real hub lead to the class of the same meaning."""
    async with connect("shop-co") as shop, connect("cmcc") as carrier:
        subscription = await shop.subscriptions.create("shop", mode="pull")
        with pytest.raises(errors.NotFound):
            await shop.subscriptions.get("sub_unknown")
        with pytest.raises(errors.Forbidden):
            await shop.batches.list()
        with pytest.raises(errors.CursorMalformed):
            await shop.feed.commit(subscription.subscription_id, "forged")
        with pytest.raises(errors.InvalidRequest):
            await carrier.check.one(str(N), "2026-13-45")
        with pytest.raises(errors.RuleViolated):
            await shop.subscriptions.test(subscription.subscription_id)
        now = datetime.now(UTC)
        await carrier.events.publish([Event(str(N), "deactivated", now)], idempotency_key="night-1")
        with pytest.raises(errors.IdempotencyMismatch):
            await carrier.events.publish([Event(str(N + 1), "deactivated", now)], idempotency_key="night-1")
        mismatched = PrivateKey.parse(generate()[0], "cmcc")
        async with AsyncClient("http://hub.test", mismatched, transport=shop._http._transport) as stranger:
            with pytest.raises(errors.TokenRefused):
                await stranger.apps.list()
