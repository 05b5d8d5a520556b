"""Reading the log once for many: a bounded cache of pages shared by every cursor.

A page is a stretch of PAGE offsets of one partition. Readers who want the same page at the same time share one read of
the log; what the fold has just taken is put into its page at once, so that delivery at the tail reads nothing. The cost
grows with the chunks of the log, not with the number of its readers.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import islice

from hub.flow.fold import Fold
from hub.ports.codec import Codec
from hub.ports.log import EventLog, Position, Record

PAGE = 32  # records
_RECORD_BYTES = 1_000  # headers and objects of a record, roughly


class Readable:
    """A visible record and, on demand, its JSON bytes."""

    __slots__ = ("_codec", "_grown", "_plain", "record")

    def __init__(self, record: Record, codec: Codec, grown: Callable[[int], None]) -> None:
        self.record = record
        self._codec, self._grown = codec, grown
        self._plain: bytes | None = None

    def plain(self) -> bytes:
        """The body as subscribers get it; decompressed once for all of them."""
        if self._plain is None:
            self._plain = self._codec.plain(self.record.body)
            self._grown(len(self._plain))
        return self._plain


class _Page:
    __slots__ = ("cached", "loading", "size", "slots")

    def __init__(self) -> None:
        self.slots: dict[int, Readable] = {}
        self.size = 0
        self.cached = True
        self.loading: asyncio.Task[None] | None = None


class Reader:
    """``cache_bytes`` bounds what is kept, compressed and plain together; readers hold what they are sending."""

    def __init__(self, log: EventLog, fold: Fold, codec: Codec, cache_bytes: int = 64 << 20) -> None:
        self._log, self._fold, self._codec, self._limit = log, fold, codec, cache_bytes
        self._pages: OrderedDict[tuple[int, int], _Page] = OrderedDict()
        self._size = 0
        self.reads = 0  # reads of the log so far
        fold.subscribe(self._take_tail)

    @property
    def cached_bytes(self) -> int:
        return self._size

    def at(self, partition: int, offset: int) -> Readable | None:
        """The record at ``offset`` if it is visible and at hand; None says nothing about it: `read` knows."""
        key = (partition, offset // PAGE)
        page = self._pages.get(key)
        if page is None or (readable := page.slots.get(offset)) is None:
            return None
        if not self._fold.is_visible(Position(partition, offset)):
            return None
        self._pages.move_to_end(key)
        return readable

    async def read(self, partition: int, offset: int, max_records: int = 64) -> tuple[list[Readable], int]:
        """The visible records from ``offset`` on, and the offset to continue from; never beyond the fold.

        At most ``max_records``; fewer than that does not mean the end, an unchanged offset does. Raises PositionExpired
        below the log's retention.
        """
        found: list[Readable] = []
        end = self._fold.position(partition)
        while offset < end and len(found) < max_records:
            stop = min(end, (offset // PAGE + 1) * PAGE)
            # No further than is asked for: a lane mostly wants the very next record.
            places = list(islice(self._visible(partition, offset, stop), max_records - len(found)))
            page = await self._page(partition, places, stop)
            found += [page.slots[place] for place in places]
            offset = stop if len(found) < max_records else places[-1] + 1
        return found, offset

    def _visible(self, partition: int, start: int, stop: int) -> Iterator[int]:
        return (place for place in range(start, stop) if self._fold.is_visible(Position(partition, place)))

    async def _page(self, partition: int, places: list[int], stop: int) -> _Page:
        """The page before ``stop`` with the records at ``places`` in it."""
        key = (partition, (stop - 1) // PAGE)
        while True:
            page = self._pages.get(key)
            if page is None:
                page = self._pages[key] = _Page()
            self._pages.move_to_end(key)
            missing = next((place for place in places if place not in page.slots), None)
            if missing is None:
                return page
            if page.loading is None:
                page.loading = asyncio.create_task(self._load(page, partition, missing, stop))
            # Shielded: one reader that gives up does not spoil the read for the others.
            await asyncio.shield(page.loading)

    async def _load(self, page: _Page, partition: int, offset: int, stop: int) -> None:
        try:
            while offset < stop:
                self.reads += 1
                records = await self._log.read(partition, offset, max_records=stop - offset)
                if not records:
                    return
                for record in records:
                    self._put(page, record)
                offset = records[-1].offset + 1
        finally:
            page.loading = None
            self._evict(keep=page)

    def _take_tail(self, partition: int, records: list[Record]) -> None:
        for record in records:
            key = (partition, record.offset // PAGE)
            page = self._pages.get(key)
            if page is None:
                page = self._pages[key] = _Page()
            self._put(page, record)
        self._evict()

    def _put(self, page: _Page, record: Record) -> None:
        if record.offset in page.slots:
            return

        def grown(size: int) -> None:
            if page.cached:
                page.size += size
                self._size += size

        page.slots[record.offset] = Readable(record, self._codec, grown)
        grown(len(record.body) + _RECORD_BYTES)

    def _evict(self, keep: _Page | None = None) -> None:
        """Drop the pages unused for longest. A page being loaded stays, for those who wait for it."""
        for key, page in list(self._pages.items()):
            if self._size <= self._limit:
                return
            if page is not keep and page.loading is None:
                del self._pages[key]
                page.cached = False
                self._size -= page.size
