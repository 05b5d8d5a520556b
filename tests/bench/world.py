"""The worlds benches run in: parties enrolled straight into the ledger, chunks written straight into the log."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import SystemRandom
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import polars as pl
from numhub_client import PrivateKey

from hub.adapters.codec.json_codec import JsonCodec
from hub.adapters.columns.index import ColumnIndex
from hub.adapters.number_plan.package import HOLDERS, PackagePlan
from hub.adapters.oauth.keys import JwkReader, generate
from hub.adapters.sql.ledger import open_ledger
from hub.adapters.sqlite.log import SqliteLog
from hub.adapters.system.clock import SystemClock
from hub.adapters.telemetry.prometheus import NoMetrics
from hub.app.settings import INDEX_DIR, LOG_FILE
from hub.domain.events import EventType, Lane
from hub.domain.parties import (
    AppClass,
    DeliveryMode,
    Purpose,
    Role,
    SigningSecret,
    Subscription,
    SubscriptionState,
)
from hub.flow.coverage import BASIC_CARRIERS
from hub.flow.enrol import Enrol
from hub.flow.fold import Fold
from hub.flow.ingest.chunks import Columns, make_record, partition_of_all, pieces, record_id, runs
from hub.flow.ingest.publisher import Publisher
from hub.flow.members import Members
from hub.ports.ledger import Cursor
from hub.ports.log import NewRecord
from tests.bench import stack
from tests.bench.processes import ROOT
from tests.bench.sink import secret_of

CARRIER = "carrier-1"
DAY = 86_400
UNUSED_SECONDS = 2 * 3600
PARTITIONS, HUB_SETTINGS = stack.PARTITIONS, stack.HUB_SETTINGS

Numbers = npt.NDArray[np.int64]


@dataclass(slots=True)
class World:
    """A data directory with everybody enrolled. ``subscribers`` own one app each, or several."""

    data: Path
    keys: dict[str, PrivateKey] = field(default_factory=dict, repr=False)
    subscriptions: list[Subscription] = field(default_factory=list)
    carriers: list[str] = field(default_factory=list)

    async def token(self, url: str, party_id: str) -> str:
        async with httpx.AsyncClient(trust_env=False) as client:
            for _ in range(20):
                form, headers = self.keys[party_id].grant(url, time.time())
                answer = await client.post(
                    f"{url}/oauth2/token", data={"grant_type": "client_credentials", **form}, headers=headers
                )
                if answer.status_code != 503:  # a memory of what was used that has just begun, in a fresh Redis
                    break
                await asyncio.sleep(float(answer.headers.get("retry-after", "1")))
        answer.raise_for_status()
        token: str = answer.json()["access_token"]
        return token

    def remove(self) -> None:
        stack.end(self.data)
        shutil.rmtree(self.data, ignore_errors=True)


def fresh_folder() -> Path:
    """A data directory, with the services that belong to it where the stack has some."""
    data = Path(tempfile.mkdtemp(prefix="numhub-bench-"))
    stack.begin(data)
    return data


async def enrol(
    data: Path,
    *,
    subscribers: int = 0,
    apps_each: int = 1,
    sink: str = "",
    lanes: Collection[Lane] = (Lane.bulk,),
    state: SubscriptionState = SubscriptionState.active,
    path: Callable[[int], str] = "/s/{}".format,
    basic_carriers: bool = False,
) -> World:
    """One carrier, and ``subscribers`` parties with ``apps_each`` subscriptions each, from the log's beginning on.

    With ``sink`` (base URL) they are full webhooks to ``path(number)``, signed with `sink.secret_of`; else pull. With
    ``basic_carriers`` there are four carriers, one for each basic network, who may publish every block.
    """
    clock = SystemClock()
    directory, ledger = open_ledger(stack.ledger_address(data), clock)
    members = Members(directory, clock)
    await members.refresh()
    enrolment = Enrol(directory, members, clock, SystemRandom(), JwkReader())
    world = World(data)

    async def add(role: Role, party_id: str, **more: Any) -> None:
        private, public = generate()
        world.keys[party_id] = PrivateKey.parse(private, party_id)
        await enrolment.add_party(role, party_id, party_id, keys=[public], **more)

    now = clock.now()
    for place in range(len(BASIC_CARRIERS) if basic_carriers else 1):
        world.carriers.append(f"carrier-{place + 1}")
        holders = tuple(dict.fromkeys((BASIC_CARRIERS[place], *HOLDERS[1:]))) if basic_carriers else ()
        await add(Role.carrier, world.carriers[-1], coverage_since=now - timedelta(days=400), block_holders=holders)
    number = 0
    for place in range(subscribers):
        owner = f"owner-{place:03d}"
        await add(Role.subscriber, owner)
        await enrolment.add_agreement(owner, pia_ref="PIA-BENCH")
        for _ in range(apps_each):
            app = await enrolment.add_app(f"app-{number:04d}", owner, AppClass.lifestyle_travel, "bench")
            subscription = Subscription(
                subscription_id=f"sub_{number:016x}",
                subscriber_id=owner,
                app_id=app.app_id,
                app_class=app.app_class,
                purpose=Purpose.account_unbind,
                event_types=frozenset(EventType),
                lanes=frozenset(lanes),
                mode=DeliveryMode.webhook_full if sink else DeliveryMode.pull,
                state=state,
                created_at=now,
                endpoint=sink + path(number) if sink else None,
                secrets=(SigningSecret("v1", secret_of(number), now),) if sink else (),
            )
            await ledger.open_cursors(
                [
                    Cursor(subscription.subscription_id, partition, lane, 0, 0)
                    for partition in range(PARTITIONS)
                    for lane in lanes
                ]
            )
            await directory.put_subscription(subscription)
            world.subscriptions.append(subscription)
            number += 1
    await ledger.close()
    return world


# ---- numbers and chunks


def draw_numbers(count: int, seed: int, apart_from: Numbers | None = None) -> Numbers:
    """``count`` numbers out of the real blocks, ascending; none of ``apart_from`` (ascending)."""
    random = np.random.default_rng(seed)
    blocks = PackagePlan().blocks()[0].astype(np.int64)
    found: Numbers = np.empty(0, np.int64)
    while len(found) < count:
        size = count + count // 50 + 10
        more = random.choice(blocks, size) * 10_000 + random.integers(0, 10_000, size)
        found = np.unique(np.concatenate([found, more]))
        if apart_from is not None:
            known = apart_from[np.minimum(np.searchsorted(apart_from, found), len(apart_from) - 1)] == found
            found = found[~known]
    return np.sort(random.choice(found, count, replace=False))


STARTED = int(time.time())
"""One moment for everything a bench makes: a run over midnight must not tell two days for one event."""


def long_ago() -> int:
    """When the lines of all numbers that benches prefill ended."""
    return STARTED // DAY * DAY - 95 * DAY


def records_of(
    numbers: Numbers, event: EventType, name: str, *, lane: Lane = Lane.bulk, seq: int = 1
) -> Iterator[NewRecord]:
    """First events (or, with ``seq``, later ones) of numbers as full chunks; terminated on one day some months ago."""
    codec, publisher = JsonCodec(), Publisher(CARRIER, 1, np.ones(16, bool))
    ended = long_ago()
    numbers = numbers[np.argsort(partition_of_all(numbers, PARTITIONS), kind="stable")]
    partition = partition_of_all(numbers, PARTITIONS)
    place = 0
    for start, end in runs(partition):
        for low, high in pieces(start, end):
            rows = high - low
            times = np.full(rows, ended, np.int64)
            planned = event is EventType.release_scheduled
            columns = Columns(
                numbers=numbers[low:high],
                generation=np.zeros(rows, np.uint8),
                seq=np.full(rows, seq, np.uint16),
                occurred_at=times,
                binding_cutoff_at=times,
                release_planned_at=times + 100 * DAY if planned else np.zeros(rows, np.int64),
                reason=np.ones(rows, np.uint8),
            )
            name_of = record_id("bench", name, place)
            yield make_record(codec, publisher, name_of, event, lane, int(partition[low]), STARTED, columns)
            place += 1


async def write_log(data: Path, records: Iterator[NewRecord]) -> list[tuple[str, int]]:
    """Append straight to the log; returns (chunk id, numbers) of each record."""
    log = await stack.open_log(data)
    written: list[tuple[str, int]] = []
    waiting: list[NewRecord] = []
    for record in records:
        written.append((record.record_id, int(record.headers["count"])))
        waiting.append(record)
        if len(waiting) == 64:
            await log.append(waiting)
            waiting = []
    await log.append(waiting)
    await log.close()
    return written


async def fold_index(data: Path) -> int:
    """Fold the log into its index, so that a hub started on it has nothing to catch up."""
    log = await stack.open_log(data)
    index = ColumnIndex(data / INDEX_DIR, PARTITIONS, log.log_id)
    fold = Fold(log, index, JsonCodec(), NoMetrics())
    running = asyncio.create_task(fold.run())
    await fold.catch_up()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    index.flush()
    count = index.count()
    index.close()
    await log.close()
    return count


async def catalogued(data: Path, within: float = 60.0) -> None:
    """Wait until the hub that runs on ``data`` has listed every chunk of its log."""
    deadline = time.monotonic() + within
    log = await stack.open_log(data)
    _, ledger = open_ledger(stack.ledger_address(data), SystemClock())
    try:
        end = sum(await log.ends())
        while sum((await ledger.catalogue_positions()).values()) < end:
            if time.monotonic() > deadline:
                raise RuntimeError("the catalogue does not come to its end")
            await asyncio.sleep(0.1)
    finally:
        await ledger.close()
        await log.close()


async def open_numbers(count: int) -> tuple[Path, Numbers]:
    """A data directory whose index holds ``count`` open numbers, half deactivated, half scheduled for release.

    Made once per day and version of codec and index, kept in the temporary directory and copied for each run. Runs of
    several checkouts share it: what is there is whole, and goes only when nobody has used it for hours.
    """
    numbers = draw_numbers(count, seed=1)
    sources = [*sorted((ROOT / "hub/adapters/columns").glob("*.py")), *(ROOT / "hub/adapters/codec").glob("*.py")]
    version = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:12]
    cache = Path(tempfile.gettempdir()) / f"numhub-bench-cache-{os.getuid()}"
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = cache / f"open-{count}-{version}-{long_ago() // DAY}"
    if not kept.exists():
        _drop_old(cache)
        making = Path(tempfile.mkdtemp(prefix="making-", dir=cache))  # always embedded: files can be copied
        await write_log(making, records_of(numbers[::2], EventType.deactivated, "open-0"))
        await write_log(making, records_of(numbers[1::2], EventType.release_scheduled, "open-1"))
        await fold_index(making)
        keep(making, kept)
    os.utime(kept)
    data = fresh_folder()
    await asyncio.to_thread(shutil.copytree, kept, data, dirs_exist_ok=True)
    if not stack.is_embedded(data):
        held, log = SqliteLog(data / LOG_FILE, PARTITIONS), await stack.open_log(data)
        await stack.copy_log(held, log)
        await held.close()
        await log.close()
        shutil.rmtree(data / INDEX_DIR)
        await fold_index(data)
    return data, numbers


def keep(making: Path, kept: Path) -> None:
    """Publish a folder under its name, whole; if another run was quicker, theirs is as good and ours goes."""
    try:
        making.rename(kept)
    except OSError:
        if not kept.is_dir():
            raise
        shutil.rmtree(making, ignore_errors=True)


def _drop_old(cache: Path) -> None:
    for old in [*cache.glob("open-*"), *cache.glob("making-*")]:
        with contextlib.suppress(OSError):
            if time.time() - old.stat().st_mtime > UNUSED_SECONDS:
                shutil.rmtree(old, ignore_errors=True)


def night_file(new: Numbers, known: Numbers, seed: int, *, whole_days: bool) -> bytes:
    """A carrier's CSV of scheduled releases, in no order: ``new`` numbers and ``known`` ones that are open already.

    With ``whole_days`` lines end at midnight, as billing systems often say it; else at any second.
    """
    random = np.random.default_rng(seed)
    midnight = STARTED // DAY * DAY - 8 * 3600
    ended = midnight - random.integers(60, 90, len(new)) * DAY
    if not whole_days:
        ended += random.integers(0, DAY, len(new))
    ended = np.concatenate([ended, np.full(len(known), long_ago())])
    numbers = np.concatenate([new, known])
    order = random.permutation(len(numbers))
    numbers, ended = numbers[order], ended[order]
    planned = midnight + random.integers(35, 41, len(numbers)) * DAY
    text = "%Y-%m-%dT%H:%M:%S+08:00"

    def moments(epochs: Numbers) -> pl.Series:
        return pl.from_epoch(pl.Series(epochs + 8 * 3600)).dt.strftime(text)

    table = pl.DataFrame(
        {
            "number": numbers,
            "terminated_at": moments(ended),
            "release_planned_at": moments(planned),
            "reason": np.array(["holder_request", "arrears", "carrier"])[numbers % 3],
        }
    )
    return table.write_csv().encode()
