"""Between columns and the bytes of one chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hub.domain.events import EventType, Lane
from hub.ports.number_index import Numbers


@dataclass(frozen=True, slots=True)
class Chunk:
    """Up to 10,000 numbers of one carrier, one event type and one partition, as equally long columns.

    ``numbers`` is ascending and unique. Times are epoch seconds. ``release_planned_at`` 0 = not stated;
    ``reason`` is 0 or 1 + the place in TerminateReason.
    """

    record_id: str
    event_type: EventType
    lane: Lane
    reported_at: int
    numbers: Numbers = field(repr=False)
    generation: npt.NDArray[np.uint8] = field(repr=False)
    seq: npt.NDArray[np.uint16] = field(repr=False)
    occurred_at: npt.NDArray[np.int64] = field(repr=False)
    binding_cutoff_at: npt.NDArray[np.int64] = field(repr=False)
    release_planned_at: npt.NDArray[np.int64] | None = field(default=None, repr=False)
    reason: npt.NDArray[np.uint8] | None = field(default=None, repr=False)
    renewal: Mapping[str, Any] | None = None  # renewal_id, due_at (epoch s), consent_digest; chunks of one only

    def __len__(self) -> int:
        return len(self.numbers)


class Codec(Protocol):
    """Deterministic: the same chunk gives the same bytes."""

    def encode(self, chunk: Chunk) -> bytes:
        """The compressed body of a log record."""
        ...

    def plain(self, body: bytes) -> bytes:
        """The JSON bytes exactly as subscribers get them."""
        ...

    def decode(self, body: bytes) -> Chunk:
        """Raises ValueError on anything `encode` did not write."""
        ...
