"""Walking the feed: fetch a page, let the consumer finish it, commit, fetch the next. Shared by both shells."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numhub_client import _requests as requests
from numhub_client._chunk import Chunk
from numhub_client._flow import Flow, Retry, Sleep, perform
from numhub_client.errors import BodyMalformed, DigestMismatch, UnexpectedAnswer
from numhub_client.webhooks import Message, Pointer, read_event

IDLE_PAUSE = 1.0  # seconds between empty pages when the caller forgoes the long poll


@dataclass(frozen=True, slots=True)
class Page:
    """``cursor`` names the position behind this page: committing it is the receipt for the page's chunks."""

    cursor: str
    chunks: tuple[Chunk, ...]
    more: bool
    messages: tuple[Message, ...] = ()
    events: tuple[Mapping[str, Any], ...] = field(default=(), repr=False)

    def bodies(self) -> list[bytes]:
        """The CloudEvents as a webhook would carry them, one per message."""
        return [json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode() for event in self.events]

    def __len__(self) -> int:
        return len(self.chunks)


@dataclass(slots=True)
class Walk:
    """Where one iteration over the feed stands. ``owed`` is the cursor of a page handed out and not yet committed."""

    subscription_id: str
    retry: Retry
    wait_seconds: int
    follow: bool
    commit: bool
    max_numbers: int | None
    max_bytes: int | None
    cursor: str | None = None
    owed: str | None = None
    ended: bool = False

    def step(self) -> Flow[Page | None]:
        """Commit what the consumer has finished, then fetch. None: the end was reached and not to be followed."""
        if self.owed is not None:
            yield from perform(requests.commit_feed(self.subscription_id, self.owed), self.retry)
            self.owed = None
        if self.ended:
            return None
        wait = self.wait_seconds if self.follow else 0
        call = requests.feed(self.subscription_id, self.cursor, wait, self.max_numbers, self.max_bytes)
        page = read_page((yield from perform(call, self.retry)), self.subscription_id)
        if self.commit and page.cursor != self.cursor:
            self.owed = page.cursor
        self.cursor = page.cursor
        if not page.more:
            self.ended = not self.follow
            if self.follow and not page.messages and self.wait_seconds == 0:
                yield Sleep(IDLE_PAUSE)
        return page


def read_page(body: dict[str, Any], subscription_id: str) -> Page:
    """Events of types this version does not know stay in ``messages`` and are no chunks."""
    cursor, events, more = body.get("cursor"), body.get("events"), body.get("more")
    if not isinstance(cursor, str) or not isinstance(events, list) or not isinstance(more, bool):
        raise UnexpectedAnswer("the hub's answer is no feed page")
    try:
        messages = tuple(read_event(event, subscription_id=subscription_id) for event in events)
    except (BodyMalformed, AttributeError) as error:
        raise UnexpectedAnswer(f"the feed holds an event this version cannot read: {error}") from None
    chunks = tuple(message for message in messages if isinstance(message, Chunk))
    return Page(cursor, chunks, more, messages, tuple(events))


def fetch_chunk(subscription_id: str | None, wanted: Pointer | str, retry: Retry) -> Flow[Chunk]:
    """The chunk of a pointer (its digest verified) or of an id. Raises DigestMismatch, NotFound."""
    chunk_id = wanted if isinstance(wanted, str) else wanted.chunk_id
    owner = subscription_id or (None if isinstance(wanted, str) else wanted.subscription_id)
    if owner is None:
        raise ValueError("give the subscription_id (here or to the Receiver)")
    body = yield from perform(requests.chunk(owner, chunk_id), retry)
    if isinstance(wanted, Pointer) and hashlib.sha256(body).hexdigest() != wanted.sha256.lower():
        raise DigestMismatch
    return read_chunk_bytes(body, owner, None if isinstance(wanted, str) else wanted)


def read_chunk_bytes(body: bytes, subscription_id: str, pointer: Pointer | None) -> Chunk:
    try:
        event = json.loads(body)
        message = read_event(
            event,
            subscription_id=subscription_id,
            raw=body,
            superseded=pointer.superseded if pointer else frozenset(),
            superseded_unlisted=pointer.superseded_unlisted if pointer else False,
            repeated=pointer.repeated if pointer else False,
            webhook_id=pointer.webhook_id if pointer else None,
        )
    except (ValueError, AttributeError, BodyMalformed) as error:
        raise UnexpectedAnswer(f"the chunk cannot be read: {type(error).__name__}") from None
    if not isinstance(message, Chunk):
        raise UnexpectedAnswer("what was fetched is no chunk")
    return message
