"""Bulk chunks that stand in the log, to many full webhooks: signed, received, receipts and cursors committed.

Bound: the same sender posting the same bytes to the same sink, without a hub.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hub.adapters.sql.ledger import open_ledger
from hub.adapters.system.clock import SystemClock
from hub.app.demo.hub_process import HubProcess
from hub.domain.events import EventType
from hub.domain.parties import Subscription, SubscriptionState
from tests.bench import stack, world
from tests.bench.processes import Child, cpu_of, memory_of
from tests.bench.shape import Result
from tests.bench.wire import connect, request

WORKERS = 64
STUCK_SECONDS = 60.0


async def run(numbers: int = 1_000_000, subscribers: int = 48) -> Result:
    sink = Child("tests.bench.sink")
    address = f"http://127.0.0.1:{(await sink.start())['port']}"
    data = world.fresh_folder()
    here = await world.enrol(data, subscribers=subscribers, sink=address, state=SubscriptionState.paused)
    drawn = world.draw_numbers(numbers, seed=5)
    chunks = await world.write_log(data, world.records_of(drawn, EventType.release_scheduled, "fanout"))
    await world.fold_index(data)
    hub = stack.hub(data)
    due = len(chunks) * subscribers
    try:
        await hub.start()
        await world.catalogued(data)
        before = memory_of(hub.pid)
        services = stack.Meter(data)
        cpu, sink_cpu = cpu_of(hub.pid), sink.cpu()
        await set_states(data, here.subscriptions, SubscriptionState.active)
        ended, peak = await _all_committed(hub, data, due)
        hub_cpu, sink_cpu = cpu_of(hub.pid) - cpu, sink.cpu() - sink_cpu
        services.stop()
        seen = await ask(address, "stats")
    finally:
        await hub.stop()
    seconds = ended - seen["first"] / 1e9
    if seen["webhooks"] < due or seen["wrong"]:
        raise RuntimeError(f"{due} webhooks were due: {seen}")
    bound = await posting(data, address, subscribers=subscribers, workers=WORKERS)
    await sink.stop()
    here.remove()
    delivered = numbers * subscribers
    return Result(
        name="fanout",
        main="numbers_per_s",
        figures={
            "numbers_per_s": delivered / seconds,
            "numbers_per_hub_cpu_s": delivered / hub_cpu,
            "deliveries_per_s": due / seconds,
            "hub_cpu_us_per_delivery": hub_cpu / due * 1e6,
            "seconds": seconds,
            "hub_cpu_s": hub_cpu,
            **services.figures(),
            "sink_cpu_s": sink_cpu,
            "sent_twice": seen["webhooks"] - due,  # delivery is at least once: a lease that moves sends again
            "signatures_verified": seen["verified"],
            "hub_memory_before_mib": before,
            "hub_memory_peak_mib": peak,
        },
        bound={
            "sender_alone_numbers_per_s": delivered / bound["seconds"],
            "sender_alone_numbers_per_cpu_s": delivered / bound["cpu"],
            "sender_alone_cpu_us_per_delivery": bound["cpu"] / due * 1e6,
        },
        ratio={"time": bound["seconds"] / seconds, "cpu": bound["cpu"] / hub_cpu},
        settings={
            "numbers": numbers,
            "subscribers": subscribers,
            "chunks": len(chunks),
            "kilobytes_per_chunk": round(seen["bytes"] / due / 1e3, 1),
            "workers_of_bound": WORKERS,
        },
        floors={"numbers_per_s": (">=", 5_000_000)},
    )


async def set_states(data: Path, subscriptions: Sequence[Subscription], state: SubscriptionState) -> None:
    """All at once, as an operator's change in the directory; the hub sees it within a second."""
    directory, ledger = open_ledger(stack.ledger_address(data), SystemClock())
    for subscription in subscriptions:
        await directory.put_subscription(replace(subscription, state=state))
    await ledger.close()


async def _all_committed(hub: HubProcess, data: Path, due: int) -> tuple[float, float]:
    """When (monotonic s) the last receipt was committed, and the hub's highest memory (MiB)."""
    peak, before, moved = 0.0, -1, time.monotonic()
    async with stack.counting(data, "receipts") as receipts:
        while True:
            count = await receipts()
            now = time.monotonic()
            peak = max(peak, memory_of(hub.pid))
            if count >= due:
                return now, peak
            if count > before:
                before, moved = count, now
            if now - moved > STUCK_SECONDS:
                raise RuntimeError(f"{due} receipts were due, and {count} came")
            await asyncio.sleep(0.05)


async def ask(address: str, what: str) -> Any:
    """What the sink says at /control/``what``."""
    connection = await connect(address)
    reply = await connection.send(request(address, "GET", f"/control/{what}"))
    connection.close()
    return reply.body if what == "arrivals" else json.loads(reply.body)


async def posting(
    data: Path, address: str, *, subscribers: int, workers: int, posts: int | None = None
) -> dict[str, float]:
    """Seconds and CPU of the sender alone, and the sink's."""
    await stack.log_file(data)
    said = {"data": str(data), "sink": address, "subscribers": subscribers, "posts": posts, "workers": workers}
    child = Child("tests.bench.posting", json.dumps(said))
    await child.start()
    found = await child.go()
    await child.stop()
    return dict(found)
