"""Figures: what was delivered, answered, is late, was cleared; as far as the caller may see."""

from __future__ import annotations

from pydantic import Field

from hub.wire.base import Message, Moment

Cell = str | int | float | bool | None


class Watermark(Message):
    """Up to where log and ledger were seen: every figure is a recount of what stands before these positions."""

    judged_at: Moment
    log_positions: list[int] = Field(description="per partition the next offset to fold")
    catalogue_positions: list[int] = Field(description="per partition the next offset to list; figures reach this far")
    waivers: int = Field(description="waivers in force")


class ReportOut(Message):
    """``GET /v1/reports/{name}``. Receipts (the bytes arrived) and dispositions (what was done) are never mixed.

    A cell is null where a count below ``suppressed_below`` would say too much about few people.
    """

    name: str
    watermark: Watermark
    suppressed_below: int | None = None
    columns: list[str]
    rows: list[dict[str, Cell]]
