"""The last step before httpx, and the first after it: requests put together, its errors translated."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx

from numhub_client._flow import Send
from numhub_client.errors import ConnectionFailed, TimedOut

USER_AGENT = "numhub-client/0.1 (python)"
CONNECT_WITHIN = 10.0


def timeout_of(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(seconds, CONNECT_WITHIN))


def http_request(
    client: httpx.Client | httpx.AsyncClient,
    effect: Send,
    pieces: Iterator[bytes] | AsyncIterator[bytes] | None,
    timeout: float,
) -> httpx.Request:
    request = effect.request
    headers = dict(request.headers)
    if effect.token is not None:
        headers["Authorization"] = f"Bearer {effect.token}"
    body: dict[str, Any] = {}
    if pieces is not None:
        body["content"] = pieces
    elif request.form is not None:
        body["data"] = dict(request.form)
    elif request.json is not None:
        body["json"] = request.json
    wait = timeout_of(timeout if request.read_within is None else max(timeout, request.read_within))
    return client.build_request(
        request.method, request.path, params=dict(request.params) or None, headers=headers, timeout=wait, **body
    )


def http_error(error: httpx.HTTPError) -> ConnectionFailed:
    """Every httpx error becomes one of ours; its text is not carried over, since it may hold an address or a header."""
    if isinstance(error, httpx.TimeoutException):
        return TimedOut(f"the hub did not answer in time ({type(error).__name__})")
    # what is broken in the request or the set-up itself will not heal by waiting
    retriable = not isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError | httpx.TooManyRedirects)
    return ConnectionFailed(f"no answer from the hub ({type(error).__name__})", retriable=retriable)
