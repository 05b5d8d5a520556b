"""Answers, each request committed before its 200: chunks of 10,000 numbers with a default and 33 exceptions.

Bound: FastAPI taking the same bodies through the same model and returning at once, under the same server settings.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from random import Random

from hub.domain.events import EventType
from tests.bench import stack, world
from tests.bench.processes import Child, cpu_of
from tests.bench.shape import Result, percentile
from tests.bench.wire import connect, request

CALLERS = 64
PER_CALL = 20  # chunks answered in one request of the second part


async def run(numbers: int = 1_000_000, owners: int = 20, apps_each: int = 8) -> Result:
    data = world.fresh_folder()
    here = await world.enrol(data, subscribers=owners, apps_each=apps_each)
    drawn = world.draw_numbers(numbers, seed=8)
    chunks = await world.write_log(data, world.records_of(drawn, EventType.release_scheduled, "answers"))
    await world.fold_index(data)
    hub = stack.hub(data)
    instant = Child("tests.bench.instant")
    random = Random(9)
    half = len(here.subscriptions) // 2
    try:
        await hub.start()
        tokens = {owner: await here.token(hub.url, owner) for owner in here.keys if owner != world.CARRIER}
        single: list[bytes] = []
        grouped: list[bytes] = []
        for place, subscription in enumerate(here.subscriptions):
            own = list(chunks)
            random.shuffle(own)
            size = 1 if place < half else PER_CALL
            for at in range(0, len(own), size):
                body = answers_body(subscription.subscription_id, own[at : at + size], random)
                token = tokens[subscription.subscriber_id]
                (single if size == 1 else grouped).append(answers_request(hub.url, body, token))
        random.shuffle(single)
        random.shuffle(grouped)
        await world.catalogued(data)
        services = stack.Meter(data)
        cpu, own_cpu = cpu_of(hub.pid), cpu_of(None)
        seconds, latencies = await load(hub.url, single)
        hub_cpu, own_cpu = cpu_of(hub.pid) - cpu, cpu_of(None) - own_cpu
        services.stop()
        cpu = cpu_of(hub.pid)
        grouped_seconds, _ = await load(hub.url, grouped)
        grouped_cpu = cpu_of(hub.pid) - cpu
        await hub.stop()

        url = f"http://127.0.0.1:{(await instant.start())['port']}"
        await load(url, single[: len(single) // 10])
        cpu = instant.cpu()
        bound_seconds, _ = await load(url, single)
        bound_cpu = instant.cpu() - cpu
    finally:
        await hub.stop()
        await instant.stop()
        here.remove()
    answered = numbers * half
    grouped_numbers = numbers * (len(here.subscriptions) - half)
    return Result(
        name="answers",
        main="requests_per_s",
        figures={
            "requests_per_s": len(single) / seconds,
            "requests_per_hub_cpu_s": len(single) / hub_cpu,
            "numbers_per_s": answered / seconds,
            "p50_ms": percentile(latencies, 0.5),
            "p99_ms": percentile(latencies, 0.99),
            "grouped_chunks_per_s": grouped_numbers / numbers * len(chunks) / grouped_seconds,
            "grouped_numbers_per_s": grouped_numbers / grouped_seconds,
            "grouped_numbers_per_hub_cpu_s": grouped_numbers / grouped_cpu,
            "seconds": seconds,
            "hub_cpu_s": hub_cpu,
            **services.figures(),
            "generator_cpu_s": own_cpu,
        },
        bound={
            "fastapi_alone_per_s": len(single) / bound_seconds,
            "fastapi_alone_per_cpu_s": len(single) / bound_cpu,
        },
        ratio={"time": bound_seconds / seconds, "cpu": bound_cpu / hub_cpu},
        settings={
            "numbers": numbers,
            "chunks": len(chunks),
            "subscriptions": len(here.subscriptions),
            "requests": len(single),
            "grouped_requests": len(grouped),
            "chunks_per_grouped_request": PER_CALL,
            "callers": CALLERS,
        },
        floors={"requests_per_s": (">=", 1_000)},
    )


def answers_body(subscription_id: str, chunks: Sequence[tuple[str, int]], random: Random) -> bytes:
    answers = []
    for chunk_id, count in chunks:
        rows = random.sample(range(count), min(33, count))
        answers.append(
            {
                "chunk_id": chunk_id,
                "default": "no_account",
                "exceptions": [
                    {"disposition": "unbound", "rows": rows[:31]},
                    {"disposition": "held_funds", "rows": rows[31:], "review_at": "2027-01-01T00:00:00Z"},
                ][: 1 + (len(rows) > 31)],
            }
        )
    return json.dumps({"subscription_id": subscription_id, "answers": answers}).encode()


def answers_request(url: str, body: bytes, token: str) -> bytes:
    return request(url, "POST", "/v1/acks", body, authorization=f"Bearer {token}", content_type="application/json")


async def load(url: str, requests: Sequence[bytes], callers: int = CALLERS) -> tuple[float, list[float]]:
    """Every caller sends its next request when it has its answer. Seconds in all, milliseconds of each."""
    todo = iter(requests)
    latencies: list[float] = []

    async def caller() -> None:
        connection = await connect(url)
        for one in todo:
            began = time.monotonic()
            reply = await connection.send(one)
            latencies.append((time.monotonic() - began) * 1e3)
            if reply.status != 200:
                raise RuntimeError(f"a request was refused: {reply}")
        connection.close()

    began = time.monotonic()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return time.monotonic() - began, latencies
