"""The OpenAPI document is one, by the rules of OpenAPI 3.1 and of a judge that is not ours."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator
from referencing.exceptions import PointerToNowhere

PATH = Path(__file__).parents[2] / "schemas/http/openapi.json"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    assert found["openapi"].startswith("3.1.")
    return found


def faults(document: dict[str, Any]) -> list[str]:
    return [str(error.message) for error in OpenAPIV31SpecValidator(document).iter_errors()]


def test_the_published_document_is_valid(document: dict[str, Any]) -> None:
    """Structure, references, path parameters, unique operation ids, defaults that fit their schema."""
    assert faults(document) == []


def _same_id(document: dict[str, Any]) -> None:
    document["paths"]["/v1/acks"]["post"]["operationId"] = document["paths"]["/v1/check"]["post"]["operationId"]


def _unknown_member(document: dict[str, Any]) -> None:
    document["paths"]["/v1/acks"]["post"]["sumary"] = "x"


def _bad_default(document: dict[str, Any]) -> None:
    document["components"]["schemas"]["BatchIn"]["properties"]["rows"]["default"] = "many"


@pytest.mark.parametrize("spoil", [_same_id, _unknown_member, _bad_default])
def test_the_judge_sees_what_is_wrong(document: dict[str, Any], spoil: Callable[[dict[str, Any]], None]) -> None:
    """Otherwise its silence would prove nothing."""
    spoiled = copy.deepcopy(document)
    spoil(spoiled)
    assert faults(spoiled) != []


def test_the_judge_follows_references(document: dict[str, Any]) -> None:
    """One that leads nowhere ends the judging."""
    spoiled = copy.deepcopy(document)
    spoiled["paths"]["/v1/acks"]["post"]["responses"]["200"] = {"$ref": "#/components/responses/nowhere"}
    with pytest.raises(PointerToNowhere):
        faults(spoiled)
