"""The OpenAPI document: what the routers say of themselves, and what holds for all of them.

FastAPI derives paths, parameters and schemas from the code. Added here are the refusals of each operation by code, the
scopes as alternatives, examples, and what a header or a raw body is. Codes that only some operations know stand in
`OWN_CODES`; tests hold the table against the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import deepcopy
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from hub.api import problems
from hub.api.catalogue import CATALOGUE
from hub.domain.parties import Scope
from hub.wire.examples import EXAMPLES

Json = dict[str, Any]

_METHODS = ("get", "put", "post", "patch", "delete", "head")

_DESCRIPTION = """\
Carriers publish what happens to their numbers; subscribers (app platforms, banks, number-marking services) hear of it
by signed webhook or by pull, unbind what is foreign and say so; carriers learn whether a number may be sold again.

**Refusals** are problem documents (RFC 9457). `code` is stable and decides what to do, `retriable` tells whether the
same request may succeed later. Beside the codes listed with an operation, any request may meet `bad_request`,
`no_such_address`, `method_not_allowed`, `request_timeout`, `uri_too_long`, `headers_too_large`,
`range_not_satisfiable` and `expectation_failed`.

**Limits**: answers to requests that were counted carry `RateLimit-Policy` (how much is allowed in how many seconds) and
`RateLimit` (what is left, and for how many seconds); 429 adds `Retry-After`, which decides.

**No number ever stands in an address**, and no answer repeats one in full. Times are RFC 3339 with a zone.

**Compatibility**: answers may gain members, and enumerations values, without notice; requests with unknown members are
refused. See `schemas/README.md`. What the hub sends to webhooks is described in `webhooks/asyncapi.json`.
"""

TAGS: Final[dict[str, str]] = {
    "oauth": "Access tokens (client credentials with `private_key_jwt`) and the documents that say how to get them.",
    "batches": "A carrier's file: announce it, upload it, commit it, follow it, read which rows were refused and why.",
    "events": "A carrier's single events, delivered at once.",
    "clearance": "May these numbers be sold again? Silence never counts as an answer.",
    "waivers": "Signed, listed acts of a regulator by which a subscriber's answers are not waited for.",
    "renewals": "One new holder presses one key (主动焕新): chosen apps unbind what the former holder left.",
    "check": "Has this number changed hands since that day? `no` is never said for lack of data.",
    "subscriptions": "What an app wants to hear, and where: filters, endpoint proof, secrets, pause and resume.",
    "deliveries": "What became of each delivery, and delivering again.",
    "feed": "Pull: pages of events from a cursor, then a commit.",
    "answers": "What was done with the numbers of a chunk: a default and exceptions.",
    "reports": "Delivery, answers and lateness, as far as the caller may see. Receipts and answers are never mixed.",
    "parties": "For operators: who takes part, and with which keys.",
    "health": "For the operator's own network and for people who look up a problem code.",
}

_SCOPES: Final[dict[Scope, str]] = {
    Scope.events_publish: "publish batches and events (carriers)",
    Scope.clearance_read: "ask whether numbers may be released (carriers)",
    Scope.renewals_write: "request and follow holder renewals (carriers)",
    Scope.check_read: "ask whether numbers have changed hands",
    Scope.subscriptions_manage: "manage one's own subscriptions and deliveries (subscribers)",
    Scope.feed_read: "read the feed and single chunks (subscribers)",
    Scope.acks_write: "answer chunks (subscribers)",
    Scope.reports_read: "read reports, as far as the role may see",
    Scope.waivers_write: "issue and list waivers (regulators)",
    Scope.parties_manage: "enrol, suspend and re-key parties (operators)",
}

_APPEND = ("append_in_doubt", "log_unavailable")

OWN_CODES: Final[dict[str, tuple[str, ...]]] = {
    "announce_batch": ("forbidden",),
    "publish_events": ("forbidden", "idempotency_in_progress", *_APPEND),
    "upload_content": ("batch_conflict", "payload_too_large", "invalid_query"),
    "commit_batch": ("batch_conflict",),
    "clear_batch": ("batch_conflict",),
    "issue_waiver": ("forbidden", "invalid_statement", "statement_reused"),
    "list_waivers": ("forbidden",),
    "request_renewal": (
        *("forbidden", "invalid_number", "future_time", "renewal_cooling_down", "no_such_block", "foreign_block"),
        *("lifecycle_conflict", *_APPEND),
    ),
    "create_subscription": ("not_found", "endpoint_refused"),
    "change_subscription": ("endpoint_refused",),
    "rotate_secret": ("no_secret",),
    "pause_subscription": ("wrong_state",),
    "resume_subscription": ("wrong_state",),
    "prove_endpoint": ("nothing_to_prove",),
    "send_test_event": ("nothing_to_test",),
    "redrive": ("not_found", "not_a_webhook"),
    "read_feed": ("cursor_malformed", "cursor_invalid", "cursor_expired", "rule_violated"),
    "commit_feed": ("not_found", "cursor_malformed", "cursor_invalid", "cursor_expired", "rule_violated"),
    "answer_chunks": ("not_found",),
    "read_report": ("forbidden",),
    "enrol_party": ("party_exists", "invalid_key"),
    "rotate_party_key": ("key_exists", "invalid_key"),
}
"""Operation -> the codes it knows beyond those that follow from its form (see `_codes`)."""

_HEADERS: Final[dict[str, Json]] = {
    "RetryAfter": {"description": "seconds to wait before repeating", "schema": {"type": "string"}},
    "RateLimit": {
        "description": "uses that are left, and seconds until the count begins anew",
        "schema": {"type": "string", "examples": ['"party";r=19993;t=8']},
    },
    "RateLimitPolicy": {
        "description": "uses allowed in so many seconds",
        "schema": {"type": "string", "examples": ['"party";q=20000;w=10']},
    },
    "WwwAuthenticate": {
        "description": "Bearer challenge (RFC 6750) with the address of the resource metadata (RFC 9728)",
        "schema": {"type": "string"},
    },
    "UploadOffset": {
        "description": "bytes the hub has; an interrupted upload continues here",
        "schema": {"type": "string", "pattern": "^[0-9]+$"},
    },
    "Location": {"description": "path of what was made", "schema": {"type": "string"}},
    "NumhubWatermark": {"description": "CSV only: up to where log and ledger were seen", "schema": {"type": "string"}},
}

_OWN_HEADERS: Final[dict[tuple[str, str], tuple[tuple[str, str], ...]]] = {
    ("get_upload_offset", "200"): (("Upload-Offset", "UploadOffset"),),
    ("upload_content", "200"): (("Upload-Offset", "UploadOffset"),),
    ("create_subscription", "201"): (("Location", "Location"),),
    ("request_renewal", "202"): (("Location", "Location"),),
    ("read_report", "200"): (("Numhub-Watermark", "NumhubWatermark"),),
}

_IDEMPOTENCY_KEY: Final[Json] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 130,
    "pattern": r'^("[ !#-\[\]-~]{1,128}"|[!#-\[\]-~]{1,128})$',
    "examples": ['"7c9e6679-7425-40de-944b-e07fc1f90ae7"'],
}


def describe(app: FastAPI, public_url: str) -> Json:
    """The whole document, as served at ``/openapi.json`` and as kept in ``schemas/http/openapi.json``."""
    document = get_openapi(
        title=app.title,
        version=app.version,
        summary=app.summary,
        description=_DESCRIPTION,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
        servers=[{"url": public_url, "description": "this hub"}],
        license_info={"name": "MIT", "identifier": "MIT"},
    )
    components = document.setdefault("components", {})
    shared: Json = components.setdefault("responses", {})
    for operation in operations(document):
        _finish(operation, shared)
    components["headers"] = _HEADERS
    components["examples"] = {code: {"value": _problem(code)} for code in sorted(CATALOGUE)}
    for scheme in components.get("securitySchemes", {}).values():
        scheme["description"] = "A token of ten minutes from the token endpoint, sent as `Authorization: Bearer`."
        scheme["flows"]["clientCredentials"]["scopes"] = {scope.value: text for scope, text in _SCOPES.items()}
    open_answers(document)
    return document


def operations(document: Json) -> Iterator[Json]:
    """Every operation of the document. An answer to HEAD has no body, whatever FastAPI says."""
    for path in document.get("paths", {}).values():
        for method in _METHODS:
            if method in path:
                if method == "head":
                    for response in path[method]["responses"].values():
                        response.pop("content", None)
                yield path[method]


def _finish(operation: Json, shared: Json) -> None:
    name = operation.get("operationId", "")
    operation["security"] = [
        {scheme: [scope]} if scope else {scheme: []}
        for need in operation.get("security", [])
        for scheme, scopes in need.items()
        for scope in (scopes or [""])
    ]
    for parameter in operation.get("parameters", []):
        if parameter["name"] == "Idempotency-Key":
            parameter["required"] = True
            parameter["schema"] = _IDEMPOTENCY_KEY
    _show_example(operation.get("requestBody", {}))
    responses = operation["responses"]
    for status, response in list(responses.items()):
        if status[0] == "2":
            _show_example(response)
            if response.get("description") == "Successful Response":
                response["description"] = "done" if "content" in response else "done; no body"
        content = response.get("content", {})
        if status in ("4XX", "5XX") and "TokenErrorOut" not in str(content) and content:
            response["content"] = {problems.MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
        for header, component in _OWN_HEADERS.get((name, status), ()):
            response.setdefault("headers", {})[header] = {"$ref": f"#/components/headers/{component}"}
    if problems.MEDIA_TYPE in responses.get("4XX", {}).get("content", {}) or "content" not in responses.get("4XX", {}):
        for status, name, response in _refusals(_codes(operation), with_body="content" in responses.get("4XX", {})):
            shared[name] = response
            responses.setdefault(status, {"$ref": f"#/components/responses/{name}"})
        operation["responses"] = dict(sorted(responses.items()))


def _codes(operation: Json) -> set[str]:
    """The codes an operation may answer with: what follows from its form, and its own."""
    found = {"unavailable", "internal", *OWN_CODES.get(operation.get("operationId", ""), ())}
    if operation["security"]:
        found |= {"unauthenticated", "invalid_token", "insufficient_scope", "too_many_requests"}
    places = {parameter["in"] for parameter in operation.get("parameters", [])}
    names = {parameter["name"] for parameter in operation.get("parameters", [])}
    if "query" in places or any("pattern" in p["schema"] for p in operation.get("parameters", []) if p["in"] == "path"):
        found.add("invalid_query")
    if "path" in places or "subscription_id" in names:
        found.add("not_found")
    if "application/json" in operation.get("requestBody", {}).get("content", {}):
        found |= {"invalid_json", "invalid_request", "payload_too_large", "unsupported_media_type"}
    if "Idempotency-Key" in names:
        found |= {"idempotency_key_missing", "idempotency_key_malformed", "idempotency_mismatch"}
    return found


def _refusals(codes: Iterable[str], *, with_body: bool) -> Iterator[tuple[str, str, Json]]:
    """Status, name and form of each refusal; equal ones have equal names."""
    by_status: dict[int, list[str]] = {}
    for code in sorted(codes):
        by_status.setdefault(CATALOGUE[code].status, []).append(code)
    for status, names in sorted(by_status.items()):
        response: Json = {"description": "; ".join(f"`{name}`: {CATALOGUE[name].title}" for name in names)}
        if status in (429, 503):
            response["headers"] = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}
        if status == 429:
            response["headers"] |= {
                "RateLimit": {"$ref": "#/components/headers/RateLimit"},
                "RateLimit-Policy": {"$ref": "#/components/headers/RateLimitPolicy"},
            }
        if status == 401 or "insufficient_scope" in names:
            response["headers"] = {"WWW-Authenticate": {"$ref": "#/components/headers/WwwAuthenticate"}}
        if with_body:
            response["content"] = {
                problems.MEDIA_TYPE: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {name: {"$ref": f"#/components/examples/{name}"} for name in names},
                }
            }
        yield str(status), ".".join([str(status), *names, *([] if with_body else ["head"])]), response


def _problem(code: str) -> Json:
    entry = CATALOGUE[code]
    return {
        "type": f"/problems/{code}",
        "title": entry.title,
        "status": entry.status,
        "code": code,
        "detail": entry.title,
        "remedy": entry.remedy,
        "retriable": entry.status in (429, 503) or code == "idempotency_in_progress",
    }


def _show_example(body: Json) -> None:
    for media in body.get("content", {}).values():
        schema = media.get("schema", {})
        if "$ref" in schema:
            schema.pop("type", None)  # FastAPI calls every body of a media type of one's own a string
        name = schema.get("$ref", "").rpartition("/")[2]
        if name in EXAMPLES:
            media["example"] = deepcopy(EXAMPLES[name])  # a document is its reader's to change


def open_answers(document: Json) -> None:
    """Let readers of answers meet unknown members: only what requests are made of forbids them."""
    schemas = document["components"].get("schemas", {})
    asked: set[str] = set()
    waiting = [ref for operation in operations(document) for ref in _refs(operation.get("requestBody", {}))]
    while waiting:
        name = waiting.pop()
        if name not in asked:
            asked.add(name)
            waiting += _refs(schemas.get(name, {}))
    for name, schema in schemas.items():
        if name not in asked:
            open_up(schema)


def open_up(schema: Json) -> Json:
    """Drop ``additionalProperties: false`` from an object schema, in place."""
    if schema.get("additionalProperties") is False:
        del schema["additionalProperties"]
    return schema


def _refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"].rpartition("/")[2]
        for member in value.values():
            yield from _refs(member)
    elif isinstance(value, list):
        for member in value:
            yield from _refs(member)
