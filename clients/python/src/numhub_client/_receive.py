"""The loop of a receiver: each row to your function, its outcome into one compact answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container
from datetime import datetime
from typing import TYPE_CHECKING

from numhub_client._answer import Answer
from numhub_client._chunk import Chunk, NumberEvent
from numhub_client._guard import Guard
from numhub_client.models import Disposition

if TYPE_CHECKING:
    from numhub_client._async import AsyncClient
    from numhub_client._sync import Client

Outcome = Disposition | tuple[Disposition, datetime] | None
"""What an ``unbind`` function says of a row: a disposition, a hold with its review date, or None for the default."""

Unbind = Callable[[NumberEvent], Outcome]


def unbind_all(
    chunk: Chunk,
    unbind: Unbind,
    *,
    known: Container[int] | None = None,
    guard: Guard | None = None,
    default: Disposition = "no_account",
    stale: Disposition = "rejected_cutoff",
) -> Answer:
    """Call ``unbind`` for each row and collect what it says.

    ``known``: numbers (11 digits as int) that you have at all; other rows get ``default`` without a call. ``guard``:
    rows for which something newer was seen, and chunks finished before, are not acted on again; the guard's SQLite
    store commits its marks when this returns. ``stale``: what is said of rows that must not be acted on any more
    (superseded by a newer event), since under this order nothing of yours is left to unbind.

    Events that ask for no answer (restored, released, ..) get no default: what ``unbind`` says of a row is said, and
    an answer that says nothing is not sent. ``unbind`` must stand being called again for the same row: a crash before
    the answer was kept repeats the chunk. An exception in it leaves guard and answer untouched: answer the webhook
    with 503 and it comes again. Raises ValueError if the hub could not list the superseded rows and there is no guard
    to tell them.
    """
    if guard is None:
        if chunk.superseded_unlisted:
            raise ValueError("too many superseded rows to list; give a Guard that has seen the newer events")
        return _collect(chunk, unbind, chunk.superseded, known, default, stale)
    with guard.begin(chunk) as turn:
        if turn.previous is not None:
            return turn.previous
        turn.answer = _collect(chunk, unbind, turn.stale, known, default, stale)
        return turn.answer


def _collect(
    chunk: Chunk,
    unbind: Unbind,
    stale_rows: frozenset[int],
    known: Container[int] | None,
    default: Disposition,
    stale: Disposition,
) -> Answer:
    answer = chunk.answer(default if chunk.wants_answer else None)
    for row, number in enumerate(chunk.numbers):
        if known is not None and number not in known:
            continue
        if row in stale_rows:
            answer.row(row, stale)
            continue
        outcome = unbind(chunk.row(row))
        if isinstance(outcome, tuple):
            answer.row(row, outcome[0], review_at=outcome[1])
        elif outcome is not None:
            answer.row(row, outcome)
    return answer


def run_pull(
    client: Client,
    subscription_id: str,
    handler: Callable[[Chunk], Answer | None],
    *,
    follow: bool = True,
    wait_seconds: int = 20,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """Pull, hand each chunk to ``handler``, send the answers, commit; returns the number of chunks handled.

    The order is what makes it safe: answers are committed at the hub before the page's cursor is, so a crash anywhere
    repeats work and loses none. ``follow=False`` stops at the feed's end; ``stop`` is asked between pages.
    """
    done = 0
    for page in client.feed.pages(subscription_id, wait_seconds=wait_seconds, follow=follow, idle=True, commit=False):
        answers = [answer for answer in map(handler, page.chunks) if answer is not None]
        if answers:
            client.acks.send(answers)
        done += len(page.chunks)
        client.feed.commit(subscription_id, page.cursor)
        if stop():
            break
    return done


async def run_pull_async(
    client: AsyncClient,
    subscription_id: str,
    handler: Callable[[Chunk], Awaitable[Answer | None]],
    *,
    follow: bool = True,
    wait_seconds: int = 20,
    stop: Callable[[], bool] = lambda: False,
) -> int:
    """`run_pull` for asyncio."""
    done = 0
    async for page in client.feed.pages(
        subscription_id, wait_seconds=wait_seconds, follow=follow, idle=True, commit=False
    ):
        answers = [answer for answer in [await handler(chunk) for chunk in page.chunks] if answer is not None]
        if answers:
            await client.acks.send(answers)
        done += len(page.chunks)
        await client.feed.commit(subscription_id, page.cursor)
        if stop():
            break
    return done
