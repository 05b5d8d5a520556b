"""How a demo looks to the person who runs it: progress bars, one line per turn of the story, a small table."""

from __future__ import annotations

import json
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from hub.app.demo.story import Progress, Story
from hub.app.demo.verdict import Verdict
from hub.domain.numbers import mask


class BarProgress(Progress):
    """Two bars: numbers accepted, pairs delivered."""

    def __init__(self, console: Console, numbers: int, platforms: int) -> None:
        columns = (TextColumn("{task.description:<28}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bars = Bars(*columns, console=console, transient=False)
        self._published = self.bars.add_task("numbers accepted", total=numbers)
        self._delivered = self.bars.add_task("pairs (number, app) delivered", total=numbers * platforms)

    def published(self, rows: int) -> None:
        self.bars.advance(self._published, rows)

    def delivered(self, pairs: int) -> None:
        self.bars.update(self._delivered, completed=pairs)


class Narrator:
    """One line per turn, with the second at which it happened."""

    def __init__(self, console: Console) -> None:
        self._console, self._began = console, time.monotonic()

    def __call__(self, text: str) -> None:
        stamp = f"[dim]{time.monotonic() - self._began:5.1f} s[/dim]"
        self._console.print(f"{stamp}  {text}", highlight=False, soft_wrap=True)


def summary(story: Story, verdict: Verdict, *, seconds: float, dashboard: str) -> dict[str, Any]:
    """The machine-readable result; its keys are part of the command's contract."""
    told = story.told
    refused: dict[str, int] = {}
    for batch in told.batches:
        for reason, rows in batch.refused.items():
            refused[reason] = refused.get(reason, 0) + rows
    accepted = sum(batch.accepted for batch in told.batches)
    return {
        "seed": story.world.seed,
        "numbers": {
            "published": sum(batch.file.rows for batch in told.batches),
            "accepted": accepted,
            "refused": sum(refused.values()),
        },
        "refused_by_reason": dict(sorted(refused.items())),
        "chunks": verdict.chunks,
        "subscribers": len(story.platforms),
        "pairs": verdict.pairs,
        "deliveries": verdict.deliveries,
        "duplicates": verdict.duplicates,
        "lost": verdict.lost,
        "answers": dict(sorted(verdict.answers.items())),
        "corrected": told.corrected,
        "matches_ground_truth": not verdict.differences,
        "differences": verdict.differences,
        "clearance": {name: verdict.clearance[name] for name in ("go", "go_with_exceptions", "wait")},
        "released": {"accepted": told.released, "refused": told.release_refused},
        "withdrawn": dict(told.live),
        "renewals": {"requested": len(told.renewals), "completed": verdict.renewals_completed},
        "kills": story.hub.kills,
        "seconds": round(seconds, 1),
        "timings": {name: round(value, 2) for name, value in told.timings.items()},
        "dashboard": dashboard,
    }


def show(console: Console, result: dict[str, Any], story: Story, *, stays: bool) -> None:
    """The summary as a person likes to read it; numbers appear masked only."""
    table = Table(title="What came out", show_header=False, title_justify="left", pad_edge=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    numbers, clearance, renewals = result["numbers"], result["clearance"], result["renewals"]
    table.add_row("rows published", f"{numbers['published']:,}", f"by {len(story.told.batches)} files")
    table.add_row("accepted", f"{numbers['accepted']:,}", f"in {result['chunks']:,} chunks, live events included")
    table.add_row("refused", f"{numbers['refused']:,}", "each listed with its line and reason")
    for reason, rows in result["refused_by_reason"].items():
        table.add_row(f"  {reason}", f"{rows:,}", "")
    table.add_row("pairs owed", f"{result['pairs']:,}", f"{result['subscribers']} apps")
    table.add_row(
        "deliveries", f"{result['deliveries']:,}", f"{result['duplicates']} repeats after crashes, recognised"
    )
    table.add_row("pairs lost", f"{result['lost']:,}", "")
    for disposition, count in result["answers"].items():
        table.add_row(f"  {disposition}", f"{count:,}", "pairs")
    table.add_row("answers corrected", f"{result['corrected']:,}", "")
    table.add_row("clearance: go", f"{clearance['go']:,}", "")
    table.add_row("  go with exceptions", f"{clearance['go_with_exceptions']:,}", "some app holds funds, a debt ..")
    table.add_row("  wait", f"{clearance['wait']:,}", "freeze not over, or withdrawn")
    released = result["released"]
    table.add_row("released for sale", f"{released['accepted']:,}", f"{released['refused']} tried too early, refused")
    table.add_row("renewals", f"{renewals['requested']}", f"{renewals['completed']} completed by every app asked")
    table.add_row("hub killed", f"{result['kills']} x", f"{story.hub.down_seconds:.1f} s down in all")
    timings = ", ".join(f"{name} {value:.1f} s" for name, value in result["timings"].items())
    table.add_row("time", f"{result['seconds']:.1f} s", timings)
    console.print()
    console.print(table)
    if story.told.renewals:
        _show_renewal(console, story)
    hint = "" if stays else " (gone with the hub now; --keep leaves it running)"
    console.print(f"\nRegulator's page: {result['dashboard']}{hint}", highlight=False, soft_wrap=True)
    if result["matches_ground_truth"]:
        console.print(f"[bold green]Every one of {result['pairs']:,} pairs agrees with the ground truth.[/bold green]")
        return
    console.print("[bold red]The hub and the ground truth differ:[/bold red]")
    for line in result["differences"][:20]:
        console.print(f"  - {line}", highlight=False)


def _show_renewal(console: Console, story: Story) -> None:
    renewal = story.told.renewals[0]
    number, _ = story.world.new_holders[0]
    table = Table(title=f"\nWhat the new holder of {mask(number)} sees", title_justify="left", pad_edge=False)
    for title in ("app", "class", "state", "next step"):
        table.add_column(title)
    for app in renewal.apps[:6]:
        table.add_row(app.name, app.app_class, app.state, app.next_step or "")
    console.print(table)
    if len(renewal.apps) > 6:
        console.print(f"[dim]and {len(renewal.apps) - 6} more apps[/dim]", highlight=False)


def as_json(result: dict[str, Any]) -> str:
    return json.dumps(result, ensure_ascii=False, sort_keys=False)
