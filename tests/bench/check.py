"""Has this number changed hands? One number a request, as a login asks; a thousand a request; a batch's clearance.

Half of the numbers asked about are open (yes), half the hub never heard of (no: all four basic carriers report).
Bound: FastAPI taking the same bodies through the same model and returning as many answers at once, under the same
server settings.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import timedelta

import httpx
import numpy as np

from hub.adapters.sql.ledger import open_ledger
from hub.adapters.system.clock import SystemClock
from hub.app.demo.hub_process import HubProcess, free_port
from hub.app.settings import LEDGER_FILE
from hub.domain.batches import Batch, BatchState, ContentEncoding, ContentFormat
from hub.domain.events import EventType
from tests.bench import world
from tests.bench.answers import load
from tests.bench.ingest import publish
from tests.bench.processes import Child, cpu_of
from tests.bench.shape import Result, percentile
from tests.bench.wire import request

PER_CALL = 1_000
OWNER = "owner-000"


async def run(
    open_numbers: int = 2_000_000,
    singles: int = 20_000,
    bulk: int = 300,
    released: int = 1_000_000,
    subscribers: int = 8,
) -> Result:
    """``released``: numbers of one batch whose clearance is asked for (0 = not), which ``subscribers`` must answer."""
    data, held = await world.open_numbers(open_numbers)
    here = await world.enrol(data, subscribers=max(subscribers, 1), basic_carriers=True)
    await _all_carriers_report(here)
    numbers = _asked_about(held, max(singles, bulk * PER_CALL))
    hub = HubProcess(data, free_port(), world.HUB_SETTINGS)
    instant = Child("tests.bench.instant")
    figures: dict[str, float] = {}
    try:
        await hub.start()
        token = await here.token(hub.url, OWNER)
        one = [_request(hub.url, numbers[at : at + 1], token) for at in range(singles)]
        many = [_request(hub.url, numbers[at * PER_CALL : (at + 1) * PER_CALL], token) for at in range(bulk)]
        await world.catalogued(data)
        said = await _answers(hub.url, token, numbers[:PER_CALL])
        await load(hub.url, one[: singles // 10])  # warm
        cpu, own = cpu_of(hub.pid), cpu_of(None)
        seconds, latencies = await load(hub.url, one)
        hub_cpu, own = cpu_of(hub.pid) - cpu, cpu_of(None) - own
        cpu = cpu_of(hub.pid)
        bulk_seconds, bulk_latencies = await load(hub.url, many, callers=8)
        bulk_cpu = cpu_of(hub.pid) - cpu
        if released:
            figures = await _clearance(hub, here, released, held)
        await hub.stop()

        url = f"http://127.0.0.1:{(await instant.start())['port']}"
        await load(url, one[: singles // 10])
        cpu = instant.cpu()
        bound_seconds, _ = await load(url, one)
        bound_cpu = instant.cpu() - cpu
        cpu = instant.cpu()
        bound_bulk_seconds, _ = await load(url, many, callers=8)
        bound_bulk_cpu = instant.cpu() - cpu
    finally:
        await hub.stop()
        await instant.stop()
        here.remove()
    return Result(
        name="check",
        main="single_per_hub_cpu_s",
        figures={
            "single_per_s": singles / seconds,
            "single_per_hub_cpu_s": singles / hub_cpu,
            "p50_ms": percentile(latencies, 0.5),
            "p99_ms": percentile(latencies, 0.99),
            "bulk_numbers_per_s": bulk * PER_CALL / bulk_seconds,
            "bulk_numbers_per_hub_cpu_s": bulk * PER_CALL / bulk_cpu,
            "bulk_p99_ms": percentile(bulk_latencies, 0.99),
            "hub_cpu_s": hub_cpu,
            "generator_cpu_s": own,
            **{f"share_{answer}": count / PER_CALL for answer, count in said.items()},
            **figures,
        },
        bound={
            "fastapi_alone_per_s": singles / bound_seconds,
            "fastapi_alone_per_cpu_s": singles / bound_cpu,
            "fastapi_alone_bulk_numbers_per_s": bulk * PER_CALL / bound_bulk_seconds,
            "fastapi_alone_bulk_numbers_per_cpu_s": bulk * PER_CALL / bound_bulk_cpu,
        },
        ratio={
            "time": bound_seconds / seconds,
            "cpu": bound_cpu / hub_cpu,
            "bulk_time": bound_bulk_seconds / bulk_seconds,
            "bulk_cpu": bound_bulk_cpu / bulk_cpu,
        },
        settings={
            "open_numbers": open_numbers,
            "singles": singles,
            "bulk_requests": bulk,
            "numbers_per_bulk_request": PER_CALL,
            "numbers_cleared": released,
            "subscribers": subscribers,
        },
        floors={"single_per_hub_cpu_s": (">=", 2_000)},
    )


def _asked_about(held: world.Numbers, count: int) -> list[int]:
    """Open ones and others in turn, in no order."""
    random = np.random.default_rng(12)
    others = world.draw_numbers(count - count // 2, seed=11, apart_from=held)
    numbers = np.concatenate([random.choice(held, count // 2), others])
    found: list[int] = random.permutation(numbers).tolist()
    return found


def _request(url: str, numbers: list[int], token: str) -> bytes:
    body = json.dumps({"checks": [{"number": f"+86{number}", "since": _day()} for number in numbers]}).encode()
    return request(url, "POST", "/v1/check", body, authorization=f"Bearer {token}", content_type="application/json")


def _day() -> str:
    """Some days after the prefilled lines ended, and before today."""
    return time.strftime("%Y-%m-%d", time.gmtime(time.time() - 60 * world.DAY))


async def _answers(url: str, token: str, numbers: list[int]) -> dict[str, int]:
    """How many of each answer the hub gives; raises if it should know nothing."""
    async with httpx.AsyncClient(trust_env=False) as client:
        asked = {"checks": [{"number": f"+86{number}", "since": _day()} for number in numbers]}
        answer = await client.post(f"{url}/v1/check", json=asked, headers={"authorization": f"Bearer {token}"})
    answer.raise_for_status()
    given = [one["answer"] for one in answer.json()["answers"]]
    counts = {kind: given.count(kind) for kind in ("yes", "no", "no_data")}
    if not counts["yes"] or not counts["no"]:
        raise RuntimeError(f"the hub cannot answer: {counts}")
    return counts


async def _all_carriers_report(here: world.World) -> None:
    """Each carrier committed one empty batch: silence about a number then means no."""
    clock = SystemClock()
    _, ledger = open_ledger(here.data / LEDGER_FILE, clock)
    now = clock.now()
    batch = Batch(
        batch_id="",
        carrier_id="",
        acting_for=None,
        batch_seq=1,
        event_type=EventType.release_scheduled,
        declared_rows=0,
        declared_sha256="",
        content_format=ContentFormat.csv,
        content_encoding=ContentEncoding.identity,
        idempotency_key="bench-empty",
        request_digest="",
        state=BatchState.committed,
        created_at=now - timedelta(minutes=1),
        committed_at=now,
    )
    for place, carrier in enumerate(here.carriers):
        await ledger.put_batch(replace(batch, batch_id=f"bat_{place:024x}", carrier_id=carrier))
    await ledger.close()


async def _clearance(hub: HubProcess, here: world.World, rows: int, held: world.Numbers) -> dict[str, float]:
    """Publish a batch and ask for its clearance: judged in one linearizable act, nobody has answered yet."""
    new = world.draw_numbers(rows, seed=13, apart_from=held)
    content = world.night_file(new, new[:0], seed=14, whole_days=True)
    token = await here.token(hub.url, world.CARRIER)
    _, batch, _ = await publish(hub, token, content, rows, batch_seq=2)
    await world.catalogued(here.data)
    cpu, began = cpu_of(hub.pid), time.monotonic()
    async with httpx.AsyncClient(trust_env=False, timeout=120) as client:
        headers = {"authorization": f"Bearer {token}"}
        answer = await client.get(f"{hub.url}/v1/batches/{batch['batch_id']}/clearance", headers=headers)
    answer.raise_for_status()
    found = answer.json()
    if found["go"] + found["go_with_exceptions"] + found["wait"] != rows:
        raise RuntimeError("the clearance does not speak of every number")
    return {
        "clearance_seconds": time.monotonic() - began,
        "clearance_hub_cpu_s": cpu_of(hub.pid) - cpu,
    }
