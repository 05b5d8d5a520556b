"""Alerts, dashboard and runbook: what they ask for is what the hub says, and each alert has its page."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser as promql
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from hub.adapters.telemetry.prometheus import PrometheusMetrics
from hub.domain.shards import SHARDS
from hub.ports.metrics import METRICS

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES, TESTS = DEPLOY / "prometheus" / "rules.yaml", DEPLOY / "prometheus" / "rules.test.yaml"
GIVEN_BY_PROMETHEUS = {"instance", "job"}


def alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(RULES.read_text("utf-8"))["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DEPLOY / "grafana" / "numhub.json").read_text("utf-8"))["panels"]
    return found


def queries() -> Iterator[tuple[str, str]]:
    """(where, expression)"""
    for rule in alerts():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"].replace("$__rate_interval", "5m").replace("$__range", "1h")


def selectors(node: Any) -> Iterator[Any]:
    """Every vector selector below ``node``."""
    if isinstance(node, promql.VectorSelector):
        yield node
    for name in ("expr", "lhs", "rhs", "param", "vs", "vector_selector", "vector"):
        child = getattr(node, name, None)
        if child is not None and not isinstance(child, str):
            yield from selectors(child)
    for child in getattr(node, "args", None) or []:
        yield from selectors(child)


def shown() -> dict[str, set[str]]:
    """Sample name -> its labels, of everything the hub declares and the process figures beside it."""
    found: dict[str, set[str]] = {"up": set()}
    for name, metric in METRICS.items():
        for suffix in ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",):
            found[name + suffix] = set(metric.labels) | ({"le"} if suffix == "_bucket" else set())
    _, page = PrometheusMetrics().exposition()
    for family in text_string_to_metric_families(page.decode()):
        if family.name.startswith("process_"):
            found |= {sample.name: set(sample.labels) for sample in family.samples}
    return found


def unknown(expression: str) -> list[str]:
    """Metrics and labels in ``expression`` that the hub does not show."""
    known, wrong = shown(), []
    tree = promql.parse(expression)
    labels: set[str] = set()
    for selector in selectors(tree):
        if selector.name not in known:
            wrong.append(selector.name)
            continue
        asked = {matcher.name for matcher in selector.matchers.matchers}
        labels |= known[selector.name]
        wrong += sorted(asked - known[selector.name] - GIVEN_BY_PROMETHEUS)
    grouped = {name.strip() for found in re.findall(r"\bby \(([^)]*)\)", expression) for name in found.split(",")}
    return wrong + sorted(grouped - labels - GIVEN_BY_PROMETHEUS)


def test_every_query_asks_for_what_the_hub_shows() -> None:
    """Parsed by a PromQL parser; each metric is declared, each label is one of its own."""
    asked = list(queries())
    assert len(asked) > 50
    assert {where: unknown(expression) for where, expression in asked if unknown(expression)} == {}


@pytest.mark.parametrize(
    ("expression", "wrong"),
    [
        ("sum(rate(numhub_event_accepted_total[5m]))", ["numhub_event_accepted_total"]),
        ('numhub_lanes_behind{lane="live", app="x"}', ["app"]),
        ("sum by (route) (numhub_lanes_behind) > 1", ["route"]),
        (
            "histogram_quantile(0.9, sum by (le) (numhub_nothing_bucket)) > 1 and numhub_log_end",
            ["numhub_nothing_bucket"],
        ),
    ],
)
def test_a_wrong_query_is_noticed(expression: str, wrong: list[str]) -> None:
    """The check can fail: at a name, at a matcher, at a grouping, deep inside."""
    found = unknown(expression)
    assert set(wrong) <= set(found)


def test_every_metric_is_looked_at() -> None:
    """What the hub counts stands in a panel or an alert; else nobody would ever see it."""
    text = " ".join(expression for _, expression in queries())
    assert [name for name in METRICS if not re.search(rf"\b{name}(_bucket|_count|_sum)?\b", text)] == []


def test_the_dashboard_has_the_rows_an_operator_looks_for() -> None:
    """Rows in the order of the path of a number; panels have distinct ids and do not lie on each other."""
    rows = [panel["title"] for panel in panels() if panel["type"] == "row"]
    assert rows == ["Intake", "Log and fold", "Delivery", "Answers", "Clearance", "Ledger", "Resources"]
    assert len({panel["id"] for panel in panels()}) == len(panels())
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells


def test_alerts_are_complete() -> None:
    """Each has a severity, a summary and the place in the runbook; the number of shards is the hub's."""
    for rule in alerts():
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["runbook"] == f"RUNBOOK.md#{rule['alert'].lower()}"
        if rule["alert"] == "NumhubShardsUnowned":
            assert rule["expr"].endswith(f"< {SHARDS}") and f" {SHARDS} " in rule["annotations"]["summary"]


def test_alerts_and_runbook_name_each_other() -> None:
    """No alert without a page, no page of an alert that is not raised; each says symptom, look, act."""
    text = (DEPLOY / "RUNBOOK.md").read_text("utf-8")
    sections = dict(re.findall(r"^### (\S[^\n]*)\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL))
    assert {title for title in sections if title.startswith("Numhub")} == {rule["alert"] for rule in alerts()}
    assert len(sections) > len(alerts()) + 10
    for title, body in sections.items():
        for word in ("Symptom", "Look", "Act"):
            assert f"**{word}.**" in body, f"{title} does not say {word}"


def test_what_the_runbook_looks_at_exists() -> None:
    """Metrics and log lines named in the runbook are the hub's."""
    text = (DEPLOY / "RUNBOOK.md").read_text("utf-8")
    known = shown() | dict.fromkeys(METRICS, set())
    assert [name for name in re.findall(r"`(numhub_[a-z_]+)", text) if name not in known] == []
    hub = "\n".join(path.read_text("utf-8") for path in (DEPLOY.parent / "hub").rglob("*.py"))
    events = re.findall(r"log line `([a-z_.]+)`", text)
    assert len(events) > 8
    assert [event for event in events if f'"{event}"' not in hub] == []


def test_links_in_the_documents_lead_somewhere() -> None:
    """Files and headings that README, RUNBOOK and CAPACITY point to are there."""
    for file in DEPLOY.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", file.read_text("utf-8")):
            path, anchor = target
            if path.startswith("http"):
                continue
            place = (file.parent / path) if path else file
            assert place.exists(), f"{file.name}: {path}"
            if anchor:
                heads = re.findall(r"^#+ (.*)$", place.read_text("utf-8"), re.MULTILINE)
                slugs = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in heads}
                assert anchor in slugs, f"{file.name}: #{anchor}"


def promtool() -> str:
    found = shutil.which("promtool")
    if found is None:
        if "promtool" in os.environ.get("NUMHUB_TEST_REQUIRE", ""):
            pytest.fail("promtool is required and not here (Debian package prometheus)")
        pytest.skip("needs promtool (Debian package prometheus)")
    return found


@pytest.mark.parametrize("words", [["check", "rules", str(RULES)], ["test", "rules", str(TESTS)]], ids=lambda w: w[0])
def test_prometheus_own_tool_agrees(words: list[str]) -> None:
    """Syntax, and the alerts against series in which they must and must not rise."""
    done = subprocess.run([promtool(), *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
