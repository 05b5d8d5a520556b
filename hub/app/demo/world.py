"""The ground truth of a demo: a night's terminated lines, who holds accounts on them, and what must come out.

Everything is drawn from one seed and held as columns: ``numbers`` (ascending int64, N) and ``bindings`` (N x apps).
The hub never sees this object; platforms see only their own accounts, carriers only their own file.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hub.domain.dispositions import Disposition
from hub.domain.errors import InvalidNumber
from hub.domain.lifecycle import CHINA, earliest_release_epoch, from_epoch
from hub.domain.numbers import FIRST_NATIONAL, LAST_NATIONAL, PhoneNumber
from hub.domain.parties import AppClass, DeliveryMode
from hub.ports.number_plan import NumberPlan

Column = npt.NDArray[np.int64]
DAY = 86_400

_HOLDS = {
    AppClass.payment: Disposition.held_funds,
    AppClass.bank: Disposition.held_funds,
    AppClass.lending: Disposition.held_debt,
}
"""Why apps of these classes cannot unbind some accounts at once."""


@dataclass(frozen=True, slots=True)
class CarrierPlan:
    party_id: str
    name: str
    holder: str  # code of the numbering plan
    weight: float  # share of blocks issued, DOMAIN figures
    uploads_for: str | None = None  # publishes through this host carrier


CARRIERS = (
    CarrierPlan("cmcc", "中国移动 (demo)", "cmcc", 46.9),
    CarrierPlan("cucc", "中国联通 (demo)", "cucc", 26.0),
    CarrierPlan("ctcc", "中国电信 (demo)", "ctcc", 23.0),
    CarrierPlan("cbn", "中国广电 (demo)", "cbn", 0.9),
    CarrierPlan("mvno-1", "转售企业一号 (demo)", "mvno:cucc", 3.2, uploads_for="cucc"),
)


class Temper(IntEnum):
    """How a platform behaves towards the hub."""

    steady = 0
    down = 1  # not listening for a while
    slow = 2
    failing = 3  # 500 at first
    correcting = 4  # has answers to correct


@dataclass(frozen=True, slots=True)
class PlatformPlan:
    app_id: str
    name: str
    app_class: AppClass
    mode: DeliveryMode
    temper: Temper


_PATTERN: tuple[tuple[AppClass, DeliveryMode, Temper], ...] = (
    (AppClass.social_mail, DeliveryMode.webhook_full, Temper.steady),
    (AppClass.payment, DeliveryMode.webhook_full, Temper.correcting),
    (AppClass.e_commerce, DeliveryMode.webhook_full, Temper.down),
    (AppClass.bank, DeliveryMode.pull, Temper.steady),
    (AppClass.lifestyle_travel, DeliveryMode.webhook_full, Temper.slow),
    (AppClass.cloud_storage, DeliveryMode.webhook_pointer, Temper.steady),
    (AppClass.lending, DeliveryMode.webhook_full, Temper.failing),
    (AppClass.games, DeliveryMode.pull, Temper.steady),
    (AppClass.securities_fund, DeliveryMode.webhook_pointer, Temper.steady),
    (AppClass.government, DeliveryMode.pull, Temper.steady),
    (AppClass.telecom_value_added, DeliveryMode.webhook_full, Temper.steady),
    (AppClass.marking, DeliveryMode.webhook_full, Temper.steady),
)


def platform_plans(count: int) -> tuple[PlatformPlan, ...]:
    """``count`` platforms over the app classes; the first twelve show every mode and temper."""
    plans = []
    for place in range(count):
        app_class, mode, temper = _PATTERN[place % len(_PATTERN)]
        plans.append(
            PlatformPlan(
                app_id=f"app-{place + 1:03d}",
                name=f"{app_class.value.replace('_', ' ').title()} {place // len(_PATTERN) + 1}",
                app_class=app_class,
                mode=mode,
                temper=temper if place < len(_PATTERN) else Temper.steady,
            )
        )
    return tuple(plans)


@dataclass(slots=True)
class NightFile:
    """One carrier's file and what the hub must say of it."""

    carrier: CarrierPlan
    content: bytes
    rows: int
    good: Column  # ascending numbers that must be accepted
    refused: dict[str, int]  # reason code -> rows; empty for a user's own file
    lines: dict[int, int] = field(default_factory=dict)  # a user's own file: line -> number

    def settle(self, refused_lines: set[int]) -> None:
        """Of a user's own file the good numbers are those of the rows that the result file does not list."""
        if self.lines:
            kept = {number for line, number in self.lines.items() if line not in refused_lines}
            self.good = np.array(sorted(kept), np.int64)


@dataclass(slots=True)
class Accounts:
    """What one platform knows: numbers (ascending) and since when each is bound; 0 = since when is not known."""

    numbers: Column
    bound_at: Column
    held: dict[int, Disposition]  # accounts that cannot simply be unbound


@dataclass(slots=True)
class World:
    seed: int
    now: int
    platforms: tuple[PlatformPlan, ...]
    files: list[NightFile]
    numbers: Column
    terminated_at: Column
    accounts: list[Accounts]
    truth: npt.NDArray[np.uint8]  # N x apps, disposition numbers that must be recorded for release_scheduled
    restored: Column = field(default_factory=lambda: np.empty(0, np.int64))
    cancelled: Column = field(default_factory=lambda: np.empty(0, np.int64))
    new_holders: list[tuple[int, int]] = field(default_factory=list)  # (number, activated_at): they press the key
    renewal_truth: npt.NDArray[np.uint8] = field(default_factory=lambda: np.empty((0, 0), np.uint8))
    """New holders x apps: the dispositions that the apps must give when the key is pressed."""

    def freeze_over(self, at: float) -> npt.NDArray[np.bool_]:
        return np.asarray(earliest_release_columns(self.terminated_at) <= at)


def earliest_release_columns(terminated_at: Column) -> Column:
    result: Column = earliest_release_epoch(terminated_at)  # type: ignore[arg-type,assignment]
    return result


def _blocks(plan: NumberPlan) -> dict[str, Column]:
    """Block numbers (7 digits) by holder code."""
    every = np.arange(FIRST_NATIONAL // 10_000, LAST_NATIONAL // 10_000 + 1, dtype=np.int64)
    held = plan.holder_of(every * 10_000)
    return {name: every[held == place] for place, name in enumerate(plan.holders) if name}


def _draw_numbers(random: np.random.Generator, blocks: Column, count: int) -> Column:
    chosen = random.choice(blocks, size=max(1, min(len(blocks), count // 25 + 1)), replace=False)
    numbers: Column = np.empty(0, np.int64)
    while len(numbers) < count:
        more = random.choice(chosen, size=count) * 10_000 + random.integers(0, 10_000, size=count)
        numbers = np.unique(np.concatenate([numbers, more]))
    kept: Column = np.sort(random.choice(numbers, size=count, replace=False))
    return kept


def _china(epoch: int) -> str:
    return from_epoch(epoch).astimezone(CHINA).isoformat(timespec="seconds")


def _night_file(
    random: np.random.Generator,
    carrier: CarrierPlan,
    good: Column,
    terminated: Column,
    foreign: Column,
    spoiled: Column,
    now: int,
) -> NightFile:
    """``foreign`` are numbers of other carriers' blocks; ``spoiled`` own numbers that stand only in bad rows."""
    reasons = ("holder_request", "arrears", "carrier")
    planned = np.maximum(earliest_release_columns(terminated), now) + random.integers(1, 6, len(good)) * DAY
    lines = [
        f"{number},{_china(ended)},{_china(release)},{reasons[number % 3]}"
        for number, ended, release in zip(good.tolist(), terminated.tolist(), planned.tolist(), strict=True)
    ]
    refused: dict[str, int] = {}

    def spoil(reason: str, row: str) -> None:
        lines.append(row)
        refused[reason] = refused.get(reason, 0) + 1

    ended_text, fine_text = _china(now - 70 * DAY), _china(now + 40 * DAY)
    for place, number in enumerate(spoiled.tolist()):
        match place % 3:
            case 0:
                spoil("invalid_number", f"{number // 10},{ended_text},{fine_text},arrears")
            case 1:
                spoil("freeze_too_short", f"{number},{ended_text},{_china(now + DAY)},arrears")
            case _:
                spoil("unknown_column", f"{number},{ended_text},{fine_text},arrears,surprise")
    for number in foreign.tolist():
        spoil("foreign_block", f"{number},{ended_text},{fine_text},arrears")
    order = random.permutation(len(lines))
    shuffled = [lines[place] for place in order.tolist()]
    for place in random.choice(len(good), size=max(1, len(good) // 500), replace=False).tolist():
        shuffled.append(lines[place])
        refused["duplicate"] = refused.get("duplicate", 0) + 1
    text = "number,terminated_at,release_planned_at,reason\n" + "\n".join(shuffled) + "\n"
    return NightFile(carrier, text.encode(), len(shuffled), good, refused)


def _weights(platforms: int, mean_bindings: float) -> npt.NDArray[np.float64]:
    """Zipf over the platforms, scaled to ``mean_bindings`` per number, none above 0.9."""
    weights = 1.0 / np.arange(1, platforms + 1)
    target = min(mean_bindings, 0.85 * platforms)
    for _ in range(60):
        weights = np.minimum(weights * target / weights.sum(), 0.9)
    return weights


def _accounts(
    random: np.random.Generator, platforms: tuple[PlatformPlan, ...], numbers: Column, cutoff: Column, now: int
) -> tuple[list[Accounts], npt.NDArray[np.uint8]]:
    """Who holds accounts on ``numbers``, and the dispositions that follow from the cutoff rule."""
    truth = np.full((len(numbers), len(platforms)), Disposition.no_account.number, np.uint8)
    holders = []
    for place, (platform, chance) in enumerate(zip(platforms, _weights(len(platforms), 4.0), strict=True)):
        has = np.flatnonzero(random.random(len(numbers)) < chance)
        bound_at = cutoff[has] - random.integers(1, 2_000 * DAY, len(has))
        fate = random.random(len(has))
        after = fate < 0.02  # somebody bound it after the line ended
        bound_at[after] = np.minimum(cutoff[has][after] + random.integers(0, 50 * DAY, int(after.sum())), now)
        unknown = (fate >= 0.02) & (fate < 0.025)
        bound_at[unknown] = 0
        codes = np.full(len(has), Disposition.unbound.number, np.uint8)
        codes[after], codes[unknown] = Disposition.rejected_cutoff.number, Disposition.needs_holder_action.number
        hold = _HOLDS.get(platform.app_class)
        held = (fate >= 0.025) & (fate < 0.045) if hold else np.zeros(len(has), bool)
        if hold:
            codes[held] = hold.number
        truth[has, place] = codes
        holds = {int(number): hold for number in numbers[has][held]} if hold else {}
        holders.append(Accounts(numbers[has], bound_at.astype(np.int64), holds))
    return holders, truth


def build_world(plan: NumberPlan, *, seed: int, numbers: int, platforms: int, now: datetime) -> World:
    """Draw the world of ``seed``: the same seed, counts and day give the same files and accounts.

    ``numbers`` is how many good rows all carriers publish together (>= 200).
    """
    random = np.random.default_rng(seed)
    midnight = int(now.timestamp()) // DAY * DAY
    blocks = _blocks(plan)
    total = sum(carrier.weight for carrier in CARRIERS)
    parts: list[tuple[CarrierPlan, Column, Column, Column]] = []
    for carrier in CARRIERS:
        count = max(20, round(numbers * carrier.weight / total))
        drawn = _draw_numbers(random, blocks[carrier.holder], count + max(3, count // 200))
        spoiled_places = random.choice(len(drawn), size=len(drawn) - count, replace=False)
        spoiled = np.zeros(len(drawn), bool)
        spoiled[spoiled_places] = True
        others = np.concatenate([held for holder, held in sorted(blocks.items()) if holder != carrier.holder])
        if carrier.uploads_for is None:
            hosted = {c.holder for c in CARRIERS if c.uploads_for == carrier.party_id}
            others = np.setdiff1d(others, np.concatenate([np.empty(0, np.int64), *(blocks[h] for h in hosted)]))
        foreign = random.choice(others, size=max(2, count // 400)) * 10_000 + random.integers(0, 10_000)
        parts.append((carrier, drawn[~spoiled], drawn[spoiled], np.unique(foreign)))

    taken = np.concatenate([good for _, good, _, _ in parts])
    every = np.sort(taken)
    ended = midnight - random.integers(60 * DAY, 120 * DAY, len(every))
    files = []
    for carrier, good, spoiled_numbers, foreign in parts:
        mine = ended[np.searchsorted(every, good)]
        strange = np.setdiff1d(foreign, every)
        files.append(_night_file(random, carrier, good, mine, strange, spoiled_numbers, midnight))
    plans = platform_plans(platforms)
    accounts, truth = _accounts(random, plans, every, ended, midnight)
    world = World(seed, midnight, plans, files, every, ended, accounts, truth)
    _draw_live_story(random, world, blocks)
    return world


def world_of_file(path: Path, *, seed: int, platforms: int, now: datetime, terminated_days: int = 95) -> World:
    """A world around a user's own CSV (column ``number``; times as in the README): one carrier publishes it whole.

    Which rows the hub accepts is the hub's to say here; the accounts and their fates are drawn as usual.
    """
    random = np.random.default_rng(seed)
    midnight = int(now.timestamp()) // DAY * DAY
    content = path.read_bytes()
    reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig")))
    rows, lines, ended_of = 0, dict[int, int](), dict[int, int]()
    for row in reader:
        rows += 1
        try:
            number = PhoneNumber.parse(row.get("number") or "").national
            moment = datetime.fromisoformat(row.get("terminated_at") or "")
        except (InvalidNumber, ValueError):
            continue
        moment = moment if moment.tzinfo else moment.replace(tzinfo=CHINA)
        lines[reader.line_num] = number
        ended_of.setdefault(number, int(moment.timestamp()))
    every = np.array(sorted(ended_of), np.int64)
    ended = np.array([ended_of[number] for number in every.tolist()], np.int64)
    carrier = CarrierPlan("file-carrier", path.name, "", 1.0)
    plans = platform_plans(platforms)
    accounts, truth = _accounts(random, plans, every, ended, midnight)
    return World(
        seed, midnight, plans, [NightFile(carrier, content, rows, every, {}, lines)], every, ended, accounts, truth
    )


def _draw_live_story(random: np.random.Generator, world: World, blocks: dict[str, Column]) -> None:
    """Some lines go back to their holders, one scheduled release is cancelled, twenty new holders press the key."""
    chosen = random.choice(len(world.numbers), size=min(61, len(world.numbers) // 4), replace=False)
    story: Column = world.numbers[chosen]
    world.cancelled, world.restored = np.sort(story[:1]), np.sort(story[1:])
    fresh = np.setdiff1d(_draw_numbers(random, blocks["cmcc"], 40), world.numbers)[:20]
    for number in fresh.tolist():
        world.new_holders.append((number, world.now - int(random.integers(1, 20)) * DAY))
    world.renewal_truth = np.full((len(fresh), len(world.platforms)), Disposition.no_account.number, np.uint8)
    for place, (accounts, platform) in enumerate(zip(world.accounts, world.platforms, strict=True)):
        has = np.flatnonzero(random.random(len(fresh)) < 0.3)
        mine = fresh[has]
        since = np.array([world.new_holders[place][1] for place in has.tolist()], np.int64)
        bound = since - random.integers(1, 900 * DAY, len(has))
        own = random.random(len(has)) < 0.2  # the new holder's own fresh account: must survive
        bound[own] = since[own] + 3_600
        codes = np.full(len(has), Disposition.unbound.number, np.uint8)
        codes[own] = Disposition.rejected_cutoff.number
        hold = _HOLDS.get(platform.app_class)
        held = ~own & (random.random(len(has)) < 0.3) if hold else np.zeros(len(has), bool)
        if hold:
            codes[held] = hold.number
            accounts.held.update(dict.fromkeys(mine[held].tolist(), hold))
        world.renewal_truth[has, place] = codes
        numbers = np.concatenate([accounts.numbers, mine])
        order = np.argsort(numbers, kind="stable")
        accounts.numbers = numbers[order]
        accounts.bound_at = np.concatenate([accounts.bound_at, bound.astype(np.int64)])[order]
