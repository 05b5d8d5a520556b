"""The demo's ground truth: reproducible, plausible, and consistent in itself."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

import numpy as np

from hub.adapters.number_plan.package import PackagePlan
from hub.app.demo.verdict import expected_clearance
from hub.app.demo.world import World, build_world
from hub.domain.dispositions import Disposition

NOW = datetime(2026, 6, 1, 9, tzinfo=UTC)


@cache
def world(seed: int = 1, platforms: int = 12) -> World:
    return build_world(PackagePlan(), seed=seed, numbers=6_000, platforms=platforms, now=NOW)


def test_the_same_seed_gives_the_same_world() -> None:
    """Files, accounts and truth come from the seed alone; another seed gives others."""
    world.cache_clear()
    first = world()
    world.cache_clear()
    again = world()
    assert [file.content for file in first.files] == [file.content for file in again.files]
    assert np.array_equal(first.truth, again.truth)
    assert world(seed=2).files[0].content != first.files[0].content


def test_carriers_publish_numbers_of_their_own_blocks_in_the_proportions_of_the_plan() -> None:
    """Four basic carriers and an MVNO; every good number stands in a block issued to its carrier."""
    plan = PackagePlan()
    shares = {file.carrier.party_id: len(file.good) / 6_000 for file in world().files}
    assert shares["cmcc"] == max(shares.values())
    assert 0.4 < shares["cmcc"] < 0.55
    assert len(shares) == 5
    for file in world().files:
        holders = {plan.holders[place] for place in np.unique(plan.holder_of(file.good)).tolist()}
        assert holders == {file.carrier.holder}


def test_each_kind_of_bad_row_is_there_and_counted() -> None:
    """What must be refused is known per file before the hub sees it; good and bad rows add up to the file."""
    for file in world().files:
        kinds = {"invalid_number", "foreign_block", "freeze_too_short", "duplicate", "unknown_column"}
        assert set(file.refused) == kinds
        assert file.rows == len(file.good) + sum(file.refused.values())
        assert file.content.count(b"\n") == file.rows + 1


def test_there_are_four_bindings_per_number_and_most_numbers_are_strangers() -> None:
    """Zipf over the apps: about 4.0 bindings a number with twelve apps, with all fates among them."""
    bound = world().truth != Disposition.no_account.number
    assert 3.8 < bound.sum(axis=1).mean() < 4.2
    assert bound.mean() < 0.5
    said = {int(code) for code in np.unique(world().truth)}
    assert {Disposition.rejected_cutoff.number, Disposition.held_funds.number, Disposition.held_debt.number} <= said


def test_some_freezes_are_over_and_some_are_not() -> None:
    """Terminations lie 60 to 120 days back, so clearance has both answers to give without a faked clock."""
    over = world().freeze_over(NOW.timestamp())
    assert 0.3 < over.mean() < 0.7
    counts, clear = expected_clearance(world(), world().numbers, NOW.timestamp())
    assert sum(counts.values()) == len(world().numbers)
    assert min(counts.values()) > 0
    assert clear.sum() == counts["go"] + counts["go_with_exceptions"]
