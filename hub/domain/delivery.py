"""The four ways one delivery attempt can end, and when to try again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

RETRY_AFTER = tuple(timedelta(seconds=s) for s in (5, 300, 1800, 7200, 18_000, *[36_000] * 6, 15_895))
"""Waits between attempts: 5 s, 5 min, 30 min, 2, 5, 10, 10 h, and so on to 72 h after the first attempt."""

RETRY_AFTER_MIN, RETRY_AFTER_MAX = timedelta(seconds=1), timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Delivered:
    """Any 2xx: a receipt, no more than that."""

    status: int


@dataclass(frozen=True, slots=True)
class RetryAt:
    at: datetime
    reason: str
    status: int | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The receiver said 410: the subscription is suspended and its owner told; the cursor stays."""

    status: int


@dataclass(frozen=True, slots=True)
class Parked:
    """All attempts used up: set aside visibly, still pullable; the lane goes on."""

    reason: str


Outcome = Delivered | RetryAt | Refused | Parked


def next_attempt_after(
    attempts: int, random: Random, schedule: tuple[timedelta, ...] = RETRY_AFTER
) -> timedelta | None:
    """How long to wait after the ``attempts``-th failed attempt (counted from 1); None when they are used up.

    Up to 10 % of jitter is added, so that receivers which fell over together are not called back together.
    """
    if attempts > len(schedule):
        return None
    return schedule[attempts - 1] * (1 + 0.1 * random.random())


def clamp_retry_after(seconds: float) -> timedelta:
    """A receiver's Retry-After, kept between 1 second and 1 hour; negative or absurd values are clamped too."""
    low, high = RETRY_AFTER_MIN.total_seconds(), RETRY_AFTER_MAX.total_seconds()
    return timedelta(seconds=min(max(seconds, low), high))
