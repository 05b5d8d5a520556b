"""Every error the hub raises on purpose.

NumhubError
├── InputError            the caller's input is wrong; repeating it changes nothing
│   ├── InvalidNumber
│   ├── InvalidRequest
│   └── PayloadTooLarge
├── RuleError             well-formed, but the rules of the domain forbid it now
│   ├── LifecycleConflict
│   ├── IdempotencyMismatch
│   ├── IdempotencyInProgress
│   └── BatchConflict
├── AccessError
│   ├── Unauthenticated
│   └── Forbidden
├── NotFound              unknown, or somebody else's: the two look alike
├── CursorError
│   ├── CursorMalformed   forged or damaged
│   └── PositionExpired   before the log's retention
├── TooManyRequests       slow down, then repeat
└── Unavailable           nothing wrong with the request; repeat later
    ├── AppendInDoubt     the log may or may not hold the record: append again under the same id
    └── LogUnavailable
        └── LogReplaced   another log stands in its place: no position is valid any more

``code`` is stable and documented, ``retriable`` tells whether the same request may succeed later. The class
docstring's first line is the default message. No message ever holds a full phone number.
"""

from __future__ import annotations

from typing import Any, ClassVar


class NumhubError(Exception):
    """Something went wrong in the hub."""

    code: ClassVar[str] = "internal"
    retriable: ClassVar[bool] = False

    def __init__(self, message: str | None = None, *, code: str | None = None, **details: Any) -> None:
        first_line = (type(self).__doc__ or "").strip().splitlines()[0]
        super().__init__(message or first_line)
        self.message = message or first_line
        self.reason_code = code or type(self).code
        self.details = details


class InputError(NumhubError):
    """The request is not understood as sent."""

    code = "invalid_request"


class InvalidNumber(InputError):
    """This is not a mainland-China mobile number of 11 digits (+86 and 0086 may stand in front)."""

    code = "invalid_number"


class InvalidRequest(InputError):
    """The request does not fit the documented form."""

    code = "invalid_request"


class PayloadTooLarge(InputError):
    """The body is larger than the published limit; send it in parts."""

    code = "payload_too_large"


class RuleError(NumhubError):
    """The rules of the domain forbid this now."""

    code = "rule_violated"


class LifecycleConflict(RuleError):
    """The number's present state does not allow this event."""

    code = "lifecycle_conflict"


class IdempotencyMismatch(RuleError):
    """This idempotency key was used before with another body; use a new key for a new request."""

    code = "idempotency_mismatch"


class IdempotencyInProgress(RuleError):
    """The first request with this idempotency key is still running; repeat in a moment."""

    code = "idempotency_in_progress"
    retriable = True


class BatchConflict(RuleError):
    """The batch is not in a state that allows this."""

    code = "batch_conflict"


class AccessError(NumhubError):
    """Access refused."""

    code = "forbidden"


class Unauthenticated(AccessError):
    """No valid access token; ask the token endpoint for one."""

    code = "unauthenticated"


class Forbidden(AccessError):
    """Your token does not carry the scope or role this needs."""

    code = "forbidden"


class NotFound(NumhubError):
    """Nothing of that id is yours."""

    code = "not_found"


class CursorError(NumhubError):
    """The cursor cannot be used."""

    code = "cursor_invalid"


class CursorMalformed(CursorError):
    """This is not a cursor the hub gave out; start again without one to continue from your committed position."""

    code = "cursor_malformed"


class PositionExpired(CursorError):
    """The log no longer keeps what stood at this position."""

    code = "cursor_expired"


class TooManyRequests(NumhubError):
    """Too many requests; wait as long as Retry-After says."""

    code = "too_many_requests"
    retriable = True


class Unavailable(NumhubError):
    """The hub cannot do this right now; nothing is wrong with the request, repeat it later."""

    code = "unavailable"
    retriable = True


class AppendInDoubt(Unavailable):
    """The log did not say whether it took the record; append it again under the same id."""

    code = "append_in_doubt"


class LogUnavailable(Unavailable):
    """The log cannot be written right now."""

    code = "log_unavailable"


class LogReplaced(LogUnavailable):
    """Another log stands in the place of the one that was read: no position of the old one is valid."""
