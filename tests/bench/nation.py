"""A nation's year: carriers' files in, every chunk as a signed webhook to 239 apps, every chunk answered.

Files go through the API one after the other; subscribers answer what they received through ``POST /v1/acks``, twenty
chunks in a call, each with 33 exceptions. By default a tenth of a year (25 M numbers), with ``--full`` the whole. Told
are memory over time, bytes per (number, app) pair, and how the cost of a delivery grew over the run (it must not).
Bound: the same sender posting the same bytes to the same sink, without a hub (a sample of the chunks).
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import numpy as np

from hub.adapters.number_plan.package import PackagePlan
from hub.app.demo.hub_process import HubProcess, free_port
from hub.app.settings import INDEX_DIR, LEDGER_FILE, LOG_FILE
from tests.bench import world
from tests.bench.answers import answers_body, answers_request
from tests.bench.fanout import ask, posting
from tests.bench.ingest import publish
from tests.bench.processes import Child, cpu_of, memory_of
from tests.bench.shape import Result, median
from tests.bench.storage import size_of
from tests.bench.wire import Connection, connect

FULL = 250_000_000
PER_CALL = 20
ANSWERERS = 16
TOKEN_LIVES = 200.0
SAMPLED_POSTS = 4_000


@dataclass(slots=True)
class Watch:
    """The hub's memory over time, and its CPU when each file was delivered and answered."""

    memory: list[tuple[float, float]] = field(default_factory=list)
    cpu: list[tuple[int, float]] = field(default_factory=list)

    async def run(self, hub: HubProcess, began: float) -> None:
        while True:
            self.memory.append((time.monotonic() - began, memory_of(hub.pid)))
            await asyncio.sleep(1.0)

    def growth(self) -> float:
        """CPU per delivery in the last third of the files against the first third, without the very first file."""
        costs = [(b - a) / (m - n) for (n, a), (m, b) in zip(self.cpu, self.cpu[1:], strict=False) if m > n]
        costs = costs[1:] if len(costs) > 3 else costs
        third = max(len(costs) // 3, 1)
        return median(costs[-third:]) / median(costs[:third])


class Answerers:
    """Answers what the sink says it received, each subscriber under its own token."""

    def __init__(self, here: world.World, hub: HubProcess, sink: str) -> None:
        self._here, self._hub, self._sink = here, hub, sink
        self._waiting: list[list[tuple[str, int]]] = [[] for _ in here.subscriptions]
        self._tokens: dict[str, tuple[float, str]] = {}
        self._random = Random(20)
        self._todo: asyncio.Queue[tuple[int, list[tuple[str, int]]]] = asyncio.Queue(64)
        self.ended = False
        self.answered = 0
        self.numbers = 0

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(ANSWERERS):
                group.create_task(self._answer())
            while not self.ended:
                began = time.monotonic()
                await self._collect(whole=PER_CALL)
                await asyncio.sleep(max(0.25 - (time.monotonic() - began), 0))
            await self._collect(whole=1)
            for _ in range(ANSWERERS):
                await self._todo.put((-1, []))

    async def _collect(self, whole: int) -> None:
        arrivals: bytes = await ask(self._sink, "arrivals")
        for line in arrivals.splitlines():
            chunk_id, _, subscriber, count = line.split(b" ")
            self._waiting[int(subscriber)].append((chunk_id.decode(), int(count)))
        for place, chunks in enumerate(self._waiting):
            while len(chunks) >= whole:
                taken, chunks[:] = chunks[:PER_CALL], chunks[PER_CALL:]
                await self._todo.put((place, taken))

    async def _answer(self) -> None:
        connection: Connection = await connect(self._hub.url)
        while True:
            place, chunks = await self._todo.get()
            if place < 0:
                break
            subscription = self._here.subscriptions[place]
            body = answers_body(subscription.subscription_id, chunks, self._random)
            token = await self._token(subscription.subscriber_id)
            reply = await connection.send(answers_request(self._hub.url, body, token))
            if reply.status != 200:
                raise RuntimeError(f"an answer was refused: {reply}")
            self.answered += len(chunks)
            self.numbers += sum(count for _, count in chunks)
        connection.close()

    async def _token(self, owner: str) -> str:
        since, token = self._tokens.get(owner, (0.0, ""))
        if time.monotonic() - since > TOKEN_LIVES:
            token = await self._here.token(self._hub.url, owner)
            self._tokens[owner] = (time.monotonic(), token)
        return token


async def run(
    numbers: int = 25_000_000, subscribers: int = 239, file_rows: int = 2_500_000, full: bool = False
) -> Result:
    numbers = FULL if full else numbers
    files = max(-(-numbers // file_rows), 1)
    sink = Child("tests.bench.sink")
    address = f"http://127.0.0.1:{(await sink.start())['port']}"
    data = world.fresh_folder()
    here = await world.enrol(data, subscribers=subscribers, sink=address)
    hub = HubProcess(data, free_port(), world.HUB_SETTINGS)
    watch = Watch()
    chunks = 0
    try:
        await ask(address, "reset?record=1")
        await hub.start()
        answerers = Answerers(here, hub, address)
        began, cpu, sink_cpu, own = time.monotonic(), cpu_of(hub.pid), sink.cpu(), cpu_of(None)
        watching = asyncio.create_task(watch.run(hub, began))
        answering = asyncio.create_task(answerers.run())
        watch.cpu.append((0, cpu))
        for turn in range(files):
            rows = numbers // files + (turn < numbers % files)
            content = await asyncio.to_thread(_file, turn, files, rows)
            _, batch, _ = await publish(
                hub, await here.token(hub.url, world.CARRIER), content, rows, batch_seq=turn + 1
            )
            if batch["rows_accepted"] != rows:
                raise RuntimeError(f"not every row was accepted: {batch}")
            chunks += int(batch["chunks"])
            due = chunks * subscribers
            await _until(lambda due=due: answerers.answered >= due - PER_CALL * subscribers, answering)  # type: ignore[misc]
            watch.cpu.append((answerers.answered, cpu_of(hub.pid)))
            sys.stderr.write(
                f"file {turn + 1} of {files}: {time.monotonic() - began:.0f} s, {memory_of(hub.pid):.0f} MiB, "
                f"{chunks} chunks, {answerers.answered} answered\n"
            )
        await _received(address, due)
        answerers.ended = True
        await answering
        seconds = time.monotonic() - began
        hub_cpu, sink_cpu, own = cpu_of(hub.pid) - cpu, sink.cpu() - sink_cpu, cpu_of(None) - own
        watching.cancel()
        seen = await ask(address, "stats")
        await hub.stop()
        stored = _stored(data, due)
        log, ledger = size_of(data / LOG_FILE), size_of(data / LEDGER_FILE)
        index = sum(file.stat().st_size for file in (data / INDEX_DIR).iterdir())
        bound = await posting(data, address, subscribers=subscribers, workers=64, posts=min(due, SAMPLED_POSTS))
    finally:
        await hub.stop()
        await sink.stop()
        here.remove()
    if seen["wrong"] or seen["webhooks"] != due or stored != (due, due):
        raise RuntimeError(f"{due} webhooks, receipts and answers were due: {seen}, {stored}")
    pairs = numbers * subscribers
    bound_cpu = bound["cpu"] / min(due, SAMPLED_POSTS)
    memory = [value for _, value in watch.memory]
    half = len(memory) // 2
    return Result(
        name="nation",
        main="pairs_per_s",
        figures={
            "pairs_per_s": pairs / seconds,
            "pairs_per_hub_cpu_s": pairs / hub_cpu,
            "hours": seconds / 3600,
            "hours_for_a_year": seconds / 3600 * FULL / numbers,
            "hub_cpu_s": hub_cpu,
            "hub_cpu_us_per_delivery_and_answer": hub_cpu / due * 1e6,
            "sink_cpu_s": sink_cpu,
            "generator_cpu_s": own,
            "memory_peak_mib": max(memory),
            "memory_peak_first_half_mib": max(memory[: half or 1]),
            "memory_peak_second_half_mib": max(memory[half:]),
            "cost_growth": watch.growth(),
            "log_bytes_per_pair": log / pairs,
            "ledger_bytes_per_pair": ledger / pairs,
            "index_bytes_per_pair": index / pairs,
            "bytes_per_pair": (log + ledger) / pairs,
        },
        bound={"sender_alone_cpu_us_per_delivery": bound_cpu * 1e6},
        ratio={"cpu": bound_cpu * due / hub_cpu},
        settings={
            "numbers": numbers,
            "subscribers": subscribers,
            "files": files,
            "chunks": chunks,
            "deliveries": due,
            "memory_mib_over_time": [round(value) for value in memory[:: max(len(memory) // 40, 1)]],
        },
        floors={"memory_peak_mib": ("<=", 1_024), "cost_growth": ("<=", 1.3)},
    )


def _file(turn: int, files: int, rows: int) -> bytes:
    """A CSV of ``rows`` numbers that stand in no other of the ``files``: those that leave ``turn`` divided by them."""
    random = np.random.default_rng(1_000 + turn)
    blocks = PackagePlan().blocks()[0].astype(np.int64)
    each = 10_000 // files
    drawn = random.choice(len(blocks) * each, rows, replace=False)
    numbers = blocks[drawn // each] * 10_000 + drawn % each * files + turn
    return world.night_file(numbers, numbers[:0], seed=2_000 + turn, whole_days=True)


async def _until(true: Callable[[], bool], answering: asyncio.Task[None]) -> None:
    """Raises what ended the answerers, if something did."""
    while not true():
        if answering.done():
            answering.result()
        await asyncio.sleep(0.1)


async def _received(address: str, due: int) -> None:
    deadline = time.monotonic() + 300
    while (await ask(address, "stats"))["webhooks"] < due:
        if time.monotonic() > deadline:
            raise RuntimeError("the last webhooks do not come")
        await asyncio.sleep(0.1)


def _stored(data: Path, due: int) -> tuple[int, int]:
    """Receipts and answers in the ledger."""
    with sqlite3.connect(f"file:{data / LEDGER_FILE}?mode=ro", uri=True) as ledger:
        receipts = ledger.execute("SELECT count(*) FROM receipts").fetchone()[0]
        answers = ledger.execute("SELECT count(*) FROM answers").fetchone()[0]
    return receipts, answers
