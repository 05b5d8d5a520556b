"""Where a carrier's uploaded file rests while it is judged, and how its rows are read, slice by slice.

Everything here survives a crash at any moment: a call that returned is on disk, one that did not may be repeated.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hub.domain.batches import ContentEncoding, ContentFormat
from hub.ports.number_index import Numbers

Times = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]
Lines = npt.NDArray[np.int64]
Columns = Mapping[str, npt.NDArray[Any]]


class ContentProblem(Exception):
    """The content as a whole cannot be taken. The message is for the carrier and never quotes the content."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Data rows of a file as equally long columns, in file order.

    ``number`` is 0 where unreadable. ``event`` is EventType.number, 0 where the row names none. Times are epoch
    seconds, 0 where not stated. ``reason`` is 0 or 1 + the place in TerminateReason. ``refusal`` is Refusal.number of
    what makes the row unreadable, else 0. ``line`` counts from 1 in the uncompressed file, header and blank lines
    too; in Parquet it is the row, from 1.
    """

    line: Lines = field(repr=False)
    number: Numbers = field(repr=False)
    event: Codes = field(repr=False)
    occurred_at: Times = field(repr=False)
    terminated_at: Times = field(repr=False)
    release_planned_at: Times = field(repr=False)
    reason: Codes = field(repr=False)
    refusal: Codes = field(repr=False)

    def __len__(self) -> int:
        return len(self.line)


@dataclass(frozen=True, slots=True)
class SliceSummary:
    """What became of one slice; all rows of it are either in the log or refused."""

    rows: int
    accepted: int
    refused: int
    chunks: int
    reasons: Mapping[str, int]  # reason code -> rows


class BatchFiles(Protocol):
    async def size(self, batch_id: str) -> int:
        """Bytes of content received so far."""
        ...

    async def receive(self, batch_id: str, offset: int, content: AsyncIterator[bytes]) -> int:
        """Append from ``offset`` (0 starts anew) and return the new size, durable.

        Raises BatchConflict with detail ``uploaded_bytes`` when ``offset`` is not the present size or a later upload
        took over, PayloadTooLarge past the size limit, Unavailable when the disk refuses.
        """
        ...

    async def is_whole(self, batch_id: str, sha256: str) -> bool:
        """Is what was received, durably, the content of this digest? Reads all of it."""
        ...

    async def verify(self, batch_id: str, sha256: str, form: ContentFormat, encoding: ContentEncoding) -> int:
        """Hash, inflate and cut the content into slices; returns the number of data rows (blank lines not counted).

        Raises ContentProblem when the digest differs, the content cannot be inflated or decoded or passes a limit, or
        the header or schema is not understood. Nothing but the verified slices is read later.
        """
        ...

    async def verified(self, batch_id: str) -> int | None:
        """Data rows of the content that `verify` passed; None if it did not."""
        ...

    async def slices(self, batch_id: str) -> int:
        """How many slices `verify` made."""
        ...

    async def read_slice(self, batch_id: str, number: int) -> Rows:
        """Parse one slice (at most 500,000 rows) off the event loop."""
        ...

    async def save_plan(self, batch_id: str, name: str, columns: Columns) -> None:
        """Keep columns under ``name``, durable and whole or not at all."""
        ...

    async def load_plan(self, batch_id: str, name: str) -> dict[str, npt.NDArray[Any]] | None: ...

    async def finish_slice(
        self, batch_id: str, number: int, line: Lines, refusal: Codes, refused: Numbers, summary: SliceSummary
    ) -> None:
        """Write the slice's refused rows (by line; numbers are masked on the way) and its summary, durable."""
        ...

    async def finished(self, batch_id: str) -> dict[int, SliceSummary]:
        """The finished slices."""
        ...

    def result(self, batch_id: str) -> AsyncIterator[bytes]:
        """The result file, CSV ``line,reason,meaning,number`` with masked numbers, in pieces."""
        ...

    async def drop_content(self, batch_id: str) -> None:
        """Delete content and plans (plain numbers); the result stays."""
        ...
