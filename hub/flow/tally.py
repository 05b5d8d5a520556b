"""What a clearance comes to: the judgements of single numbers, and of a batch added up part by part."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hub.flow.judge import GO, Columns
from hub.ports.ledger import ClearanceRecord

DETAIL_LIMIT = 100_000
"""Numbers of a batch listed one by one, at most."""


@dataclass(frozen=True, slots=True)
class Clearance:
    """``columns`` in the order in which the numbers were asked."""

    record: ClearanceRecord
    columns: Columns


@dataclass(frozen=True, slots=True)
class BatchClearance:
    """Counts cover the whole batch. ``index`` and ``columns`` hold the numbers asked for in detail, at most
    DETAIL_LIMIT; ``index`` counts the batch's accepted rows by partition, chunk and number."""

    record: ClearanceRecord
    wait_until: int  # epoch s at which the last freeze ends; 0 = no freeze runs
    waiting_for: dict[str, int]
    index: npt.NDArray[np.int64]
    columns: Columns
    left_out: int


@dataclass(slots=True)
class BatchTally:
    """Adds up a batch's judgements part by part; keeps the numbers asked for in detail."""

    detail: str
    rows: int = 0
    left_out: int = 0
    wait_until: int = 0
    totals: list[int] = field(default_factory=lambda: [0, 0, 0])
    waiting_for: dict[str, int] = field(default_factory=dict)
    waivers: set[str] = field(default_factory=set)
    index: list[npt.NDArray[np.int64]] = field(default_factory=list)
    columns: list[Columns] = field(default_factory=list)

    def add(self, columns: Columns, waivers: set[str]) -> None:
        self.totals = [a + b for a, b in zip(self.totals, columns.counts(), strict=True)]
        for reason, count in columns.waiting_for().items():
            self.waiting_for[reason] = self.waiting_for.get(reason, 0) + count
        self.wait_until = max(self.wait_until, int(columns.until.max(initial=0)))
        self.waivers |= waivers
        if self.detail != "none":
            wanted = np.flatnonzero((columns.verdict != GO) | (self.detail == "all"))
            room = DETAIL_LIMIT - sum(len(part) for part in self.index)
            self.left_out += max(len(wanted) - room, 0)
            self.index.append(self.rows + wanted[:room])
            self.columns.append(columns.take(wanted[:room]))
        self.rows += len(columns.numbers)

    def counts(self) -> tuple[int, int, int]:
        return self.totals[0], self.totals[1], self.totals[2]

    def result(self, record: ClearanceRecord) -> BatchClearance:
        columns = Columns.joined(self.columns)
        index = np.concatenate([np.zeros(0, np.int64), *self.index])
        return BatchClearance(record, self.wait_until, self.waiting_for, index, columns, self.left_out)
