"""Index and catalogue deleted and folded from the log again (`numhub rebuild`), and the start of a hub on the result.

Bound: reading the same log and decoding each body, once, in one thread, and nothing else.
"""

from __future__ import annotations

import asyncio
import sys
import time

import psutil

from hub.adapters.codec.json_codec import JsonCodec
from hub.adapters.sqlite.log import SqliteLog
from hub.app.demo.hub_process import HubProcess, free_port
from hub.app.settings import INDEX_DIR, LOG_FILE
from hub.domain.events import EventType
from tests.bench import world
from tests.bench.processes import ROOT, Child, cpu_of, environment, memory_of
from tests.bench.shape import Result


async def run(numbers: int = 4_000_000) -> Result:
    """Half of the numbers are deactivated and then scheduled for release, so the log holds 1.5 x as many events."""
    data = world.fresh_folder()
    here = await world.enrol(data)
    drawn = world.draw_numbers(numbers, seed=15)
    first = await world.write_log(data, world.records_of(drawn, EventType.deactivated, "rebuild-0"))
    then = world.records_of(drawn[::2], EventType.release_scheduled, "rebuild-1", seq=2)
    second = await world.write_log(data, then)
    events = sum(count for _, count in first + second)
    chunks = len(first) + len(second)
    hub = HubProcess(data, free_port(), world.HUB_SETTINGS)
    try:
        await world.fold_index(data)  # there is something to delete
        seconds, cpu, peak = await _rebuild(data)
        held = await _count(data)
        if held != numbers:
            raise RuntimeError(f"{held} of {numbers} numbers are in the rebuilt index")
        began = time.monotonic()
        await hub.start()
        started = time.monotonic() - began
        began, before = time.monotonic(), cpu_of(hub.pid)
        await world.catalogued(data, within=600)
        listed = time.monotonic() - began
        listed_cpu = cpu_of(hub.pid) - before
        await hub.stop()
        bound = await asyncio.to_thread(_decoded, data)
        megabytes = (data / LOG_FILE).stat().st_size / 1e6
        index = sum(file.stat().st_size for file in (data / INDEX_DIR).iterdir()) / 1e6
    finally:
        await hub.stop()
        here.remove()
    return Result(
        name="rebuild",
        main="numbers_per_s",
        figures={
            "numbers_per_s": events / (seconds + listed),
            "index_numbers_per_s": events / seconds,
            "numbers_per_cpu_s": events / (cpu + listed_cpu),
            "index_seconds": seconds,
            "index_cpu_s": cpu,
            "memory_peak_mib": peak,
            "start_seconds": started,
            "catalogue_seconds": listed,
            "catalogue_cpu_s": listed_cpu,
        },
        bound={"decode_alone_numbers_per_s": events / bound[0], "decode_alone_numbers_per_cpu_s": events / bound[1]},
        ratio={"time": bound[0] / (seconds + listed), "cpu": bound[1] / (cpu + listed_cpu)},
        settings={
            "numbers": numbers,
            "events": events,
            "chunks": chunks,
            "log_megabytes": round(megabytes, 1),
            "index_megabytes": round(index, 1),
        },
        floors={"numbers_per_s": (">=", 300_000)},
    )


async def _rebuild(data: object) -> tuple[float, float, float]:
    """Seconds, CPU and highest memory (MiB) of the command itself."""
    began = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "hub.app.cli", "rebuild", "--data", str(data),
        cwd=ROOT, env=environment(), stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    cpu = peak = 0.0
    while process.returncode is None:
        try:
            cpu, peak = max(cpu, cpu_of(process.pid)), max(peak, memory_of(process.pid))
        except psutil.Error:
            break
        await asyncio.sleep(0.02)
    if await process.wait():
        raise RuntimeError(f"numhub rebuild ended with code {process.returncode}")
    return time.monotonic() - began, cpu, peak


async def _count(data: object) -> int:
    """Numbers in the index, asked in a process of its own: mapped files would count as this one's memory."""
    child = Child("tests.bench.counting", str(data))
    found = int((await child.start())["numbers"])
    await child.stop()
    return found


def _decoded(data: object) -> tuple[float, float]:
    """Seconds and CPU."""

    async def read() -> tuple[float, float]:
        log, codec = SqliteLog(f"{data}/{LOG_FILE}", world.PARTITIONS), JsonCodec()
        began, cpu = time.monotonic(), time.process_time()
        for partition, end in enumerate(await log.ends()):
            offset = 0
            while offset < end:
                records = await log.read(partition, offset)
                for record in records:
                    codec.decode(record.body)
                offset += len(records)
        took = time.monotonic() - began, time.process_time() - cpu
        await log.close()
        return took

    return asyncio.run(read())
