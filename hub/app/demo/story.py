"""What happens in a demo, in order: enrol, subscribe, publish, kill, withdraw, renew, answer, clear, release."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numhub_client import AsyncClient, Event, PrivateKey, Retry

from hub.app.demo.hub_process import HubUnderTest, free_port
from hub.app.demo.platforms import Endpoint, Platform, insist, receives_by_webhook
from hub.app.demo.world import CarrierPlan, NightFile, Temper, World
from hub.domain.lifecycle import CHINA, from_epoch

Tell = Callable[[str], None]
DOWN_SECONDS = 6.0
CLEARANCE_AT_ONCE = 10_000
PATIENT = Retry(attempts=60, longest=1.0)
PATIENCE = 45.0  # seconds without any progress before the demo gives up and compares what is there


@dataclass(slots=True)
class Batch:
    """One carrier's night as the hub reported it."""

    file: NightFile
    batch_id: str
    accepted: int
    refused: dict[str, int]
    chunks: int
    refused_lines: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Told:
    """What the hub and the platforms said; `verdict` compares it with the world."""

    batches: list[Batch] = field(default_factory=list)
    live: Counter[str] = field(default_factory=Counter)
    clearances: dict[str, Any] = field(default_factory=dict)  # batch id -> BatchClearance
    waiting: dict[str, Any] = field(default_factory=dict)  # batch id -> bool per number: not to be sold yet
    released: int = 0
    release_refused: int = 0
    renewals: list[Any] = field(default_factory=list)
    corrected: int = 0
    timings: dict[str, float] = field(default_factory=dict)


class Story:
    def __init__(
        self, world: World, hub: HubUnderTest, keys: dict[str, Path], kills: int, tell: Tell, progress: Progress
    ) -> None:
        self.world, self.hub, self.told = world, hub, Told()
        self._keys, self._kills, self._tell, self._progress = keys, kills, tell, progress
        self._clients: dict[str, AsyncClient] = {}
        self.platforms = [
            Platform(plan, accounts, self.client(f"owner-{plan.app_id}"))
            for plan, accounts in zip(world.platforms, world.accounts, strict=True)
        ]
        self._endpoints = {p.plan.app_id: Endpoint(p, free_port()) for p in self.platforms if receives_by_webhook(p)}
        self._background: list[asyncio.Task[Any]] = []
        self._batches_of: Counter[str] = Counter()

    def client(self, party_id: str) -> AsyncClient:
        if party_id not in self._clients:
            credentials = PrivateKey.load(self._keys[party_id], party_id)
            self._clients[party_id] = AsyncClient(self.hub.url, credentials, timeout=20.0, retry=PATIENT)
        return self._clients[party_id]

    async def play(self) -> None:
        """The whole story; the hub keeps running. Raises what nobody expected."""
        began = time.monotonic()
        await self._subscribe()
        self._mark("subscribe", began)
        began = time.monotonic()
        killer = asyncio.create_task(self._kill_now_and_then(), name="killer")
        self._background.append(killer)
        self.told.batches = await asyncio.gather(*(self._publish(file) for file in self.world.files))
        self._mark("publish", began)
        self._tell("all files are in; some lines go back to their holders, new holders press the key")
        await self._live_story()
        await self._everything_received()
        await killer
        await self._everything_received()
        self._mark("deliver and answer", began)
        began = time.monotonic()
        self.told.corrected = sum([await p.correct() for p in self.platforms if p.plan.temper is Temper.correcting])
        self._tell(f"{self.told.corrected} answers corrected")
        await self._clear()
        await self._release()
        await self._everything_received()
        self._mark("clear and release", began)
        self.told.renewals = [await insist(self.client("cmcc").renewals.get, r.renewal_id) for r in self.told.renewals]

    async def close(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        for endpoint in self._endpoints.values():
            await endpoint.close()
        for client in self._clients.values():
            await client.aclose()

    def _mark(self, name: str, began: float) -> None:
        self.told.timings[name] = time.monotonic() - began

    # -- subscribers

    async def _subscribe(self) -> None:
        self._tell(f"{len(self.platforms)} platforms subscribe and prove their endpoints")
        await asyncio.gather(*(self._subscribe_one(platform) for platform in self.platforms))

    async def _subscribe_one(self, platform: Platform) -> None:
        endpoint = self._endpoints.get(platform.plan.app_id)
        if endpoint:
            await endpoint.open()
        made = await platform.client.subscriptions.create(
            platform.plan.app_id,
            mode=platform.plan.mode.value,
            endpoint=endpoint.url if endpoint else None,
            start="earliest",
        )
        platform.subscription_id = made.subscription_id
        if endpoint is None:
            self._run(platform.pull(), f"{platform.plan.app_id} pulls")
            return
        assert made.secret is not None
        platform.trust(made.secret.key)
        self._run(platform.work(), f"{platform.plan.app_id} works")
        proven = await platform.client.subscriptions.prove(platform.subscription_id)
        if proven.state != "active":
            raise RuntimeError(f"{platform.plan.app_id}: the endpoint could not be proven ({proven.detail})")
        if platform.plan.temper is Temper.down:
            await endpoint.close()
            self._run(self._come_back(platform, endpoint), "comes back")

    async def _come_back(self, platform: Platform, endpoint: Endpoint) -> None:
        await asyncio.sleep(DOWN_SECONDS)
        await endpoint.open()
        self._tell(f"{platform.plan.name} is back after {DOWN_SECONDS:.0f} s")

    def _run(self, work: Any, name: str) -> None:
        self._background.append(asyncio.create_task(work, name=name))

    def _none_failed(self) -> None:
        """A platform whose loop ended has stopped working unseen: say so at once."""
        for task in self._background:
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise RuntimeError(f"{task.get_name()}: {error!r}") from error

    # -- carriers

    def _uploader(self, carrier: CarrierPlan) -> AsyncClient:
        return self.client(carrier.uploads_for or carrier.party_id)

    def _next_seq(self, carrier: CarrierPlan) -> int:
        """Batches of one uploader are numbered without gaps, whoever's numbers they hold."""
        uploader = carrier.uploads_for or carrier.party_id
        self._batches_of[uploader] += 1
        return self._batches_of[uploader]

    async def _publish(self, file: NightFile) -> Batch:
        carrier = file.carrier
        path = self.hub.log_file.parent / f"{carrier.party_id}.csv"
        path.write_bytes(file.content)
        client = self._uploader(carrier)
        seq = self._next_seq(carrier)
        done = await insist(
            client.batches.upload,
            path,
            batch_seq=seq,
            acting_for=carrier.party_id if carrier.uploads_for else None,
            idempotency_key=f"demo-night-{carrier.party_id}",
        )
        if done.state != "committed":
            raise RuntimeError(f"{carrier.name}: the batch ended as {done.state}: {done.failure}")
        self._progress.published(done.rows_accepted)
        rows = await insist(client.batches.result, done.batch_id)
        file.settle({row.line for row in rows})
        reasons = {reason.reason: reason.rows for reason in done.reasons}
        return Batch(file, done.batch_id, done.rows_accepted, reasons, done.chunks, [row.line for row in rows])

    async def _live_story(self) -> None:
        world = self.world
        for event_type, numbers in (("release_cancelled", world.cancelled), ("restored", world.restored)):
            for file in world.files:
                mine = np.intersect1d(numbers, file.good)
                if not len(mine):
                    continue
                acting_for = file.carrier.party_id if file.carrier.uploads_for else None
                events = [
                    Event(str(number), event_type, datetime.now(UTC).replace(microsecond=0), acting_for=acting_for)  # type: ignore[arg-type]
                    for number in mine.tolist()
                ]
                key = f"demo-{event_type}-{file.carrier.party_id}"
                client = self._uploader(file.carrier)
                results = await insist(client.events.publish, events, idempotency_key=key)
                refused = [result.reason for result in results.results if result.status != "accepted"]
                if refused:
                    raise RuntimeError(f"{event_type}: the hub refused {Counter(refused)}")
                self.told.live[event_type] += len(events)
        apps = [plan.app_id for plan in world.platforms]
        for place, (number, activated_at) in enumerate(world.new_holders):
            chosen: Any = "all" if place % 3 == 0 else apps[place % 4 :: 2]
            self.told.renewals.append(
                await insist(
                    self.client("cmcc").renewals.request,
                    str(number),
                    activated_at=from_epoch(activated_at),
                    apps=chosen,
                    consent_sha256=f"{place:064x}",
                    idempotency_key=f"demo-renewal-{place}",
                )
            )

    # -- faults

    async def _kill_now_and_then(self) -> None:
        """The first kill falls into the uploads; the others when a share of all pairs has arrived."""
        for place in range(self._kills):
            await asyncio.sleep(0.8)
            share = 0.8 * place / max(1, self._kills)
            deadline = time.monotonic() + 20
            while self._share_received() < share and time.monotonic() < deadline:  # noqa: ASYNC110 - books have no event
                await asyncio.sleep(0.05)
            self._tell(f"kill -9 of {self.hub.next_victim}, {self._share_received():.0%} of all pairs delivered")
            await self.hub.kill()
            self._tell("it is back")

    def _owed(self, platform: Platform) -> Counter[str]:
        """Rows per event type this platform must have received by now."""
        owed: Counter[str] = Counter(self.told.live)
        owed["release_scheduled"] = sum(batch.accepted for batch in self.told.batches)
        owed["released"] = self.told.released
        owed["renewal_requested"] = sum(
            any(app.app_id == platform.plan.app_id for app in renewal.apps) for renewal in self.told.renewals
        )
        return +owed

    @staticmethod
    def got(platform: Platform) -> Counter[str]:
        got: Counter[str] = Counter()
        for event_type, numbers in list(platform.received.values()):
            got[event_type] += len(numbers)
        return got

    def _share_received(self) -> float:
        total = len(self.world.numbers) * len(self.platforms)
        got = sum(self.got(platform)["release_scheduled"] for platform in self.platforms)
        self._progress.delivered(got)
        return got / total if total else 1.0

    async def _everything_received(self) -> None:
        """Wait until every platform's books hold all it is owed, as long as there is progress."""
        last, since = -1, time.monotonic()
        while True:
            self._share_received()
            got = sum(sum(self.got(p).values()) for p in self.platforms)
            if all(p.idle and not self._owed(p) - self.got(p) for p in self.platforms):
                return
            self._none_failed()
            if got != last:
                last, since = got, time.monotonic()
            if time.monotonic() - since > PATIENCE:
                busy = [p.plan.name for p in self.platforms if not p.idle or self._owed(p) - self.got(p)]
                self._tell(f"no progress for {PATIENCE:.0f} s; still waiting for {', '.join(busy)}")
                return  # what is missing shows in the verdict
            await asyncio.sleep(0.1)

    # -- the end

    async def _clear(self) -> None:
        for batch in self.told.batches:
            client = self._uploader(batch.file.carrier)
            self.told.clearances[batch.batch_id] = await insist(client.clearance.batch, batch.batch_id, detail="none")
        go = sum(c.go + c.go_with_exceptions for c in self.told.clearances.values())
        self._tell(f"carriers asked: {go:,} numbers may be sold, the others wait")

    async def _release(self) -> None:
        """Everything that is clear goes on sale, and a few numbers that are not, which the hub must refuse."""
        today = datetime.now(UTC).astimezone(CHINA).isoformat(timespec="seconds")
        for batch in self.told.batches:
            carrier, client = batch.file.carrier, self._uploader(batch.file.carrier)
            numbers = batch.file.good
            waiting = np.zeros(len(numbers), bool)
            for start in range(0, len(numbers), CLEARANCE_AT_ONCE):
                asked = [str(number) for number in numbers[start : start + CLEARANCE_AT_ONCE].tolist()]
                told = await insist(client.clearance.numbers, asked)
                waiting[[start + each.index for each in told.numbers if each.verdict == "wait"]] = True
            self.told.waiting[batch.batch_id] = waiting
            tried = np.flatnonzero(waiting)[:10]
            chosen = np.concatenate([numbers[~waiting], numbers[tried]])
            lines = [f"{number},{today}" for number in chosen.tolist()]
            path = self.hub.log_file.parent / f"{carrier.party_id}-released.csv"
            path.write_text("number,occurred_at\n" + "\n".join(lines) + "\n")
            seq = self._next_seq(carrier)
            done = await insist(
                client.batches.upload,
                path,
                batch_seq=seq,
                event_type="released",
                acting_for=carrier.party_id if carrier.uploads_for else None,
                idempotency_key=f"demo-released-{carrier.party_id}",
            )
            self.told.released += done.rows_accepted
            self.told.release_refused += done.rows_refused


class Progress:
    """What the progress bars are told; the console replaces both methods."""

    def published(self, rows: int) -> None:
        """``rows`` more numbers were accepted."""

    def delivered(self, pairs: int) -> None:
        """``pairs`` (number, app) pairs have arrived in all."""
