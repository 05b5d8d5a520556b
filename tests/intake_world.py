"""A hub's intake for tests: real log, index, fold, ledger and files in a directory, three carriers enrolled."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hub.adapters.columns import ColumnIndex
from hub.adapters.files.store import DiskBatchFiles
from hub.adapters.number_plan.package import PackagePlan
from hub.adapters.sql.ledger import open_ledger
from hub.adapters.sqlite.log import SqliteLog
from hub.adapters.system.clock import ManualClock
from hub.domain.batches import Batch, ContentEncoding, ContentFormat
from hub.domain.events import EventType
from hub.domain.parties import Party, Role
from hub.flow.append import Writer
from hub.flow.fold import Fold
from hub.flow.ingest.batches import Announcement, Batches
from hub.flow.ingest.events import Events, Item
from hub.flow.members import Members
from hub.ports.codec import Chunk
from hub.ports.log import Header, NewRecord, Record
from tests.making import CODEC, CountingMetrics

NOW = datetime(2026, 4, 1, tzinfo=UTC)
NOW_EPOCH = int(NOW.timestamp())
DAY = 86_400
PLAN = PackagePlan()


class Killed(Exception):
    """The process ended here, as far as the code under test can tell."""


class WatchedWriter(Writer):
    """A Writer that can be told to die before or after its n-th append, and to let a rival go first."""

    die_before: int | None = None
    die_after: int | None = None
    appends = 0
    dead = False
    rival: list[NewRecord] = []

    async def append(self, records: Any) -> list[bool]:
        self.appends += 1
        if self.dead or self.appends == self.die_before:
            self.dead = True
            raise Killed
        if self.rival:
            first, self.rival = self.rival, []
            assert all(await super().append(first))
        accepted = await super().append(records)
        if self.appends == self.die_after:
            self.dead = True
            raise Killed
        return accepted


@dataclass
class Intake:
    home: Path
    clock: ManualClock
    log: SqliteLog
    index: ColumnIndex
    fold: Fold
    writer: WatchedWriter
    ledger: Any
    directory: Any
    members: Members
    files: DiskBatchFiles
    metrics: CountingMetrics
    batches: Batches
    events: Events
    not_cleared: set[int] = field(default_factory=set)
    asked: list[tuple[str, list[int]]] = field(default_factory=list)

    async def send(
        self,
        rows: Iterable[str],
        *,
        header: str = "number,terminated_at",
        event: EventType = EventType.deactivated,
        seq: int = 1,
        caller: str = "cmcc",
        acting_for: str | None = None,
    ) -> Batch:
        """Announce, upload, commit a CSV file and wait until it is settled."""
        batch = await self.uploaded(rows, header=header, event=event, seq=seq, caller=caller, acting_for=acting_for)
        await self.batches.commit(caller, batch.batch_id)
        await self.batches.settled(batch.batch_id)
        return await self.batches.get(caller, batch.batch_id)

    async def uploaded(
        self,
        lines: Iterable[str],
        *,
        header: str = "number,terminated_at",
        event: EventType = EventType.deactivated,
        seq: int = 1,
        caller: str = "cmcc",
        acting_for: str | None = None,
        **changes: Any,
    ) -> Batch:
        lines = list(lines)
        data = "\n".join([header, *lines]).encode() + b"\n"
        said: dict[str, Any] = {
            "batch_seq": seq,
            "rows": len(lines),
            "sha256": hashlib.sha256(data).hexdigest(),
            "event_type": event,
            "form": ContentFormat.csv,
            "encoding": ContentEncoding.identity,
            "acting_for": acting_for,
        }
        batch, _ = await self.batches.announce(caller, f"key-{seq}", Announcement(**said | changes))

        async def content() -> AsyncIterator[bytes]:
            for at in range(0, len(data), 50_000):
                yield data[at : at + 50_000]

        return await self.batches.upload(caller, batch.batch_id, 0, content())

    async def result(self, batch: Batch) -> list[str]:
        """Lines of the result file without its header."""
        pieces = [piece async for piece in await self.batches.result(batch.carrier_id, batch.batch_id)]
        return b"".join(pieces).decode().splitlines()[1:]

    async def reasons(self, batch: Batch) -> dict[int, str]:
        """Line -> reason of the refused rows."""
        found = [line.split(",") for line in await self.result(batch)]
        return {int(line): reason for line, reason, *_ in found}

    async def records(self) -> list[Record]:
        """All visible records of the log."""
        await self.fold.catch_up()
        found: list[Record] = []
        for partition in range(self.log.partitions):
            at = 0
            while page := await self.log.read(partition, at):
                found += [record for record in page if self.fold.is_visible(record.position)]
                at = page[-1].offset + 1
        return found

    async def chunks(self) -> list[tuple[Record, Chunk]]:
        return [(record, CODEC.decode(record.body)) for record in await self.records()]

    async def accepted(self) -> list[tuple[int, str]]:
        """(number, event type) of every accepted row, sorted."""
        return sorted(
            (number, record.headers[Header.type])
            for record, chunk in await self.chunks()
            for number in chunk.numbers.tolist()
        )

    async def until_dead(self) -> None:
        while not self.writer.dead:
            await asyncio.sleep(0.001)

    async def steal(self, caller: str, items: list[Item]) -> None:
        """Let a rival writer, who judged the same states, come first at the next append."""
        stolen: list[NewRecord] = []

        class Thief:
            async def append(self, records: list[NewRecord]) -> list[bool]:
                stolen.extend(records)
                return [True] * len(records)

        rival = Events(
            self.members, self.index, self.fold, self.log, Thief(), CODEC, PLAN, self.clock, self.metrics, _nobody  # type: ignore[arg-type]
        )  # fmt: skip
        await rival.publish(caller, f"rival {items[0].digest}", items)
        self.writer.rival = stolen

    def state(self, number: int) -> Any:
        return self.index.lookup(number // 10_000 % self.log.partitions, np.array([number], np.int64))[0]


async def _nobody(carrier_id: str, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    return np.zeros(len(numbers), bool)


CARRIERS = {
    "cmcc": {"block_holders": ("cmcc",), "acting_for": ("mvno-a",)},
    "cucc": {"block_holders": ("cucc",)},
    "mvno-a": {"block_holders": ("mvno:cmcc",)},
}


@contextlib.asynccontextmanager
async def open_intake(home: Path, in_flight: int = 16) -> AsyncIterator[Intake]:
    """Open what is in ``home`` (or make it) and fold; left, everything is closed as a crash would leave it."""
    home.mkdir(exist_ok=True)
    clock, metrics = ManualClock(NOW, auto=True), CountingMetrics()
    directory, ledger = open_ledger(home / "ledger.db", clock)
    log = SqliteLog(home / "log.db")
    index = ColumnIndex(home / "index", log.partitions, log.log_id)
    fold = Fold(log, index, CODEC, metrics)  # type: ignore[arg-type]
    writer = WatchedWriter(log, fold, clock, metrics)  # type: ignore[arg-type]
    members = Members(directory, clock)
    await members.refresh()
    for party_id, options in CARRIERS.items():
        if members.party(party_id) is None:
            await directory.put_party(Party(party_id, Role.carrier, party_id, NOW, **options))  # type: ignore[arg-type]
    await members.refresh(force=True)
    files = DiskBatchFiles(home / "batches")
    intake = Intake.__new__(Intake)

    async def cleared(carrier_id: str, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        intake.asked.append((carrier_id, numbers.tolist()))
        return np.array([number not in intake.not_cleared for number in numbers.tolist()], bool)

    batches = Batches(
        ledger, files, members, index, fold, log, writer, CODEC, PLAN, clock, metrics, cleared, in_flight=in_flight  # type: ignore[arg-type]
    )  # fmt: skip
    events = Events(members, index, fold, log, writer, CODEC, PLAN, clock, metrics, cleared)  # type: ignore[arg-type]
    intake.__init__(  # type: ignore[misc]
        home, clock, log, index, fold, writer, ledger, directory, members, files, metrics, batches, events
    )
    task = asyncio.create_task(fold.run())
    try:
        yield intake
    finally:
        await batches.stop()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await log.close()
        index.close()
        await ledger.close()
