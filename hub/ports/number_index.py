"""What is known of each number now: a fold over the log, held as sorted columns.

The index is derived: deleting it loses nothing. Per partition it remembers up to which offset the log is folded in.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hub.ports.log import Position

Numbers = npt.NDArray[np.int64]

STATE = np.dtype(
    [
        ("generation", np.uint8),
        ("phase", np.uint8),  # domain.lifecycle.Phase; 0 = unknown
        ("seq", np.uint16),  # of the newest event within the generation
        ("carrier", np.uint16),  # Party.carrier_no of the carrier that published last
        ("_pad", np.uint16),
        ("ended_at", np.uint32),  # epoch s at which the last holder's line ended; 0 = line not ended
        ("holder_since", np.uint32),  # epoch s since which the present holder has it; 0 = not known
        ("duty", np.uint32),  # 1 + offset of the newest release_scheduled record of this generation; 0 = none
    ]
)
"""20 bytes a number. An unknown number is all zeros."""

States = npt.NDArray[np.void]


def opaque(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The same memory as items without inner structure: numpy moves records field by field, at ten times the cost."""
    return values if values.dtype.names is None else values.view(np.dtype((np.void, values.dtype.itemsize)))


class NumberIndex(Protocol):
    """Not asynchronous: every call is short (microseconds for one number, milliseconds for a chunk). Thread-safe."""

    def lookup(self, partition: int, numbers: Numbers) -> States:
        """The states of ``numbers`` (ascending int64, repeats allowed, all of this partition), in the same order.

        Zeros if unknown.
        """
        ...

    def apply(self, position: Position, record_id: str, numbers: Numbers, states: States) -> None:
        """Put in the new states of one accepted record and move the partition's position behind it, atomically.

        ``numbers`` ascending and unique. ``position.offset`` must equal ``position_of(partition)``.
        """
        ...

    def skip(self, position: Position) -> None:
        """Move behind a void or repeated record and remember its offset in ``skipped``."""
        ...

    def position_of(self, partition: int) -> int:
        """The offset of the next record to fold in."""
        ...

    def is_skipped(self, position: Position) -> bool: ...

    def find(self, record_id: str) -> Position | None:
        """Where the accepted record of this id stands. May rarely name another record: verify the id."""
        ...

    def count(self) -> int:
        """How many numbers are known."""
        ...

    def flush(self) -> None:
        """Write what is only in memory to disk and replace the manifest atomically; safe to lose at any moment."""
        ...

    def clear(self) -> None:
        """Forget everything and start again at offset 0: the fold found that this is not the index of its log."""
        ...

    def close(self) -> None: ...
