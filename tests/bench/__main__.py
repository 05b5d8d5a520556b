"""``python -m tests.bench NAME [--stack embedded] [--repeat N] [--json]``: the hub's figures beside their bounds.

``python -m tests.bench --guard [NAME]`` holds short forms against the committed ratios; ``NAME --growth`` tells how
time and memory grow with the work.

Exit code 0 whatever the figures are; 1 if the hub did not do what was asked; 2 for what cannot be run.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time

import uvloop

from tests.bench import growth, guard, stack
from tests.bench.processes import environment
from tests.bench.shape import Result, median_of

BENCHES = ("ingest", "fanout", "nation", "live", "answers", "check", "storage", "rebuild", "interference")

ON_SERVICES = ("ingest", "fanout", "live", "answers")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("name", nargs="?", help=", ".join(BENCHES))
    parser.add_argument("--stack", choices=("embedded", "services"), default="embedded")
    parser.add_argument("--repeat", type=int, default=1, metavar="N", help="run N times, report the median run")
    parser.add_argument("--json", action="store_true", help="one JSON object as the last line")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=NUMBER", help="another size, e.g. --set rows=100000"
    )
    parser.add_argument("--full", action="store_true", help="nation: the whole year, hours on a small machine")
    parser.add_argument("--guard", action="store_true", help="short forms against baseline.json; exit code 1 if slower")
    parser.add_argument("--write", action="store_true", help="with --guard: measure a new baseline")
    parser.add_argument("--growth", action="store_true", help="sizes x 1, x 10, x 100 and the exponents")
    options = parser.parse_args(arguments)
    if options.guard:
        only = [options.name] if options.name else []
        return guard.write(only) if options.write else guard.guard(only)
    if options.name not in BENCHES:
        return _refuse(f"{options.name} is no bench; there are {', '.join(BENCHES)}")
    if options.stack == "services" and options.name not in ON_SERVICES:
        return _refuse(f"{options.name} is embedded only; on services there are {', '.join(ON_SERVICES)}")
    stack.choose(options.stack)
    try:
        sizes = {name: _number(value) for name, _, value in (each.partition("=") for each in options.set)}
    except ValueError:
        return _refuse("--set takes NAME=NUMBER")
    if options.full:
        if options.name != "nation":
            return _refuse("--full is for nation")
        sizes["full"] = True
    if options.growth:
        return growth.report(options.name, options.json)
    results = []
    for turn in range(max(options.repeat, 1)):
        if turn:
            time.sleep(1)
        results.append(uvloop.run(_run(options.name, sizes)))
        sys.stderr.write(results[-1].as_text() + "\n")
    result = median_of(results)
    if options.json:
        sys.stdout.write(result.as_json() + "\n")
    elif len(results) > 1:
        sys.stdout.write("the median run:\n" + result.as_text() + "\n")
    return 0


async def _run(name: str, sizes: dict[str, float]) -> Result:
    bench = importlib.import_module(f"tests.bench.{name}")
    result: Result = await bench.run(**sizes)
    return result


def _number(text: str) -> float:
    return int(text.replace("_", "")) if text.replace("_", "").isdecimal() else float(text)


def _refuse(why: str) -> int:
    sys.stderr.write(why + "\n")
    return 2


if __name__ == "__main__":
    os.environ.update(environment())
    sys.path[:0] = os.environ["PYTHONPATH"].split(os.pathsep)
    raise SystemExit(main())
