"""What a year costs on disk: chunks in the log, and for each subscriber a receipt and an answer with 33 exceptions.

Everything goes through the hub's own adapters, in groups as under load; sizes are those of the files after the last
checkpoint. Bound: the compressed bodies, each once, and the packed exceptions of each answer, and nothing else.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from pathlib import Path

import numpy as np

from hub.adapters.sql.ledger import open_ledger
from hub.adapters.sql.packing import pack_exceptions
from hub.adapters.sqlite.log import SqliteLog
from hub.adapters.system.clock import SystemClock
from hub.app.demo.hub_process import HubProcess, free_port
from hub.app.settings import INDEX_DIR, LEDGER_FILE, LOG_FILE
from hub.domain.dispositions import Disposition
from hub.domain.events import EventType, Lane
from hub.domain.parties import DeliveryMode
from hub.ports.ledger import Answer, AnswerException, Cursor, Receipt
from hub.ports.log import Position, Record
from tests.bench import world
from tests.bench.processes import cpu_of
from tests.bench.shape import Result


async def run(numbers: int = 2_000_000, subscribers: int = 239) -> Result:
    data = world.fresh_folder()
    here = await world.enrol(data, subscribers=subscribers)
    fixed = size_of(data / LEDGER_FILE)
    drawn = world.draw_numbers(numbers, seed=16)
    chunks = await world.write_log(data, world.records_of(drawn, EventType.release_scheduled, "storage"))
    await world.fold_index(data)
    hub = HubProcess(data, free_port(), world.HUB_SETTINGS)
    try:
        began, cpu = time.monotonic(), cpu_of(None)
        bodies, packed = await _deliver_and_answer(data, here)
        seconds, cpu = time.monotonic() - began, cpu_of(None) - cpu
        await hub.start()
        await world.catalogued(data, within=600)
        await hub.stop()
        log, ledger = size_of(data / LOG_FILE), size_of(data / LEDGER_FILE)
        index = sum(file.stat().st_size for file in (data / INDEX_DIR).iterdir())
    finally:
        await hub.stop()
        here.remove()
    pairs = numbers * subscribers
    return Result(
        name="storage",
        main="bytes_per_pair",
        figures={
            "bytes_per_pair": (log + ledger) / pairs,
            "log_bytes_per_pair": log / pairs,
            "ledger_bytes_per_pair": ledger / pairs,
            "index_bytes_per_pair": index / pairs,
            "bytes_per_pair_with_index": (log + ledger + index) / pairs,
            "ledger_bytes_per_chunk_and_subscriber": (ledger - fixed) / (len(chunks) * subscribers),
            "log_bytes_per_number": log / numbers,
            "index_bytes_per_number": index / numbers,
            "write_seconds": seconds,
            "write_cpu_us_per_chunk_and_subscriber": cpu / (len(chunks) * subscribers) * 1e6,
        },
        bound={
            "bodies_and_exceptions_bytes_per_pair": (bodies + packed) / pairs,
            "bodies_bytes_per_number": bodies / numbers,
        },
        ratio={"size": (bodies + packed) / (log + ledger), "log": bodies / log},
        settings={"numbers": numbers, "subscribers": subscribers, "chunks": len(chunks)},
        floors={"bytes_per_pair": ("<=", 0.2)},
    )


async def _deliver_and_answer(data: Path, here: world.World) -> tuple[int, int]:
    """Every chunk received and answered by everybody; bytes of the bodies, and of all packed exceptions."""
    clock = SystemClock()
    log = SqliteLog(data / LOG_FILE, world.PARTITIONS)
    _, ledger = open_ledger(data / LEDGER_FILE, clock)
    random = np.random.default_rng(17)
    bodies = packed = 0
    for partition, end in enumerate(await log.ends()):
        for offset in range(end):
            record = (await log.read(partition, offset, max_records=1))[0]
            bodies += len(record.body)
            answers = [_answer(record, one.subscription_id, random, clock) for one in here.subscriptions]
            packed += sum(len(pack_exceptions(answer.exceptions) or b"") for answer in answers)
            position = Position(partition, offset)
            await asyncio.gather(
                ledger.deliver(
                    receipts=[
                        Receipt(
                            one.subscription_id,
                            record.record_id,
                            position,
                            clock.now(),
                            1,
                            DeliveryMode.webhook_full.value,
                        )
                        for one in here.subscriptions
                    ],
                    cursors=[
                        Cursor(one.subscription_id, partition, Lane.bulk, 0, offset + 1) for one in here.subscriptions
                    ],
                ),
                ledger.answer(answers),
            )
    await ledger.close()
    await log.close()
    return bodies, packed


def _answer(record: Record, subscription_id: str, random: np.random.Generator, clock: SystemClock) -> Answer:
    """All ``no_account`` but 31 unbound and 2 with held funds."""
    count = int(record.headers["count"])
    rows = random.choice(count, min(33, count), replace=False)
    exceptions = [AnswerException(Disposition.unbound, np.sort(rows[:31]).astype(np.uint16), None)]
    if len(rows) > 31:
        exceptions.append(AnswerException(Disposition.held_funds, np.sort(rows[31:]).astype(np.uint16), clock.now()))
    digest = hashlib.sha256(rows.tobytes()).hexdigest()
    return Answer(
        subscription_id,
        record.record_id,
        record.position,
        count,
        Disposition.no_account,
        tuple(exceptions),
        digest,
        clock.now(),
        None,
    )


def size_of(file: Path) -> int:
    """With what stands beside it (write-ahead log), if anything does."""
    return sum(part.stat().st_size for part in file.parent.glob(file.name + "*") if not part.name.endswith("-shm"))
