"""The examples below schemas/ hold against JSON Schema and model alike; what the hub really sends does too."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from hub.adapters.codec.json_codec import JsonCodec
from hub.app import contract
from hub.domain.events import EventType, Lane, Purpose
from hub.domain.parties import AppClass, DeliveryMode, SigningSecret, Subscription, SubscriptionState
from hub.wire.chunk import ChunkEvent
from hub.wire.delivery import WebhookEnvelope
from hub.wire.examples import EXAMPLES

SCHEMAS = Path(__file__).parents[2] / "schemas"
VALID = sorted((SCHEMAS / "examples/valid").glob("*/*.json"))
INVALID = sorted((SCHEMAS / "examples/invalid").glob("*/*.json"))
NOW = datetime(2026, 6, 1, 2, tzinfo=UTC)
RULES_OF_THE_MODEL = {
    "count-differs-from-numbers", "numbers-not-ascending", "attribute-shared-and-column", "no-cutoff",
    "column-too-short", "exception-without-shared-value", "exception-row-outside", "type-of-another-event",
    "id-of-another-chunk", "time-without-zone",
}  # fmt: skip
"""Invalid examples that a JSON Schema lets pass, since it cannot say what is wrong with them."""


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((SCHEMAS / f"messages/{name}.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", VALID, ids=of)
def test_valid_examples_pass(path: Path) -> None:
    """Both the published schema and the hub's own model take it."""
    text = path.read_text(encoding="utf-8")
    assert list(validator(path.parent.name).iter_errors(json.loads(text))) == []
    contract.MESSAGES[path.parent.name].model_validate_json(text)


@pytest.mark.parametrize("path", INVALID, ids=of)
def test_invalid_examples_fail(path: Path) -> None:
    """The model refuses it for the reason its name says, the schema too where a schema can."""
    text = path.read_text(encoding="utf-8")
    with pytest.raises(ValidationError):
        contract.MESSAGES[path.parent.name].model_validate_json(text)
    passes = validator(path.parent.name).is_valid(json.loads(text))
    assert passes == (path.stem in RULES_OF_THE_MODEL)


def test_every_message_has_a_valid_example_and_every_request_an_invalid_one() -> None:
    """No folder is of a message that is not there."""
    assert {path.parent.name for path in VALID} == set(contract.MESSAGES)
    wrong = {path.parent.name for path in INVALID}
    assert wrong <= set(contract.MESSAGES)
    missing = set(contract.SENT_IN) - wrong - {"proof-answer", "subscription-patch", "key-in"}
    assert missing == set()


def test_examples_of_the_document_fit_their_models() -> None:
    """Each model named in `EXAMPLES` takes its example, those included that have no file of their own."""
    from hub.wire.base import Message

    def below(kind: type[Any]) -> dict[str, type[Any]]:
        found = {one.__name__: one for one in kind.__subclasses__()}
        for one in list(found.values()):
            found |= below(one)
        return found

    models = below(Message)
    for name, example in EXAMPLES.items():
        models[name].model_validate_json(json.dumps(example))


@pytest.mark.parametrize("form", ["shared", "exceptions", "columns"])
def test_a_chunk_as_the_codec_writes_it_fits(form: str) -> None:
    """In each of the three forms of an attribute: schema, model and the client read the same."""
    chunk = contract.sample_chunk(form)
    plain = JsonCodec().plain(JsonCodec().encode(chunk))
    data = json.loads(plain)["data"]
    assert ("binding_cutoff_at" in data["columns"]) == (form == "columns")
    assert ("binding_cutoff_at" in data["exceptions"]) == (form == "exceptions")
    assert list(validator("chunk-event").iter_errors(json.loads(plain))) == []
    read = ChunkEvent.model_validate_json(plain)
    assert read.data.numbers == chunk.numbers.tolist()


def test_optional_attributes_fit_in_every_form() -> None:
    """A release date or reason that only some rows state is null in the others, shared, excepted or in a column."""
    chunk = contract.sample_chunk("exceptions")
    seen = set()
    for stated in (1, 10, 19):
        planned = np.zeros(len(chunk), np.int64)
        planned[:stated] = 1_782_835_200
        reason = np.zeros(len(chunk), np.uint8)
        reason[:stated] = 2
        plain = JsonCodec().plain(JsonCodec().encode(replace(chunk, release_planned_at=planned, reason=reason)))
        data = json.loads(plain)["data"]
        seen |= {place for place in ("exceptions", "columns") if "release_planned_at" in data[place]}
        assert list(validator("chunk-event").iter_errors(json.loads(plain))) == []
        ChunkEvent.model_validate_json(plain)
    assert seen == {"exceptions", "columns"}


@pytest.mark.parametrize("event", EventType)
def test_every_event_type_fits(event: EventType) -> None:
    """The type of the envelope follows the event for all of them, a chunk of one with a renewal included."""
    one = contract.sample_chunk("shared")
    first = {
        name: getattr(one, name)[:1] for name in ("numbers", "generation", "seq", "occurred_at", "binding_cutoff_at")
    }
    renewal = {"renewal_id": "ren_0a1b2c3d", "due_at": 1_780_934_400, "consent_digest": "00" * 32}
    chunk = replace(
        one, **first, event_type=event, lane=Lane.live,
        renewal=renewal if event is EventType.renewal_requested else None,
    )  # fmt: skip
    plain = JsonCodec().plain(JsonCodec().encode(chunk))
    assert list(validator("chunk-event").iter_errors(json.loads(plain))) == []
    assert ChunkEvent.model_validate_json(plain).data.event_type is event


def subscription(mode: DeliveryMode) -> Subscription:
    return Subscription(
        subscription_id="sub_9f86d081884c7d65",
        subscriber_id="shop",
        app_id="shop-app",
        app_class=AppClass.e_commerce,
        purpose=Purpose.account_unbind,
        event_types=frozenset(EventType),
        lanes=frozenset(Lane),
        mode=mode,
        state=SubscriptionState.active,
        created_at=NOW,
        endpoint="https://hooks.example.com/numhub",
        secrets=(SigningSecret("v1", bytes(range(32)), NOW),),
    )


def posted(name: str) -> tuple[dict[str, str], bytes]:
    """Headers and body as the hub would post them."""
    envelope = WebhookEnvelope()
    if name == "proof-event":
        return envelope.proof(subscription(DeliveryMode.webhook_full), proof_id="prf_0a1b2c3d", challenge="x", now=NOW)
    if name == "test-event":
        return envelope.test_event(subscription(DeliveryMode.webhook_full), event_id="tst_0a1b2c3d", now=NOW)
    chunk = contract.sample_chunk("shared")
    mode = DeliveryMode.webhook_pointer if name == "pointer-event" else DeliveryMode.webhook_full
    return envelope.chunk(
        subscription(mode),
        chunk_id=chunk.record_id,
        event_type=chunk.event_type.value,
        lane=chunk.lane.value,
        count=len(chunk),
        reported_at=chunk.reported_at,
        plain=JsonCodec().plain(JsonCodec().encode(chunk)),
        now=NOW,
        superseded="1",
    )


@pytest.mark.parametrize("name", sorted(contract.DELIVERED))
def test_what_is_posted_fits_headers_and_payload(name: str) -> None:
    """Every webhook the hub makes fits the AsyncAPI document's headers and its message's schema and model."""
    headers, body = posted(name)
    document = json.loads((SCHEMAS / "webhooks/asyncapi.json").read_text(encoding="utf-8"))
    schemas = document["components"]["schemas"]
    assert list(Draft202012Validator(schemas["WebhookHeaders"]).iter_errors(headers)) == []
    if name in ("chunk-event", "pointer-event"):
        assert list(Draft202012Validator(schemas["ChunkHeaders"]).iter_errors(headers)) == []
    known = {*schemas["WebhookHeaders"]["properties"], *schemas["ChunkHeaders"]["properties"]}
    assert set(headers) - known <= {"content-type", "user-agent"}
    assert headers["content-type"] == contract.CLOUD_EVENT
    assert list(validator(name).iter_errors(json.loads(body))) == []
    contract.MESSAGES[name].model_validate_json(body)
