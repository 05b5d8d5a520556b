"""What Kustomize makes of a folder, as far as deploy/k8s uses Kustomize; anything else is refused.

So the manifests are checked where no kubectl is; where there is one, a test holds the two against each other.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

K8S = Path(__file__).parents[2] / "deploy" / "k8s"
BASE, PRODUCTION = K8S / "base", K8S / "overlays" / "production"

Doc = dict[str, Any]

_KNOWN = {"apiVersion", "kind", "namespace", "labels", "resources", "images", "patches"}


def documents(path: Path) -> list[Doc]:
    return [doc for doc in yaml.safe_load_all(path.read_text("utf-8")) if doc]


def render(folder: Path) -> list[Doc]:
    (kustomization,) = documents(folder / "kustomization.yaml")
    assert set(kustomization) <= _KNOWN, f"{folder}: this renderer does not know {set(kustomization) - _KNOWN}"
    found: list[Doc] = []
    for name in kustomization["resources"]:
        place = (folder / name).resolve()
        found += render(place) if place.is_dir() else documents(place)
    if namespace := kustomization.get("namespace"):
        for doc in found:
            if doc["kind"] != "Namespace":
                doc["metadata"]["namespace"] = namespace
    for label in kustomization.get("labels", []):
        assert set(label) == {"pairs"}
        for doc in found:
            doc["metadata"].setdefault("labels", {}).update(label["pairs"])
    for patch in kustomization.get("patches", []):
        assert set(patch) == {"path"}
        for change in documents(folder / patch["path"]):
            (target,) = (doc for doc in found if key(doc) == key(change))
            merged = merge(target, change)
            found[found.index(target)] = merged
    for image in kustomization.get("images", []):
        for doc in found:
            for container in containers(doc):
                if container["image"] == image["name"]:
                    container["image"] = f"{image['newName']}:{image['newTag']}"
    return found


def key(doc: Doc) -> tuple[str, str, str]:
    return doc["kind"], doc["metadata"]["name"], doc["metadata"].get("namespace", "")


def merge(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        assert None not in new.values(), "this renderer removes nothing"
        return old | {name: merge(old[name], value) if name in old else value for name, value in new.items()}
    assert not isinstance(new, list), "this renderer merges no lists"
    return copy.deepcopy(new)


def pod(doc: Doc) -> Doc | None:
    """The pod template's spec, where the document has one."""
    spec: Doc | None = doc.get("spec", {}).get("template", {}).get("spec")
    return spec


def containers(doc: Doc) -> list[Doc]:
    spec = pod(doc)
    return [] if spec is None else [*spec.get("initContainers", []), *spec["containers"]]
