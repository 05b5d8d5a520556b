"""The layers of hub/ARCHITECTURE.md: imports point downwards, third-party packages stay where they belong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

ROWS = {"app": 6, "web": 5, "api": 4, "workers": 4, "flow": 3, "adapters": 3, "ports": 2, "wire": 2, "domain": 1}

HOMES = {  # package -> the only places below hub/ that may import it
    "fastapi": ("api", "web", "app"),
    "starlette": ("api", "web", "app"),
    "uvicorn": ("api", "app"),
    "pydantic": ("wire", "api", "web", "app"),
    "pydantic_settings": ("app",),
    "sqlalchemy": ("adapters/sql",),
    "aiokafka": ("adapters/kafka",),
    "redis": ("adapters/redis",),
    "authlib": ("adapters/oauth",),
    "joserfc": ("adapters/oauth", "app"),
    "httptools": ("adapters/webhook",),
    "polars": ("adapters/files", "adapters/number_plan", "app"),
    "plotly": ("web",),
    "jinja2": ("web",),
    "opentelemetry": ("adapters/telemetry",),
    "prometheus_client": ("adapters/telemetry",),
    "numhub_client": ("app",),
}


def modules() -> list[Path]:
    return sorted((ROOT / "hub").rglob("*.py"))


@cache
def imports(path: Path) -> tuple[str, ...]:
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def place(path: Path) -> str:
    return path.relative_to(ROOT / "hub").as_posix()


def test_imports_point_downwards() -> None:
    """No module imports a row above it, its own row's other packages, or another adapter folder."""
    wrong = []
    for path in modules():
        package = place(path).split("/")[0]
        if package not in ROWS:
            continue
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "hub" or len(parts) < 2 or parts[1] not in ROWS:
                continue
            target = parts[1]
            same_package = target == package
            if package == "adapters" and same_package:
                same_package = parts[2] == place(path).split("/")[1]
                if not same_package:
                    wrong.append(f"{place(path)} imports the adapter folder {name}")
                    continue
            if not same_package and ROWS[target] >= ROWS[package]:
                wrong.append(f"{place(path)} ({package}) imports {name}")
    assert wrong == []


def test_flow_knows_no_bytes_and_domain_only_the_standard_library() -> None:
    """flow sees ports and domain only; domain imports nothing outside the standard library."""
    import sys

    wrong = []
    for path in modules():
        for name in imports(path):
            top = name.split(".")[0]
            if place(path).startswith("flow/") and name.startswith("hub.wire"):
                wrong.append(f"{place(path)} imports {name}")
            if place(path).startswith("domain/") and top != "hub" and top not in sys.stdlib_module_names:
                wrong.append(f"{place(path)} imports {name}")
    assert wrong == []


@pytest.mark.parametrize("package", sorted(HOMES))
def test_a_third_party_package_is_imported_in_its_home_only(package: str) -> None:
    """Each borrowed package has one home, so that it can be replaced there."""
    strangers = [
        place(path)
        for path in modules()
        if any(name.split(".")[0] == package for name in imports(path))
        and not place(path).startswith(tuple(home + "/" for home in HOMES[package]))
    ]
    assert strangers == []


def test_there_are_no_import_cycles() -> None:
    """Modules form a directed acyclic graph (imports for type checking only are left out)."""
    names = {("hub." + place(p)[:-3].replace("/", ".")).removesuffix(".__init__"): p for p in modules()}
    graph: dict[str, set[str]] = {}
    for name, path in names.items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
                node.body = [ast.Pass()]
        found: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module:
                for alias in node.names:
                    deep = f"{node.module}.{alias.name}"
                    found.add(deep if deep in names else node.module)
            elif isinstance(node, ast.Import):
                found.update(alias.name for alias in node.names)
        graph[name] = {other for other in found if other in names and other != name}

    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join((*trail, name))
        if name in done:
            return
        for other in sorted(graph[name]):
            walk(other, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        walk(name, ())


def test_clients_never_import_the_hub() -> None:
    """clients/ and hub/ meet only in schemas/ and over HTTP."""
    files = sorted((ROOT / "clients").rglob("*.py"))
    assert files
    assert [p for p in files if any(n.split(".")[0] == "hub" for n in imports(p))] == []
