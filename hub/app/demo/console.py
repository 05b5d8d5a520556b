"""How a demo looks to the person who runs it: progress bars, one line per turn of the story, a small table."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from hub.app.demo.story import Progress, Story
from hub.app.demo.verdict import Verdict
from hub.domain.numbers import mask
from hub.domain.refusals import Refusal

Line = tuple[str, str, str]

APPS_SHOWN = 6
DIFFERENCES_SHOWN = 20
_WHY_REFUSED = {refusal.value: refusal.meaning for refusal in Refusal}
_MEANT = {
    "no_account": "strangers to the app",
    "unbound": "the former holder's binding is gone",
    "rejected_cutoff": "bound by the new holder: kept",
    "needs_holder_action": "the app does not know since when",
    "held_funds": "money left in the account",
    "held_debt": "a debt left in the account",
}


class BarProgress(Progress):
    """Two bars: numbers accepted, pairs delivered."""

    def __init__(self, console: Console, numbers: int, platforms: int) -> None:
        done = TextColumn("{task.completed:>11,} of {task.total:,}")
        columns = (TextColumn("{task.description:<28}"), BarColumn(), done, TimeElapsedColumn())
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
    table.add_column(style="bold", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(style="dim")
    for rows in (_intake(result, story), _answers(result), _clearance(result), _run(result, story)):
        for row in rows:
            table.add_row(*row)
        table.add_section()
    console.print()
    console.print(table)
    if story.told.renewals:
        _show_renewal(console, story)
    hint = "" if stays else " (gone with the hub now; --keep leaves it running)"
    console.print(f"\nRegulator's page: {result['dashboard']}{hint}", highlight=False, soft_wrap=True)
    if result["matches_ground_truth"]:
        console.print(f"[bold green]Every one of {result['pairs']:,} pairs agrees with the ground truth.[/bold green]")
        return
    differences = result["differences"]
    console.print("[bold red]The hub and the ground truth differ:[/bold red]")
    for line in differences[:DIFFERENCES_SHOWN]:
        console.print(f"  - {line}", highlight=False, markup=False)
    if len(differences) > DIFFERENCES_SHOWN:
        console.print(f"  and {len(differences) - DIFFERENCES_SHOWN} more", highlight=False)


def _intake(result: dict[str, Any], story: Story) -> Iterator[Line]:
    numbers = result["numbers"]
    yield "rows published", f"{numbers['published']:,}", f"in {len(story.told.batches)} files, one per carrier"
    yield "  accepted", f"{numbers['accepted']:,}", f"the log holds {result['chunks']:,} chunks, live events included"
    yield "  refused", f"{numbers['refused']:,}", "each listed with its line and reason"
    for reason, rows in result["refused_by_reason"].items():
        yield f"    {reason}", f"{rows:,}", _WHY_REFUSED.get(reason, "")


def _answers(result: dict[str, Any]) -> Iterator[Line]:
    yield "pairs (number, app)", f"{result['pairs']:,}", f"{result['subscribers']} apps were told of every number"
    yield "  lost", f"{result['lost']:,}", ""
    for name, pairs in sorted(result["answers"].items(), key=lambda found: -found[1]):
        share = f"{100 * pairs / result['pairs']:.1f} %" if result["pairs"] else ""
        yield f"  {name}", f"{pairs:,}", f"{share:>6}  {_MEANT.get(name, '')}".rstrip()
    yield "  corrected", f"{result['corrected']:,}", "answers that an app took back"
    yield "deliveries", f"{result['deliveries']:,}", f"{result['duplicates']:,} came twice after crashes, recognised"


def _clearance(result: dict[str, Any]) -> Iterator[Line]:
    clearance, released, renewals = result["clearance"], result["released"], result["renewals"]
    yield "clearance: go", f"{clearance['go']:,}", "rest is over, every app is done"
    yield "  go with exceptions", f"{clearance['go_with_exceptions']:,}", "an app still holds funds, a debt .."
    yield "  wait", f"{clearance['wait']:,}", "90 days are not over, or the line went back to its holder"
    yield "released for sale", f"{released['accepted']:,}", f"{released['refused']:,} tried too early, refused"
    yield (
        "new holders' renewals",
        f"{renewals['requested']:,}",
        f"{renewals['completed']:,} answered by every app asked",
    )


def _run(result: dict[str, Any], story: Story) -> Iterator[Line]:
    yield "hub killed", f"{result['kills']} x", f"with kill -9; {story.hub.down_seconds:.1f} s down in all"
    yield "time", f"{result['seconds']:.1f} s", "in all"
    for name, seconds in result["timings"].items():
        yield f"  {name}", f"{seconds:.1f} s", ""


def _show_renewal(console: Console, story: Story) -> None:
    """The one with the most to tell."""
    renewals = story.told.renewals
    place = max(range(len(renewals)), key=lambda each: len({(app.state, app.reason) for app in renewals[each].apps}))
    renewal = renewals[place]
    number, _ = story.world.new_holders[place]
    shown = sorted(renewal.apps, key=lambda app: app.state == "clear")[:APPS_SHOWN]
    table = Table(title=f"What the new holder of {mask(number)} sees", title_justify="left", pad_edge=False)
    for title in ("app", "class", "state", "next step"):
        table.add_column(title)
    for app in shown:
        table.add_row(app.name, app.app_class, app.reason or app.state, app.next_step or "")
    console.print()
    console.print(table)
    if len(renewal.apps) > len(shown):
        console.print(f"[dim]and {len(renewal.apps) - len(shown)} more apps, all clear[/dim]", highlight=False)


def as_json(result: dict[str, Any]) -> str:
    return json.dumps(result, ensure_ascii=False, sort_keys=False)
