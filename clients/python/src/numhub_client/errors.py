"""Every error this package raises on purpose.

NumhubError
├── ApiError                  the hub answered, and the answer is no
│   ├── InvalidRequest        400, 422: repeating it changes nothing
│   │   ├── InvalidNumber
│   │   └── PayloadTooLarge   413
│   ├── RuleViolated          409: well-formed, but the rules forbid it now
│   │   ├── LifecycleConflict
│   │   ├── IdempotencyMismatch
│   │   ├── IdempotencyInProgress
│   │   └── BatchConflict
│   ├── Unauthenticated       401
│   ├── Forbidden             403
│   ├── NotFound              404
│   ├── CursorMalformed       400
│   ├── CursorExpired         410
│   ├── TooManyRequests       429
│   ├── Unavailable           503, 502, 504: repeat later
│   │   ├── AppendInDoubt
│   │   └── LogUnavailable
│   └── UnexpectedAnswer      not what the contract says: a proxy's page, an error inside the hub
├── TokenRefused              the token endpoint does not accept these credentials
├── ConnectionFailed          no answer: whether the request arrived is unknown
│   └── TimedOut
├── DigestMismatch            the fetched chunk is not the one the pointer names
├── BatchFailed               the file as a whole was refused; nothing of it was appended
├── WaitTimedOut              what was waited for has not happened yet
└── WebhookError              do not trust this request; answer 4xx
    ├── HeaderMissing
    ├── TimestampOutOfTolerance
    ├── SignatureInvalid
    ├── Replayed
    ├── BodyTooLarge
    └── BodyMalformed         signed by the hub, but not readable by this version

``code`` is the hub's stable code (or one of this package's own), ``retriable`` tells whether the same request may
succeed later. Calls that are safe to repeat were repeated already when an error reaches you. No message holds a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from numhub_client.models import Batch


class NumhubError(Exception):
    """Something went wrong between this program and the hub."""

    code: str = "error"
    retriable: bool = False
    status: int | None = None
    retry_after: float | None = None

    def __init__(self, detail: str | None = None, *, retriable: bool | None = None) -> None:
        self.detail = detail or (type(self).__doc__ or "").strip().splitlines()[0]
        super().__init__(self.detail)
        if retriable is not None:
            self.retriable = retriable


class ApiError(NumhubError):
    """The hub refused the request.

    ``status`` is the HTTP status, ``retry_after`` the seconds the hub asks to wait, ``problem`` the whole document.
    """

    codes: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        detail: str | None = None,
        *,
        code: str | None = None,
        status: int | None = None,
        retriable: bool | None = None,
        retry_after: float | None = None,
        problem: dict[str, object] | None = None,
    ) -> None:
        super().__init__(detail, retriable=retriable)
        self.code = code or (type(self).codes[0] if type(self).codes else "error")
        self.status = status
        self.retry_after = retry_after
        self.problem = problem or {}

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


class InvalidRequest(ApiError):
    """The hub does not understand the request as sent."""

    codes = ("invalid_request",)


class InvalidNumber(InvalidRequest):
    """This is not a mainland-China mobile number."""

    codes = ("invalid_number",)


class PayloadTooLarge(InvalidRequest):
    """The body is larger than the hub takes; send it in parts."""

    codes = ("payload_too_large",)


class RuleViolated(ApiError):
    """The rules of the domain forbid this now."""

    codes = ("rule_violated",)


class LifecycleConflict(RuleViolated):
    """The number's present state does not allow this event."""

    codes = ("lifecycle_conflict",)


class IdempotencyMismatch(RuleViolated):
    """This idempotency key was used before with another body."""

    codes = ("idempotency_mismatch",)


class IdempotencyInProgress(RuleViolated):
    """The first request with this idempotency key is still running."""

    codes = ("idempotency_in_progress",)
    retriable = True


class BatchConflict(RuleViolated):
    """The batch is not in a state that allows this."""

    codes = ("batch_conflict",)


class Unauthenticated(ApiError):
    """The hub does not accept the access token, not even a fresh one."""

    codes = ("unauthenticated", "invalid_token")


class Forbidden(ApiError):
    """The token does not carry the scope or role this needs."""

    codes = ("forbidden", "insufficient_scope")


class NotFound(ApiError):
    """Nothing of that id is yours."""

    codes = ("not_found",)


class CursorMalformed(ApiError):
    """This is not a cursor the hub gave out; pull without one to continue from the committed position."""

    codes = ("cursor_malformed", "cursor_invalid")


class CursorExpired(ApiError):
    """The log no longer keeps what stood at this position; ask the hub's operator for a fresh start."""

    codes = ("cursor_expired",)


class TooManyRequests(ApiError):
    """Too many requests; wait as long as ``retry_after`` says."""

    codes = ("too_many_requests",)
    retriable = True


class Unavailable(ApiError):
    """The hub cannot do this right now; nothing is wrong with the request."""

    codes = ("unavailable",)
    retriable = True


class AppendInDoubt(Unavailable):
    """The log did not say whether it took the record; repeating the request under the same key settles it."""

    codes = ("append_in_doubt",)


class LogUnavailable(Unavailable):
    """The hub's log cannot be written right now."""

    codes = ("log_unavailable",)


class UnexpectedAnswer(ApiError):
    """The answer is not what the contract says."""

    codes = ("unexpected_answer", "internal")


class TokenRefused(NumhubError):
    """The token endpoint does not accept these credentials; see ``code``."""

    def __init__(self, code: str, detail: str | None = None, *, status: int | None = None) -> None:
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.status = status


class ConnectionFailed(NumhubError):
    """No answer came; whether the request arrived is unknown."""

    code = "connection_failed"
    retriable = True


class TimedOut(ConnectionFailed):
    """No answer came in time; whether the request arrived is unknown."""

    code = "timed_out"


class DigestMismatch(NumhubError):
    """The fetched chunk is not the one the pointer names."""

    code = "digest_mismatch"
    retriable = True


class BatchFailed(NumhubError):
    """The batch failed as a whole; nothing of it was appended. ``batch`` says why."""

    code = "batch_failed"

    def __init__(self, batch: Batch) -> None:
        super().__init__(f"batch {batch.batch_id} failed: {batch.failure}")
        self.batch = batch


class WaitTimedOut(NumhubError):
    """What was waited for has not happened yet; ask again later."""

    code = "wait_timed_out"
    retriable = True


class WebhookError(NumhubError):
    """This request is not a webhook to act on; answer it with 400 and change nothing."""

    code = "webhook_refused"


class HeaderMissing(WebhookError):
    """A webhook-id, webhook-timestamp or webhook-signature header is missing or unreadable."""

    code = "header_missing"


class TimestampOutOfTolerance(WebhookError):
    """The webhook's timestamp is too old or lies in the future; check this machine's clock."""

    code = "timestamp_out_of_tolerance"


class SignatureInvalid(WebhookError):
    """No signature of the webhook fits any of the secrets; was the body changed on its way (parsed, re-encoded)?"""

    code = "signature_invalid"


class Replayed(WebhookError):
    """This very request was handled before; the hub's own repeats carry a new timestamp."""

    code = "replayed"


class BodyTooLarge(WebhookError):
    """The body is larger than any webhook of the hub."""

    code = "body_too_large"


class BodyMalformed(WebhookError):
    """The body is signed, but not an event this version can read."""

    code = "body_malformed"


def _leaves(cls: type[ApiError]) -> dict[str, type[ApiError]]:
    found = dict.fromkeys(cls.codes, cls)
    for sub in cls.__subclasses__():
        found |= _leaves(sub)
    return found


BY_CODE: dict[str, type[ApiError]] = _leaves(ApiError)
"""Problem code -> class. Codes not listed become the class that fits the HTTP status."""

BY_STATUS: dict[int, type[ApiError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: RuleViolated,
    410: CursorExpired,
    413: PayloadTooLarge,
    415: InvalidRequest,
    422: InvalidRequest,
    429: TooManyRequests,
    502: Unavailable,
    503: Unavailable,
    504: Unavailable,
}
