"""The end of a demo: the hub's figures and every platform's books against the ground truth, pair by pair."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hub.app.demo.platforms import Platform
from hub.app.demo.story import Batch, Story
from hub.app.demo.world import World
from hub.domain.dispositions import BY_NUMBER, Disposition, Standing
from hub.ports.ledger import Ledger

Column = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]

HELD = np.array([code in BY_NUMBER and BY_NUMBER[code].standing is Standing.held for code in range(len(BY_NUMBER) + 1)])


@dataclass(slots=True)
class Verdict:
    """``differences`` is empty when everything agrees; each is one line for a person."""

    pairs: int = 0
    lost: int = 0
    phantom: int = 0
    duplicates: int = 0
    deliveries: int = 0
    chunks: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    clearance: Counter[str] = field(default_factory=Counter)
    renewals_completed: int = 0
    differences: list[str] = field(default_factory=list)

    def differ(self, text: str) -> None:
        self.differences.append(text)


async def judge(story: Story, ledger: Ledger, report: dict[str, Any] | None) -> Verdict:
    """Compare everything. ``ledger`` is read beside the running hub; ``report`` is the regulator's summary."""
    verdict = Verdict()
    accepted = np.sort(np.concatenate([batch.file.good for batch in story.told.batches]))
    for batch in story.told.batches:
        _judge_intake(batch, verdict)
    _judge_books(story, accepted, verdict)
    codes = await _hub_codes(story, ledger, verdict)
    _judge_pairs(story, accepted, codes, verdict)
    for batch in story.told.batches:
        _judge_clearance(story, batch, verdict)
    _judge_renewals(story, verdict)
    if report is not None:
        _judge_report(report, accepted, story, verdict)
    return verdict


def _judge_intake(batch: Batch, verdict: Verdict) -> None:
    name, file = batch.file.carrier.name, batch.file
    if batch.accepted + sum(batch.refused.values()) != file.rows:
        verdict.differ(f"{name}: {file.rows} rows went in, {batch.accepted} + {sum(batch.refused.values())} came out")
    if batch.accepted != len(file.good):
        verdict.differ(f"{name}: {batch.accepted} rows accepted, {len(file.good)} were good")
    if file.refused and batch.refused != file.refused:
        verdict.differ(f"{name}: refused {batch.refused}, expected {file.refused}")
    if len(batch.refused_lines) != sum(batch.refused.values()):
        verdict.differ(
            f"{name}: the result file lists {len(batch.refused_lines)} rows of {sum(batch.refused.values())}"
        )


def _judge_books(story: Story, accepted: Column, verdict: Verdict) -> None:
    """Every platform received every number once (repeats apart), and the same chunk meant the same to all."""
    seen: dict[str, Column] = {}
    for platform in story.platforms:
        verdict.duplicates += platform.duplicates
        verdict.deliveries += platform.deliveries
        got = _received(platform, "release_scheduled")
        verdict.pairs += len(accepted)
        lost, phantom = np.setdiff1d(accepted, got), np.setdiff1d(got, accepted)
        twice = len(got) - len(np.unique(got))
        verdict.lost += len(lost)
        verdict.phantom += len(phantom) + twice
        if len(lost) or len(phantom) or twice:
            verdict.differ(
                f"{platform.plan.name}: {len(lost)} numbers never came, {len(phantom)} unknown came, "
                f"{twice} came in two chunks"
            )
        for event_type, numbers in (("restored", story.world.restored), ("release_cancelled", story.world.cancelled)):
            missing = np.setdiff1d(numbers, _received(platform, event_type))
            verdict.lost += len(missing)
            if len(missing):
                verdict.differ(f"{platform.plan.name}: {len(missing)} {event_type} never came")
        if story.told.released != len(np.unique(_received(platform, "released"))):
            verdict.differ(f"{platform.plan.name}: not all {story.told.released} releases came")
        for chunk_id, (_, numbers) in platform.received.items():
            if not np.array_equal(seen.setdefault(chunk_id, numbers), numbers):
                verdict.differ(f"{platform.plan.name}: a chunk held other numbers than for the others")
    verdict.chunks = len(seen)


def _received(platform: Platform, event_type: str) -> Column:
    parts = [numbers for kind, numbers in platform.received.values() if kind == event_type]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


async def _hub_codes(story: Story, ledger: Ledger, verdict: Verdict) -> list[tuple[Column, Codes]]:
    """Per platform the numbers of all release_scheduled chunks and the dispositions the hub's ledger holds for them."""
    found = []
    for platform in story.platforms:
        chunks = [(c, n) for c, (kind, n) in platform.received.items() if kind == "release_scheduled"]
        standings = await ledger.standings([(c, len(n)) for c, n in chunks], [platform.subscription_id])
        by_chunk = {standing.chunk_id: standing.codes for standing in standings}
        numbers = [n for _, n in chunks]
        codes = [by_chunk.get(c, np.zeros(len(n), np.uint8)) for c, n in chunks]
        for (chunk_id, _), held in zip(chunks, codes, strict=True):
            said = platform.said.get(chunk_id)
            if said is None or not np.array_equal(said, held):
                verdict.differ(f"{platform.plan.name}: the hub holds other answers to a chunk than the platform gave")
        if numbers:
            found.append((np.concatenate(numbers), np.concatenate(codes)))
        else:
            found.append((np.empty(0, np.int64), np.empty(0, np.uint8)))
    return found


def _judge_pairs(story: Story, accepted: Column, found: list[tuple[Column, Codes]], verdict: Verdict) -> None:
    world = story.world
    withdrawn = np.isin(world.numbers, np.concatenate([world.restored, world.cancelled]))
    owed = np.isin(world.numbers, accepted)
    for place, (platform, (numbers, codes)) in enumerate(zip(story.platforms, found, strict=True)):
        for code, count in zip(*np.unique(codes, return_counts=True), strict=True):
            verdict.answers[BY_NUMBER[int(code)].value if code else "unanswered"] += int(count)
        hub = np.zeros(len(world.numbers), np.uint8)
        places = np.searchsorted(world.numbers, numbers)
        hub[places] = codes
        truth = world.truth[:, place]
        # A withdrawal may overtake the order to unbind; then the binding was rightly kept.
        kept = withdrawn & (truth != Disposition.no_account.number) & (hub == Disposition.rejected_cutoff.number)
        wrong = int(np.count_nonzero(owed & (hub != truth) & ~kept))
        if wrong:
            verdict.differ(f"{platform.plan.name}: {wrong} of {int(owed.sum())} pairs differ from the ground truth")


def expected_clearance(world: World, numbers: Column, at: float) -> tuple[dict[str, int], npt.NDArray[np.bool_]]:
    """What a carrier must hear for ``numbers`` at a moment (epoch seconds), from the ground truth alone (policy tiered,
    everybody answered): the counts, and per number whether it may be sold."""
    places = np.searchsorted(world.numbers, numbers)
    withdrawn = np.isin(numbers, np.concatenate([world.restored, world.cancelled]))
    clear = world.freeze_over(at)[places] & ~withdrawn
    held = HELD[world.truth[places]].any(axis=1)
    counts = {
        "go": int(np.count_nonzero(clear & ~held)),
        "go_with_exceptions": int(np.count_nonzero(clear & held)),
        "wait": int(np.count_nonzero(~clear)),
    }
    return counts, clear


def _judge_clearance(story: Story, batch: Batch, verdict: Verdict) -> None:
    answer = story.told.clearances[batch.batch_id]
    said = {"go": answer.go, "go_with_exceptions": answer.go_with_exceptions, "wait": answer.wait}
    verdict.clearance.update(said)
    expected, clear = expected_clearance(story.world, batch.file.good, answer.judged_at.timestamp())
    if said != expected:
        verdict.differ(f"{batch.file.carrier.name}: clearance said {said}, the ground truth {expected}")
    wrong = int(np.count_nonzero(story.told.waiting[batch.batch_id] == clear))
    if wrong:
        verdict.differ(f"{batch.file.carrier.name}: clearance was wrong for {wrong} single numbers")


def _judge_renewals(story: Story, verdict: Verdict) -> None:
    for renewal, truth in zip(story.told.renewals, story.world.renewal_truth, strict=True):
        if renewal.state.startswith("completed"):
            verdict.renewals_completed += 1
        else:
            states = Counter(app.state for app in renewal.apps)
            verdict.differ(f"a renewal is still {renewal.state}: {dict(states)}")
        places = {platform.plan.app_id: place for place, platform in enumerate(story.platforms)}
        wrong = [app.name for app in renewal.apps if (app.state, app.reason) != shown_as(truth[places[app.app_id]])]
        if wrong:
            verdict.differ(f"a renewal shows other states than the ground truth for {', '.join(wrong)}")


def shown_as(code: int) -> tuple[str, str | None]:
    """State and reason that a new holder must read of an app whose disposition is ``code``."""
    disposition = BY_NUMBER[int(code)]
    return ("held", disposition.value) if disposition.standing is Standing.held else ("clear", None)


def _judge_report(report: dict[str, Any], accepted: Column, story: Story, verdict: Verdict) -> None:
    """The regulator's figures must be the sums of what was seen from outside."""
    told, rows = story.told, {row["event_type"]: row for row in report["rows"]}
    published = {
        "release_scheduled": len(accepted),
        "released": told.released,
        "renewal_requested": len(told.renewals),
        **told.live,
    }
    for event_type, count in published.items():
        said = rows.get(event_type, {}).get("numbers_published") or 0
        if said != count:
            verdict.differ(f"the regulator reads {said} numbers published as {event_type}, {count} were")
    scheduled = rows.get("release_scheduled", {})
    for column in ("pairs_owed", "pairs_received", "pairs_answered"):
        if scheduled.get(column) != verdict.pairs:
            verdict.differ(f"the regulator reads {scheduled.get(column)} {column}, {verdict.pairs} were")
