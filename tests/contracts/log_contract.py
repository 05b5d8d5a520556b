"""What every log must do, run on each adapter: subclass and give `make_log`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.domain.errors import LogUnavailable, PositionExpired
from hub.ports.log import EventLog, NewRecord, Position, Record

PARTITIONS = 4


def new(partition: int, name: str, body: bytes = b"body") -> NewRecord:
    return NewRecord(partition, name, {"kind": "chunk", "type": "deactivated", "note": "注销"}, body)


async def everything(log: EventLog, partition: int, offset: int = 0) -> list[Record]:
    """A read may give fewer records than there are; the end is where it gives none."""
    found: list[Record] = []
    while records := await log.read(partition, offset):
        found += records
        offset = records[-1].offset + 1
    return found


class LogContract:
    """The promises of `hub.ports.log.EventLog`."""

    async def make_log(self, where: Path) -> EventLog:
        """A log of PARTITIONS partitions that lives in ``where``; the same ``where`` opens the same log again."""
        raise NotImplementedError

    async def drop_before(self, log: EventLog, partition: int, offset: int) -> None:
        """Let retention take everything below ``offset``."""
        raise NotImplementedError

    @pytest.fixture
    async def log(self, tmp_path: Path) -> AsyncIterator[EventLog]:
        log = await self.make_log(tmp_path)
        yield log
        await log.close()

    async def test_a_new_log_is_empty(self, log: EventLog) -> None:
        """Ends are zero and a read yields nothing."""
        assert log.partitions == PARTITIONS
        assert log.log_id
        assert await log.ends() == [0] * PARTITIONS
        assert await log.read(0, 0) == []

    async def test_offsets_count_from_zero_within_each_partition(self, log: EventLog) -> None:
        """One append of several partitions gets the next offset of each, in the order given."""
        positions = await log.append([new(1, "a"), new(0, "b"), new(1, "c")])
        assert positions == [Position(1, 0), Position(0, 0), Position(1, 1)]
        assert await log.append([new(1, "d")]) == [Position(1, 2)]
        assert await log.ends() == [1, 3, 0, 0]

    async def test_what_is_read_is_what_was_appended(self, log: EventLog) -> None:
        """Id, headers (any text) and body come back unchanged, with the time of the append."""
        body = bytes(range(256)) * 200
        await log.append([new(2, "first", body), new(2, "second", b"")])
        first, second = await log.read(2, 0)
        assert (first.record_id, first.position, first.body) == ("first", Position(2, 0), body)
        assert dict(first.headers) == {"kind": "chunk", "type": "deactivated", "note": "注销"}
        assert (second.record_id, second.body) == ("second", b"")
        assert second.appended_at_ms >= first.appended_at_ms > 1_500_000_000_000

    async def test_a_position_names_the_record_read_first(self, log: EventLog) -> None:
        """Reading from an offset starts exactly there, and at the end there is nothing."""
        await log.append([new(3, f"r{i}") for i in range(10)])
        assert [r.record_id for r in await log.read(3, 7)] == ["r7", "r8", "r9"]
        assert await log.read(3, 10) == []
        assert await log.read(3, 99) == []

    async def test_reads_are_bounded_by_records_and_bytes(self, log: EventLog) -> None:
        """max_records and max_bytes bound a read, but one record comes however large it is."""
        await log.append([new(0, f"r{i}", b"x" * 1000) for i in range(20)])
        assert len(await log.read(0, 0, max_records=5)) == 5
        assert 1 <= len(await log.read(0, 0, max_bytes=3500)) <= 4
        assert [r.record_id for r in await log.read(0, 4, max_bytes=1)] == ["r4"]

    async def test_order_is_the_order_of_one_writer(self, log: EventLog) -> None:
        """Many concurrent appends: every offset once, each caller's own records in its order."""
        results = await asyncio.gather(*(log.append([new(0, f"{w}-{i}") for i in range(5)]) for w in range(40)))
        offsets = [position.offset for positions in results for position in positions]
        assert sorted(offsets) == list(range(200))
        assert all(positions == sorted(positions) for positions in results)
        seen = [r.record_id for r in await everything(log, 0)]
        for writer in range(40):
            assert [name for name in seen if name.startswith(f"{writer}-")] == [f"{writer}-{i}" for i in range(5)]

    async def test_the_same_record_may_stand_twice(self, log: EventLog) -> None:
        """The log does not judge repeats; both stand, under their own offsets."""
        await log.append([new(0, "same")])
        await log.append([new(0, "same")])
        assert [r.record_id for r in await everything(log, 0)] == ["same", "same"]

    async def test_reopening_keeps_everything(self, tmp_path: Path) -> None:
        """Identity, ends and records survive closing and opening."""
        log = await self.make_log(tmp_path)
        await log.append([new(1, "kept", b"1")])
        await log.close()
        again = await self.make_log(tmp_path)
        assert again.log_id == log.log_id
        assert await again.ends() == [0, 1, 0, 0]
        assert [(r.record_id, r.body) for r in await again.read(1, 0)] == [("kept", b"1")]
        assert await again.append([new(1, "next")]) == [Position(1, 1)]
        await again.close()

    async def test_waiting_ends_when_something_is_appended(self, log: EventLog) -> None:
        """A waiter wakes for an append of its own process and for one that came before, and learns the ends."""
        ends = await log.ends()
        waiting = asyncio.create_task(log.wait_for_more(ends, within=20))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await log.append([new(2, "x")])
        assert await asyncio.wait_for(waiting, 10) == [0, 0, 1, 0]
        assert await asyncio.wait_for(log.wait_for_more(ends, within=20), 10) == [0, 0, 1, 0]
        assert await log.ends() == [0, 0, 1, 0]

    async def test_waiting_ends_without_news_too(self, log: EventLog) -> None:
        """Nothing comes: the wait returns after its time."""
        await asyncio.wait_for(log.wait_for_more(await log.ends(), within=0.02), 10)

    async def test_a_proven_end_covers_what_others_appended(self, tmp_path: Path) -> None:
        """Whatever was answered to any opener before the call lies below it, and all callers may share the proof."""
        one, two = await self.make_log(tmp_path), await self.make_log(tmp_path)
        try:
            positions = await one.append([new(partition, f"{partition}-{i}") for partition in (0, 2) for i in range(3)])
            for ends in await asyncio.gather(*(two.proven_ends() for _ in range(20))):
                assert all(ends[position.partition] > position.offset for position in positions)
            some = await two.proven_ends({2})
            assert some[2] > 2
            assert some[0] == some[1] == some[3] == 0
            kinds = [r.headers["kind"] for r in await everything(one, 0)]
            assert kinds[:3] == ["chunk"] * 3
            assert set(kinds[3:]) <= {"barrier"}
        finally:
            await one.close()
            await two.close()

    async def test_the_first_kept_offset_is_told(self, log: EventLog) -> None:
        """Zero in the beginning, and what retention left later."""
        assert await log.starts() == [0] * PARTITIONS
        await log.append([new(1, f"r{i}") for i in range(3)])
        await self.drop_before(log, 1, 2)
        assert await log.starts() == [0, 2, 0, 0]

    async def test_two_openers_share_one_log(self, tmp_path: Path) -> None:
        """What one appends the other reads, offsets never collide, and its waiters wake."""
        one, two = await self.make_log(tmp_path), await self.make_log(tmp_path)
        try:
            waiting = asyncio.create_task(two.wait_for_more(await two.ends(), within=20))
            results = await asyncio.gather(
                *(log.append([new(0, f"{i}")]) for i in range(30) for log in (one, two)),
            )
            assert sorted(positions[0].offset for positions in results) == list(range(60))
            await asyncio.wait_for(waiting, 10)
            ids_one = [r.record_id for r in await everything(one, 0)]
            assert ids_one == [r.record_id for r in await everything(two, 0)]
            assert len(ids_one) == 60
        finally:
            await one.close()
            await two.close()

    async def test_below_retention_is_told_apart(self, log: EventLog) -> None:
        """A read below the first kept offset raises PositionExpired; the rest and the ends stay as they were."""
        await log.append([new(0, f"r{i}") for i in range(6)])
        await self.drop_before(log, 0, 4)
        with pytest.raises(PositionExpired):
            await log.read(0, 3)
        assert [r.record_id for r in await log.read(0, 4)] == ["r4", "r5"]
        assert (await log.ends())[0] == 6
        await self.drop_before(log, 0, 6)
        assert await log.read(0, 6) == []
        assert await log.append([new(0, "r6")]) == [Position(0, 6)]

    async def test_nothing_is_appended_after_closing(self, tmp_path: Path) -> None:
        """A closed log says that it is unavailable."""
        log = await self.make_log(tmp_path)
        await log.close()
        with pytest.raises(LogUnavailable):
            await log.append([new(0, "late")])
