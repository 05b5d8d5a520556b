"""The bound of push: the hub's own sender and envelope posting the same bytes to the same sink, and nothing else.

Arguments as JSON: ``data`` (whose log holds the chunks), ``sink``, ``subscribers``, ``posts`` (or None for each chunk
to each subscriber), ``workers``. Says when it is ready, waits for a line, posts, says seconds and CPU.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import uvloop

from hub.adapters.codec.json_codec import JsonCodec
from hub.adapters.sqlite.log import SqliteLog
from hub.adapters.system.clock import SystemClock
from hub.adapters.webhook.sender import WebhookSender
from hub.app.settings import LOG_FILE
from hub.domain.events import EventType, Lane
from hub.domain.parties import AppClass, DeliveryMode, Purpose, SigningSecret, Subscription, SubscriptionState
from hub.ports.log import Header, Record
from hub.wire.delivery import WebhookEnvelope
from tests.bench.processes import cpu_of, say
from tests.bench.sink import secret_of


async def main() -> None:
    said = json.loads(sys.argv[1])
    clock = SystemClock()
    chunks = await _chunks(Path(said["data"]), said["posts"] or sys.maxsize)
    subscriptions = [_subscription(number, said["sink"], clock) for number in range(said["subscribers"])]
    sender = WebhookSender(clock, allow_loopback=True)
    envelope = WebhookEnvelope()

    def work() -> Iterator[tuple[Record, bytes, Subscription]]:
        left = said["posts"] or len(chunks) * len(subscriptions)
        while left > 0:
            for record, plain in chunks:
                for subscription in subscriptions:
                    if left <= 0:
                        return
                    left -= 1
                    yield record, plain, subscription

    todo = work()

    async def worker() -> None:
        for record, plain, subscription in todo:
            headers, body = envelope.chunk(
                subscription,
                chunk_id=record.record_id,
                event_type=record.headers[Header.type],
                lane=record.headers[Header.lane],
                count=int(record.headers[Header.count]),
                reported_at=int(record.headers[Header.reported_at]),
                plain=plain,
                now=clock.now(),
                superseded="",
            )
            assert (await sender.post(subscription.endpoint or "", headers, body)).status == 200

    say(ready=True, chunks=len(chunks), plain_bytes=sum(len(plain) for _, plain in chunks))
    await asyncio.to_thread(sys.stdin.readline)
    began, cpu = time.monotonic(), cpu_of(None)
    await asyncio.gather(*(worker() for _ in range(said["workers"])))
    say(seconds=time.monotonic() - began, cpu=cpu_of(None) - cpu)
    await sender.close()


async def _chunks(data: Path, limit: int) -> list[tuple[Record, bytes]]:
    log, codec = SqliteLog(data / LOG_FILE, 8), JsonCodec()
    found: list[tuple[Record, bytes]] = []
    for partition, end in enumerate(await log.ends()):
        offset = 0
        while offset < end and len(found) < limit:
            records = await log.read(partition, offset)
            found += [(record, codec.plain(record.body)) for record in records]
            offset += len(records)
    await log.close()
    return found[:limit]


def _subscription(number: int, sink: str, clock: SystemClock) -> Subscription:
    return Subscription(
        subscription_id=f"sub_{number:016x}",
        subscriber_id="bound",
        app_id="bound",
        app_class=AppClass.lifestyle_travel,
        purpose=Purpose.account_unbind,
        event_types=frozenset(EventType),
        lanes=frozenset(Lane),
        mode=DeliveryMode.webhook_full,
        state=SubscriptionState.active,
        created_at=clock.now(),
        endpoint=f"{sink}/s/{number}",
        secrets=(SigningSecret("v1", secret_of(number), clock.now()),),
    )


if __name__ == "__main__":
    uvloop.run(main())
