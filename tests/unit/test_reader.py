"""Read once for many: visible records only, and a cost that grows with chunks, not with readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from hub.adapters.columns import ColumnIndex
from hub.adapters.sqlite.log import SqliteLog
from hub.domain.errors import PositionExpired
from hub.flow.fold import Fold
from hub.flow.reader import PAGE, Readable, Reader
from tests.making import CODEC, FIRST, CountingMetrics, make_chunk, make_record, running


class World:
    def __init__(self, where: Path) -> None:
        self.log = SqliteLog(where / "log.db")
        self.index = ColumnIndex(where / "index", 8, self.log.log_id)
        self.fold = Fold(self.log, self.index, CODEC, CountingMetrics())

    async def fill(self, records: int, start: int = 0) -> None:
        """Records into partition 0; every fifth stands twice."""
        made = [make_record(make_chunk(f"r{i}", [FIRST + i])) for i in range(start, start + records)]
        await self.log.append([r for i, r in enumerate(made) for r in ([r, r] if i % 5 == 0 else [r])])
        await self.fold.catch_up()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    world = World(tmp_path)
    async with running(world.fold):
        yield world
    await world.log.close()
    world.index.close()


async def read_all(reader: Reader, step: int = 64) -> list[Readable]:
    found: list[Readable] = []
    offset = 0
    while True:
        some, next_offset = await reader.read(0, offset, step)
        found += some
        if next_offset == offset:
            return found
        assert next_offset > offset
        offset = next_offset


@pytest.mark.parametrize("step", [1, 7, 64, 1000])
async def test_every_visible_record_once_in_order(world: World, step: int) -> None:
    """Whatever the step, void and repeated records never show and nothing is left out."""
    await world.fill(150)
    found = await read_all(Reader(world.log, world.fold, CODEC), step)
    assert [r.record.record_id for r in found] == [make_chunk(f"r{i}", [FIRST]).record_id for i in range(150)]


async def test_plain_bytes_are_the_bytes_of_the_log(world: World) -> None:
    """Uncompressed once, the same object for everybody."""
    await world.fill(1)
    reader = Reader(world.log, world.fold, CODEC)
    ((one,), _), ((other,), _) = await reader.read(0, 0), await reader.read(0, 0)
    assert one is other
    assert one.plain() == CODEC.plain(one.record.body)
    assert one.plain() is other.plain()


async def test_reads_grow_with_chunks_not_with_readers(world: World) -> None:
    """239 readers from the same place at the same time cost the log what one costs."""
    await world.fill(200)
    reader = Reader(world.log, world.fold, CODEC)
    everybody = await asyncio.gather(*(read_all(reader) for _ in range(239)))
    assert {len(found) for found in everybody} == {200}
    assert reader.reads == -(-(200 + 40) // PAGE)


async def test_the_tail_is_not_read_at_all(world: World) -> None:
    """What was folded while the reader was there comes from memory."""
    reader = Reader(world.log, world.fold, CODEC)
    await world.fill(100)
    assert len(await read_all(reader)) == 100
    assert reader.reads == 0


async def test_a_page_grows_with_the_log(world: World) -> None:
    """A half page that was read from the log is completed by what is folded later."""
    await world.fill(10)
    reader = Reader(world.log, world.fold, CODEC)
    assert len(await read_all(reader)) == 10
    await world.fill(10, start=10)
    assert len(await read_all(reader)) == 20
    assert reader.reads == 1


async def test_memory_stays_within_its_bound(world: World) -> None:
    """Compressed and plain bytes together; what was dropped is read again."""
    await world.fill(300)
    reader = Reader(world.log, world.fold, CODEC, cache_bytes=100_000)
    for _ in range(2):
        found = await read_all(reader)
        assert len(found) == 300
        assert len({readable.plain() for readable in found}) == 300
        await reader.read(0, 0, 1)
        assert reader.cached_bytes <= 100_000 + PAGE * 3_000
    assert reader.reads > 300 // PAGE


async def test_nothing_beyond_the_fold(tmp_path: Path) -> None:
    """Records in the log that are not yet judged are not given out."""
    world = World(tmp_path)
    await world.log.append([make_record(make_chunk("a", [FIRST]))])
    reader = Reader(world.log, world.fold, CODEC)
    assert await reader.read(0, 0) == ([], 0)
    await world.log.close()
    world.index.close()


async def test_below_retention_the_reader_says_so(world: World) -> None:
    """PositionExpired comes through, also to those who share the read; the rest stays readable."""
    await world.fill(100)
    await world.log.truncate(0, 50)
    reader = Reader(world.log, world.fold, CODEC)
    results = await asyncio.gather(*(reader.read(0, 3) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [PositionExpired] * 3
    assert (await reader.read(0, 50))[0][0].record.offset >= 50


async def test_one_reader_that_gives_up_does_not_spoil_the_page(world: World) -> None:
    """A cancelled reader leaves the shared read running for the others."""
    await world.fill(20)
    world.log._recent.clear()
    reader = Reader(world.log, world.fold, CODEC)
    first = asyncio.create_task(reader.read(0, 0))
    second = asyncio.create_task(reader.read(0, 0))
    await asyncio.sleep(0)
    first.cancel()
    found, _ = await second
    assert len(found) == 20
    assert first.cancelled()
    assert reader.reads == 1
