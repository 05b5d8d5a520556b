"""Answers of the hub, read: bodies into models, problem documents into errors. Pure; nothing is sent from here."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

import httpx

from numhub_client._decode import decode
from numhub_client.errors import BY_CODE, BY_STATUS, ApiError, UnexpectedAnswer
from numhub_client.models import (
    AckResult,
    App,
    Batch,
    CheckAnswer,
    Delivery,
    RefusedRow,
    Subscription,
    Waiver,
)

T = TypeVar("T")
Parse = Callable[[httpx.Response], T]


def body_of(response: httpx.Response) -> Any:
    """The JSON value of an answer. Raises UnexpectedAnswer."""
    try:
        return response.json()
    except ValueError:
        raise UnexpectedAnswer(
            "the hub's answer is no JSON; is this the hub's address?", status=response.status_code
        ) from None


def parsed(cls: type[T]) -> Parse[T]:
    return lambda response: decode(cls, body_of(response))


def members(name: str, cls: type[T]) -> Parse[list[T]]:
    """The objects of the list ``name`` in the answer."""

    def parse(response: httpx.Response) -> list[T]:
        body = body_of(response)
        if not isinstance(body, dict) or not isinstance(body.get(name), list):
            raise UnexpectedAnswer(f"the hub's answer has no list {name!r}", status=response.status_code)
        return [decode(cls, item) for item in body[name]]

    return parse


batches = members("batches", Batch)
subscriptions = members("subscriptions", Subscription)
deliveries = members("deliveries", Delivery)
ack_results = members("results", AckResult)
apps = members("apps", App)
waivers = members("waivers", Waiver)


def nothing(response: httpx.Response) -> None:
    """Any success will do."""


def plain_object(response: httpx.Response) -> dict[str, Any]:
    body = body_of(response)
    if not isinstance(body, dict):
        raise UnexpectedAnswer("the hub's answer is no JSON object", status=response.status_code)
    return body


def check_answers(response: httpx.Response) -> list[CheckAnswer]:
    body = plain_object(response)
    return [
        decode(CheckAnswer, {**item, "as_of": body.get("as_of")} if isinstance(item, dict) else item)
        for item in body.get("answers", ())
    ]


def redriven(response: httpx.Response) -> int | None:
    chunks = plain_object(response).get("chunks")
    return chunks if isinstance(chunks, int) else None


def upload_offset(response: httpx.Response) -> int:
    """Where an interrupted upload goes on: the header Upload-Offset."""
    try:
        return int(response.headers["upload-offset"])
    except (KeyError, ValueError):
        raise UnexpectedAnswer("the hub did not say how far the upload got", status=response.status_code) from None


def raw(response: httpx.Response) -> bytes:
    return response.content


def refused_rows(response: httpx.Response) -> list[RefusedRow]:
    return list(read_result(response.text, response.headers.get("content-type", "")))


def read_result(text: str, content_type: str = "text/csv") -> Iterator[RefusedRow]:
    """The rows of a result file (CSV with a header line, or one JSON object per line)."""
    if "json" in content_type:
        records: Iterator[dict[str, Any]] = (json.loads(line) for line in text.splitlines() if line.strip())
    else:
        records = iter(csv.DictReader(io.StringIO(text.removeprefix("\ufeff"))))
    for record in records:
        try:
            yield RefusedRow(int(record["line"]), str(record["reason"]), str(record.get("meaning") or ""), record)
        except (KeyError, ValueError, TypeError):
            raise UnexpectedAnswer("the result file is not as documented") from None


def retry_after(response: httpx.Response) -> float | None:
    """Seconds to wait as the answer says, from either form of Retry-After; None if it does not say."""
    text = response.headers.get("retry-after", "").strip()
    if text.isascii() and text.isdigit() and len(text) < 9:
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())


def error_of(response: httpx.Response) -> ApiError:
    """The error of an answer that is no success; the problem document's code decides the class, else the status."""
    try:
        problem = response.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    code = problem.get("code")
    status = response.status_code
    cls = BY_CODE.get(code) if isinstance(code, str) else None
    cls = cls or BY_STATUS.get(status, UnexpectedAnswer)
    text = problem.get("detail") or problem.get("title")
    retriable = problem.get("retriable")
    return cls(
        text if isinstance(text, str) else f"the hub answered {status} without saying why",
        code=code if isinstance(code, str) else None,
        status=status,
        retriable=retriable if isinstance(retriable, bool) else cls.retriable or status in (408, 425),
        retry_after=retry_after(response),
        problem=problem,
    )
