"""One door from errors to HTTP: every refusal is a problem document with a code from one catalogue.

What was sent is never repeated in an answer, and no trace leaves the process.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from hub.api.catalogue import CATALOGUE
from hub.domain import errors
from hub.domain.numbers import mask_in

log = logging.getLogger("numhub.api")

MEDIA_TYPE = "application/problem+json"
MAX_PARTS = 20


_BY_CLASS: tuple[tuple[type[errors.NumhubError], int], ...] = (
    (errors.PayloadTooLarge, 413),
    (errors.IdempotencyMismatch, 422),
    (errors.InputError, 422),
    (errors.RuleError, 409),
    (errors.Unauthenticated, 401),
    (errors.AccessError, 403),
    (errors.NotFound, 404),
    (errors.PositionExpired, 410),
    (errors.CursorError, 400),
    (errors.TooManyRequests, 429),
    (errors.Unavailable, 503),
)

_BY_STATUS = {
    400: "bad_request", 401: "unauthenticated", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict", 413: "payload_too_large", 414: "uri_too_long", 415: "unsupported_media_type",
    416: "range_not_satisfiable", 417: "expectation_failed", 422: "invalid_request", 429: "too_many_requests",
    431: "headers_too_large", 503: "unavailable",
}  # fmt: skip


def problem(
    code: str,
    detail: str | None = None,
    *,
    status: int | None = None,
    retriable: bool = False,
    parts: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem response; a ``code`` that has no entry of its own takes title and remedy of its status."""
    entry = CATALOGUE.get(code) or CATALOGUE[_BY_STATUS.get(status or 500, "internal")]
    status = status or entry.status
    body: dict[str, Any] = {
        "type": f"/problems/{code}",
        "title": entry.title,
        "status": status,
        "code": code,
        "detail": mask_in(detail or entry.title),
        "remedy": entry.remedy,
        "retriable": retriable or status in (429, 503),
    }
    if parts:
        body["errors"] = list(parts)
    return Response(orjson.dumps(body), status, dict(headers or {}), MEDIA_TYPE)


def from_error(error: errors.NumhubError, resource_metadata: str = "") -> Response:
    """The problem for an error raised on purpose. ``details`` may carry ``retry_after`` (seconds), ``scope``,
    ``headers`` (extra response header fields) and ``parts`` (list of pointer, code, detail)."""
    code = error.reason_code
    entry = CATALOGUE.get(code)
    by_class = next((status for kind, status in _BY_CLASS if isinstance(error, kind)), 500)
    status = entry.status if entry is not None else by_class
    if status == 500:
        log.error("request_failed", exc_info=error)
        return problem("internal")
    headers: dict[str, str] = dict(error.details.get("headers") or {})
    if status in (429, 503):
        headers.setdefault("retry-after", str(max(1, round(float(error.details.get("retry_after", 1))))))
    if status == 401:
        headers["www-authenticate"] = challenge(resource_metadata, "invalid_token" if code == "invalid_token" else None)
    if code == "insufficient_scope":
        headers["www-authenticate"] = challenge(resource_metadata, code, str(error.details.get("scope", "")))
    return problem(
        code,
        error.message,
        status=status,
        retriable=error.retriable,
        parts=error.details.get("parts") or (),
        headers=headers,
    )


def challenge(resource_metadata: str, error: str | None = None, scope: str = "") -> str:
    """The WWW-Authenticate value (RFC 6750 section 3, RFC 9728 section 5.1)."""
    fields = [("error", error), ("scope", scope), ("resource_metadata", resource_metadata)]
    told = ", ".join(f'{name}="{value}"' for name, value in fields if value)
    return f"Bearer {told}" if told else "Bearer"


def from_validation(found: Sequence[Any]) -> Response:
    """The problem for a body, query or header that does not fit its model; says where and why, never what was sent."""
    in_body = any(tuple(item.get("loc", ()))[:1] == ("body",) for item in found)
    parts = [_part(item) for item in found[:MAX_PARTS]]
    first = parts[0]
    detail = f"{first['pointer']}: {first['detail']}" if parts else None
    return problem("invalid_request" if in_body else "invalid_query", detail, parts=parts)


def _part(item: Mapping[str, Any]) -> dict[str, str]:
    place, *steps = tuple(item.get("loc", ())) or ("body",)
    kind = str(item.get("type", "invalid"))
    if kind == "extra_forbidden":
        steps = [*steps[:-1], "(unknown member)"]  # the member's name is the caller's input: not repeated
    path = "".join(f"/{str(step)[:60].replace('~', '~0').replace('/', '~1')}" for step in steps)
    pointer = path or "/" if place == "body" else f"{place}{path}"
    return {"pointer": mask_in(pointer)[:300], "code": kind[:60], "detail": mask_in(_message(kind, item))[:200]}


def _message(kind: str, item: Mapping[str, Any]) -> str:
    if kind in ("value_error", "assertion_error"):
        # the text comes from our own validators; datetime and friends quote what they were given
        text = str(item.get("msg", "")).removeprefix("Value error, ").removeprefix("Assertion failed, ")
        return text if "'" not in text else "not a valid value"
    return str(item.get("msg", "not valid"))


def of(error: Exception, resource_metadata: str = "") -> Response | None:
    """The problem document for an error that was raised on purpose; None for any other."""
    if isinstance(error, errors.NumhubError):
        return from_error(error, resource_metadata)
    if isinstance(error, RequestValidationError):
        return from_validation(error.errors())
    if isinstance(error, HTTPException):
        # 404 comes from here for addresses no route has; what a route does not find is a NotFound
        code = "no_such_address" if error.status_code == 404 else _BY_STATUS.get(error.status_code)
        if code is None:
            code = "bad_request" if error.status_code < 500 else "internal"
        return problem(code, status=error.status_code, headers=error.headers)
    return None


def install(app: FastAPI, resource_metadata: str = "") -> None:
    """Put the door in: all errors of ``app`` leave as problem documents."""

    async def on_error(_: Request, error: Exception) -> Response:
        response = of(error, resource_metadata)
        assert response is not None
        return response

    for kind in (errors.NumhubError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, on_error)
