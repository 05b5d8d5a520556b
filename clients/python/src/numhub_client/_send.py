"""Small things both shells need: answers into requests, progress of reading a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import groupby

from numhub_client import _requests as requests
from numhub_client._answer import Answer
from numhub_client._chunk import Chunk
from numhub_client._flow import Tell
from numhub_client._requests import Call
from numhub_client.models import AckException, AckResult, Disposition, Progress

MOST_ANSWERS = 1000


def ack_calls(answers: Answer | Sequence[Answer], subscription_id: str | None) -> Iterator[Call[list[AckResult]]]:
    """Neighbours of one subscription travel together; answers that say nothing stay here. Raises ValueError for an
    answer that belongs nowhere."""
    every = [answers] if isinstance(answers, Answer) else list(answers)
    every = [answer for answer in every if not answer.empty]
    for owner, group in groupby(every, lambda answer: subscription_id or answer.subscription_id):
        if owner is None:
            raise ValueError("give the subscription_id (here or to the Receiver)")
        messages = [answer.to_json() for answer in group]
        for start in range(0, len(messages), MOST_ANSWERS):
            yield requests.acks(owner, messages[start : start + MOST_ANSWERS])


def one_answer(
    subscription_id: str,
    chunk: Chunk | str,
    default: Disposition | None,
    review_at: datetime | None,
    exceptions: Sequence[AckException],
) -> Call[list[AckResult]]:
    answer = (
        Answer(chunk, default, review_at=review_at)
        if isinstance(chunk, str)
        else chunk.answer(default, review_at=review_at)
    )
    for each in exceptions:
        for row in each.rows:
            answer.row(row, each.disposition, review_at=each.review_at)
        for number in each.numbers:
            answer.number(number, each.disposition, review_at=each.review_at)
    return requests.acks(subscription_id, [answer.to_json()])


def progress_of_digest(tell: Tell | None) -> Callable[[int, int], None] | None:
    if tell is None:
        return None
    return lambda done, total: tell(Progress("digest", done, total))
