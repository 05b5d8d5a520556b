"""The AsyncAPI document holds together, by the rules of AsyncAPI 3.0 that it uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from hub.app import contract

PATH = Path(__file__).parents[2] / "schemas/webhooks/asyncapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return json.loads(PATH.read_text(encoding="utf-8"))


def resolve(document: Any, ref: str) -> Any:
    assert ref.startswith("#/"), ref
    for step in ref[2:].split("/"):
        document = document[step]
    return document


def all_refs(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for member in value.values() for ref in all_refs(member)]
    return [ref for member in value for ref in all_refs(member)] if isinstance(value, list) else []


def test_required_members_stand_and_references_lead_somewhere(document: dict[str, Any]) -> None:
    """Version, info, channels with messages, operations with action and channel."""
    assert document["asyncapi"] == "3.0.0"
    assert {"title", "version"} <= set(document["info"])
    found = all_refs(document)
    assert len(found) > 20
    for ref in found:
        assert resolve(document, ref) is not None
    for operation in document["operations"].values():
        assert operation["action"] in ("send", "receive")
        assert operation["channel"]["$ref"] == "#/channels/endpoint"
        for message in [*operation["messages"], *operation.get("reply", {}).get("messages", [])]:
            # an operation's messages must be a subset of its channel's, referred to by way of the channel
            assert message["$ref"].startswith("#/channels/endpoint/messages/")


def test_every_message_is_sent_by_one_operation(document: dict[str, Any]) -> None:
    """What the hub delivers is what the document shows, with a payload and signed headers."""
    sent = [ref["$ref"] for operation in document["operations"].values() for ref in operation["messages"]]
    names = [ref.rpartition("/")[2] for ref in sent]
    assert sorted(names) == sorted(model.__name__ for model in contract.DELIVERED.values())
    for name in names:
        message = document["components"]["messages"][name]
        assert message["contentType"] == "application/cloudevents+json"
        assert {"$ref": "#/components/messageTraits/signed"} in message["traits"]


def test_payloads_are_schemas_and_the_examples_fit(document: dict[str, Any]) -> None:
    """Schemas are of the dialect AsyncAPI takes without saying so (draft 7), and each example is valid."""
    for message in document["components"]["messages"].values():
        schema = {**resolve(document, message["payload"]["$ref"]), "components": document["components"]}
        Draft7Validator.check_schema(schema)
        for example in message["examples"]:
            assert list(Draft7Validator(schema).iter_errors(example["payload"])) == []
    for name in ("WebhookHeaders", "ChunkHeaders"):
        Draft7Validator.check_schema(document["components"]["schemas"][name])
