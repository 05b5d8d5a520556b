"""Outbound HTTP to receivers nobody trusts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    retry_after: str | None = None
    body: bytes = field(default=b"", repr=False)  # at most the raw limit; only endpoint proofs look at it
    truncated: bool = False  # the receiver's body did not end as announced or passed the limit; judged by status


class SendError(Exception):
    """The request did not lead to an answer. ``kind`` is one of KINDS; ``sent`` tells whether body bytes had left."""

    KINDS = ("bad_url", "dns", "address_refused", "connect", "tls", "tls_certificate", "timeout", "protocol", "closed")

    def __init__(self, kind: str, *, sent: bool = False, reused: bool = False, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind, self.sent, self.reused, self.detail = kind, sent, reused, detail


class Sender(Protocol):
    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Response:
        """One POST, never repeated inside. Redirects are answers, not instructions. Raises SendError.

        Resolves the host, refuses the request if any of its addresses is not public, connects to the checked address.
        Whole call at most 15 s. Header values must not hold CR or LF (ValueError).
        """
        ...

    async def close(self) -> None: ...
