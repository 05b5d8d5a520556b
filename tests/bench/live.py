"""One event to twenty webhooks: how many deliveries at saturation, and how late at half of that.

Latency runs from the start of the publish call to the webhook's arrival at the sink. Bound: the same sender posting the
same small bodies to the same sink, without a hub.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from random import Random

from hub.domain.events import Lane
from tests.bench import stack, world
from tests.bench.fanout import ask, posting
from tests.bench.processes import Child, cpu_of
from tests.bench.shape import Result, percentile
from tests.bench.wire import Connection, connect, request

PUBLISHERS = 32
FLOOR = 3_000


class Publisher:
    """Publishes one number per call on connections of its own; remembers when each call began."""

    def __init__(self, url: str, token: str, numbers: Iterator[int]) -> None:
        self._url, self._token, self._numbers = url, token, numbers
        self._idle: list[Connection] = []
        self._keys = itertools.count()
        self.began: dict[bytes, int] = {}
        self.answered_within: list[float] = []
        self.pushed_back = 0

    async def publish(self) -> None:
        event = {
            "number": f"+86{next(self._numbers)}",
            "event_type": "deactivated",
            "occurred_at": datetime.fromtimestamp(time.time() - 3_600, UTC).isoformat(timespec="seconds"),
            "terminate_reason": "holder_request",
        }
        body = json.dumps({"events": [event]}).encode()
        sent = request(
            self._url, "POST", "/v1/events", body,
            authorization=f"Bearer {self._token}",
            content_type="application/json",
            idempotency_key=f'"bench-{next(self._keys)}"',
        )  # fmt: skip
        connection = self._idle.pop() if self._idle else await connect(self._url)
        while True:
            began = time.monotonic_ns()
            reply = await connection.send(sent)
            if reply.status != 429:
                break
            self.pushed_back += 1
            await asyncio.sleep(reply.retry_after)
        self.answered_within.append((time.monotonic_ns() - began) / 1e6)
        self._idle.append(connection)
        result = json.loads(reply.body)
        if reply.status != 202 or result["accepted"] != 1:
            raise RuntimeError(f"an event was refused: {reply}")
        self.began[result["results"][0]["event_id"].encode()] = began

    def forget(self) -> None:
        self.began.clear()
        self.answered_within.clear()


async def run(events: int = 3_000, subscribers: int = 20, half_seconds: float = 10.0, quiet_events: int = 40) -> Result:
    sink = Child("tests.bench.sink")
    address = f"http://127.0.0.1:{(await sink.start())['port']}"
    data = world.fresh_folder()
    here = await world.enrol(data, subscribers=subscribers, sink=address, lanes=(Lane.live,))
    hub = stack.hub(data)
    random = Random(7)
    try:
        await hub.start()
        token = await here.token(hub.url, world.CARRIER)
        numbers = world.draw_numbers(events + quiet_events + int(half_seconds * 2_000) + 500, seed=6)
        order = random.sample(range(len(numbers)), len(numbers))
        publisher = Publisher(hub.url, token, (int(numbers[place]) for place in order))
        await saturate(publisher, 200)  # connections opened, code warm
        await drained(address, 200 * subscribers)

        publisher.forget()
        await ask(address, "reset?record=1")
        await paced(publisher, lambda: 0.15, quiet_events)
        await drained(address, quiet_events * subscribers)
        quiet = latencies(publisher, await ask(address, "arrivals"))

        publisher.forget()
        await ask(address, "reset?record=1")
        services = stack.Meter(data)
        cpu, sink_cpu, own = cpu_of(hub.pid), sink.cpu(), cpu_of(None)
        began = time.monotonic_ns()
        await saturate(publisher, events)
        last = await drained(address, events * subscribers)
        hub_cpu, sink_cpu, own = cpu_of(hub.pid) - cpu, sink.cpu() - sink_cpu, cpu_of(None) - own
        services.stop()
        seconds = (last - began) / 1e9
        saturation = events * subscribers / seconds

        half: dict[str, list[float]] = {}
        answered: dict[str, list[float]] = {}
        for name, rate in (("half", saturation / 2), ("half_of_floor", FLOOR / 2)):
            await settled(hub.pid)
            publisher.forget()
            await ask(address, "reset?record=1")
            per_event = subscribers / rate
            count = int(half_seconds / per_event)
            await paced(publisher, lambda mean=per_event: random.expovariate(1 / mean), count)  # type: ignore[misc]
            await drained(address, count * subscribers)
            half[name] = latencies(publisher, await ask(address, "arrivals"))
            answered[name] = list(publisher.answered_within)
    finally:
        await hub.stop()
    bound = await posting(data, address, subscribers=subscribers, workers=160, posts=events * subscribers)
    await sink.stop()
    here.remove()
    due = events * subscribers
    return Result(
        name="live",
        main="deliveries_per_s",
        figures={
            "deliveries_per_s": saturation,
            "deliveries_per_hub_cpu_s": due / hub_cpu,
            "publishers_pushed_back": publisher.pushed_back,
            "half_p50_ms": percentile(half["half"], 0.5),
            "half_p99_ms": percentile(half["half"], 0.99),
            "half_of_floor_p50_ms": percentile(half["half_of_floor"], 0.5),
            "half_of_floor_p99_ms": percentile(half["half_of_floor"], 0.99),
            "quiet_p50_ms": percentile(quiet, 0.5),
            "quiet_p99_ms": percentile(quiet, 0.99),
            "half_publish_p50_ms": percentile(answered["half"], 0.5),
            "half_publish_p99_ms": percentile(answered["half"], 0.99),
            "seconds": seconds,
            "hub_cpu_s": hub_cpu,
            **services.figures(),
            "sink_cpu_s": sink_cpu,
            "generator_cpu_s": own,
        },
        bound={"sender_alone_per_s": due / bound["seconds"], "sender_alone_per_cpu_s": due / bound["cpu"]},
        ratio={"time": bound["seconds"] / seconds, "cpu": bound["cpu"] / hub_cpu},
        settings={
            "events": events,
            "subscribers": subscribers,
            "publishers": PUBLISHERS,
            "half_rate_per_s": round(saturation / 2),
            "half_seconds": half_seconds,
        },
        floors={"deliveries_per_s": (">=", FLOOR), "half_of_floor_p99_ms": ("<=", 60)},
    )


async def saturate(publisher: Publisher, events: int) -> None:
    left = iter(range(events))

    async def one() -> None:
        for _ in left:
            await publisher.publish()

    await asyncio.gather(*(one() for _ in range(PUBLISHERS)))


async def paced(publisher: Publisher, gap: Callable[[], float], events: int) -> None:
    """Calls begin when they are due, however long the others take."""
    loop = asyncio.get_running_loop()
    due = loop.time()
    tasks = []
    for _ in range(events):
        due += gap()
        await asyncio.sleep(max(due - loop.time(), 0))
        tasks.append(asyncio.create_task(publisher.publish()))
    await asyncio.gather(*tasks)


async def settled(pid: int) -> None:
    """Return when the hub has done what the phase before left to it (lists, merges): half load is a steady state."""
    for _ in range(60):
        cpu = cpu_of(pid)
        await asyncio.sleep(0.5)
        if cpu_of(pid) - cpu < 0.05:
            return
    raise RuntimeError("the hub does not come to rest")


async def drained(address: str, webhooks: int) -> int:
    """Wait for so many webhooks since the last reset; when the last one came (monotonic ns)."""
    deadline = time.monotonic() + 120
    while True:
        seen = await ask(address, "stats")
        if seen["webhooks"] >= webhooks:
            if seen["webhooks"] > webhooks or seen["wrong"]:
                raise RuntimeError(f"{webhooks} webhooks were due: {seen}")
            return int(seen["last"])
        if time.monotonic() > deadline:
            raise RuntimeError(f"{webhooks} webhooks were due after two minutes: {seen}")
        await asyncio.sleep(0.05)


def latencies(publisher: Publisher, arrivals: bytes) -> list[float]:
    """Milliseconds from the start of the publish call to each webhook."""
    found = []
    for line in arrivals.splitlines():
        chunk_id, at, *_ = line.split(b" ")
        if chunk_id in publisher.began:  # else bulk, which somebody else brought
            found.append((int(at) - publisher.began[chunk_id]) / 1e6)
    return found
