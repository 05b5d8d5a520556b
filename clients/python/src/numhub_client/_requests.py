"""Every request to the hub, built from plain values. Pure; nothing is sent from here."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import IO, Any, Generic, Literal, TypeVar
from urllib.parse import quote

from numhub_client import _responses as responses
from numhub_client._auth import PrivateKey
from numhub_client._content import Content
from numhub_client._decode import encode
from numhub_client._responses import Parse, parsed
from numhub_client.models import (
    AckResult,
    App,
    Batch,
    BatchClearance,
    CheckAnswer,
    Clearance,
    CommitResult,
    Delivery,
    Event,
    EventResults,
    EventType,
    Lane,
    Mode,
    ProofResult,
    Purpose,
    RefusedRow,
    Renewal,
    Subscription,
    TestResult,
    Waiver,
)

T = TypeVar("T")

MOST_EVENTS = 1000
MOST_CHECKS = 1000
MOST_CLEARANCES = 10_000


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. ``repeatable``: sending it twice does no harm, by its key or by its content."""

    method: str
    path: str
    params: Mapping[str, str | int] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    json: Any = field(default=None, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)
    content: Content | None = field(default=None, repr=False)
    offset: int = 0  # where in ``content`` to begin
    told: Callable[[int], None] | None = field(default=None, repr=False)  # hears how far the content was read
    into: IO[bytes] | None = field(default=None, repr=False)  # a success' body goes here instead of memory
    read_within: float | None = None  # seconds; instead of the client's own time-out
    repeatable: bool = True
    with_token: bool = True


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    request: Request
    parse: Parse[T]


def _path(*parts: str) -> str:
    return "/v1/" + "/".join(quote(part, safe="") for part in parts)


def _present(**params: str | int | None) -> dict[str, str | int]:
    return {name: value for name, value in params.items() if value is not None}


def _get(path: str, parse: Parse[T], **params: str | int | None) -> Call[T]:
    return Call(Request("GET", path, _present(**params)), parse)


def _post(path: str, body: Any, parse: Parse[T], key: str | None = None, *, repeatable: bool = True) -> Call[T]:
    headers = {} if key is None else idempotency(key)
    return Call(Request("POST", path, headers=headers, json=encode(body), repeatable=repeatable), parse)


def idempotency(key: str) -> dict[str, str]:
    """The Idempotency-Key header. Raises ValueError for keys that no header may carry."""
    if not 1 <= len(key) <= 128 or not key.isascii() or not key.isprintable() or set(key) & set('"\\ '):
        raise ValueError("an idempotency key has 1 to 128 visible ASCII characters, no quotes, backslashes or blanks")
    return {"Idempotency-Key": f'"{key}"'}


def new_key() -> str:
    """Made once per call and kept over its retries, so that a repeat after a lost answer is the same request."""
    return secrets.token_hex(16)


# -- OAuth


def metadata() -> Call[dict[str, Any]]:
    request = Request("GET", "/.well-known/oauth-authorization-server", with_token=False)
    return Call(request, responses.plain_object)


def token(form: Mapping[str, str], headers: Mapping[str, str]) -> Request:
    members = {"grant_type": "client_credentials", **form}
    return Request("POST", "/oauth2/token", headers=headers, form=members, with_token=False)


# -- carriers


def publish(events: Sequence[Event], key: str | None) -> Call[EventResults]:
    if not 1 <= len(events) <= MOST_EVENTS:
        raise ValueError(f"1 to {MOST_EVENTS} events per call; use a batch for more")
    return _post("/v1/events", {"events": list(events)}, parsed(EventResults), new_key() if key is None else key)


def announce(
    content: Content, batch_seq: int, event_type: EventType, acting_for: str | None, key: str | None
) -> Call[Batch]:
    """The key is made from the content, so that the same file announced again (after a crash, say) is one batch."""
    if key is None:
        facts = f"{batch_seq}|{content.sha256}|{event_type}|{acting_for or ''}"
        key = f"batch-{batch_seq}-{hashlib.sha256(facts.encode()).hexdigest()[:32]}"
    body = {
        "batch_seq": batch_seq,
        "rows": content.rows,
        "sha256": content.sha256,
        "event_type": event_type,
        "format": content.format,
        "encoding": content.encoding,
        "acting_for": acting_for,
    }
    return _post("/v1/batches", body, parsed(Batch), key)


def upload_offset(batch_id: str) -> Call[int]:
    return Call(Request("HEAD", _path("batches", batch_id, "content")), responses.upload_offset)


def upload(batch_id: str, content: Content, offset: int, told: Callable[[int], None] | None) -> Call[Batch]:
    """Not repeatable as it stands: after a cut the hub is asked how far it got."""
    headers = {"Upload-Offset": str(offset), "Content-Type": "application/octet-stream"}
    headers["Content-Length"] = str(content.size - offset)
    path = _path("batches", batch_id, "content")
    request = Request("PUT", path, headers=headers, content=content, offset=offset, told=told, repeatable=False)
    return Call(request, parsed(Batch))


def commit_batch(batch_id: str) -> Call[Batch]:
    return Call(Request("POST", _path("batches", batch_id, "commit")), parsed(Batch))


def batch(batch_id: str) -> Call[Batch]:
    return _get(_path("batches", batch_id), parsed(Batch))


def batches() -> Call[list[Batch]]:
    return _get("/v1/batches", responses.batches)


def batch_result(batch_id: str) -> Call[list[RefusedRow]]:
    return _get(_path("batches", batch_id, "result"), responses.refused_rows)


def batch_result_into(batch_id: str, file: IO[bytes]) -> Call[None]:
    return Call(Request("GET", _path("batches", batch_id, "result"), into=file), responses.nothing)


def batch_clearance(batch_id: str, detail: Literal["none", "not_go", "all"]) -> Call[BatchClearance]:
    return _get(_path("batches", batch_id, "clearance"), parsed(BatchClearance), detail=detail)


def clearance(numbers: Sequence[str]) -> Call[Clearance]:
    if not 1 <= len(numbers) <= MOST_CLEARANCES:
        raise ValueError(f"1 to {MOST_CLEARANCES} numbers per call")
    return _post("/v1/clearance", {"numbers": list(numbers)}, parsed(Clearance))


def renewal_request(
    number: str,
    activated_at: datetime,
    apps: Sequence[str] | Literal["all"],
    consent_sha256: str,
    acting_for: str | None,
    key: str | None,
) -> Call[Renewal]:
    body = {
        "number": number,
        "activated_at": activated_at,
        "apps": apps if isinstance(apps, str) else list(apps),
        "consent_sha256": consent_sha256,
        "acting_for": acting_for,
    }
    return _post("/v1/renewals", body, parsed(Renewal), new_key() if key is None else key)


def renewal(renewal_id: str) -> Call[Renewal]:
    return _get(_path("renewals", renewal_id), parsed(Renewal))


def apps() -> Call[list[App]]:
    return _get("/v1/apps", responses.apps)


# -- subscribers


def create_subscription(
    app_id: str,
    mode: Mode,
    endpoint: str | None,
    event_types: Sequence[EventType] | None,
    lanes: Sequence[Lane] | None,
    purpose: Purpose,
    start: Literal["now", "earliest"],
    signature: Literal["v1", "v1a"],
) -> Call[Subscription]:
    """Not repeated after a lost answer: the secret stood in it. List the subscriptions and rotate instead."""
    body = {
        "app_id": app_id,
        "mode": mode,
        "endpoint": endpoint,
        "event_types": None if event_types is None else list(event_types),
        "lanes": None if lanes is None else list(lanes),
        "purpose": purpose,
        "start": start,
        "signature": signature,
    }
    return _post("/v1/subscriptions", body, parsed(Subscription), repeatable=False)


def subscriptions() -> Call[list[Subscription]]:
    return _get("/v1/subscriptions", responses.subscriptions)


def subscription(subscription_id: str) -> Call[Subscription]:
    return _get(_path("subscriptions", subscription_id), parsed(Subscription))


def patch_subscription(
    subscription_id: str,
    endpoint: str | None,
    event_types: Sequence[EventType] | None,
    lanes: Sequence[Lane] | None,
) -> Call[Subscription]:
    body = {
        "endpoint": endpoint,
        "event_types": None if event_types is None else list(event_types),
        "lanes": None if lanes is None else list(lanes),
    }
    request = Request("PATCH", _path("subscriptions", subscription_id), json=encode(body))
    return Call(request, parsed(Subscription))


def delete_subscription(subscription_id: str) -> Call[None]:
    return Call(Request("DELETE", _path("subscriptions", subscription_id)), responses.nothing)


def subscription_act(subscription_id: str, act: Literal["pause", "resume"]) -> Call[Subscription]:
    return Call(Request("POST", _path("subscriptions", subscription_id, act)), parsed(Subscription))


def prove(subscription_id: str) -> Call[ProofResult]:
    return Call(Request("POST", _path("subscriptions", subscription_id, "prove")), parsed(ProofResult))


def send_test(subscription_id: str) -> Call[TestResult]:
    return Call(Request("POST", _path("subscriptions", subscription_id, "test")), parsed(TestResult))


def rotate(subscription_id: str, overlap_seconds: int) -> Call[Subscription]:
    """Not repeated after a lost answer, since the new secret stood in it: rotate again."""
    path = _path("subscriptions", subscription_id, "rotate")
    return _post(path, {"overlap_seconds": overlap_seconds}, parsed(Subscription), repeatable=False)


def feed(
    subscription_id: str, cursor: str | None, wait_seconds: int, max_numbers: int | None, max_bytes: int | None
) -> Call[dict[str, Any]]:
    params = _present(
        subscription_id=subscription_id,
        cursor=cursor,
        wait_seconds=wait_seconds or None,
        max_numbers=max_numbers,
        max_bytes=max_bytes,
    )
    return Call(Request("GET", "/v1/feed", params, read_within=wait_seconds + 30.0), responses.plain_object)


def commit_feed(subscription_id: str, cursor: str) -> Call[CommitResult]:
    body = {"subscription_id": subscription_id, "cursor": cursor}
    return _post("/v1/feed/commit", body, parsed(CommitResult))


def chunk(subscription_id: str, chunk_id: str) -> Call[bytes]:
    return _get(_path("chunks", chunk_id), responses.raw, subscription_id=subscription_id)


def acks(subscription_id: str, answers: Sequence[Mapping[str, Any]]) -> Call[list[AckResult]]:
    body = {"subscription_id": subscription_id, "answers": list(answers)}
    return _post("/v1/acks", body, responses.ack_results)


def deliveries(subscription_id: str) -> Call[list[Delivery]]:
    return _get("/v1/deliveries", responses.deliveries, subscription_id=subscription_id)


def redrive(
    subscription_id: str, since: datetime | None, chunk_ids: Sequence[str] | None, parked: bool
) -> Call[int | None]:
    if [since is not None, chunk_ids is not None, parked].count(True) != 1:
        raise ValueError("give exactly one of since, chunk_ids, parked")
    body = {
        "subscription_id": subscription_id,
        "since": since,
        "chunk_ids": None if chunk_ids is None else list(chunk_ids),
        "parked": parked or None,
    }
    return _post("/v1/redrive", body, responses.redriven)


# -- everybody


def check(pairs: Sequence[tuple[str, date | str]]) -> Call[list[CheckAnswer]]:
    if not 1 <= len(pairs) <= MOST_CHECKS:
        raise ValueError(f"1 to {MOST_CHECKS} numbers per call")
    checks = [
        {"number": number, "since": day if isinstance(day, str) else day.isoformat()[:10]} for number, day in pairs
    ]
    return _post("/v1/check", {"checks": checks}, responses.check_answers)


def report(name: str, filters: Mapping[str, str | int | None]) -> Call[dict[str, Any]]:
    return _get(_path("reports", name), responses.plain_object, **filters)


def report_csv(name: str, filters: Mapping[str, str | int | None]) -> Call[str]:
    return _get(_path("reports", name), lambda response: response.text, **{**filters, "format": "csv"})


def waiver(
    key: PrivateKey,
    subscriber_id: str,
    person: str,
    reason: str,
    batch_id: str | None,
    ends_at: datetime | None,
    now: float,
) -> Call[Waiver]:
    """The statement is signed once and kept over retries, so a repeat is the same act (same jti)."""
    claims = {
        "waiver": "numhub/v1",
        "subscriber_id": subscriber_id,
        "batch_id": batch_id,
        "person": person,
        "reason": reason,
        "iat": int(now),
        "jti": new_key(),
        "ends_at": None if ends_at is None else int(ends_at.timestamp()),
    }
    statement = key.sign({name: value for name, value in claims.items() if value is not None})
    return _post("/v1/waivers", {"statement": statement}, parsed(Waiver))


def waivers() -> Call[list[Waiver]]:
    return _get("/v1/waivers", responses.waivers)
