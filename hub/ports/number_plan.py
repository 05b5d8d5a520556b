"""The numbering plan: to whom a block was issued, and where it is at home."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from hub.ports.number_index import Numbers


class Block(NamedTuple):
    holder: str  # cmcc, cucc, ctcc, cbn, mvno:cmcc, mvno:cucc, mvno:ctcc, mvno:cbn
    province: str  # e.g. "广东"
    city: str


class NumberPlan(Protocol):
    """A block says to whom it was issued, never who serves a ported number today."""

    source_version: str
    holders: tuple[str, ...]  # holder codes; index 0 is "" (no such block)
    provinces: tuple[str, ...]  # province names; index 0 is "" (unknown)

    def find(self, national: int) -> Block | None: ...

    def holder_of(self, numbers: Numbers) -> npt.NDArray[np.uint8]:
        """Per number an index into ``holders``."""
        ...

    def province_of(self, numbers: Numbers) -> npt.NDArray[np.uint8]:
        """Per number an index into ``provinces``."""
        ...
