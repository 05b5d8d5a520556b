"""What a subscriber did with the numbers of a chunk."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from hub.domain.dispositions import Disposition
from hub.wire.base import Message, Moment, NumberText, OpaqueId

DispositionIn = Annotated[Disposition, Field(strict=False)]


class AckException(Message):
    """Rows of the chunk (0-based places in its ``numbers``) and/or numbers that got another disposition."""

    disposition: DispositionIn
    rows: Annotated[list[Annotated[int, Field(ge=0, lt=10_000)]], Field(max_length=10_000)] = Field(
        default_factory=list
    )
    numbers: Annotated[list[NumberText], Field(max_length=10_000)] = Field(default_factory=list)
    review_at: Moment | None = Field(default=None, description="required with the held_* dispositions")


class AckIn(Message):
    """One chunk's answer. ``default`` answers every row, the exceptions override it; without ``default`` only the rows
    named are answered. A later answer corrects an earlier one; the same answer again changes nothing."""

    chunk_id: OpaqueId
    default: DispositionIn | None = None
    review_at: Moment | None = Field(default=None, description="required when the default is a held_* disposition")
    exceptions: Annotated[list[AckException], Field(max_length=64)] = Field(default_factory=list)


class AcksIn(Message):
    """``POST /v1/acks``: all answers of one call are committed together before the 200, or none is."""

    subscription_id: OpaqueId
    answers: Annotated[list[AckIn], Field(min_length=1, max_length=1000)]


class AckResult(Message):
    chunk_id: OpaqueId
    new: bool = Field(description="false: the same answer was already recorded")


class AcksOut(Message):
    results: list[AckResult]
