"""A demo from the empty folder to the verdict."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import SystemRandom
from typing import Any

from numhub_client import AsyncClient, NumhubError, PrivateKey
from rich.console import Console

from hub.adapters.number_plan.package import PackagePlan
from hub.adapters.oauth.keys import JwkReader, generate, write_private
from hub.adapters.sql.ledger import open_ledger
from hub.adapters.system.clock import SystemClock
from hub.app.cli.login import make_link
from hub.app.demo.console import BarProgress, Narrator, as_json, show, summary
from hub.app.demo.hub_process import HubDidNotStart, HubProcess, HubUnderTest, free_port
from hub.app.demo.services_hub import ServicesHub
from hub.app.demo.story import Story
from hub.app.demo.verdict import judge
from hub.app.demo.world import World, build_world, world_of_file
from hub.app.local import LocalError
from hub.domain.parties import Role
from hub.flow.enrol import Enrol
from hub.flow.members import Members

HUB_SETTINGS = {
    "NUMHUB_DANGEROUS_ALLOW_LOOPBACK_RECEIVERS": "true",
    # The production schedule waits 5 s, 5 min, 30 min ..; a story of two minutes needs shorter breath.
    "NUMHUB_PUSH_RETRY_AFTER": str([0.5, 1.0] + [1.5] * 60),
}
COVERAGE = timedelta(days=400)


class DemoFailed(RuntimeError):
    """The demo could not be played to its end; one clear line."""


@dataclass(frozen=True, slots=True)
class Options:
    numbers: int
    subscribers: int
    seed: int
    kills: int
    file: Path | None
    keep: bool
    json: bool
    stack: str = "embedded"
    workers: int = 2
    brokers: int = 1


async def play(options: Options) -> bool:
    """Play, judge, tell; True if everything agrees. Raises DemoFailed."""
    console = Console(stderr=options.json)
    tell = Narrator(console)
    began = time.monotonic()
    world = await asyncio.to_thread(_world, options)
    data = Path(await asyncio.to_thread(tempfile.mkdtemp, prefix="numhub-demo-"))
    rows = sum(file.rows for file in world.files)
    tell(f"seed {world.seed}: {rows:,} rows in {len(world.files)} files, {len(world.platforms)} apps hold accounts")
    hub = _hub(options, data)
    story: Story | None = None
    stays = interrupted = False
    try:
        await hub.prepare()
        keys = await _enrol(world, hub, data)
        await hub.start()
        tell(f"a hub runs at {hub.url} (pid {hub.pid})")
        tell(f"watch it live: {make_link(hub.keys_folder, hub.url, 'regulator')}")
        bars = BarProgress(console, len(world.numbers), len(world.platforms))
        story = Story(world, hub, keys, options.kills, tell, bars)
        with bars.bars:
            await story.play()
        link = make_link(hub.keys_folder, hub.url, "regulator")
        result = await _judge(story, keys, seconds=time.monotonic() - began, dashboard=link)
        show(console, result, story, stays=options.keep)
        if options.keep:
            _say_how_to_reach(console, story, keys, data)
            stays = True
    except asyncio.CancelledError:
        interrupted = True
        hub.abandon()  # who interrupts does not wait for a gentle end
        raise
    except (HubDidNotStart, LocalError, NumhubError, RuntimeError, OSError) as error:
        raise DemoFailed(f"{error} (hub's log: {hub.log_file})") from error
    finally:
        if story is not None:
            await story.close()
        if not stays:
            await hub.stop()
        if interrupted:
            await asyncio.to_thread(shutil.rmtree, data, ignore_errors=True)
    if options.json:
        sys.stdout.write(as_json(result) + "\n")
        sys.stdout.flush()
    if result["matches_ground_truth"] and not options.keep:
        await asyncio.to_thread(shutil.rmtree, data, ignore_errors=True)
    else:
        console.print(f"[dim]data kept in {data}[/dim]", highlight=False)
    return bool(result["matches_ground_truth"])


def _hub(options: Options, data: Path) -> HubUnderTest:
    if options.stack == "services":
        return ServicesHub(data, free_port(), HUB_SETTINGS, workers=options.workers, brokers=options.brokers)
    return HubProcess(data, free_port(), HUB_SETTINGS)


def _world(options: Options) -> World:
    now = SystemClock().now()
    if options.file is not None:
        world = world_of_file(options.file, seed=options.seed, platforms=options.subscribers, now=now)
        if not len(world.numbers):
            raise DemoFailed(f"{options.file}: no row has a valid number and terminated_at")
        return world
    return build_world(
        PackagePlan(), seed=options.seed, numbers=options.numbers, platforms=options.subscribers, now=now
    )


async def _enrol(world: World, hub: HubUnderTest, data: Path) -> dict[str, Path]:
    """All parties of the story straight into the ledger, before the hub starts; private keys go to files."""
    clock = SystemClock()
    directory, ledger = open_ledger(hub.ledger_address, clock)
    members = Members(directory, clock)
    await members.refresh()
    enrol = Enrol(directory, members, clock, SystemRandom(), JwkReader())
    folder = data / "parties"
    await asyncio.to_thread(folder.mkdir, mode=0o700)
    keys: dict[str, Path] = {}

    async def add(role: Role, party_id: str, name: str, **more: Any) -> None:
        private, public = generate()
        keys[party_id] = folder / f"{party_id}.jwk"
        write_private(keys[party_id], private)
        await enrol.add_party(role, party_id, name, keys=[public], **more)

    coverage = clock.now() - COVERAGE
    carriers = [file.carrier for file in world.files]
    for carrier in sorted(carriers, key=lambda each: each.uploads_for is None):
        hosted = tuple(each.party_id for each in carriers if each.uploads_for == carrier.party_id)
        holders = (carrier.holder,) if carrier.holder else ()
        await add(
            Role.carrier, carrier.party_id, carrier.name,
            block_holders=holders, acting_for=hosted, coverage_since=coverage,
        )  # fmt: skip
    for plan in world.platforms:
        owner = f"owner-{plan.app_id}"
        await add(Role.subscriber, owner, plan.name)
        await enrol.add_app(plan.app_id, owner, plan.app_class, plan.name)
        await enrol.add_agreement(owner, pia_ref="PIA-DEMO")
    await add(Role.regulator, "regulator", "Regulator (demo)")
    await ledger.close()
    return keys


async def _judge(story: Story, keys: dict[str, Path], *, seconds: float, dashboard: str) -> dict[str, Any]:
    regulator = AsyncClient(story.hub.url, PrivateKey.load(keys["regulator"], "regulator"))
    _, ledger = open_ledger(story.hub.ledger_address, SystemClock())
    try:
        report = await regulator.reports.get("summary")
        verdict = await judge(story, ledger, report)
    finally:
        await regulator.aclose()
        await ledger.close()
    return summary(story, verdict, seconds=seconds, dashboard=dashboard)


def _say_how_to_reach(console: Console, story: Story, keys: dict[str, Path], data: Path) -> None:
    """The hub stays; here is a ready-made call for each role."""
    url, numhub = story.hub.url, _command()
    console.print(
        f"\nThe hub keeps running as process {story.hub.pid}; stop it with: kill {story.hub.pid}", highlight=False
    )
    console.print(
        f"pages: {url}/ (a new link: {numhub} login-link regulator --url {url} --data {data})", soft_wrap=True
    )
    console.print(f"private keys of all parties: {data / 'parties'}", highlight=False, soft_wrap=True)
    batch = story.told.batches[0]
    uploader = batch.file.carrier.uploads_for or batch.file.carrier.party_id
    platform = story.platforms[0]
    calls = (
        ("carrier", uploader, f"{url}/v1/batches/{batch.batch_id}"),
        ("subscriber", f"owner-{platform.plan.app_id}", f"{url}/v1/subscriptions"),
        ("regulator", "regulator", f"{url}/v1/reports/summary"),
    )
    for role, party_id, address in calls:
        token = f"$({numhub} token --url {url} --client-id {party_id} --key {keys[party_id]})"
        console.print(f"\n[bold]{role}[/bold] {party_id}", highlight=False)
        console.print(f'curl -s -H "Authorization: Bearer {token}" "{address}"', highlight=False, soft_wrap=True)
    console.print("\n[bold]public[/bold]", highlight=False)
    console.print(f"curl -s {url}/health/ready; echo; {numhub} doctor --data {data}", highlight=False, soft_wrap=True)


def _command() -> str:
    """How this very command was called, so that what is printed can be pasted."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "numhub" else f"{sys.executable} -m hub.app.cli"
