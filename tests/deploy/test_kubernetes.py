"""deploy/k8s: every document fits its schema, and the documents fit each other, the hub and its settings."""

from __future__ import annotations

import json
import shutil
import subprocess
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from hub.adapters.webhook import guard
from hub.app.settings import Settings, load
from hub.app.wiring import build
from tests.deploy.manifests import BASE, PRODUCTION, Doc, containers, key, pod, render

VERSIONS = ("1.31", "1.34")
CLOSING_SECONDS = 10  # what closing files and connections may take after both drains


@pytest.fixture(scope="module", params=[BASE, PRODUCTION], ids=["base", "production"])
def docs(request: pytest.FixtureRequest) -> list[Doc]:
    return render(request.param)


@pytest.fixture(scope="module")
def production() -> list[Doc]:
    return render(PRODUCTION)


def of(docs: list[Doc], kind: str) -> list[Doc]:
    return [doc for doc in docs if doc["kind"] == kind]


def named(docs: list[Doc], kind: str, name: str) -> Doc:
    (found,) = (doc for doc in of(docs, kind) if doc["metadata"]["name"] == name)
    return found


def fits(selector: Doc, labels: dict[str, str]) -> bool:
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    plain = all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())
    return plain and all(
        rule["operator"] == "In" and labels.get(rule["key"]) in rule["values"]
        for rule in selector.get("matchExpressions", [])
    )


def templates(docs: list[Doc]) -> list[Doc]:
    return [doc for doc in docs if pod(doc) is not None]


def labels(doc: Doc) -> dict[str, str]:
    found: dict[str, str] = doc["spec"]["template"]["metadata"]["labels"]
    return found


def settings_of(docs: list[Doc], doc: Doc) -> dict[str, str]:
    """NUMHUB_* of a pod: from the shared map and of its own; secrets get a stand-in."""
    (container,) = containers(doc)
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        found |= named(docs, "ConfigMap", source["configMapRef"]["name"])["data"]
    found |= {one["name"]: one.get("value", "postgresql://from.a.secret/x") for one in container["env"]}
    return {name: value for name, value in found.items() if name.startswith("NUMHUB_")}


# ---- each for itself


@pytest.mark.parametrize("version", VERSIONS)
def test_every_document_fits_the_schema_of_its_kind(docs: list[Doc], version: str) -> None:
    """Strictly: a member the cluster does not know is an error, not a wish that nobody hears."""
    assert len(docs) > 15
    for doc in docs:
        kubernetes_validate.validate(json.loads(json.dumps(doc)), version, strict=True)


def test_the_schemas_find_what_is_wrong(docs: list[Doc]) -> None:
    """The check can fail: a misspelt member and a wrong type are found."""
    for path, value in ((("spec", "replicsa"), 3), (("spec", "revisionHistoryLimit"), "three")):
        doc = json.loads(json.dumps(named(docs, "Deployment", "numhub-api")))
        doc[path[0]][path[1]] = value
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(doc, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("folder", [BASE, PRODUCTION], ids=["base", "production"])
@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kustomize_makes_the_same_of_it(folder: Path) -> None:
    """What these tests look at is what kubectl would apply."""
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=True)
    theirs = {key(doc): doc for doc in yaml.safe_load_all(done.stdout)}
    assert theirs == {key(doc): doc for doc in render(folder)}


# ---- to each other


def test_selectors_meet_the_pods_they_mean(docs: list[Doc]) -> None:
    """Service, budget, spread and workload select the pods of their own name, and no others."""
    pods = {doc["metadata"]["name"]: labels(doc) for doc in templates(docs)}
    seen = 0
    for doc in docs:
        name = doc["metadata"]["name"]
        if doc["kind"] in ("Deployment", "StatefulSet", "PodDisruptionBudget"):
            assert [other for other, its in pods.items() if fits(doc["spec"]["selector"], its)] == [name]
            seen += 1
        if doc["kind"] == "Service":
            assert [o for o, its in pods.items() if fits({"matchLabels": doc["spec"]["selector"]}, its)] == [name]
            seen += 1
        for rule in (pod(doc) or {}).get("topologySpreadConstraints", []):
            assert [other for other, its in pods.items() if fits(rule["labelSelector"], its)] == [name]
            seen += 1
    assert seen == 10


def test_ports_meet(docs: list[Doc]) -> None:
    """Service, probe, scrape and ingress ports are ports of the container they lead to."""
    for doc in of(docs, "Deployment") + of(docs, "StatefulSet"):
        (container,) = containers(doc)
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert container[probe]["httpGet"]["port"] in ports
        said = doc["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"]
        assert int(said) in ports.values()
        service = named(docs, "Service", doc["metadata"]["name"])
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= set(ports)
    for ingress in of(docs, "Ingress"):
        for path in ingress["spec"]["rules"][0]["http"]["paths"]:
            backend = path["backend"]["service"]
            service = named(docs, "Service", backend["name"])
            assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    stateful = of(docs, "StatefulSet")[0]
    assert named(docs, "Service", stateful["spec"]["serviceName"])["spec"]["clusterIP"] == "None"
    (scaler,) = of(docs, "HorizontalPodAutoscaler")
    target = scaler["spec"]["scaleTargetRef"]
    assert "replicas" not in named(docs, target["kind"], target["name"])["spec"], "two would set the number of pods"


def test_volumes_meet_mounts(docs: list[Doc]) -> None:
    """Each mount has its volume and each volume its mount; claims and secrets are referred to, never written out."""
    claims = {doc["metadata"]["name"] for doc in of(docs, "PersistentVolumeClaim")}
    for doc in templates(docs):
        spec = pod(doc)
        assert spec is not None
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        own = {claim["metadata"]["name"] for claim in doc["spec"].get("volumeClaimTemplates", [])}
        (container,) = containers(doc)
        assert {mount["name"] for mount in container["volumeMounts"]} == {*volumes, *own}
        assert {
            v["persistentVolumeClaim"]["claimName"] for v in volumes.values() if "persistentVolumeClaim" in v
        } <= claims
    assert of(docs, "Secret") == []
    assert claims == {"numhub-batches", "numhub-snapshots"}
    assert all(doc["spec"]["accessModes"] == ["ReadWriteMany"] for doc in of(docs, "PersistentVolumeClaim"))


# ---- to the hub


def test_every_variable_is_a_setting_and_the_values_are_good(docs: list[Doc], monkeypatch: pytest.MonkeyPatch) -> None:
    """What the pods are given starts a hub: no unknown name, no value it refuses."""
    known = {f"NUMHUB_{name.upper()}" for name in Settings.model_fields}
    for doc in templates(docs):
        given = settings_of(docs, doc)
        assert set(given) <= known
        with monkeypatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            settings = load(host="0.0.0.0", data_dir=Path("/data"))
        assert settings.public_url.startswith("https://") and settings.kafka_bootstrap
        assert settings.profile == "production" and not settings.dangerous_allow_unsafe_kafka
        (container,) = containers(doc)
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {str(settings.data_dir), settings.keys_dir, str(Path(settings.kafka_ca_file).parent)} <= mounted
        if labels(doc)["app.kubernetes.io/component"] != "job":
            assert {settings.batches_dir, settings.snapshots_dir} <= mounted


def test_there_is_time_to_drain(docs: list[Doc], monkeypatch: pytest.MonkeyPatch) -> None:
    """The kubelet waits for preStop, requests and deliveries before it kills."""
    for doc in of(docs, "Deployment") + of(docs, "StatefulSet"):
        spec = pod(doc)
        assert spec is not None
        within = float(settings_of(docs, doc)["NUMHUB_DRAIN_WITHIN"])
        (command,) = (c["lifecycle"]["preStop"]["exec"]["command"] for c in containers(doc))
        assert command[0] == "python" and "sleep(5)" in command[2]
        assert spec["terminationGracePeriodSeconds"] >= 5 + 2 * within + CLOSING_SECONDS


def test_pods_may_do_nothing_they_need_not(docs: list[Doc]) -> None:
    """The restricted pod standard and more: no root, no writing beside their volumes, no token, no privileges."""
    (namespace,) = of(docs, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for doc in templates(docs):
        spec = pod(doc)
        assert spec is not None
        assert spec["automountServiceAccountToken"] is False
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(spec)
        security = spec["securityContext"]
        assert security["runAsNonRoot"] is True and security["runAsUser"] > 1000
        assert security["seccompProfile"] == {"type": "RuntimeDefault"}
        named(docs, "ServiceAccount", spec["serviceAccountName"])
        for container in containers(doc):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
            assert "memory" in container["resources"]["limits"]
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}


def allowed(docs: list[Doc], doc: Doc, direction: str) -> list[tuple[Any, int]]:
    """(peer, port) pairs that some policy lets a pod speak to, or be spoken to by."""
    found = []
    for policy in of(docs, "NetworkPolicy"):
        spec = policy["spec"]
        if direction.capitalize() in spec["policyTypes"] and fits(spec["podSelector"], labels(doc)):
            for rule in spec.get(direction, []):
                peers = rule["from" if direction == "ingress" else "to"]
                assert peers and rule["ports"], "an empty list would mean everybody"
                found += [(peer, port["port"]) for peer in peers for port in rule["ports"]]
    return found


def test_nothing_is_open_that_is_not_named(docs: list[Doc]) -> None:
    """All is denied first. Callers reach the API, watchers the metrics, nobody anything else; jobs send to nobody."""
    deny = named(docs, "NetworkPolicy", "nothing-else")["spec"]
    assert deny == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for doc in templates(docs):
        component = labels(doc)["app.kubernetes.io/component"]
        callers = {
            (peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"], port)
            for peer, port in allowed(docs, doc, "ingress")
        }
        watching = {("monitoring", 8080), ("monitoring", 8081)}
        assert callers == watching | ({("ingress-nginx", 8080)} if component == "api" else set())
        outside = [(peer["ipBlock"], port) for peer, port in allowed(docs, doc, "egress") if "ipBlock" in peer]
        assert {port for _, port in outside} == (set() if component == "job" else {443})


def test_receivers_lie_where_the_hub_itself_would_send(docs: list[Doc]) -> None:
    """The policy's fence and the sender's own rule are one list."""
    blocks = {
        block["cidr"]: {ip_network(text) for text in block["except"]}
        for peer in named(docs, "NetworkPolicy", "receivers")["spec"]["egress"][0]["to"]
        for block in [peer["ipBlock"]]
    }
    assert blocks == {"0.0.0.0/0": set(guard._DENIED_V4), str(guard._PUBLIC_V6): set(guard._DENIED_V6)}
    for text in ("10.1.2.3", "169.254.169.254", "100.64.0.1", "fd00::1", "::1", "2002:7f00:1::"):
        address = ip_address(text)
        assert not any(
            address in ip_network(cidr) and not any(address in net for net in denied)
            for cidr, denied in blocks.items()
            if ip_network(cidr).version == address.version
        )


def test_engines_are_reached_at_the_ports_the_settings_name(docs: list[Doc]) -> None:
    """A broker address in the settings that no policy allows would be a hub that never starts."""
    for doc in templates(docs):
        ports = {port for peer, port in allowed(docs, doc, "egress") if "namespaceSelector" in peer}
        bootstrap = settings_of(docs, doc)["NUMHUB_KAFKA_BOOTSTRAP"]
        assert {int(host.rpartition(":")[2]) for host in bootstrap.split(",")} | {5432, 6379, 53} <= ports


async def test_the_ingress_shows_every_route_but_the_operators(production: list[Doc], tmp_path: Path) -> None:
    """A route added to the hub is reachable, or is one of health and metrics."""
    (ingress,) = of(production, "Ingress")
    paths = ingress["spec"]["rules"][0]["http"]["paths"]

    def shown(path: str) -> bool:
        return any(path == p["path"] or (p["pathType"] == "Prefix" and path.startswith(p["path"] + "/")) for p in paths)

    hub = await build(Settings(data_dir=tmp_path))
    try:
        routes = set(every_path(hub.app.routes))
    finally:
        await hub.close()
    assert len(routes) > 40
    assert {path for path in routes if not shown(path)} == {"/health/live", "/health/ready", "/metrics"}
    host = ingress["spec"]["rules"][0]["host"]
    assert named(production, "ConfigMap", "numhub-settings")["data"]["NUMHUB_PUBLIC_URL"] == f"https://{host}"


def every_path(routes: Any) -> list[str]:
    """Of the routes themselves and of the routers put among them."""
    found: list[str] = []
    for route in routes:
        if isinstance(path := getattr(route, "path", None), str):
            found.append(path)
        if (router := getattr(route, "original_router", None)) is not None:
            found += every_path(router.routes)
    return found


def test_production_names_an_image_of_its_own(production: list[Doc]) -> None:
    """The stand-in of the base is replaced everywhere, by a tag that says which version."""
    images = {container["image"] for doc in production for container in containers(doc)}
    assert images == {"registry.example.com/numhub:0.1.0"}
