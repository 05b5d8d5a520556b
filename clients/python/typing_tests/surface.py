"""Only type-checked, never run: what callers may rely on under mypy --strict."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import assert_type

import httpx
from numhub_client import (
    Answer,
    AsyncClient,
    Chunk,
    Client,
    Event,
    NumberEvent,
    Outcome,
    PrivateKey,
    Receiver,
    run_pull,
    unbind_all,
)
from numhub_client.models import AckResult, Batch, CheckAnswer, EventResults, Subscription
from numhub_client.webhooks import Message


def unbind(event: NumberEvent) -> Outcome:
    if event.seq > 1:
        return "held_funds", datetime.now(UTC)
    return "unbound" if event.orders_unbind else None


def blocking(key: PrivateKey, transport: httpx.BaseTransport) -> None:
    with Client("https://hub.example.com", key, transport=transport) as client:
        assert_type(client.batches.upload("night.csv", batch_seq=1), Batch)
        assert_type(client.batches.list(), list[Batch])
        assert_type(client.events.publish([Event("+8613800138000", "restored", datetime.now(UTC))]), EventResults)
        assert_type(client.subscriptions.create("shop", mode="pull"), Subscription)
        assert_type(client.check.one("+8613800138000", "2026-01-01"), CheckAnswer)
        for chunk in client.feed.events("sub_1"):
            assert_type(chunk, Chunk)
            answer = unbind_all(chunk, unbind)
            assert_type(answer, Answer)
            assert_type(client.acks.send(answer), list[AckResult])
        assert_type(run_pull(client, "sub_1", lambda chunk: chunk.answer("no_account")), int)
        client.events.publish([Event("+8613800138000", "sold", datetime.now(UTC))])  # type: ignore[arg-type]
        client.subscriptions.create("shop", mode="fax")  # type: ignore[arg-type]


async def asynchronous(key: PrivateKey, transport: httpx.AsyncBaseTransport) -> None:
    async with AsyncClient("https://hub.example.com", key, transport=transport) as client:
        assert_type(await client.batches.upload(b"number\n", batch_seq=1, format="csv"), Batch)
        async for page in client.feed.pages("sub_1", commit=False):
            assert_type(page.chunks, tuple[Chunk, ...])


def webhook(receiver: Receiver) -> None:
    message = receiver.open({}, b"")
    assert_type(message, Message)
    if isinstance(message, Chunk):
        message.answer("done")  # type: ignore[arg-type]
