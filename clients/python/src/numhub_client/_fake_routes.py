"""The requests a `testing.FakeHub` answers, in the words of the real API."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from base64 import b64encode, urlsafe_b64decode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx

from numhub_client._decode import rfc3339

if TYPE_CHECKING:
    from numhub_client.testing import FakeHub, FakeSubscription


class Refusal(Exception):
    """A problem document to answer with."""

    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code

    def response(self, headers: Mapping[str, str]) -> httpx.Response:
        body = {
            "type": f"https://hub.test/problems/{self.code}",
            "title": self.code.replace("_", " "),
            "status": self.status,
            "code": self.code,
            "detail": "refused by the fake hub",
            "remedy": "",
            "retriable": self.status in (429, 503),
            "errors": [],
        }
        return httpx.Response(self.status, json=body, headers={"content-type": "application/problem+json", **headers})


def new_secret() -> str:
    return "whsec_" + b64encode(secrets.token_bytes(32)).decode("ascii")


Handler = Callable[..., httpx.Response]
ROUTES: list[tuple[str, re.Pattern[str], Handler]] = []


def _route(method: str, path: str) -> Callable[[Handler], Handler]:
    pattern = re.compile(path.replace("{}", "([^/]+)"))

    def add(handler: Handler) -> Handler:
        ROUTES.append((method, pattern, handler))
        return handler

    return add


def _body(request: httpx.Request) -> dict[str, Any]:
    try:
        found = json.loads(request.content)
    except ValueError:
        raise Refusal(400, "invalid_json") from None
    if not isinstance(found, dict):
        raise Refusal(422, "invalid_request")
    return found


def _once(hub: FakeHub, request: httpx.Request, make: Callable[[dict[str, Any]], Any]) -> Any:
    """Idempotency-Key: the first answer again for the same request, 409 for another."""
    key = request.headers.get("idempotency-key")
    if not key:
        raise Refusal(400, "idempotency_key_missing")
    digest = hashlib.sha256(request.content).hexdigest()
    scope = f"{request.url.path} {key}"
    if scope not in hub.keys:
        hub.keys[scope] = (digest, make(_body(request)))
    if hub.keys[scope][0] != digest:
        raise Refusal(409, "idempotency_mismatch")
    return hub.keys[scope][1]


def _subscription(hub: FakeHub, subscription_id: object) -> FakeSubscription:
    found = hub.subscriptions.get(str(subscription_id))
    if found is None:
        raise Refusal(404, "not_found")
    return found


@_route("GET", "/.well-known/oauth-authorization-server")
def _metadata(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"issuer": "https://hub.test", "token_endpoint": "https://hub.test/oauth2/token"})


@_route("POST", "/oauth2/token")
def _token(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    token = f"token-{len(hub.requests)}"
    hub.tokens.add(token)
    return httpx.Response(200, json={"access_token": token, "token_type": "Bearer", "expires_in": 600})


@_route("POST", "/v1/events")
def _publish(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    def make(body: dict[str, Any]) -> dict[str, Any]:
        results = []
        for item in body["events"]:
            hub.events.append(item)
            digits = item["number"].removeprefix("+86")
            if not re.fullmatch(r"1[3-9][0-9]{9}", digits):
                results.append({"status": "refused", "reason": "invalid_number", "retriable": False})
                continue
            chunk = hub.publish(item["event_type"], [digits], lane="live")
            results.append({"status": "accepted", "event_id": chunk.chunk_id, "retriable": False})
        accepted = sum(result["status"] == "accepted" for result in results)
        return {"results": results, "accepted": accepted, "refused": len(results) - accepted}

    return httpx.Response(202, json=_once(hub, request, make))


@_route("POST", "/v1/batches")
def _announce(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    def make(body: dict[str, Any]) -> str:
        batch_id = "bat_" + hashlib.sha256(request.headers["idempotency-key"].encode()).hexdigest()[:24]
        hub.contents[batch_id] = b""
        hub.batches[batch_id] = {
            "batch_id": batch_id,
            "batch_seq": body["batch_seq"],
            "state": "uploaded" if body["rows"] == 0 else "announced",
            "event_type": body["event_type"],
            "rows_declared": body["rows"],
            "bytes_uploaded": 0,
            "rows_seen": 0,
            "rows_accepted": 0,
            "rows_refused": 0,
            "chunks": 0,
            "reasons": [],
            "created_at": rfc3339(hub.now),
            "sha256": body["sha256"],
        }
        return batch_id

    return httpx.Response(201, json=hub.batches[_once(hub, request, make)])


def _batch(hub: FakeHub, batch_id: str) -> dict[str, Any]:
    if batch_id not in hub.batches:
        raise Refusal(404, "not_found")
    return hub.batches[batch_id]


@_route("HEAD", "/v1/batches/{}/content")
def _offset(hub: FakeHub, request: httpx.Request, batch_id: str) -> httpx.Response:
    return httpx.Response(200, headers={"upload-offset": str(_batch(hub, batch_id)["bytes_uploaded"])})


@_route("PUT", "/v1/batches/{}/content")
def _content(hub: FakeHub, request: httpx.Request, batch_id: str) -> httpx.Response:
    batch = _batch(hub, batch_id)
    if int(request.headers.get("upload-offset", "0")) != batch["bytes_uploaded"]:
        raise Refusal(409, "batch_conflict")
    hub.contents[batch_id] += request.content
    batch["bytes_uploaded"], batch["state"] = len(hub.contents[batch_id]), "uploading"
    return httpx.Response(200, json=batch)


@_route("POST", "/v1/batches/{}/commit")
def _commit(hub: FakeHub, request: httpx.Request, batch_id: str) -> httpx.Response:
    """Every line with a number is accepted; what the file is called and how it is packed is not judged."""
    batch, content = _batch(hub, batch_id), hub.contents[batch_id]
    if batch["state"] in ("committed", "failed"):
        return httpx.Response(200, json=batch)
    if hashlib.sha256(content).hexdigest() != batch["sha256"]:
        batch |= {"state": "failed", "failure": "the digest differs from the declared one"}
        return httpx.Response(200, json=batch)
    numbers = sorted({int(digits) for digits in re.findall(rb"1[3-9][0-9]{9}", content)})
    for start in range(0, len(numbers), 10_000):
        hub.publish(batch["event_type"], numbers[start : start + 10_000])
        batch["chunks"] += 1
    seen = batch["rows_declared"]
    batch |= {"rows_seen": seen, "rows_accepted": min(seen, len(numbers)), "state": "committed"}
    batch |= {"rows_refused": seen - batch["rows_accepted"], "committed_at": rfc3339(hub.now)}
    if batch["rows_refused"]:
        batch["reasons"] = [{"reason": "invalid_number", "rows": batch["rows_refused"], "meaning": "no number"}]
    return httpx.Response(202, json=batch)


@_route("GET", "/v1/batches")
def _batches(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"batches": list(reversed(hub.batches.values()))})


@_route("GET", "/v1/batches/{}")
def _one_batch(hub: FakeHub, request: httpx.Request, batch_id: str) -> httpx.Response:
    return httpx.Response(200, json=_batch(hub, batch_id))


@_route("GET", "/v1/batches/{}/result")
def _result(hub: FakeHub, request: httpx.Request, batch_id: str) -> httpx.Response:
    _batch(hub, batch_id)
    lines = hub.contents[batch_id].splitlines()
    bad = [place for place, line in enumerate(lines[1:], start=2) if line and not re.search(rb"1[3-9][0-9]{9}", line)]
    text = "line,reason,meaning,number\r\n" + "".join(f"{line},invalid_number,no number,\r\n" for line in bad)
    return httpx.Response(200, text=text, headers={"content-type": "text/csv; charset=utf-8"})


@_route("GET", "/v1/batches/{}/clearance")
def _batch_clearance(hub: FakeHub, request: httpx.Request, batch_id: str) -> httpx.Response:
    _batch(hub, batch_id)
    numbers = sorted({int(digits) for digits in re.findall(rb"1[3-9][0-9]{9}", hub.contents[batch_id])})
    body = _clearance(hub, numbers) | {"batch_id": batch_id, "wait_until": None, "waiting_for": {}}
    detail = request.url.params.get("detail", "none")
    body["numbers"] = [n for n in body["numbers"] if detail == "all" or (detail == "not_go" and n["verdict"] != "go")]
    return httpx.Response(200, json=body)


@_route("POST", "/v1/clearance")
def _clear(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    numbers = [int(number.removeprefix("+86")) for number in _body(request)["numbers"]]
    return httpx.Response(200, json=_clearance(hub, numbers))


def _clearance(hub: FakeHub, numbers: list[int]) -> dict[str, Any]:
    judged = [hub.verdicts.get(number, "wait") for number in numbers]
    return {
        "clearance_id": f"clr_{len(hub.requests):016d}",
        "policy": "strict",
        "judged_at": rfc3339(hub.now),
        **{verdict: judged.count(verdict) for verdict in ("go", "go_with_exceptions", "wait")},
        "waivers": [waiver["waiver_id"] for waiver in hub.waivers],
        "numbers": [
            {"index": index, "number": f"{str(n)[:3]}****{str(n)[-4:]}", "verdict": verdict}
            for index, (n, verdict) in enumerate(zip(numbers, judged, strict=True))
        ],
    }


@_route("POST", "/v1/waivers")
def _waive(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    """The statement's signature is not judged."""
    part = _body(request)["statement"].split(".")[1]
    claims = json.loads(urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    waiver = {
        "waiver_id": f"wai_{len(hub.waivers):016d}",
        "subscriber_id": claims["subscriber_id"],
        "batch_id": claims.get("batch_id"),
        "person": claims["person"],
        "reason": claims["reason"],
        "issued_by": "fake",
        "issued_at": rfc3339(hub.now),
        "ends_at": rfc3339(datetime.fromtimestamp(claims["ends_at"], UTC)) if claims.get("ends_at") else None,
    }
    hub.waivers.append(waiver)
    return httpx.Response(201, json=waiver)


@_route("GET", "/v1/waivers")
def _waivers(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"waivers": hub.waivers})


@_route("POST", "/v1/subscriptions")
def _subscribe(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    body = _body(request)
    if body["mode"] != "pull" and not body.get("endpoint"):
        raise Refusal(422, "invalid_request")
    made = hub.subscribe(body["app_id"], event_types=body.get("event_types"), start=body.get("start", "now"))
    made.mode, made.endpoint = body["mode"], body.get("endpoint")
    made.state = "active" if made.mode == "pull" else "unproven"
    return httpx.Response(201, json=_shown(hub, made, secret=made.mode != "pull"))


def _shown(hub: FakeHub, one: FakeSubscription, *, secret: bool = False) -> dict[str, Any]:
    key = {"scheme": "v1", "key": one.secret, "created_at": rfc3339(hub.now), "expires_at": None}
    return {
        "subscription_id": one.subscription_id,
        "app_id": one.app_id,
        "app_class": "e_commerce",
        "mode": one.mode,
        "endpoint": one.endpoint,
        "event_types": list(one.event_types or ()),
        "lanes": ["bulk", "live"],
        "purpose": "account_unbind",
        "state": one.state,
        "state_reason": None,
        "created_at": rfc3339(hub.now),
        "secret": key if secret else None,
        "parked": 0,
    }


@_route("GET", "/v1/subscriptions")
def _subscriptions(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"subscriptions": [_shown(hub, one) for one in hub.subscriptions.values()]})


@_route("GET", "/v1/subscriptions/{}")
def _one_subscription(hub: FakeHub, request: httpx.Request, subscription_id: str) -> httpx.Response:
    return httpx.Response(200, json=_shown(hub, _subscription(hub, subscription_id)))


@_route("PATCH", "/v1/subscriptions/{}")
def _patch(hub: FakeHub, request: httpx.Request, subscription_id: str) -> httpx.Response:
    one, body = _subscription(hub, subscription_id), _body(request)
    if "endpoint" in body:
        one.endpoint, one.state = body["endpoint"], "unproven"
    if "event_types" in body:
        one.event_types = tuple(body["event_types"])
    return httpx.Response(200, json=_shown(hub, one))


@_route("DELETE", "/v1/subscriptions/{}")
def _delete(hub: FakeHub, request: httpx.Request, subscription_id: str) -> httpx.Response:
    _subscription(hub, subscription_id).state = "deleted"
    return httpx.Response(204)


@_route("POST", "/v1/subscriptions/{}/(prove|pause|resume|rotate|test)")
def _act(hub: FakeHub, request: httpx.Request, subscription_id: str, act: str) -> httpx.Response:
    one = _subscription(hub, subscription_id)
    if act == "test":
        return httpx.Response(200, json={"delivered": True, "status": 204, "detail": "delivered"})
    if act == "rotate":
        one.old_secret, one.secret = one.secret, new_secret()
    else:
        one.state = "paused" if act == "pause" else "active"
    if act == "prove":
        return httpx.Response(200, json={"state": one.state, "proven": True, "status": 200, "detail": "proven"})
    return httpx.Response(200, json=_shown(hub, one, secret=act == "rotate"))


@_route("GET", "/v1/feed")
def _feed(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    """The cursor is the position in the fake's log; the long poll answers at once, since nobody else can publish."""
    params = request.url.params
    one = _subscription(hub, params.get("subscription_id"))
    cursor = params.get("cursor")
    if cursor is not None and not re.fullmatch(r"cur_\d+", cursor):
        raise Refusal(400, "cursor_malformed")
    at = one.position if cursor is None else int(cursor[4:])
    events: list[dict[str, Any]] = []
    while at < len(hub.log) and len(events) < hub.page_size:
        if one.wants(hub.log[at]):
            events.append(json.loads(hub.log[at].body))
        at += 1
    return httpx.Response(200, json={"cursor": f"cur_{at}", "events": events, "more": at < len(hub.log)})


@_route("POST", "/v1/feed/commit")
def _commit_feed(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    body = _body(request)
    one, at = _subscription(hub, body["subscription_id"]), int(body["cursor"].removeprefix("cur_"))
    moved, one.position = at > one.position, max(at, one.position)
    return httpx.Response(200, json={"committed": moved, "receipts": int(moved)})


@_route("GET", "/v1/chunks/{}")
def _chunk(hub: FakeHub, request: httpx.Request, chunk_id: str) -> httpx.Response:
    _subscription(hub, request.url.params.get("subscription_id"))
    chunk = hub.chunk(chunk_id)
    if chunk is None:
        raise Refusal(404, "not_found")
    return httpx.Response(200, content=chunk.body, headers={"content-type": "application/cloudevents+json"})


@_route("POST", "/v1/acks")
def _acks(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    body = _body(request)
    one = _subscription(hub, body["subscription_id"])
    results = [
        {"chunk_id": answer["chunk_id"], "new": hub.record_answer(one.subscription_id, answer)}
        for answer in body["answers"]
    ]
    return httpx.Response(200, json={"results": results})


@_route("GET", "/v1/deliveries")
def _deliveries(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    one = _subscription(hub, request.url.params.get("subscription_id"))
    received = [chunk for chunk in hub.log[: one.position] if one.wants(chunk)]
    shown = [
        {"chunk_id": chunk.chunk_id, "state": "received", "at": rfc3339(hub.now), "attempts": 1}
        for chunk in reversed(received)
    ]
    return httpx.Response(200, json={"deliveries": shown})


@_route("POST", "/v1/redrive")
def _redrive(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    body = _body(request)
    one = _subscription(hub, body["subscription_id"])
    if "since" in body:
        one.position = 0
        return httpx.Response(202, json={"chunks": None})
    return httpx.Response(202, json={"chunks": len(body.get("chunk_ids", ()))})


@_route("POST", "/v1/check")
def _check(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    answers = []
    for item in _body(request)["checks"]:
        answer = hub.checks.get(int(item["number"].removeprefix("+86")), "no_data")
        reason = {"yes": "ended", "no": None}.get(answer, "no_coverage")
        answers.append({"answer": answer, "reason": reason, "coverage_since": None})
    return httpx.Response(200, json={"answers": answers, "as_of": rfc3339(hub.now)})


@_route("POST", "/v1/renewals")
def _renew(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    def make(body: dict[str, Any]) -> str:
        renewal_id = "ren_" + hashlib.sha256(request.headers["idempotency-key"].encode()).hexdigest()[:24]
        chosen = [app for app in hub.apps if body["apps"] == "all" or app["app_id"] in body["apps"]]
        digits = body["number"].removeprefix("+86")
        hub.renewals[renewal_id] = {
            "renewal_id": renewal_id,
            "state": "submitted",
            "number": f"{digits[:3]}****{digits[-4:]}",
            "requested_at": rfc3339(hub.now),
            "due_at": rfc3339(hub.now + timedelta(days=7)),
            "due_approximate": False,
            "apps": [{**app, "state": "queued"} for app in chosen],
        }
        hub.publish("renewal_requested", [digits], lane="live", renewal={"renewal_id": renewal_id})
        return renewal_id

    return httpx.Response(202, json=hub.renewals[_once(hub, request, make)])


@_route("GET", "/v1/renewals/{}")
def _renewal(hub: FakeHub, request: httpx.Request, renewal_id: str) -> httpx.Response:
    if renewal_id not in hub.renewals:
        raise Refusal(404, "not_found")
    return httpx.Response(200, json=hub.renewals[renewal_id])


@_route("GET", "/v1/apps")
def _apps(hub: FakeHub, request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"apps": hub.apps})


@_route("GET", "/v1/reports/{}")
def _report(hub: FakeHub, request: httpx.Request, name: str) -> httpx.Response:
    """No figures: the question comes back as ``filters``."""
    if request.url.params.get("format") == "csv":
        return httpx.Response(200, text="day,numbers\r\n", headers={"content-type": "text/csv; charset=utf-8"})
    body: dict[str, Any] = {
        "name": name,
        "filters": dict(request.url.params),
        "suppressed_below": None,
        "columns": [],
        "rows": [],
    }
    return httpx.Response(200, json=body)
