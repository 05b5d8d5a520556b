"""One delivery attempt: dress the record, send it, judge the answer. An outcome is a value; nothing is raised.

Any 2xx is a receipt. 410 suspends the subscription. Everything else, redirects included, is a failure and is tried
again by the schedule; 429, 502, 503 and 504 may say when (Retry-After, clamped). After the last attempt the chunk is
parked.
An attempt that was answered with Retry-After uses up no step of the schedule, but not for longer than the schedule
lasts as a whole: an endpoint that asks for a second again and again is not given up after a dozen seconds.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from random import Random
from typing import Protocol

from hub.domain.delivery import (
    RETRY_AFTER,
    Delivered,
    Outcome,
    Parked,
    Refused,
    RetryAt,
    clamp_retry_after,
    next_attempt_after,
)
from hub.domain.parties import Subscription
from hub.flow.withdrawals import Withdrawals
from hub.ports.clock import Clock
from hub.ports.envelope import Envelope
from hub.ports.log import Header, Record
from hub.ports.metrics import Metrics
from hub.ports.sender import Response, Sender, SendError

log = logging.getLogger("numhub.push")

GONE = 410
SAYS_WHEN = frozenset({429, 502, 503, 504})


class Sendable(Protocol):
    """A record whose body can be had uncompressed (`flow.reader.Readable`)."""

    @property
    def record(self) -> Record: ...

    def plain(self) -> bytes: ...


@dataclass(slots=True)
class Trail:
    """What has been tried for one record: attempts in all, steps of the schedule used up, since when it fails."""

    attempts: int = 0
    steps: int = 0
    failing_since: datetime | None = None
    told_when: bool = False  # the last answer carried a Retry-After


def retry_after_seconds(text: str | None, now: datetime) -> float | None:
    """Retry-After in seconds from now: a number of seconds or an HTTP date; None if it says nothing usable."""
    if not text:
        return None
    if text.strip().lstrip("+-").isdecimal():
        return float(min(max(int(text[:20]), -1), 10**9))
    try:
        at = parsedate_to_datetime(text[:64])
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()


class Push:
    def __init__(
        self,
        sender: Sender,
        envelope: Envelope,
        withdrawals: Withdrawals,
        clock: Clock,
        random: Random,
        metrics: Metrics,
        schedule: tuple[timedelta, ...] = RETRY_AFTER,
    ) -> None:
        self._sender = sender
        self._envelope = envelope
        self._withdrawals = withdrawals
        self._clock = clock
        self._random = random
        self._metrics = metrics
        self._schedule = schedule
        self._patience = sum(schedule, timedelta())

    @property
    def schedule(self) -> tuple[timedelta, ...]:
        return self._schedule

    async def attempt(self, subscription: Subscription, readable: Sendable, trail: Trail) -> Outcome:
        """Send once and move ``trail`` on. The caller has made sure that the subscription may be served."""
        record = readable.record
        superseded = await self._withdrawals.rows(record) if self._withdrawals.may_touch(record) else ""
        try:
            headers, body = self._envelope.chunk(
                subscription,
                chunk_id=record.record_id,
                event_type=record.headers[Header.type],
                lane=record.headers[Header.lane],
                count=int(record.headers[Header.count]),
                reported_at=int(record.headers[Header.reported_at]),
                plain=readable.plain(),
                now=self._clock.now(),
                superseded=superseded,
            )
            answer: Response | str = await self._sender.post(subscription.endpoint or "", headers, body)
        except SendError as error:
            answer = error.kind
        except Exception:
            # A fault of ours in the face of one odd receiver must not stop the others; the attempt counts as failed.
            log.exception("delivery_attempt_broke", extra={"subscription_id": subscription.subscription_id})
            answer = "internal"
        outcome = self._judge(answer, trail)
        self._metrics.count(
            "numhub_deliveries_total", mode=subscription.mode.value, outcome=type(outcome).__name__.lower()
        )
        return outcome

    def _judge(self, answer: Response | str, trail: Trail) -> Outcome:
        trail.attempts += 1
        trail.told_when = False
        if isinstance(answer, Response):
            if 200 <= answer.status < 300:
                return Delivered(answer.status)
            if answer.status == GONE:
                return Refused(answer.status)
            status, reason = answer.status, f"http_{answer.status}"
        else:
            status, reason = None, answer
        now = self._clock.now()
        trail.failing_since = trail.failing_since or now
        if isinstance(answer, Response) and status in SAYS_WHEN:
            said = retry_after_seconds(answer.retry_after, now)
            if said is not None and now - trail.failing_since < self._patience:
                trail.told_when = True
                return RetryAt(now + clamp_retry_after(said), reason, status)
        trail.steps += 1
        wait = next_attempt_after(trail.steps, self._random, self._schedule)
        if wait is None:
            return Parked(reason)
        return RetryAt(now + wait, reason, status)
