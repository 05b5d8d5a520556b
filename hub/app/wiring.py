"""The one place that builds everything: adapters behind ports, use cases on ports, the HTTP surface on use cases.

``build(settings)`` gives a `Hub` for API, workers, commands and tests alike. A test swaps parts by name:
``build(settings, clock=ManualClock(...), sender=RecordingSender())``. Nothing runs until `Hub.start`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from random import Random, SystemRandom
from typing import Any

from fastapi import FastAPI

from hub.adapters.codec.json_codec import JsonCodec
from hub.adapters.columns.index import ColumnIndex
from hub.adapters.files.store import DiskBatchFiles
from hub.adapters.memory.coordination import MemoryCoordination
from hub.adapters.number_plan.package import PackagePlan
from hub.adapters.oauth.assertions import JwsStatements
from hub.adapters.oauth.keys import JwkReader, open_hub_keys
from hub.adapters.oauth.tokens import JwtTokens
from hub.adapters.redis.coordination import RedisCoordination
from hub.adapters.sql.ledger import SqlLedger, open_ledger
from hub.adapters.sqlite.log import SqliteLog
from hub.adapters.system.clock import SystemClock
from hub.adapters.telemetry.prometheus import PrometheusMetrics
from hub.adapters.telemetry.tracing import NoTracing
from hub.adapters.webhook.sender import WebhookSender
from hub.api.app import create_app, create_health_app
from hub.api.context import ApiSettings, Context
from hub.api.traced import Traced
from hub.app.kafka import open_kafka_log
from hub.app.node import node_id
from hub.app.roles import EVERYTHING, Role
from hub.app.settings import INDEX_DIR, LOG_FILE, Settings
from hub.app.topics import PartyTopics, open_party_topics
from hub.domain.delivery import RETRY_AFTER
from hub.domain.errors import NumhubError, Unavailable
from hub.flow import matching
from hub.flow.acknowledge import Acknowledge
from hub.flow.append import Writer
from hub.flow.check import Check
from hub.flow.clear import Clear
from hub.flow.enrol import Enrol
from hub.flow.fold import Fold
from hub.flow.holding import Holder, Shards
from hub.flow.ingest.batches import Batches
from hub.flow.ingest.events import Events
from hub.flow.ingest.lists import Lists
from hub.flow.ingest.topic import TopicIntake
from hub.flow.members import Members
from hub.flow.pull import Pull
from hub.flow.push import Push
from hub.flow.reader import Reader
from hub.flow.redrive import Redrive
from hub.flow.renew import Renew
from hub.flow.report import Report
from hub.flow.subscriptions import Subscriptions
from hub.flow.traced import TracedAcknowledge, TracedClear, TracedPush, TracedSender, TracedWriter
from hub.flow.waive import Waive
from hub.flow.withdrawals import Withdrawals
from hub.ports.clock import Clock
from hub.ports.coordination import Coordination
from hub.ports.ledger import Directory
from hub.ports.log import EventLog
from hub.ports.metrics import Metrics
from hub.ports.sender import Sender
from hub.ports.tracing import Tracing
from hub.web.mount import mount
from hub.wire.delivery import WebhookEnvelope, make_secret
from hub.workers import gauges, timers
from hub.workers.catalogue import CatalogueWorker
from hub.workers.dispatcher import Dispatcher
from hub.workers.live_lag import heard_live_lag, say_live_lag
from hub.workers.supervisor import Supervisor
from hub.workers.wakeups import Wakeups


@dataclass
class Hub:
    """Everything of one process. ``context`` holds the use cases by name, ``app`` the HTTP surface."""

    settings: Settings
    clock: Clock
    metrics: Metrics
    log: EventLog
    ledger: SqlLedger
    directory: Directory
    index: ColumnIndex
    members: Members
    fold: Fold
    reader: Reader
    sender: Sender
    dispatcher: Dispatcher
    catalogue: CatalogueWorker
    wakeups: Wakeups
    supervisor: Supervisor
    holder: Holder | None  # None: alone by construction
    shards: Shards | None
    enrol: Enrol
    context: Context
    app: FastAPI = field(repr=False)
    health: FastAPI = field(repr=False)
    tracing: Tracing = field(default_factory=NoTracing)
    party_topics: PartyTopics | None = None  # with Kafka only

    async def start(self, roles: frozenset[Role] = EVERYTHING) -> None:
        """Start the loops, in the order in which they need each other; returns when the directory has been read.

        Raises LogReplaced, before anything moves, when the ledger has positions the log never reached."""
        await matching.check(self.ledger, self.log)
        await self.members.refresh()
        if self.holder is not None:
            await self.holder.leases.begin(self.holder.name)
        start = self.supervisor.start
        start("fold", self.fold.run())
        start("members", self.members.run())
        start("wake-ups", self.wakeups.run())
        if Role.index in roles:
            start("catalogue", self._alone("catalogue", self.catalogue.run))
            if self.settings.snapshots_dir:
                start("snapshots", self._alone("snapshots", self._publish_snapshots))
        if Role.dispatch in roles:
            if self.shards is not None:
                start("shards", self.shards.run())
            start("dispatcher", self.dispatcher.run())
            self.supervisor.on_stop("dispatcher", self.dispatcher.stop)
            if self.shards is not None:
                start("live lag", say_live_lag(self.dispatcher.live_lag, self.context.coordination, self.clock))
        if Role.timers in roles:
            start(
                "ledger room", self._alone("ledger-room", lambda: timers.make_room(self.ledger.make_room, self.clock))
            )
            start("endpoint proofs", self._alone("endpoint-proofs", self.context.subscriptions.run))
        if roles & {Role.api, Role.timers}:
            start("batches", self._resume_batches())
        if self.party_topics is not None and Role.ingress in roles:
            start("ingress", self.party_topics.ingress.run())
        if self.party_topics is not None and Role.outbox in roles:
            start("outbox", self._alone("outbox", self.party_topics.outbox.run))
        start("index flush", timers.flush_index(self.index, self.clock))
        start("loop lag", timers.watch_loop(self.clock, self.metrics))
        start("gauges", timers.publish(self._gauges, self.clock))
        probes: dict[str, gauges.Probe] = {"log": self.log.ends, "ledger": self.directory.version}
        start("dependencies", gauges.watch_dependencies(probes, self.clock, self.metrics))
        start("ledger figures", gauges.watch_ledger(self.ledger, self.clock, self.metrics))
        start("wall clock", gauges.watch_clock(self.clock, self.metrics))
        start("disk", gauges.watch_disk(self.settings.data_dir, self.clock, self.metrics))

    def _alone(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> Coroutine[Any, Any, None]:
        """``work``, in one process at a time."""
        return work() if self.holder is None else self.holder.while_held(name, work)

    async def stop(self, within: float | None = None) -> int:
        """Drain and close; returns how many pieces of work were given up."""
        given_up = await self.supervisor.stop(self.settings.drain_within if within is None else within)
        await self.context.batches.stop()
        await self.close()
        return given_up

    async def close(self) -> None:
        """Let go of files and connections without draining; for commands that started nothing."""
        await self.sender.close()
        await self.context.coordination.close()
        if self.party_topics is not None:
            await self.party_topics.topics.close()
        await self.log.close()
        await asyncio.to_thread(self.index.close)
        await self.ledger.close()
        await asyncio.to_thread(self.tracing.close)

    async def _resume_batches(self) -> None:
        """At the start what this process left, later what others left: whoever gets a batch's lease works on it."""
        await self.fold.catch_up()
        while True:
            with contextlib.suppress(Unavailable):
                await self.context.batches.resume_all()
            await self.clock.sleep(self.settings.lease_seconds)

    async def _publish_snapshots(self) -> None:
        folder = Path(self.settings.snapshots_dir)
        await timers.publish_snapshots(lambda: self.index.snapshot(folder), self.clock, self.settings.snapshot_every)

    def _gauges(self) -> None:
        for partition in range(self.log.partitions):
            self.metrics.set("numhub_fold_position", self.fold.position(partition), partition=str(partition))


@contextlib.asynccontextmanager
async def running(settings: Settings, **overrides: Any) -> AsyncIterator[Hub]:
    """A started hub without a socket, stopped at the end: for tests and embedding."""
    hub = await build(settings, **overrides)
    try:
        await hub.start()
        yield hub
    finally:
        await hub.stop(within=2.0)


async def build(
    settings: Settings,
    *,
    public_url: str | None = None,
    clock: Clock | None = None,
    sender: Sender | None = None,
    random: Random | None = None,
    tracing: Tracing | None = None,
) -> Hub:
    """Open the data directory and wire everything. ``public_url`` is the base address given out, where the settings
    leave it open (a port chosen by the machine). Raises OSError, KeyFileError, NumhubError with one clear line."""
    data = settings.data_dir
    await asyncio.to_thread(data.mkdir, mode=0o700, parents=True, exist_ok=True)
    clock = clock or SystemClock()
    random = random or SystemRandom()
    metrics = PrometheusMetrics()
    tracing = tracing or _open_tracing(settings)
    base_url = public_url or settings.base_url(settings.port)

    log = await open_log(settings, clock)
    directory, ledger = open_ledger(settings.ledger_address, clock, metrics, **settings.ledger_options)
    index = await _open_index(settings, log)
    codec = JsonCodec()
    plan = await asyncio.to_thread(PackagePlan)
    coordination = await _open_coordination(settings, clock, metrics)
    members = Members(directory, clock)
    fold = Fold(log, index, codec, metrics)
    writer = Writer(log, fold, clock, metrics)
    if tracing.enabled:
        system = "kafka" if settings.kafka_bootstrap else "sqlite"
        writer = TracedWriter(log, fold, clock, metrics, tracing=tracing, system=system)
    reader = Reader(log, fold, codec, settings.reader_cache_bytes)
    keys = open_hub_keys(settings.keys_folder)
    tokens = JwtTokens(
        base_url, keys, lambda: members.snapshot, coordination, clock, per_minute=settings.token_requests_per_minute
    )

    guarded = WebhookSender(
        clock,
        allow_loopback=settings.dangerous_allow_loopback_receivers,
        total_seconds=settings.delivery_timeout,
    )
    sender = sender or guarded
    envelope = WebhookEnvelope()
    subscriptions = Subscriptions(
        directory, ledger, log, fold, members, sender, envelope, clock, random, make_secret, guarded.check_url
    )
    holder = shards = None
    if settings.shared:  # leases run by the database's time, whatever the clock of the hub says
        holder = Holder(ledger.leases(), node_id(data), SystemClock(), random, settings.lease_seconds)
        shards = Shards(holder, metrics)
    withdrawals = Withdrawals(index, codec, clock)
    schedule = tuple(timedelta(seconds=s) for s in settings.push_retry_after) or RETRY_AFTER
    push = Push(sender, envelope, withdrawals, clock, random, metrics, schedule)
    if tracing.enabled:
        told = TracedSender(sender, tracing)
        push = TracedPush(told, envelope, withdrawals, clock, random, metrics, schedule, tracing=tracing)
    dispatcher = Dispatcher(
        ledger, fold, reader, members, push, withdrawals, subscriptions.suspend, clock, random, metrics,
        log.partitions, bulk_slots=settings.deliveries_in_flight, shards=shards,
    )  # fmt: skip
    redrive = Redrive(ledger, log, clock, random)
    wakeups = Wakeups(coordination, members, dispatcher.look_for_orders)
    redrive.ordered = wakeups.ordered
    catalogue = CatalogueWorker(ledger, fold, reader, codec, plan, members, clock, log.partitions)

    clear = Clear(ledger, fold, index, log, reader, codec, members, clock, metrics)
    acknowledge = Acknowledge(ledger, fold, index, reader, codec, members, clock, metrics)
    if tracing.enabled:
        clear = TracedClear(ledger, fold, index, log, reader, codec, members, clock, metrics, tracing=tracing)
        acknowledge = TracedAcknowledge(ledger, fold, index, reader, codec, members, clock, metrics, tracing=tracing)
    files = DiskBatchFiles(settings.batches_folder, max_bytes=settings.max_upload_bytes)
    batches = Batches(
        ledger, files, members, index, fold, log, writer, codec, plan, clock, metrics, clear.cleared,
        in_flight=settings.bulk_appends_in_flight, alone=None if holder is None else holder.alone_at("batch"),
    )  # fmt: skip
    live_lag = dispatcher.live_lag if shards is None else partial(heard_live_lag, coordination)
    events = Events(
        members, index, fold, log, writer, codec, plan, clock, metrics, clear.cleared,
        lag=live_lag, lag_limit=settings.live_lag_limit,
    )  # fmt: skip
    lists = Lists(members, index, fold, log, writer, codec, plan, clock, metrics, clear.cleared)
    party_topics = open_party_topics(
        settings, TopicIntake(events, lists), ledger, members, holder, clock, metrics, log.partitions
    )

    context = Context(
        clock=clock,
        members=members,
        tokens=tokens,
        coordination=coordination,
        metrics=metrics,
        settings=ApiSettings(
            public_url=base_url,
            requests_per_second=settings.requests_per_second,
            token_requests_per_minute=settings.token_requests_per_minute,
            body_limit=settings.body_limit,
        ),
        ledger=ledger,
        directory=directory,
        log=log,
        index=index,
        fold=fold,
        reader=reader,
        writer=writer,
        enrol=Enrol(directory, members, clock, SystemRandom(), JwkReader()),
        subscriptions=subscriptions,
        pull=Pull(reader, fold, ledger, members, clock, _secret(settings.keys_folder / "cursor.key"), log, index),
        acknowledge=acknowledge,
        redrive=redrive,
        batches=batches,
        events=events,
        clear=clear,
        renew=Renew(ledger, fold, index, log, writer, reader, codec, members, plan, clock),
        check=Check(ledger, fold, index, members, plan, clock),
        waive=Waive(ledger, members, JwsStatements(), clock),
        report=Report(ledger, members, fold, clock),
        exposition=metrics.exposition,
    )
    app = create_app(context)
    mount(app, context, link_key(settings.keys_folder))
    if tracing.enabled:
        app.add_middleware(Traced, tracing=tracing)
        app.state.shortcut = None  # it would pass by what watches
    return Hub(
        settings=settings,
        clock=clock,
        metrics=metrics,
        log=log,
        ledger=ledger,
        directory=directory,
        index=index,
        members=members,
        fold=fold,
        reader=reader,
        sender=sender,
        dispatcher=dispatcher,
        catalogue=catalogue,
        wakeups=wakeups,
        supervisor=Supervisor(clock),
        holder=holder,
        shards=shards,
        enrol=context.enrol,
        context=context,
        app=app,
        health=create_health_app(context),
        tracing=tracing,
        party_topics=party_topics,
    )


def _open_tracing(settings: Settings) -> Tracing:
    if settings.tracing == "off":
        return NoTracing()
    try:
        from hub.adapters.telemetry.otel import open_otlp
    except ImportError as error:
        raise NumhubError(f'tracing = "otlp" needs OpenTelemetry: pip install "numhub[otel]" ({error.name})') from error
    return open_otlp()


async def open_log(settings: Settings, clock: Clock | None = None) -> EventLog:
    """Kafka where brokers are named, else the file below the data directory."""
    if settings.kafka_bootstrap:
        return await open_kafka_log(settings, clock)
    return SqliteLog(settings.data_dir / LOG_FILE, settings.partitions, clock=clock)


async def _open_coordination(settings: Settings, clock: Clock, metrics: Metrics) -> Coordination:
    local = MemoryCoordination(clock)
    url = settings.redis_url.get_secret_value()
    if not url:
        return local
    try:
        shared = RedisCoordination(url, clock, metrics, local=local, prefix=settings.kafka_topic_prefix)
    except ValueError as error:
        raise NumhubError(f"redis_url is no address: {error}") from None
    await shared.begin()
    return shared


async def _open_index(settings: Settings, log: EventLog) -> ColumnIndex:
    ends, folder = await log.ends(), settings.data_dir / INDEX_DIR
    snapshots = Path(settings.snapshots_dir) if settings.snapshots_dir else None
    return await asyncio.to_thread(ColumnIndex, folder, log.partitions, log.log_id, log_ends=ends, snapshots=snapshots)


def make_keys(keys_folder: Path) -> None:
    """Make what is missing of the hub's own keys: before several processes that share them start at once."""
    open_hub_keys(keys_folder)
    _secret(keys_folder / "cursor.key")
    link_key(keys_folder)


def link_key(keys_folder: Path) -> bytes:
    """The key under which one-time links of the regulator's page are signed."""
    return _secret(keys_folder / "link.key")


def _secret(file: Path) -> bytes:
    """32 random bytes kept in ``file``, made on first use, readable by the owner only."""
    if not file.exists():
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_bytes(SystemRandom().randbytes(32))
        fresh.replace(file)
    return file.read_bytes()
