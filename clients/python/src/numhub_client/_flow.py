"""What happens in one call of the client, told without input or output.

A flow is a generator that yields effects (`Send`, `Sleep`, `Token`) and is given their results; the sync and the async
client differ only in how they carry effects out. Retries, the token's refresh and resuming an upload stand here, once.

What is repeated: requests marked repeatable, which are reads, writes under an Idempotency-Key that stays the same over
the retries, and writes that are idempotent by content. After a broken connection too, since then nobody knows whether
the request arrived. What is refused for good (4xx without ``retriable``) is never repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeVar

import httpx

from numhub_client import _requests as requests
from numhub_client._auth import Credentials, TokenCache
from numhub_client._content import Content
from numhub_client._requests import Call, Request
from numhub_client._responses import body_of, error_of, retry_after
from numhub_client.errors import (
    BatchConflict,
    BatchFailed,
    ConnectionFailed,
    NumhubError,
    TokenRefused,
    Unauthenticated,
    Unavailable,
    UnexpectedAnswer,
    WaitTimedOut,
)
from numhub_client.models import Batch, Progress, Renewal

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    request: Request
    token: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Token:
    """Wanted: an access token; ``refused`` is one that the hub has just not accepted."""

    refused: str | None = field(repr=False)


Effect = Send | Sleep | Token
Flow = Generator[Effect, Any, T]
Tell = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and how patiently a call is repeated. Durations in seconds.

    Wait before repeat n (from 1): a random part (at least half) of ``first * 2**(n-1)``, at most ``longest``; never
    less than the hub's Retry-After. A Retry-After above ``patience`` is not waited for: the error comes back at once.
    """

    attempts: int = 8
    first: float = 0.25
    longest: float = 10.0
    patience: float = 60.0
    random: Random = field(default_factory=Random, repr=False)

    def wait_after(self, attempt: int, error: NumhubError, *, repeatable: bool) -> float | None:
        """Seconds to wait after the ``attempt``-th failure (from 1); None: give up."""
        if not error.retriable or not repeatable or attempt >= self.attempts:
            return None
        asked = error.retry_after or 0.0
        if asked > self.patience:
            return None
        backoff: float = min(self.longest, self.first * 2 ** (attempt - 1)) * (0.5 + self.random.random() / 2)
        return max(asked, backoff)


def perform(call: Call[T], retry: Retry) -> Flow[T]:
    """Send, repeat where that is safe, refresh a refused token once, read the answer."""
    request, attempt, refreshed = call.request, 0, False
    refused: str | None = None
    while True:
        attempt += 1
        token = (yield Token(refused)) if request.with_token else None
        error: NumhubError
        try:
            response: httpx.Response = yield Send(request, token)
        except ConnectionFailed as failed:
            error = failed
        else:
            if response.is_success:
                return call.parse(response)
            error = error_of(response)
        if isinstance(error, Unauthenticated) and token is not None and not refreshed:
            refreshed, refused = True, token
            attempt -= 1
            continue
        wait = retry.wait_after(attempt, error, repeatable=request.repeatable)
        if wait is None:
            raise error
        yield Sleep(wait)


def obtain(credentials: Credentials, cache: TokenCache, issuer: str | None, retry: Retry) -> Flow[str]:
    """Get an access token and keep it in ``cache``. Each attempt carries an assertion of its own: the hub takes each
    once.

    ``aud`` of the assertion is the issuer as its metadata name it; with ``issuer`` given, metadata that name another
    one are refused, so that an assertion cannot be coaxed out for a stranger.
    """
    found = yield from perform(requests.metadata(), retry)
    named = found.get("issuer")
    if not isinstance(named, str) or (issuer is not None and named != issuer):
        raise TokenRefused("issuer_mismatch", "the hub's metadata name another issuer than expected")
    attempt = 0
    while True:
        attempt += 1
        error: NumhubError
        form, headers = credentials.grant(named, time.time())
        try:
            response: httpx.Response = yield Send(requests.token(form, headers), None)
        except ConnectionFailed as failed:
            error = failed
        else:
            if response.is_success:
                return _keep(cache, body_of(response))
            error = _token_error(response)
        wait = retry.wait_after(attempt, error, repeatable=True)
        if wait is None:
            raise error
        yield Sleep(wait)


def _keep(cache: TokenCache, body: Any) -> str:
    token = body.get("access_token") if isinstance(body, dict) else None
    if not isinstance(token, str) or not token:
        raise UnexpectedAnswer("the token endpoint gave no access_token")
    life = body.get("expires_in")
    cache.put(token, float(life) if isinstance(life, int | float) and life > 0 else 60.0)
    return token


def _token_error(response: httpx.Response) -> NumhubError:
    if response.status_code in (429, 502, 503, 504):
        return error_of(response)
    try:
        body = response.json()
    except ValueError:
        body = {}
    code = body.get("error") if isinstance(body, dict) else None
    if not isinstance(code, str):
        return error_of(response)
    text = body.get("error_description")
    refused = TokenRefused(code, text if isinstance(text, str) else None, status=response.status_code)
    refused.retry_after = retry_after(response)
    return refused


def upload(
    content: Content, announced: Call[Batch], retry: Retry, *, tell: Tell | None, wait: bool, within: float
) -> Flow[Batch]:
    """Announce, send the bytes (resuming where the hub says), commit, wait for the verdict.

    Raises BatchFailed when the hub refused the file as a whole, WaitTimedOut when it is still judging after ``within``.
    """
    batch = yield from perform(announced, retry)
    if batch.state in ("announced", "uploading"):
        batch = yield from _send_content(batch, content, retry, tell)
    if not batch.final and batch.state != "validating":
        batch = yield from perform(requests.commit_batch(batch.batch_id), retry)
    if wait:
        return (yield from wait_batch(batch.batch_id, retry, tell=tell, within=within, seen=batch))
    return _judged(batch)


def _send_content(batch: Batch, content: Content, retry: Retry, tell: Tell | None) -> Flow[Batch]:
    """Up to ``retry.attempts`` failures in a row without a byte of progress between them are put up with."""

    def told(done: int) -> None:
        if tell is not None:
            tell(Progress("upload", done, content.size))

    offset, failures = batch.bytes_uploaded, 0
    if offset > content.size:
        raise BatchConflict("the hub holds more bytes of this batch than the file has")
    while offset < content.size:
        try:
            batch = yield from perform(requests.upload(batch.batch_id, content, offset, told), retry)
            reached = batch.bytes_uploaded
        except (ConnectionFailed, Unavailable, BatchConflict) as error:
            reached = yield from perform(requests.upload_offset(batch.batch_id), retry)
            if reached <= offset:
                failures += 1
                wait = retry.wait_after(failures, _again(error), repeatable=True)
                if wait is None:
                    raise
                yield Sleep(wait)
        if reached > offset:
            failures = 0
        elif reached == offset and failures == 0:
            raise UnexpectedAnswer("the hub took the upload but counts no bytes")
        offset = reached
        told(offset)
    return batch


def _again(error: NumhubError) -> NumhubError:
    """A conflict here means that the offsets differed (a lost answer): worth another try from the hub's offset."""
    return error if error.retriable else ConnectionFailed(error.detail)


def wait_batch(
    batch_id: str, retry: Retry, *, tell: Tell | None, within: float, seen: Batch | None = None
) -> Flow[Batch]:
    waited, pause = 0.0, 0.05
    while True:
        batch = seen or (yield from perform(requests.batch(batch_id), retry))
        seen = None
        if tell is not None:
            tell(Progress("validate", batch.rows_seen, batch.rows_declared))
        if batch.final:
            return _judged(batch)
        if waited >= within:
            raise WaitTimedOut(f"batch {batch_id} is still {batch.state}")
        yield Sleep(pause)
        waited, pause = waited + pause, min(pause * 1.6, 2.0)


def _judged(batch: Batch) -> Batch:
    if batch.state == "failed":
        raise BatchFailed(batch)
    return batch


def wait_renewal(renewal_id: str, retry: Retry, *, within: float) -> Flow[Renewal]:
    """Ask until every app has answered. Raises WaitTimedOut after ``within`` seconds."""
    waited, pause = 0.0, 0.1
    while True:
        renewal = yield from perform(requests.renewal(renewal_id), retry)
        if renewal.final:
            return renewal
        if waited >= within:
            raise WaitTimedOut(f"renewal {renewal_id} is still {renewal.state}")
        yield Sleep(pause)
        waited, pause = waited + pause, min(pause * 1.6, 5.0)
