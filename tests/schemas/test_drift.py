"""What stands below schemas/ is what the code says, no more and no less."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from hub.api.catalogue import CATALOGUE
from hub.api.description import OWN_CODES, TAGS
from hub.app import contract
from hub.app.cli.operate import CONTRACT_URL
from hub.app.settings import Settings
from hub.app.wiring import build
from hub.domain import errors
from hub.domain.dispositions import Disposition
from hub.domain.parties import Scope

ROOT = Path(__file__).parents[2]
SCHEMAS = ROOT / "schemas"

TRANSPORT = {
    "bad_request", "no_such_address", "method_not_allowed", "request_timeout", "uri_too_long", "headers_too_large",
    "expectation_failed", "range_not_satisfiable",
}  # fmt: skip
"""Any request may meet these; the document's introduction names them."""

ELSEWHERE = {
    "app_exists", "wrong_role",  # commands, not HTTP
    "conflict",  # a status without a code of its own
    "invalid_endpoint",
}  # fmt: skip


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[FastAPI]:
    hub = await build(Settings(data_dir=tmp_path / "data"), public_url=CONTRACT_URL)
    yield hub.app
    await hub.close()


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return json.loads((SCHEMAS / "http/openapi.json").read_text(encoding="utf-8"))


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()]


def resolve(document: Any, ref: str) -> Any:
    assert ref.startswith("#/"), ref
    for step in ref[2:].split("/"):
        document = document[step.replace("~1", "/").replace("~0", "~")]
    return document


def refs(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [ref for member in value.values() for ref in refs(member)]
    return [ref for member in value for ref in refs(member)] if isinstance(value, list) else []


async def test_the_files_are_what_the_models_say(app: FastAPI) -> None:
    """Generating again changes nothing, and no stray file stands among them (else: `numhub schemas schemas`)."""
    differing, strays = contract.compare(app, SCHEMAS)
    assert sorted(differing) == []
    assert strays == []


async def test_a_changed_and_a_stray_file_are_told(app: FastAPI, tmp_path: Path) -> None:
    """The comparison sees a file that is missing, one that was edited and one that is nobody's."""
    (tmp_path / "messages").mkdir()
    (tmp_path / "messages/unheard-of.json").write_text("{}")
    (tmp_path / "messages/batch-in.json").write_text("{}")
    differing, strays = contract.compare(app, tmp_path)
    assert {"http/openapi.json", "messages/batch-in.json"} <= set(differing)
    assert strays == ["messages/unheard-of.json"]


def test_the_command_compares(tmp_path: Path) -> None:
    """`numhub schemas FOLDER --check` writes nothing and ends with 1 where something differs."""
    command = [sys.executable, "-m", "hub.app.cli", "schemas", str(tmp_path), "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1, done.stderr
    assert "differs" in done.stdout
    assert list(tmp_path.iterdir()) == []


async def test_every_route_is_in_the_document_and_every_path_has_a_route(
    app: FastAPI, document: dict[str, Any]
) -> None:
    """Only pages for people's browsers and the document itself are left out."""
    routes = set()
    included = [getattr(route, "original_router", None) for route in app.routes]
    every = [*app.routes, *(route for router in included if router is not None for route in router.routes)]
    for route in every:
        if isinstance(route, APIRoute) and not route.endpoint.__module__.startswith("hub.web."):
            routes |= {(route.path, method.lower()) for method in route.methods}
    assert len(routes) > 40
    assert routes == {(path, method) for path, method, _ in operations(document)}


def test_operations_read_well(document: dict[str, Any]) -> None:
    """Each has a unique plain name, a summary, a sentence on what it does, and a tag that is explained."""
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    assert all(name.replace("_", "").isalpha() and name.islower() for name in names)
    tags = {tag["name"] for tag in document["tags"]}
    assert tags == set(TAGS)
    for _, _, operation in operations(document):
        assert operation["summary"]
        assert operation["tags"][0] in tags
    assert tags == {operation["tags"][0] for _, _, operation in operations(document)}
    assert document["servers"] == [{"url": "https://hub.example", "description": "this hub"}]


def test_bodies_have_named_schemas(document: dict[str, Any]) -> None:
    """Every JSON body of a request or a 2xx has a schema of a name, and every reference leads somewhere."""
    for path, method, operation in operations(document):
        bodies = [response for status, response in operation["responses"].items() if status.startswith("2")]
        bodies.append(operation.get("requestBody", {}))
        for body in bodies:
            for kind, media in body.get("content", {}).items():
                assert media.get("schema"), (path, method, kind)
                if kind.endswith("json"):
                    assert media["schema"]["$ref"].startswith("#/components/schemas/"), (path, method)
                    assert "example" in media, (path, method)
    for ref in refs(document):
        assert resolve(document, ref)


def test_every_operation_says_who_may_call_it(document: dict[str, Any]) -> None:
    """All of /v1 asks for a token with a scope that is explained; everything else is open."""
    scheme = document["components"]["securitySchemes"]["access_token"]
    scopes = scheme["flows"]["clientCredentials"]["scopes"]
    assert set(scopes) == set(Scope)
    for path, _, operation in operations(document):
        needs = [scope for need in operation["security"] for scope in need["access_token"]]
        assert set(needs) <= set(scopes)
        assert bool(needs) == path.startswith("/v1/"), path


def test_refusals_are_listed_by_code(document: dict[str, Any]) -> None:
    """Each code of the catalogue stands at an operation, with an example of its problem; none is unknown."""
    told = set()
    for path, method, operation in operations(document):
        for status, response in operation["responses"].items():
            response = resolve(document, response["$ref"]) if "$ref" in response else response
            problem = response.get("content", {}).get("application/problem+json")
            if problem is None:
                continue
            assert problem["schema"] == {"$ref": "#/components/schemas/Problem"}
            for code, example in problem.get("examples", {}).items():
                value = resolve(document, example["$ref"])["value"]
                assert (str(value["status"]), value["code"]) == (status, code), (path, method)
                told.add(code)
    assert told | TRANSPORT | ELSEWHERE == set(CATALOGUE)
    assert all(f"`{code}`" in document["info"]["description"] for code in TRANSPORT)
    names = {operation["operationId"] for _, _, operation in operations(document)}
    assert set(OWN_CODES) <= names


def test_codes_in_the_source_are_in_the_catalogue() -> None:
    """Whatever code an error is raised with has a page, a status and a remedy."""
    raised = {error.code for error in vars(errors).values() if isinstance(error, type) and hasattr(error, "code")}
    for source in (ROOT / "hub").rglob("*.py"):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and hasattr(errors, node.func.id):
                named = [word.value for word in node.keywords if word.arg == "code"]
                raised |= {value.value for value in named if isinstance(value, ast.Constant)}
    assert raised - set(CATALOGUE) == set()


def test_idempotency_keys_are_required_where_the_hub_requires_them(document: dict[str, Any]) -> None:
    """The three calls that publish ask for the header; no other does."""
    asking = {}
    for _, _, operation in operations(document):
        for parameter in operation.get("parameters", []):
            if parameter["name"] == "Idempotency-Key":
                asking[operation["operationId"]] = parameter["required"]
    assert asking == {"announce_batch": True, "publish_events": True, "request_renewal": True}


def test_raw_bodies_are_described(document: dict[str, Any]) -> None:
    """Content goes up as bytes, refused rows come down as CSV, a chunk as a CloudEvent; HEAD has no body."""
    paths = document["paths"]
    content = paths["/v1/batches/{batch_id}/content"]
    assert list(content["put"]["requestBody"]["content"]) == ["application/octet-stream"]
    assert list(paths["/v1/batches/{batch_id}/result"]["get"]["responses"]["200"]["content"]) == ["text/csv"]
    chunk = paths["/v1/chunks/{chunk_id}"]["get"]["responses"]["200"]["content"]
    assert chunk["application/cloudevents+json"]["schema"] == {"$ref": "#/components/schemas/ChunkEvent"}
    head = content["head"]["responses"]
    assert "Upload-Offset" in head["200"]["headers"]
    for response in head.values():
        response = resolve(document, response["$ref"]) if "$ref" in response else response
        assert "content" not in response


def test_requests_are_closed_and_answers_open(document: dict[str, Any]) -> None:
    """A request with an unknown member is refused; a reader of answers lets new members pass."""
    schemas = document["components"]["schemas"]
    assert all(schemas[name]["additionalProperties"] is False for name in ("BatchIn", "EventIn", "AckException"))
    assert all("additionalProperties" not in schemas[name] for name in ("BatchOut", "ChunkEvent", "Problem"))
    for name in contract.MESSAGES:
        schema = json.loads((SCHEMAS / f"messages/{name}.json").read_text(encoding="utf-8"))
        closed = schema.get("additionalProperties") is False
        assert closed == (name in contract.SENT_IN), name


def test_the_readme_names_every_disposition_and_scheme() -> None:
    """The tables are complete: a disposition without a line would leave a subscriber guessing."""
    made = contract.sections()
    assert all(f"`{one.value}`" in made["dispositions"] for one in Disposition)
    readme = (SCHEMAS / "README.md").read_text(encoding="utf-8")
    assert all(f"<!-- generated: {name} -->" in readme for name in made)
