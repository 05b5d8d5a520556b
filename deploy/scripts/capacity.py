"""What a hub needs, computed from what one unit of each kind of work costs. CAPACITY.md is made of this:

    python deploy/scripts/capacity.py            prints the tables
    python deploy/scripts/capacity.py --write    puts them into CAPACITY.md

Standard library only. The costs stand in `COSTS`, each with where it comes from; change them there.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from math import ceil
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "CAPACITY.md"
CHUNK = 10_000
DAY, YEAR = 86_400, 365 * 86_400
BUSY = 0.6  # of a core: what is planned with; the rest is for peaks, repeats and a node that is away
MIB, GIB, TIB = 2**20, 2**30, 2**40


@dataclass(frozen=True)
class Cost:
    value: float
    unit: str
    source: str
    measured: bool = True


COSTS: dict[str, Cost] = {
    "ingest_rows": Cost(
        1_000_000, "rows/s and core", "goal of the design; measure with `python -m tests.bench ingest`", False
    ),
    "delivered_numbers": Cost(
        15_000_000, "numbers/s and core", "measured: `python -m tests.bench fanout`, on two busy cores: a floor"
    ),
    "live_deliveries": Cost(
        6_000, "deliveries/s and core, engines included", "goal; measure with `python -m tests.bench live`", False
    ),
    "answers": Cost(3_000, "requests/s and core", "goal; measure with `python -m tests.bench answers`", False),
    "checks": Cost(5_000, "requests/s and core", "goal; measure with `python -m tests.bench check`", False),
    "fold_numbers": Cost(2_000_000, "numbers/s and core", "goal; measure with `python -m tests.bench rebuild`", False),
    "chunk_bytes": Cost(46_000, "bytes in the log", "measured: 10,000 numbers drawn from the whole plan, zstd"),
    "chunk_body": Cost(120_600, "bytes on the wire", "measured: the same chunk as JSON, as every subscriber gets it"),
    "live_bytes": Cost(900, "bytes in the log", "measured: 317 of body, the rest headers and Kafka's own"),
    "live_body": Cost(1_100, "bytes on the wire", "body, signature and headers of one live delivery"),
    "receipt_bytes": Cost(58, "bytes", "measured: SQLite, 40,000 receipts with their indexes"),
    "answer_bytes": Cost(196, "bytes", "measured: SQLite, 40,000 answers with 31 exceptions each"),
    "live_answer_bytes": Cost(77, "bytes", "measured: SQLite, 10,000 answers without exceptions"),
    "sql_overhead": Cost(
        2.5,
        "x SQLite's bytes",
        "for PostgreSQL; measure with `python -m tests.bench storage`",
        False,
    ),
    "index_bytes": Cost(20, "bytes/number", "measured: 8 of number, 12 of state; twice that while merging"),
    "process_bytes": Cost(
        0.7 * GIB, "bytes", "a process at work, index pages aside; watch `process_resident_memory_bytes`", False
    ),
}


def cost(name: str) -> float:
    return COSTS[name].value


@dataclass(frozen=True)
class Load:
    """A year of one hub, and its worst hour and second."""

    nations: int
    numbers: int  # that change hands in a year, in bulk
    events: int  # that a number leaves in the log on its way; one of them has to be answered
    apps: int
    fill: float  # how full chunks are: 1.0 = files of millions of rows
    file_share: float  # of the year that may come as one file, and
    file_hours: float  # in how many hours it should be in the log, with every app and answered
    live_per_second: float  # holders who press the key, at the peak
    live_apps: int  # whom one of them concerns, and
    live_apps_peak: int  # whom it concerns if all choose all
    live_per_day: float
    checks_per_second: float
    open_numbers: int  # that the index knows


def nations(count: int) -> Load:
    """``count`` countries of 250 M recycled numbers and 239 apps each, in one hub, every app in all of them."""
    return Load(
        nations=count,
        numbers=250_000_000 * count,
        events=5,
        apps=239,
        fill=0.8,
        file_share=1 / 12,
        file_hours=1.0,
        live_per_second=10.3 * count,
        live_apps=62,
        live_apps_peak=239,
        live_per_day=15_900 * count,
        checks_per_second=2_000 * count,
        open_numbers=250_000_000 * count,
    )


@dataclass(frozen=True)
class Need:
    chunks_year: float
    deliveries_year: float
    dispatch_cores: float
    ingest_cores: float
    answer_cores: float
    live_cores: float
    check_cores: float
    log_bytes: float
    ledger_bytes: float
    index_bytes: float
    out_bits: float
    lane_out_bits: float
    rebuild_seconds: float
    workers: int
    apis: int
    partitions: int


def need(load: Load) -> Need:
    """The formulas. Bulk grows with chunks, never with (number, app) pairs; live with requests, which are pairs."""
    chunks_year = load.numbers * load.events / (CHUNK * load.fill)
    deliveries_year = chunks_year * load.apps
    file_chunks, file_seconds = chunks_year / load.events * load.file_share, load.file_hours * 3600
    # cores = work per second / work per second and core; a chunk costs what a full one costs
    dispatch = file_chunks * CHUNK * load.apps / file_seconds / cost("delivered_numbers")
    ingest = load.numbers * load.file_share / file_seconds / cost("ingest_rows")
    answers = file_chunks * load.apps / file_seconds / cost("answers")
    live_peak = load.live_per_second * load.live_apps_peak
    live = live_peak / cost("live_deliveries")
    live_answers = live_peak / cost("answers")
    checks = load.checks_per_second / cost("checks")
    live_year = load.live_per_day * 365
    log_bytes = chunks_year * cost("chunk_bytes") * load.fill + live_year * cost("live_bytes")
    live_rows = live_year * load.live_apps
    receipts = (deliveries_year + live_rows) * cost("receipt_bytes")
    answered = deliveries_year / load.events * cost("answer_bytes") + live_rows * cost("live_answer_bytes")
    ledger_bytes = (receipts + answered) * cost("sql_overhead")
    out = file_chunks * load.apps * cost("chunk_body") * load.fill / file_seconds
    out += live_peak * cost("live_body")
    return Need(
        chunks_year=chunks_year,
        deliveries_year=deliveries_year,
        dispatch_cores=dispatch,
        ingest_cores=ingest,
        answer_cores=answers + live_answers,
        live_cores=live,
        check_cores=checks,
        log_bytes=log_bytes,
        ledger_bytes=ledger_bytes,
        index_bytes=load.open_numbers * cost("index_bytes"),
        out_bits=out * 8,
        lane_out_bits=out * 8 / load.apps,
        rebuild_seconds=load.numbers * load.events / cost("fold_numbers"),
        # one more than needed, so that one may be away; never fewer than two
        workers=max(2, ceil((dispatch + live) / BUSY) + 1),
        apis=max(2, ceil((ingest + answers + live_answers + checks) / BUSY) + 1),
        partitions=16,
    )


def size(bytes_: float) -> str:
    for unit, name in ((TIB, "TiB"), (GIB, "GiB"), (MIB, "MiB")):
        if bytes_ >= unit:
            return f"{bytes_ / unit:.3g} {name}"
    return f"{bytes_:.0f} B"


def rate(bits: float) -> str:
    return f"{bits / 1e9:.2g} Gbit/s" if bits >= 1e9 else f"{bits / 1e6:.3g} Mbit/s"


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


COUNTS = (1, 2, 5, 10)


def costs_table() -> str:
    rows = []
    for name, one in COSTS.items():
        value = f"{one.value / GIB:.2g} Gi" if one.value >= GIB / 2 else f"{one.value:,.10g}"
        rows.append([f"`{name}`", value, one.unit, ("" if one.measured else "**not measured here:** ") + one.source])
    return table(["cost", "value", "unit", "where from"], rows)


def load_table() -> str:
    rows = [
        ["numbers recycled in a year", *(f"{nations(n).numbers / 1e6:,.0f} M" for n in COUNTS)],
        ["events of each in the log", *(str(nations(n).events) for n in COUNTS)],
        ["apps, each told of every number", *(str(nations(n).apps) for n in COUNTS)],
        ["largest file, to be everywhere within an hour", *(f"{nations(n).numbers / 12e6:,.0f} M" for n in COUNTS)],
        ["holders pressing the key at the peak", *(f"{nations(n).live_per_second:,.0f}/s to all apps" for n in COUNTS)],
        ["checks at the peak", *(f"{nations(n).checks_per_second:,.0f}/s" for n in COUNTS)],
        ["numbers in the index", *(f"{nations(n).open_numbers / 1e6:,.0f} M" for n in COUNTS)],
    ]
    return table(["nations", *map(str, COUNTS)], rows)


def need_table() -> str:
    needs = [need(nations(n)) for n in COUNTS]
    rows = [
        ["chunks a year", *(f"{n.chunks_year:,.0f}" for n in needs)],
        ["chunk deliveries a year", *(f"{n.deliveries_year / 1e6:,.1f} M" for n in needs)],
        ["cores: the largest file to webhooks", *(f"{n.dispatch_cores:.2f}" for n in needs)],
        ["cores: live to webhooks at the peak", *(f"{n.live_cores:.1f}" for n in needs)],
        ["cores: the largest file into the log", *(f"{n.ingest_cores:.2g}" for n in needs)],
        ["cores: answers at the peak", *(f"{n.answer_cores:.1f}" for n in needs)],
        ["cores: checks at the peak", *(f"{n.check_cores:.1f}" for n in needs)],
        ["**workers** (one core each, one to spare)", *(f"**{n.workers}**" for n in needs)],
        ["**api processes** (one core each, one to spare)", *(f"**{n.apis}**" for n in needs)],
        ["partitions of the log", *(str(n.partitions) for n in needs)],
        ["log, a year, per copy", *(size(n.log_bytes) for n in needs)],
        ["ledger, a year", *(size(n.ledger_bytes) for n in needs)],
        ["index, per node", *(size(n.index_bytes) for n in needs)],
        ["network out at the peak", *(rate(n.out_bits) for n in needs)],
        ["network to one subscriber at the peak", *(rate(n.lane_out_bits) for n in needs)],
        ["a node's index folded anew, one year, one core", *(f"{n.rebuild_seconds / 60:.0f} min" for n in needs)],
    ]
    return table(["nations", *map(str, COUNTS)], rows)


def growth_table() -> str:
    """What doubles when one thing is doubled: exponents by the formulas themselves."""
    base = nations(1)
    twice = {
        "numbers": {"numbers": 2 * base.numbers},
        "apps": {"apps": 2 * base.apps},
        "fill of chunks halved": {"fill": base.fill / 2},
        "live events": {"live_per_second": 2 * base.live_per_second, "live_per_day": 2 * base.live_per_day},
        "numbers in the index": {"open_numbers": 2 * base.open_numbers},
    }
    names = {
        "chunks_year": "chunks",
        "dispatch_cores": "bulk cores",
        "live_cores": "live cores",
        "log_bytes": "log",
        "ledger_bytes": "ledger",
        "index_bytes": "index",
    }
    before, rows = need(base), []
    for what, change in twice.items():
        after = need(Load(**{**base.__dict__, **change}))  # type: ignore[arg-type]
        rows.append([what, *(f"x {getattr(after, name) / getattr(before, name):.2g}" for name in names)])
    return table(["doubled", *names.values()], rows)


TABLES = {"costs": costs_table, "load": load_table, "need": need_table, "growth": growth_table}


def filled(text: str) -> str:
    """``text`` with every table between its markers made anew."""
    for name, make in TABLES.items():
        begin, end = f"<!-- {name}: made by scripts/capacity.py -->\n", f"\n<!-- end of {name} -->"
        head, found, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not found or not closed:
            raise SystemExit(f"{DOCUMENT.name} has no place for the table {name}")
        text = head + begin + make() + end + tail
    return text


def main() -> None:
    if sys.argv[1:] == ["--write"]:
        DOCUMENT.write_text(filled(DOCUMENT.read_text("utf-8")), "utf-8")
    else:
        sys.stdout.write("\n\n".join(make() for make in TABLES.values()) + "\n")


if __name__ == "__main__":
    main()
