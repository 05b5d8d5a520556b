"""Do bulk, live lane and broken receivers harm each other?

Three times on one hub: live events alone; a bulk backlog alone, to healthy subscribers; then both together, while a
tenth of the subscribers hangs, drips its answer or refuses connections. Bound: the two undisturbed runs.
"""

from __future__ import annotations

import asyncio
import time
from random import Random

from hub.app.demo.hub_process import HubProcess, free_port
from hub.domain.events import EventType, Lane
from hub.domain.parties import SubscriptionState
from tests.bench import world
from tests.bench.fanout import ask, set_states
from tests.bench.live import Publisher, drained, latencies, paced, saturate
from tests.bench.processes import Child, cpu_of, memory_of
from tests.bench.shape import Result, percentile

WAYS = ("/hang/{}", "/drip/{}", "/refuse/{}")


async def run(
    numbers: int = 5_000_000, subscribers: int = 20, events_per_s: float = 10.0, quiet_seconds: float = 10.0
) -> Result:
    """``numbers`` in each of the two backlogs; a tenth of ``subscribers``, at least one, is broken in the third run."""
    broken = max(subscribers // 10, 1)
    healthy = subscribers - broken
    sink = Child("tests.bench.sink")
    address = f"http://127.0.0.1:{(await sink.start())['port']}"
    data = world.fresh_folder()

    def path(number: int) -> str:
        return f"/s/{number}" if number < healthy else WAYS[(number - healthy) % len(WAYS)].format(number)

    lanes = (Lane.bulk, Lane.live)
    here = await world.enrol(data, subscribers=subscribers, sink=address, lanes=lanes, path=path)
    await set_states(data, here.subscriptions[healthy:], SubscriptionState.paused)
    hub = HubProcess(data, free_port(), world.HUB_SETTINGS)
    random = Random(18)
    drawn = world.draw_numbers(2 * numbers + 100_000, seed=19)
    order = random.sample(range(2 * numbers, len(drawn)), len(drawn) - 2 * numbers)
    live_numbers = drawn[order]
    first, second = drawn[: 2 * numbers : 2], drawn[1 : 2 * numbers : 2]
    try:
        await hub.start()
        publisher = Publisher(hub.url, await here.token(hub.url, world.CARRIER), (int(n) for n in live_numbers))
        await saturate(publisher, 50)
        await drained(address, 50 * healthy)

        async def live(until: asyncio.Event) -> int:
            """Events at a steady rate until told to end; how many."""
            count = 0
            while not until.is_set():
                await paced(publisher, lambda: random.expovariate(events_per_s), 5)
                count += 5
            return count

        async def record() -> None:
            publisher.forget()
            await ask(address, "reset?record=1")

        await record()
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(quiet_seconds, over.set)
        count = await live(over)
        await drained(address, count * healthy)
        quiet = latencies(publisher, await ask(address, "arrivals"))

        await record()
        chunks = len(await world.write_log(data, world.records_of(first, EventType.release_scheduled, "first")))
        cpu = cpu_of(hub.pid)
        alone = await _drain(address, chunks * healthy)
        alone_cpu = cpu_of(hub.pid) - cpu

        await set_states(data, here.subscriptions[healthy:], SubscriptionState.active)
        await asyncio.sleep(1.5)  # the hub has seen it: they are dead from here on
        await record()
        over = asyncio.Event()
        before = memory_of(hub.pid)
        publishing = asyncio.create_task(live(over))
        chunks = len(await world.write_log(data, world.records_of(second, EventType.release_scheduled, "second")))
        cpu = cpu_of(hub.pid)
        together = await _drain(address, chunks * healthy)
        together_cpu = cpu_of(hub.pid) - cpu
        over.set()
        count = await publishing
        await drained(address, (count + chunks) * healthy)
        disturbed = latencies(publisher, await ask(address, "arrivals"))
        peak = memory_of(hub.pid)
    finally:
        await hub.stop()
        await sink.stop()
        here.remove()
    quiet_p99, disturbed_p99 = percentile(quiet, 0.99), percentile(disturbed, 0.99)
    return Result(
        name="interference",
        main="live_p99_ms",
        figures={
            "live_p50_ms": percentile(disturbed, 0.5),
            "live_p99_ms": disturbed_p99,
            "live_deliveries": len(disturbed),
            "drain_numbers_per_s": numbers * healthy / together,
            "drain_hub_cpu_s": together_cpu,
            "hub_memory_before_mib": before,
            "hub_memory_after_mib": peak,
        },
        bound={
            "quiet_live_p50_ms": percentile(quiet, 0.5),
            "quiet_live_p99_ms": quiet_p99,
            "drain_alone_numbers_per_s": numbers * healthy / alone,
            "drain_alone_hub_cpu_s": alone_cpu,
        },
        ratio={"live_p99": quiet_p99 / disturbed_p99, "drain": alone / together, "drain_cpu": alone_cpu / together_cpu},
        settings={
            "numbers": numbers,
            "subscribers": subscribers,
            "broken_subscribers": broken,
            "events_per_s": events_per_s,
        },
        floors={"drain_numbers_per_s": (">=", 3_000_000)},
    )


async def _drain(address: str, webhooks: int) -> float:
    """Seconds from the first to the last of so many webhooks since the last reset."""
    deadline = time.monotonic() + 600
    while True:
        seen = await ask(address, "stats")
        if seen["webhooks"] >= webhooks:
            if seen["wrong"]:
                raise RuntimeError(f"bad signatures: {seen}")
            return float(seen["last"] - seen["first"]) / 1e9
        if time.monotonic() > deadline:
            raise RuntimeError(f"{webhooks} webhooks were due: {seen}")
        await asyncio.sleep(0.05)
