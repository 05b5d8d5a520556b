"""deploy/compose.yaml: fits the Compose specification, and what it starts is a hub that would start."""

from __future__ import annotations

import importlib.resources
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from hub.app.settings import Settings, load

FILE = Path(__file__).parents[2] / "deploy" / "compose.yaml"
OURS = {"keys", "topics", "migrate", "api", "worker-1", "worker-2"}
JOBS = {"keys", "topics", "migrate"}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(FILE.read_text("utf-8"))
    return found


def schema() -> dict[str, Any]:
    folder = importlib.resources.files("check_jsonschema.builtin_schemas") / "vendor"
    found: dict[str, Any] = json.loads((folder / "compose-spec.json").read_text("utf-8"))
    return found


def test_it_fits_the_compose_specification(compose: dict[str, Any]) -> None:
    """By the specification's own schema; which finds a misspelt member."""
    jsonschema.validate(compose, schema())
    wrong = json.loads(json.dumps(compose))
    wrong["services"]["api"]["depend_on"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema())


def test_every_variable_is_a_setting(compose: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the services are given starts a hub, with folders that are mounted."""
    known = {f"NUMHUB_{name.upper()}" for name in Settings.model_fields}
    for name in OURS:
        service = compose["services"][name]
        given = service["environment"]
        assert {one for one in given if one.startswith("NUMHUB_")} == set(given) and set(given) <= known
        with monkeypatch.context() as patch:
            for variable, value in given.items():
                patch.setenv(variable, value)
            settings = load(host="0.0.0.0", data_dir=Path("/data"))
        mounted = [volume.split(":")[1] for volume in service.get("volumes", [])]
        if name not in JOBS:
            assert "/data" in mounted
            shared = (settings.keys_dir, settings.batches_dir, settings.snapshots_dir)
            assert all(folder.startswith("/shared/") for folder in shared)
            assert "/shared" in mounted


def test_addresses_in_the_settings_are_services(compose: dict[str, Any]) -> None:
    """Brokers, database and Redis are asked for by the names and ports they have here."""
    services = compose["services"]
    given = services["api"]["environment"]
    host, port = given["NUMHUB_KAFKA_BOOTSTRAP"].split(":")
    assert f"://:{port}" in services[host]["environment"]["KAFKA_LISTENERS"]
    assert f"{host}:{port}" in services[host]["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    db = services["postgres"]["environment"]
    wanted = f"postgresql://{db['POSTGRES_USER']}:{db['POSTGRES_PASSWORD']}@postgres:5432/{db['POSTGRES_DB']}"
    assert given["NUMHUB_LEDGER_URL"] == wanted
    assert given["NUMHUB_REDIS_URL"].startswith("redis://redis:6379/")


def test_everything_waits_for_what_it_needs(compose: dict[str, Any]) -> None:
    """Dependencies exist and say when they are done: engines by their health, jobs by their end."""
    services = compose["services"]
    for name, service in services.items():
        for other, how in service.get("depends_on", {}).items():
            ends = services[other].get("restart") == "no"
            assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy"), (name, other)
            assert ends or "test" in services[other]["healthcheck"]
    for name in OURS - JOBS:
        assert set(services[name]["depends_on"]) == {"keys", "topics", "migrate", "redis"}
        assert "test" in services[name]["healthcheck"]


def test_nothing_is_reachable_from_another_machine_and_the_hub_may_do_little(compose: dict[str, Any]) -> None:
    """Ports on loopback only; the hub's own root file system is read-only and it has no privilege."""
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        if name in OURS:
            assert service["read_only"] is True and service["tmpfs"] == ["/tmp"]
            assert service["cap_drop"] == ["ALL"] and service["security_opt"] == ["no-new-privileges:true"]
            assert "user" not in service
    for volume in compose["volumes"]:
        assert any(f"{volume}:" in mount for s in compose["services"].values() for mount in s.get("volumes", []))
