"""One of the processes of test_racing_writers: own index, shared log.

Arguments: log file, index directory, name, rounds. Every round it wants to say one event of each of the same numbers,
judged against its own index; what is void it judges anew. Prints what was accepted, one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import numpy as np

from hub.adapters.columns import ColumnIndex
from hub.adapters.sqlite.log import SqliteLog
from hub.adapters.system.clock import SystemClock
from hub.domain.events import EventType
from hub.domain.lifecycle import TRANSITIONS, Phase
from hub.flow.append import Writer
from hub.flow.fold import Fold
from hub.ports.log import Position
from tests.making import CODEC, FIRST, CountingMetrics, make_chunk, make_record, running

NUMBERS = [FIRST + block * 10_000 + place for block in range(4) for place in range(6)]
NEXT = {Phase.unknown: EventType.deactivated, Phase.active: EventType.deactivated, Phase.frozen: EventType.restored}


def tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def main() -> None:
    log_path, index_directory, name, rounds = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
    log = SqliteLog(log_path)
    index = ColumnIndex(index_directory, 8, log.log_id)
    fold = Fold(log, index, CODEC, CountingMetrics())
    writer = Writer(log, fold, SystemClock(), CountingMetrics())
    accepted: list[list[object]] = []
    voids = 0

    async def say(round_: int, block: int) -> None:
        """One chunk of a block's numbers, or single numbers in odd rounds; a void one is judged anew, same id."""
        nonlocal voids
        mine = NUMBERS[block * 6 : block * 6 + 6]
        for part in [mine] if round_ % 2 == 0 else [[number] for number in mine]:
            cause = f"{name}-{round_}-{part[0]}"
            for _ in range(200):
                state = index.lookup(block % 8, np.array(part, np.int64))
                events = {NEXT[Phase(int(phase))] for phase in state["phase"]}
                if len(events) > 1:  # the rows differ by now: say one of them only
                    part, state = part[:1], state[:1]
                    events = {NEXT[Phase(int(state["phase"][0]))]}
                event = events.pop()
                assert (Phase(int(state["phase"][0])), event) in TRANSITIONS
                chunk = make_chunk(cause, part, event, seq=(state["seq"] + 1).tolist())
                record = make_record(chunk, carrier_no=int(name))
                verdict = (await writer.append([record, record] if round_ % 3 == 0 else [record]))[-1]
                if verdict:
                    accepted.append([record.record_id, part])
                    break
                voids += 1

    async with running(fold):
        tell("ready")
        await asyncio.to_thread(sys.stdin.readline)
        for round_ in range(rounds):
            await asyncio.gather(*(say(round_, block) for block in range(4)))
        tell(json.dumps({"accepted": accepted, "voids": voids}))
        await asyncio.to_thread(sys.stdin.readline)
        ends = await fold.catch_up()
    states = [index.lookup(n // 10_000 % 8, np.array([n], np.int64)).tobytes().hex() for n in NUMBERS]
    skipped = [[o for o in range(end) if index.is_skipped(Position(p, o))] for p, end in enumerate(ends)]
    index.close()
    await log.close()
    tell(json.dumps({"states": states, "skipped": skipped, "ends": ends}))


asyncio.run(main())
