"""From redis-py's errors to the hub's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from redis import exceptions

from hub.domain.errors import NumhubError, Unavailable


class Gone(Unavailable):
    """Redis does not answer right now; repeat in a moment."""


class Refused(Gone):
    """Redis refuses the hub's login or a command of it; its operator has been told."""


class Misplaced(NumhubError):
    """This is a Redis Cluster or speaks another language; numhub wants the address of one Redis 7."""

    code = "coordination_misplaced"


_REFUSED = (
    exceptions.AuthenticationError,
    exceptions.AuthorizationError,
    exceptions.AuthenticationWrongNumberOfArgsError,
    exceptions.NoPermissionError,
    exceptions.ExternalAuthProviderError,
)
_MISPLACED = (
    exceptions.MovedError,
    exceptions.AskError,
    exceptions.ClusterCrossSlotError,
    exceptions.CrossSlotTransactionError,
    exceptions.RedisClusterException,
    exceptions.InvalidResponse,
)
_GONE = (
    exceptions.ConnectionError,  # loading, no free connection
    exceptions.TimeoutError,
    exceptions.OutOfMemoryError,
    exceptions.ReadOnlyError,  # a replica since a failover
    exceptions.ClusterError,
    exceptions.TryAgainError,
    OSError,
    TimeoutError,
)
_MISTAKEN = (exceptions.RedisError, exceptions.ChildDeadlockedError, exceptions.IncorrectPolicyType)


def translated(error: BaseException) -> NumhubError | None:
    """What ``error`` is in the hub's terms; None if it did not come from Redis."""
    if isinstance(error, _REFUSED):
        return Refused()
    if isinstance(error, _MISPLACED):
        return Misplaced()
    if isinstance(error, _GONE):
        return Gone()
    if isinstance(error, _MISTAKEN):
        return NumhubError("Redis could not carry this out")
    return None


@contextmanager
def translating() -> Iterator[None]:
    """Let only errors of the domain out of the block (and mistakes of the program, untouched)."""
    try:
        yield
    except Exception as error:
        known = None if isinstance(error, NumhubError) else translated(error)
        if known is None:
            raise
        raise known from error
