"""Pull: pages from a cursor, then a commit."""

from __future__ import annotations

from pydantic import Field

from hub.wire.base import Message, OpaqueId
from hub.wire.chunk import ChunkEvent


class FeedPage(Message):
    """``GET /v1/feed?subscription_id=&cursor=&max_numbers=&max_bytes=&wait_seconds=``.

    ``events`` are CloudEvents byte for byte as a webhook would carry them; the page's raw text holds the stored bytes.
    Without ``cursor`` the page starts at the committed position. Commit ``cursor`` once the page is safely yours: that
    is the receipt.
    """

    cursor: str
    events: list[ChunkEvent]
    more: bool = Field(description="true: ask again at once")


class FeedCommitIn(Message):
    """``POST /v1/feed/commit``. Committing an older cursor again changes nothing."""

    subscription_id: OpaqueId
    cursor: str = Field(max_length=4096)


class FeedCommitOut(Message):
    committed: bool = Field(description="false: it was committed before")
    receipts: int
