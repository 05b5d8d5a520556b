"""Every refusal on native paths: a problem document (RFC 9457)."""

from __future__ import annotations

from pydantic import Field

from hub.wire.base import Message


class ProblemPart(Message):
    """One thing wrong with the request. Never holds what was sent."""

    pointer: str = Field(description="JSON pointer into the body, or the place: query, header, path", max_length=300)
    code: str
    detail: str


class Problem(Message):
    """``application/problem+json``. ``code`` is stable; ``retriable``: the same request may succeed later."""

    type: str = Field(description="where the code is explained")
    title: str
    status: int
    code: str
    detail: str
    remedy: str = Field(description="what to do")
    retriable: bool = False
    errors: list[ProblemPart] = Field(default_factory=list)
