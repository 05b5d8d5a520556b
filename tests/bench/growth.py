"""How a bench's costs grow: its work x 1, x 10 and x 100, and the exponent between the first and the last.

An exponent of 1 is proportional; what starts with the process (memory, warm code) keeps it below.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
from typing import Any

import uvloop

from tests.bench.shape import Result

SIZES: dict[str, tuple[dict[str, float], str, tuple[str, ...]]] = {
    "ingest": ({"open_numbers": 400_000}, "rows", ("seconds", "hub_cpu_s", "hub_memory_peak_mib")),
    "fanout": ({"subscribers": 24}, "numbers", ("seconds", "hub_cpu_s", "hub_memory_peak_mib")),
    "answers": ({"owners": 8, "apps_each": 8}, "numbers", ("seconds", "hub_cpu_s")),
}
FIRST = {"ingest": 40_000, "fanout": 80_000, "answers": 80_000}


def report(name: str, as_json: bool, steps: tuple[int, ...] = (1, 10, 100)) -> int:
    if name not in SIZES:
        sys.stderr.write(f"growth is measured of {', '.join(SIZES)}\n")
        return 2
    fixed, grows, watched = SIZES[name]
    bench = importlib.import_module(f"tests.bench.{name}")
    rows: list[dict[str, Any]] = []
    for step in steps:
        result: Result = uvloop.run(bench.run(**fixed, **{grows: FIRST[name] * step}))
        rows.append({grows: FIRST[name] * step, **{one: result.figures[one] for one in watched}})
        sys.stderr.write(f"{name} {rows[-1]}\n")
    exponents = {one: exponent(rows[0][one], rows[-1][one], steps[-1] / steps[0]) for one in watched}
    if as_json:
        sys.stdout.write(json.dumps({"name": name, "growth": rows, "exponents": exponents}) + "\n")
        return 0
    sys.stdout.write(" | ".join([grows, *watched]) + "\n")
    for row in rows:
        sys.stdout.write(" | ".join(f"{value:,.2f}" for value in row.values()) + "\n")
    sys.stdout.write(" | ".join(["exponent", *(f"{value:.2f}" for value in exponents.values())]) + "\n")
    return 0


def exponent(first: float, last: float, factor: float) -> float:
    """``last = first x factor^exponent``."""
    return math.log(last / first) / math.log(factor)
