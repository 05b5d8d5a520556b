"""The published contract, generated from the models: OpenAPI, AsyncAPI, JSON Schemas, typical examples, tables.

`numhub schemas` writes the files below ``schemas/``; a test generates them again and compares. What people write there
(README.md around its tables, CHANGELOG.md, further examples, the signature vectors) is left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from fastapi import FastAPI
from pydantic import BaseModel, TypeAdapter

from hub.adapters.codec.json_codec import JsonCodec
from hub.api.catalogue import CATALOGUE
from hub.api.description import open_up
from hub.domain.dispositions import Disposition
from hub.domain.events import EventType, Lane
from hub.domain.quarantine import Quarantine
from hub.domain.refusals import Refusal
from hub.ports.codec import Chunk
from hub.wire import (
    acks,
    answers,
    batches,
    check,
    chunk,
    clearance,
    events,
    feed,
    ingress,
    parties,
    problems,
    renewals,
    subscriptions,
)
from hub.wire.examples import EXAMPLES

VERSION: Final = "1.0.0"
"""Of the contract, not of the program: see schemas/README.md for what moves which part of it."""

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
CLOUD_EVENT: Final = "application/cloudevents+json"
KAFKA_BINDING: Final = "0.5.0"

DELIVERED: Final[dict[str, type[BaseModel]]] = {
    "chunk-event": chunk.ChunkEvent,
    "pointer-event": chunk.PointerEvent,
    "proof-event": chunk.ProofEvent,
    "test-event": chunk.TestEvent,
}
"""What the hub posts to webhooks."""

SENT_IN: Final[dict[str, type[BaseModel]]] = {
    "proof-answer": chunk.ProofAnswer,
    "batch-in": batches.BatchIn,
    "events-in": events.EventsIn,
    "ingress-event": ingress.IngressEvent,
    "ingress-list": ingress.IngressList,
    "subscription-in": subscriptions.SubscriptionIn,
    "subscription-patch": subscriptions.SubscriptionPatch,
    "rotate-in": subscriptions.RotateIn,
    "redrive-in": subscriptions.RedriveIn,
    "feed-commit-in": feed.FeedCommitIn,
    "acks-in": acks.AcksIn,
    "clearance-in": clearance.ClearanceIn,
    "waiver-in": clearance.WaiverIn,
    "renewal-in": renewals.RenewalIn,
    "check-in": check.CheckIn,
    "party-in": parties.PartyIn,
    "key-in": parties.KeyIn,
}
"""What the hub takes: unknown members are refused."""

TOLD: Final[dict[str, type[BaseModel]]] = {
    "ingress-refusal": ingress.IngressRefusal,
    "ingress-summary": ingress.IngressSummary,
    "carrier-answer": answers.CarrierAnswer,
    "regulator-answer": answers.RegulatorAnswer,
}
"""What the hub publishes on the parties' topics."""

SENT_OUT: Final[dict[str, type[BaseModel]]] = {
    **DELIVERED,
    **TOLD,
    "batch-out": batches.BatchOut,
    "events-out": events.EventsOut,
    "subscription-out": subscriptions.SubscriptionOut,
    "delivery-list": subscriptions.DeliveryList,
    "feed-page": feed.FeedPage,
    "feed-commit-out": feed.FeedCommitOut,
    "acks-out": acks.AcksOut,
    "clearance-out": clearance.ClearanceOut,
    "batch-clearance-out": clearance.BatchClearanceOut,
    "waiver-out": clearance.WaiverOut,
    "renewal-out": renewals.RenewalOut,
    "check-out": check.CheckOut,
    "problem": problems.Problem,
}
"""What the hub answers and delivers: readers must let unknown members pass."""

MESSAGES: Final[dict[str, type[BaseModel]]] = {**SENT_IN, **SENT_OUT}


def json_schema(name: str) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of one message, as its reader should hold it."""
    model = MESSAGES[name]
    schema = TypeAdapter(model).json_schema(mode="validation")
    if name in SENT_OUT:
        _open(schema)
    return {
        "$schema": DIALECT,
        "$id": f"urn:numhub:schema:v1:{name}",
        **schema,
        "examples": [EXAMPLES[model.__name__]],
    }


def _open(schema: dict[str, Any]) -> None:
    open_up(schema)
    for part in schema.get("$defs", {}).values():
        open_up(part)


_HEADERS: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["webhook-id", "webhook-timestamp", "webhook-signature"],
    "properties": {
        "webhook-id": {
            "type": "string",
            "pattern": "^msg_[0-9a-f]{32}$",
            "description": "the same on every attempt to bring this event to this subscription",
        },
        "webhook-timestamp": {"type": "string", "pattern": "^[0-9]+$", "description": "Unix seconds of this attempt"},
        "webhook-signature": {
            "type": "string",
            "description": "blank-separated, one per live secret: v1,<base64 of HMAC-SHA256> or v1a,<base64 of Ed25519>"
            " over `webhook-id.webhook-timestamp.body`; vectors: vectors/signatures.json",
        },
    },
}

_CHUNK_HEADERS: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["numhub-chunk-id", "numhub-event-type", "numhub-lane"],
    "properties": {
        "numhub-chunk-id": {"type": "string", "description": "names the chunk in answers"},
        "numhub-event-type": {"type": "string", "enum": [event.value for event in EventType]},
        "numhub-lane": {"type": "string", "enum": [lane.value for lane in Lane]},
        "numhub-superseded-rows": {
            "type": "string",
            "description": "places in `numbers` (from 0) that a later event has overtaken since publication, as "
            "`3,17-20`: do not act on them; `see-feed` where the list would be too long",
        },
    },
}

_OPERATIONS: Final[dict[str, tuple[tuple[str, ...], str, str]]] = {
    "deliver": (
        ("ChunkEvent", "PointerEvent"),
        "Events of numbers",
        "Any 2xx within 15 s is the receipt: the bytes arrived. What was done with the numbers is said by "
        "`POST /v1/acks`. Anything else is tried again (5 s, 5 min, 30 min, 2, 5, 10, 10 h ..), 410 suspends the "
        "subscription, and after the last attempt the chunk is parked: visible, and still there to be fetched. One "
        "request is in flight per subscription, lane and partition.",
    ),
    "prove": (
        ("ProofEvent",),
        "Proof that the endpoint wants the events",
        "Sent to a new endpoint before the first delivery. Verify the signature, then answer 2xx with the challenge.",
    ),
    "test": (("TestEvent",), "A test event", "Sent when asked for. Any 2xx will do."),
}


def asyncapi() -> dict[str, Any]:
    """AsyncAPI 3.0 of what the hub sends: one channel, the subscriber's endpoint."""
    schemas: dict[str, Any] = {"WebhookHeaders": _HEADERS, "ChunkHeaders": _CHUNK_HEADERS}
    messages: dict[str, Any] = {}
    for name in (*DELIVERED, "proof-answer"):
        model = MESSAGES[name]
        title = model.__name__
        schema = TypeAdapter(model).json_schema(ref_template="#/components/schemas/{model}")
        if name in SENT_OUT:
            _open(schema)
        schemas.update(schema.pop("$defs", {}))
        schemas[title] = schema
        messages[title] = {
            "name": title,
            "title": name,
            "summary": " ".join((model.__doc__ or title).split()),
            "contentType": CLOUD_EVENT if name in DELIVERED else "application/json",
            "payload": {"$ref": f"#/components/schemas/{title}"},
            "examples": [{"name": "typical", "payload": EXAMPLES[title]}],
        }
        if name in DELIVERED:
            messages[title]["traits"] = [{"$ref": "#/components/messageTraits/signed"}]
        if title in _OPERATIONS["deliver"][0]:
            messages[title]["traits"].append({"$ref": "#/components/messageTraits/chunk"})
    operations = {
        name: {
            "action": "send",
            "title": title,
            "summary": title,
            "description": text,
            "channel": {"$ref": "#/channels/endpoint"},
            "messages": [{"$ref": f"#/channels/endpoint/messages/{message}"} for message in names],
            "bindings": {"http": {"method": "POST", "bindingVersion": "0.3.0"}},
        }
        for name, (names, title, text) in _OPERATIONS.items()
    }
    operations["prove"]["reply"] = {
        "channel": {"$ref": "#/channels/endpoint"},
        "messages": [{"$ref": "#/channels/endpoint/messages/ProofAnswer"}],
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "numhub webhooks",
            "version": VERSION,
            "description": "What the hub posts to a subscriber's endpoint: structured CloudEvents, signed as Standard "
            "Webhooks asks. The same events stand in the pages of `GET /v1/feed`. How to read a chunk: "
            "schemas/README.md.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": CLOUD_EVENT,
        "channels": {
            "endpoint": {
                "address": None,
                "title": "the endpoint of a subscription",
                "description": "the https address named in `POST /v1/subscriptions`",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
            }
        },
        "operations": operations,
        "components": {
            "messages": messages,
            "messageTraits": {
                "signed": {"headers": {"$ref": "#/components/schemas/WebhookHeaders"}},
                "chunk": {"headers": {"$ref": "#/components/schemas/ChunkHeaders"}},
            },
            "schemas": schemas,
        },
    }


@dataclass(frozen=True, slots=True)
class _TopicOf:
    """One pattern of party topics, as the hub sees it."""

    title: str
    action: str
    messages: Mapping[str, str]  # name of the message -> how its key is made
    policy: tuple[str, ...]
    text: str


_TOPICS: Final[dict[str, _TopicOf]] = {
    "ingress": _TopicOf(
        "what a carrier publishes",
        "receive",
        {"ingress-event": "any; records of one number should share one", "ingress-list": "any"},
        ("delete",),
        "Written by the carrier's own producer, as its ACL says, and read by the hub. Each record is taken in exactly "
        "once by your own `id`; records of one partition are taken in their order. What the hub makes of it stands on "
        "the topic of rejects.",
    ),
    "rejects": _TopicOf(
        "what became of it",
        "send",
        {"ingress-refusal": "refusal/<partition>/<offset>", "ingress-summary": "summary/<partition>/<from_offset>"},
        ("delete",),
        "Told at least once, before the hub's position in your topic moves on. The header `kind` tells the two apart.",
    ),
    "answers.carrier": _TopicOf(
        "how a carrier's chunks stand, by app class",
        "send",
        {"carrier-answer": "<chunk_id>/<app_class>"},
        ("compact", "delete"),
        "Told at least once and never before the answers are committed; the newest of a key counts. No app and no "
        "subscriber is named. Holder renewals are not told here: follow them by `GET /v1/renewals/{id}`.",
    ),
    "answers": _TopicOf(
        "how chunks stand with each subscription",
        "send",
        {"regulator-answer": "<chunk_id>/<subscription_id>"},
        ("compact", "delete"),
        "For regulators. Told at least once and never before the answer is committed; corrections are new messages.",
    ),
}

_CARRIER: Final = {"carrier": {"description": "party id of the carrier, as chosen at enrolment", "examples": ["cmcc"]}}


def topics_asyncapi() -> dict[str, Any]:
    """AsyncAPI 3.0 of the parties' Kafka topics: one channel per pattern. The hub's own log is nobody's to read."""
    schemas: dict[str, Any] = {}
    messages: dict[str, Any] = {}
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for name, topic in _TOPICS.items():
        address = "numhub.answers" if name == "answers" else f"numhub.{name.partition('.')[0]}.{{carrier}}"
        titles = {MESSAGES[message].__name__: message for message in topic.messages}
        for title, message in titles.items():
            messages[title] = _topic_message(message, topic.messages[message], schemas)
        configuration = {"cleanup.policy": list(topic.policy)}
        channels[name] = {
            "address": address,
            "title": topic.title,
            "description": f"{topic.text} `numhub.` is the setting kafka_topic_prefix.",
            "messages": {title: {"$ref": f"#/components/messages/{title}"} for title in titles},
            **({"parameters": _CARRIER} if "{carrier}" in address else {}),
            "bindings": {"kafka": {"topicConfiguration": configuration, "bindingVersion": KAFKA_BINDING}},
        }
        operations[name] = {
            "action": topic.action,
            "title": topic.title,
            "summary": topic.title,
            "channel": {"$ref": f"#/channels/{name}"},
            "messages": [{"$ref": f"#/channels/{name}/messages/{title}"} for title in titles],
            "bindings": {"kafka": {"bindingVersion": KAFKA_BINDING}},
        }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "numhub topics",
            "version": VERSION,
            "description": "The Kafka topics of carriers and regulators, as the hub sees them: it receives what "
            "carriers send. Values are JSON in UTF-8. How to begin: schemas/log/README.md.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"messages": messages, "schemas": schemas},
    }


def _topic_message(name: str, key: str, schemas: dict[str, Any]) -> dict[str, Any]:
    model = MESSAGES[name]
    title = model.__name__
    schema = TypeAdapter(model).json_schema(ref_template="#/components/schemas/{model}")
    if name in SENT_OUT:
        _open(schema)
    schemas.update(schema.pop("$defs", {}))
    schemas[title] = schema
    version = {"type": "string", "description": "version of the message", "enum": [_version(model)]}
    headers: dict[str, Any] = {"type": "object", "properties": {"schema": version}}
    if name in TOLD:
        headers["required"] = ["schema"]
    if (kind := model.model_fields.get("kind")) is not None:
        headers["properties"]["kind"] = {"type": "string", "enum": [kind.default]}
        headers["required"] = ["schema", "kind"]
    return {
        "name": title,
        "title": name,
        "summary": " ".join((model.__doc__ or title).split()),
        "contentType": "application/json",
        "headers": headers,
        "payload": {"$ref": f"#/components/schemas/{title}"},
        "bindings": {"kafka": {"key": {"type": "string", "description": key}, "bindingVersion": KAFKA_BINDING}},
        "examples": [{"name": "typical", "payload": EXAMPLES[title]}],
    }


def _version(model: type[BaseModel]) -> str:
    return str(model.model_fields["schema_name"].default or ingress.SCHEMA)


def sample_chunk(form: str) -> Chunk:
    """A chunk whose ``binding_cutoff_at`` takes one of the three forms: shared, exceptions, columns."""
    rows = {"shared": 3, "exceptions": 20, "columns": 4}[form]
    day, cutoff = 86_400, np.full(rows, 1_772_294_400, np.int64)
    planned, reason = None, None
    if form == "exceptions":
        cutoff[[4, 11]] -= day
        planned = np.full(rows, 1_782_835_200, np.int64)
        planned[7] = 0
    if form == "columns":
        cutoff -= day * np.arange(rows)
        reason = np.array([1, 0, 2, 5], np.uint8)
    return Chunk(
        record_id="evt_5d41402abc4b2a76b9719d911017c592",
        event_type=EventType.deactivated if form == "columns" else EventType.release_scheduled,
        lane=Lane.bulk,
        reported_at=1_780_279_200,
        numbers=13_800_138_000 + 7 * np.arange(rows, dtype=np.int64),
        generation=np.zeros(rows, np.uint8),
        seq=np.full(rows, 2, np.uint16),
        occurred_at=np.full(rows, 1_780_279_200, np.int64),
        binding_cutoff_at=cutoff,
        release_planned_at=planned,
        reason=reason,
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    columns = list(head)
    return "\n".join([f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}", *lines])


_DISPOSITIONS: Final[dict[Disposition, tuple[str, str]]] = {
    Disposition.unbound: ("an account was bound before the cutoff and the number was taken off it", ""),
    Disposition.no_account: ("nothing of yours was bound to the number", ""),
    Disposition.already_rebound: ("the former holder had moved the account to another number", ""),
    Disposition.rejected_cutoff: ("only bindings at or after the cutoff: the new holder's, left alone", ""),
    Disposition.soft_locked: ("no login or reset by SMS code, no messages; nothing unbound yet", "`deactivated` only"),
    Disposition.held_funds: ("money or assets still hang on the account", "`review_at`"),
    Disposition.held_debt: ("a debt hangs on the account", "`review_at`"),
    Disposition.held_legal: ("a legal order keeps the account as it is", "`review_at`"),
    Disposition.held_dispute: ("the account was used after the cutoff; whose it is must be settled", "`review_at`"),
    Disposition.held_memorial: ("the account is kept in memory of its owner", "`review_at`"),
    Disposition.needs_holder_action: ("it cannot be told who is bound, e.g. since when is unknown", ""),
    Disposition.failed_retryable: ("you tried and failed, and will try again", ""),
    Disposition.failed_final: ("you cannot unbind it", ""),
}

_STANDINGS: Final = {
    "done": "counts as done",
    "held": "final, as an exception: `go_with_exceptions`",
    "failed": "does not count: `wait`, unless waived",
    "pending": "does not count yet",
}


def sections() -> dict[str, str]:
    """The generated parts of README.md: name of the section -> markdown."""
    return {
        "messages": _table(
            ("file", "direction", "example"),
            (
                (f"[{name}](messages/{name}.json)", way, f"[valid](examples/valid/{name}/typical.json)")
                for way, names in (("to the hub", SENT_IN), ("from the hub", SENT_OUT))
                for name in names
            ),
        ),
        "dispositions": _table(
            ("disposition", "it says", "carriers see", "for clearance", "needs"),
            (
                (f"`{one.value}`", text, one.standing.name, _STANDINGS[one.standing.name], needs)
                for one, (text, needs) in _DISPOSITIONS.items()
            ),
        ),
        "refusals": _table(
            ("reason", "meaning", "again?"),
            ((f"`{one.value}`", one.meaning, "later" if one.retriable else "no") for one in Refusal),
        ),
        "quarantine": _table(("reason", "meaning"), ((f"`{one.value}`", one.meaning) for one in Quarantine)),
        "problems": _table(
            ("code", "status", "title", "what to do"),
            (
                (f"`{code}`", str(entry.status), entry.title, entry.remedy)
                for code, entry in sorted(CATALOGUE.items(), key=lambda item: (item[1].status, item[0]))
            ),
        ),
    }


_SECTION = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def refreshed(readme: str) -> str:
    """``readme`` with its generated sections made anew. Raises KeyError for a section nobody makes."""
    made = sections()
    return _SECTION.sub(lambda found: f"{found[1]}{made[found[2]]}\n{found[3]}", readme)


def documents(app: FastAPI, readme: str | None = None) -> dict[str, str]:
    """Every generated file: path below ``schemas/`` -> text. ``readme``: the present README.md, if there is one."""
    values: dict[str, Any] = {"http/openapi.json": app.openapi(), "webhooks/asyncapi.json": asyncapi()}
    values["log/asyncapi.json"] = topics_asyncapi()
    for name, model in MESSAGES.items():
        values[f"messages/{name}.json"] = json_schema(name)
        values[f"examples/valid/{name}/typical.json"] = EXAMPLES[model.__name__]
    codec = JsonCodec()
    for form in ("shared", "exceptions", "columns"):
        event = json.loads(codec.plain(codec.encode(sample_chunk(form))))
        values[f"examples/valid/chunk-event/{form}.json"] = event
    files = {path: json.dumps(value, ensure_ascii=False, indent=1) + "\n" for path, value in values.items()}
    if readme is not None:
        files["README.md"] = refreshed(readme)
    return files


GENERATED: Final = ("http/**/*", "webhooks/**/*", "messages/**/*", "log/**/*.json")
"""Folders in which nothing but generated files may stand."""


def compare(app: FastAPI, folder: Path) -> tuple[dict[str, str], list[str]]:
    """What must be written so that ``folder`` holds the contract (path -> text), and which files there are strays."""
    readme = folder / "README.md"
    made = documents(app, readme.read_text(encoding="utf-8") if readme.exists() else None)
    differing = {name: text for name, text in made.items() if _read(folder / name) != text}
    found = (path for pattern in GENERATED for path in folder.glob(pattern) if path.is_file())
    strays = sorted(name for name in (path.relative_to(folder).as_posix() for path in found) if name not in made)
    return differing, strays


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None
