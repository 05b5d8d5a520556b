"""Is the process alive, is it ready for requests."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hub.wire.base import Message


class LiveOut(Message):
    """``GET /health/live``."""

    status: Literal["live"]


class ReadyOut(Message):
    """``GET /health/ready``: 200 when ready, else 503; a part that is not there is not named."""

    status: Literal["ready", "not ready"]
    ledger: str | None = Field(default=None, description="ok, or what is wrong with it")
    fold: str | None = Field(default=None, description="ok, or what is wrong with it")
    behind: int | None = Field(default=None, description="log records not folded yet, all partitions together")
