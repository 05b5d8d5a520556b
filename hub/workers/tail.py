"""The end of one partition: new records are read once and handed to every idle lane that wants them.

Idle lanes have looked at everything before ``offset``. They cost nothing until a record of their kind arrives.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hub.domain.events import Lane as LaneName
from hub.flow.fanout import Verdict
from hub.ports.log import Header

if TYPE_CHECKING:
    from hub.flow.reader import Readable, Reader
    from hub.workers.runner import Lane

PAGE = 64
BREATH = 8
"""Lanes set going before the event loop gets its turn."""


class Tail:
    def __init__(self, partition: int, offset: int, reader: Reader) -> None:
        self.partition = partition
        self.offset = offset
        self._reader = reader
        self._more = asyncio.Event()
        self._handing_out = False
        self._idle: dict[str, dict[Lane, None]] = {lane.value: {} for lane in LaneName}

    def wake(self) -> None:
        self._more.set()

    def join(self, lane: Lane) -> bool:
        """Make ``lane`` idle if it has looked at everything; False if there is more for it to read."""
        if lane.offset < self.offset:
            return False
        self._idle[lane.name.value][lane] = None
        return True

    def drop(self, lane: Lane) -> None:
        self._idle[lane.name.value].pop(lane, None)

    def idle(self) -> list[Lane]:
        """The idle lanes, their offsets brought up to date."""
        lanes = [lane for kind in self._idle.values() for lane in kind]
        if not self._handing_out:
            for lane in lanes:
                lane.offset = max(lane.offset, self.offset)
        return lanes

    async def run(self) -> None:
        """Follow the partition for ever; `wake` tells that there may be more."""
        while True:
            await self._more.wait()
            self._more.clear()
            while True:
                page, after = await self._reader.read(self.partition, self.offset, PAGE)
                if not page and after <= self.offset:
                    break
                self._handing_out = True
                try:
                    for readable in page:
                        await self._hand_out(readable)
                    self.offset = max(self.offset, after)
                finally:
                    self._handing_out = False

    async def _hand_out(self, readable: Readable) -> None:
        record = readable.record
        if record.offset < self.offset:
            return
        self.offset = record.offset + 1  # from here on a lane that has not seen this record cannot become idle
        idle = self._idle[record.headers[Header.lane]]
        started = 0
        for lane in list(idle):
            if lane not in idle or lane.offset > record.offset:
                continue
            runner = lane.runner
            match lane.kit.fanout.judge(runner.subscription, record.headers):
                case Verdict.send:
                    del idle[lane]
                    lane.offset = record.offset
                    lane.begin(readable)
                    started += 1
                    if started % BREATH == 0:
                        await asyncio.sleep(0)
                case Verdict.skip:
                    lane.offset = record.offset + 1
                case Verdict.halt:
                    runner.close()
