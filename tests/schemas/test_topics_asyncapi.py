"""The AsyncAPI document of the Kafka topics holds together, and says what hub and deploy/topics.yaml say."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from test_asyncapi import all_refs, resolve

from hub.app import contract
from hub.ports.topics import TopicNames
from hub.wire.answers import FOR_CARRIERS, FOR_REGULATORS
from hub.wire.ingress import REPORT, SCHEMA

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return json.loads((ROOT / "schemas/log/asyncapi.json").read_text(encoding="utf-8"))


def test_references_lead_somewhere_and_messages_are_the_channels(document: dict[str, Any]) -> None:
    """An operation's messages are those of its channel, referred to by way of it."""
    assert document["asyncapi"] == "3.0.0"
    assert all(resolve(document, ref) is not None for ref in all_refs(document))
    for operation in document["operations"].values():
        channel = operation["channel"]["$ref"]
        assert all(message["$ref"].startswith(f"{channel}/messages/") for message in operation["messages"])
    actions = {name: operation["action"] for name, operation in document["operations"].items()}
    assert actions == {"ingress": "receive", "rejects": "send", "answers.carrier": "send", "answers": "send"}


def test_addresses_are_the_names_the_hub_uses(document: dict[str, Any]) -> None:
    """Every topic the hub reads or writes for parties stands in the document, and no other."""
    names = TopicNames("numhub.")
    used = {names.ingress("{carrier}"), names.rejects("{carrier}"), names.answers("{carrier}"), names.answers()}
    assert {channel["address"] for channel in document["channels"].values()} == used
    for channel in document["channels"].values():
        assert ("{carrier}" in channel["address"]) == ("parameters" in channel)


def test_topics_are_kept_as_the_document_says(document: dict[str, Any]) -> None:
    """deploy/topics.yaml makes what the Kafka bindings promise: compacted where the newest of a key counts."""
    shipped = yaml.safe_load((ROOT / "deploy/topics.yaml").read_text(encoding="utf-8"))
    policy = {one["name"]: one["configs"]["cleanup.policy"] for one in [*shipped["topics"], *shipped["patterns"]]}
    configs = {one["name"]: one["configs"] for one in shipped["patterns"]}
    for channel in document["channels"].values():
        binding = channel["bindings"]["kafka"]
        assert binding["bindingVersion"] == "0.5.0"
        name = channel["address"].removeprefix("numhub.").replace("{carrier}", "<carrier>")
        assert ",".join(binding["topicConfiguration"]["cleanup.policy"]) == policy[name]
    assert configs["ingress.<carrier>"]["compression.type"] == "uncompressed"


def test_payloads_are_schemas_and_the_examples_fit(document: dict[str, Any]) -> None:
    """Draft 7, as AsyncAPI takes it without saying so; each example is valid; headers name the version."""
    messages = document["components"]["messages"]
    assert {message["title"] for message in messages.values()} == {*contract.TOLD, "ingress-event", "ingress-list"}
    for message in messages.values():
        schema = {**resolve(document, message["payload"]["$ref"]), "components": document["components"]}
        Draft7Validator.check_schema(schema)
        Draft7Validator.check_schema(message["headers"])
        for example in message["examples"]:
            assert list(Draft7Validator(schema).iter_errors(example["payload"])) == []
        (version,) = message["headers"]["properties"]["schema"]["enum"]
        assert version == message["examples"][0]["payload"]["schema"]
        assert message["bindings"]["kafka"]["key"]["description"]
    versions = {message["headers"]["properties"]["schema"]["enum"][0] for message in messages.values()}
    assert versions == {SCHEMA, REPORT, FOR_CARRIERS, FOR_REGULATORS}


def test_what_a_carrier_may_read_names_no_app_and_no_disposition(document: dict[str, Any]) -> None:
    """By class, grouped in four: the schema itself has no place for more."""
    answer, counts = (document["components"]["schemas"][name] for name in ("CarrierAnswer", "ClassCounts"))
    assert set(answer["properties"]) == {
        "schema", "chunk_id", "event_type", "batch_id", "app_class", "version", "count", "counts", "held_rows",
        "failed_rows", "as_of",
    }  # fmt: skip
    assert set(counts["properties"]) == {"done", "held", "pending", "failed"}


def test_links_of_the_topics_readme_lead_somewhere() -> None:
    """Files named there are there, and so are the topics."""

    text = (ROOT / "schemas/log/README.md").read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?:)([^)#]+)\)", text)
    assert targets and [target for target in targets if not (ROOT / "schemas/log" / target).exists()] == []
