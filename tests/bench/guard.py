"""``python -m tests.bench --guard``: a short form of each bench against the committed ratios (``baseline.json``).

Compared are ratios to a bound that was measured in the same run, by CPU time wherever the bench has it, never seconds:
a machine that is slower, or busy, slows both sides. A bench fails when the best of three tries is more than a third
below its baseline; most need one try. ``--guard --write`` measures a new baseline, the median of three.
"""

from __future__ import annotations

import importlib
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from tests.bench.shape import Result, machine

BASELINE = Path(__file__).with_name("baseline.json")
ALLOWED_DROP = 1 / 3
TRIES = 3


@dataclass(frozen=True, slots=True)
class Short:
    """A bench, small: some seconds, most of them the hub's start."""

    name: str
    ratios: tuple[str, ...]
    sizes: dict[str, float]


SHORT = (
    Short("ingest", ("of_polars_read_cpu",), {"rows": 300_000, "open_numbers": 400_000}),
    Short("fanout", ("cpu",), {"numbers": 200_000, "subscribers": 48}),
    Short("live", ("cpu",), {"events": 400, "half_seconds": 0.5, "quiet_events": 3}),
    Short("answers", ("cpu",), {"numbers": 100_000, "owners": 8, "apps_each": 8}),
    Short("check", ("cpu", "bulk_cpu"), {"open_numbers": 400_000, "singles": 2_000, "bulk": 30, "released": 0}),
    Short("storage", ("size", "log"), {"numbers": 100_000, "subscribers": 60}),
    Short("rebuild", ("cpu",), {"numbers": 600_000}),
)
"""``nation`` is made of ingest, fanout and answers; ``interference`` needs a machine of its own to mean anything."""


def measure(short: Short) -> dict[str, float]:
    bench = importlib.import_module(f"tests.bench.{short.name}")
    result: Result = uvloop.run(bench.run(**short.sizes))
    return {name: result.ratio[name] for name in short.ratios}


def guard(only: list[str]) -> int:
    """0 if every ratio holds; 1 with a line for each that does not; 2 without a baseline."""
    if not BASELINE.exists():
        sys.stderr.write(f"{BASELINE.name} is not there yet; measure it on a quiet machine with --guard --write\n")
        return 2
    baseline: dict[str, Any] = json.loads(BASELINE.read_text(encoding="utf-8"))["ratios"]
    failed = 0
    for short in SHORT:
        if only and short.name not in only:
            continue
        began = time.monotonic()
        floors = {name: baseline[short.name][name] * (1 - ALLOWED_DROP) for name in short.ratios}
        best: dict[str, float] = dict.fromkeys(short.ratios, 0.0)
        for _ in range(TRIES):
            found = measure(short)
            best = {name: max(best[name], found[name]) for name in best}
            if all(best[name] >= floors[name] for name in best):
                break
        for name, value in best.items():
            good = value >= floors[name]
            failed += not good
            sys.stdout.write(
                f"{'ok  ' if good else 'SLOW'} {short.name:<9} {name:<20} {value:.3f}, baseline "
                f"{baseline[short.name][name]:.3f}, at least {floors[name]:.3f} ({time.monotonic() - began:.0f} s)\n"
            )
        sys.stdout.flush()
    return 1 if failed else 0


def write(only: list[str]) -> int:
    """Measure a new baseline; benches that are not named keep theirs."""
    known: dict[str, Any] = {"ratios": {}}
    if BASELINE.exists():
        known = json.loads(BASELINE.read_text(encoding="utf-8"))
    ratios = known["ratios"]
    for short in SHORT:
        if not only or short.name in only:
            found = [measure(short) for _ in range(TRIES)]
            ratios[short.name] = {name: round(statistics.median(f[name] for f in found), 3) for name in short.ratios}
            sys.stdout.write(f"{short.name} {ratios[short.name]}\n")
            sys.stdout.flush()
    said = {
        "made_by": "python -m tests.bench --guard --write: medians of three runs of the short forms in guard.py",
        "machine": machine(),
        "ratios": ratios,
    }
    BASELINE.write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
    return 0
