"""What a bench reports, as one JSON object: figures, the bound of the part it exercises, and their ratio."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_PACKAGES = ("fastapi", "httptools", "numpy", "orjson", "polars", "pydantic", "sqlalchemy", "uvicorn", "uvloop")


@dataclass(slots=True)
class Result:
    """``figures`` were measured on the hub, ``bound`` on the same machine in the same run without it.

    ``main`` names the figure by which repeats are compared; ``floors`` are those the figures must hold: name ->
    (">=" or "<=", value).
    """

    name: str
    main: str
    figures: dict[str, float]
    bound: dict[str, float]
    ratio: dict[str, float]
    settings: dict[str, Any]
    floors: dict[str, tuple[str, float]] = field(default_factory=dict)

    def missed(self) -> list[str]:
        """The floors that do not hold, as text."""
        wrong = []
        for name, (sign, value) in self.floors.items():
            found = self.figures[name]
            if not (found >= value if sign == ">=" else found <= value):
                wrong.append(f"{name} is {found:,.1f}, the floor is {sign} {value:,.0f}")
        return wrong

    def as_json(self) -> str:
        """One line."""
        said = {
            "name": self.name,
            "figures": _rounded(self.figures),
            "bound": _rounded(self.bound),
            "ratio": _rounded(self.ratio),
            "settings": self.settings,
            "machine": machine(),
            "versions": versions(),
        }
        return json.dumps(said, ensure_ascii=False)

    def as_text(self) -> str:
        lines = [self.name]
        for part in ("figures", "bound", "ratio"):
            lines += [f"  {part:<8} {name:<36} {_shown(value)}" for name, value in getattr(self, part).items()]
        lines += [f"  MISSED   {text}" for text in self.missed()]
        return "\n".join(lines)


def median_of(results: Sequence[Result]) -> Result:
    """The repeat whose main figure is the median (the lower one of two); ``settings`` tell all of them."""
    ordered = sorted(results, key=lambda result: result.figures[result.main])
    middle = ordered[(len(ordered) - 1) // 2]
    if len(results) > 1:
        every = [round(result.figures[result.main]) for result in results]
        middle.settings |= {"repeats": len(results), f"{middle.main}_of_repeats": every}
    return middle


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which ``share`` (0 to 1) of ``values`` lie; 0 for none."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)] if ordered else 0.0


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "system": f"{platform.system()} {platform.release()}",
        "processor": model or platform.machine(),
        "cores": os.cpu_count(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {name: round(value, 3) if abs(value) < 1000 else round(value) for name, value in values.items()}


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:,.3f}"
