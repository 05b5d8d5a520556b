"""The hub is killed with SIGKILL at random moments while carriers publish and subscribers answer; then the whole
history is judged (`tests.history`). NUMHUB_TEST_KILLS sets how often (30), NUMHUB_TEST_SEED which world."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from random import Random

import pytest
from numhub_client import AsyncClient, PrivateKey

from hub.app.demo.hub_process import free_port
from hub.domain.events import EventType
from hub.domain.parties import AppClass
from tests.history import Finding, History, Wishes, check
from tests.integration.killed_world import (
    ONCE,
    Carrier,
    HubStem,
    Platform,
    drained,
    enrol,
    kill_at_random,
    listen,
    read_kept,
)

KILLS = int(os.environ.get("NUMHUB_TEST_KILLS", "30"))
SEED = int(os.environ.get("NUMHUB_TEST_SEED", "0")) or int(time.time())
ALL = frozenset(kind.value for kind in EventType)
BOTH = frozenset({"bulk", "live"})

APPS = {
    "bank": (AppClass.bank, "webhook_full", Wishes(ALL, BOTH), 0.05, 0.0),
    "mail": (AppClass.social_mail, "webhook_pointer", Wishes(ALL, BOTH), 0.0, 1.0),
    "shop": (AppClass.e_commerce, "pull", Wishes(ALL, BOTH), 0.0, 0.0),
    "games": (AppClass.games, "webhook_full", Wishes(frozenset({"deactivated", "released"}), BOTH), 0.0, 0.0),
}


@pytest.mark.slow
@pytest.mark.timeout(300 + 12 * KILLS)
async def test_nothing_is_lost_changed_or_reordered_by_kills_at_random(tmp_path: Path) -> None:
    """However often the hub dies: every accepted event arrives or is parked, with the same bytes, in its order; every
    acknowledged answer is kept; repeats are recognised; clearance never says go too early."""
    began = time.monotonic()

    def tell(text: str) -> None:
        sys.stdout.write(f"{time.monotonic() - began:5.1f} s  {text}\n")
        sys.stdout.flush()

    tell(f"NUMHUB_TEST_SEED={SEED} NUMHUB_TEST_KILLS={KILLS}")
    random, history = Random(SEED), History()
    keys = await enrol(tmp_path, ["cmcc", "cucc"], {name: app[0] for name, app in APPS.items()})
    hub, port = HubStem(tmp_path, free_port()), free_port()
    await hub.load()
    await hub.start()

    def client(key: PrivateKey) -> AsyncClient:
        return AsyncClient(hub.url, key, timeout=10.0, retry=ONCE)

    platforms = [
        Platform(name, client(keys[name]), history, Random(random.random()), mode, wishes, flaky, late)
        for name, (_, mode, wishes, flaky, late) in APPS.items()
    ]
    carriers = [
        Carrier(client(keys[name]), history, Random(random.random()), name, first)
        for name, first in (("cmcc", 13_800_000_000), ("cucc", 13_000_000_000))
    ]
    tasks: list[asyncio.Task[None]] = []
    server, serving = await listen(platforms, port)
    try:
        await hub.ready()
        for platform in platforms:
            await platform.subscribe(port)
            tasks.append(asyncio.create_task(platform.pull() if platform.mode == "pull" else platform.work()))
        stop = asyncio.Event()
        load = [asyncio.create_task(c.publish_live(worker, stop, 0.06)) for c in carriers for worker in range(2)]
        load += [asyncio.create_task(carrier.publish_batches(stop, 0.5)) for carrier in carriers]
        await kill_at_random(hub, random, KILLS, tell)
        stop.set()
        tell("the load ends")
        await asyncio.wait_for(asyncio.gather(*load), 240)
        tell("draining")
        await drained(platforms, history, tasks)
        tell("asking for clearance of everything")
        waiting = await wrongly_waiting(carriers, history)
        await hub.stop()
        history.kills = hub.kills
        kept = await read_kept(tmp_path, history)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in (*platforms, *carriers):
            await each.client.aclose()
        server.should_exit = server.force_exit = True
        await serving
        await hub.close()
    tell(summary(history, platforms))
    findings = [*check(history, kept), *waiting]
    assert not findings, f"seed {SEED}:\n" + "\n".join(str(finding) for finding in findings[:20])
    assert history.kills == KILLS
    assert sum(call.doubts for call in history.calls) > 0 or KILLS < 5, (
        "no call was ever in doubt: the load is too thin"
    )
    assert any("go" in verdict for heard in history.verdicts for verdict in heard.verdicts.values())


async def wrongly_waiting(carriers: list[Carrier], history: History) -> list[Finding]:
    """L4: everybody has answered, so whatever rested long enough and was neither withdrawn nor sold may go."""
    withdrawn = ("released", "release_cancelled")
    gone = {number for call in history.calls for number, kind in call.items if kind in withdrawn}
    found = []
    for carrier in carriers:
        mine = [batch for batch in history.batches if batch.carrier == carrier.name]
        numbers = [number for batch in mine for number in batch.good]
        verdicts: dict[int, str] = {}
        for start in range(0, len(numbers), 10_000):
            verdicts |= await carrier.ask(numbers[start : start + 10_000])
        resting = {number for batch in mine for number in batch.resting}
        waiting = {number for number, verdict in verdicts.items() if verdict == "wait"}
        if wrong := waiting - resting - gone:
            found.append(Finding("L4", f"{len(wrong)} numbers of {carrier.name} wait although all have answered"))
    return found


def summary(history: History, platforms: list[Platform]) -> str:
    events = sum(event_id is not None for call in history.calls for event_id in call.heard[-1])
    rows = sum(batch.accepted for batch in history.batches)
    doubts = sum(call.doubts for call in history.calls)
    duplicates = sum(platform.duplicates for platform in platforms)
    verdicts = sum(len(heard.verdicts) for heard in history.verdicts)
    return (
        f"{history.kills} kills, {events} live events ({doubts} tries in doubt), {len(history.batches)} batches of "
        f"{rows} rows, {len(history.deliveries)} deliveries ({duplicates} repeats), {len(history.answers)} answers, "
        f"{verdicts} verdicts"
    )
