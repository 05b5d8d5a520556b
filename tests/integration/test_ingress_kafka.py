"""Carriers publish with producers that are not ours, on a real Kafka; the hub is a process that may be killed.

What they sent comes out at a webhook, exactly once; refusals come with reason and offset; answers are told on topics,
at least once and never before they are committed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from numhub_client import AsyncClient, Chunk, PrivateKey

from hub.adapters.sql.ledger import open_ledger
from hub.adapters.system.clock import SystemClock
from hub.app.demo.hub_process import free_port
from hub.app.local import LocalUnavailable
from hub.app.local.jars import java, kafka_jars
from hub.app.local.process import program
from hub.domain.events import EventType
from hub.domain.parties import AppClass, Role
from hub.wire.answers import CarrierAnswer, RegulatorAnswer
from hub.wire.ingress import SCHEMA, IngressRefusal, IngressSummary
from tests.conftest import ROOT, missing
from tests.history import History, Wishes
from tests.integration.killed_world import ONCE, HubStem, Platform, enrol, insist, listen
from tests.topic_world import event, numbers

ALL = Wishes(frozenset(kind.value for kind in EventType), frozenset({"bulk", "live"}))
CMCC, CUCC = 13_800_138_000, 18_600_008_000
CONSOLE_PRODUCER = "3.9.1"  # later ones keep it in a jar that a broker does not need


@dataclass
class Desk(Platform):
    """Keeps the chunks and answers nothing by itself."""

    chunks: list[Chunk] = field(default_factory=list)

    def post(self, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        answer = super().post(headers, body)
        while not self.inbox.empty():
            chunk = self.inbox.get_nowait()
            assert isinstance(chunk, Chunk)
            self.chunks.append(chunk)
        return answer

    @property
    def counted(self) -> Counter[int]:
        """How many different chunks brought each number."""
        return Counter(
            number for chunk in {one.chunk_id: one for one in self.chunks}.values() for number in chunk.numbers
        )


@dataclass
class World:
    bootstrap: str
    prefix: str
    hub: HubStem
    bank: Desk
    mail: Desk
    port: int

    @property
    def source(self) -> str:
        return f"{self.prefix}ingress.cmcc"

    async def read(self, name: str, enough: Any, within: float = 60.0) -> list[Any]:
        """All messages of a topic, read by a plain consumer, as soon as they are ``enough``."""
        topic = self.prefix + name
        consumer = AIOKafkaConsumer(topic, bootstrap_servers=self.bootstrap, auto_offset_reset="earliest")
        await consumer.start()
        found: list[Any] = []
        try:
            async with asyncio.timeout(within):
                while not enough(found):
                    for records in (await consumer.getmany(timeout_ms=200)).values():
                        found += [(dict(one.headers), json.loads(one.value)) for one in records]
        except TimeoutError:
            raise AssertionError(f"{topic} holds {len(found)} messages; the hub says: {self.hub.log_tail()}") from None
        finally:
            await consumer.stop()
        return [value for _, value in found]

    async def arrive(self, wanted: set[int], within: float = 60.0) -> None:
        try:
            async with asyncio.timeout(within):
                while not wanted <= self.bank.counted.keys():
                    await asyncio.sleep(0.05)
        except TimeoutError:
            gone = sorted(wanted - self.bank.counted.keys())
            raise AssertionError(f"{len(gone)} never came, {gone[:3]}; the hub: {self.hub.log_tail()}") from None

    def topics(self, *arguments: str) -> None:
        """`numhub topics`, as an operator would call it; the settings come from the environment."""
        command = [sys.executable, "-m", "hub.app.cli", "topics", *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
async def world(kafka_bootstrap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    prefix = f"i{secrets.token_hex(4)}."
    monkeypatch.setenv("NUMHUB_KAFKA_BOOTSTRAP", kafka_bootstrap)
    monkeypatch.setenv("NUMHUB_KAFKA_TOPIC_PREFIX", prefix)
    async with opened(kafka_bootstrap, prefix, tmp_path) as found:
        yield found


@contextlib.asynccontextmanager
async def opened(bootstrap: str, prefix: str, home: Path) -> AsyncIterator[World]:
    """A hub with its log and topics on Kafka, a carrier with topics, and two apps that listen."""
    classes = {"bank": AppClass.bank, "mail": AppClass.social_mail}
    keys = await enrol(home, ["cmcc", "cucc"], classes)
    await own_blocks(home)
    hub, port = HubStem(home, free_port()), free_port()

    def desk(name: str, key: PrivateKey) -> Desk:
        client = AsyncClient(hub.url, key, timeout=10.0, retry=ONCE)
        return Desk(name, client, History(), Random(1), "webhook_full", ALL)

    bank, mail = (desk(name, keys[name]) for name in classes)
    world = World(bootstrap, prefix, hub, bank, mail, port)
    await asyncio.to_thread(world.topics, "apply", "--development", "--carrier", "cmcc")
    server, serving = await listen([bank, mail], port)
    try:
        await hub.load()
        await hub.start()
        await hub.ready(60.0)
        for each in (bank, mail):
            await each.subscribe(port)
        yield world
    finally:
        for each in (bank, mail):
            await each.client.aclose()
        server.should_exit = server.force_exit = True
        await serving
        await hub.close()


async def own_blocks(home: Path) -> None:
    """Each carrier may publish the numbers of its own blocks only."""
    directory, ledger = open_ledger(home / "ledger.db", SystemClock())
    for party in (await directory.snapshot()).parties.values():
        if party.role is Role.carrier:
            await directory.put_party(replace(party, block_holders=(party.party_id,)))
    await ledger.close()


async def run(*command: str, stdin: bytes = b"") -> bytes:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    async with asyncio.timeout(120):
        out, told = await process.communicate(stdin)
    assert process.returncode == 0, told.decode()
    return out


def lines(*values: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(value).encode() + b"\n" for value in values)


def tool(name: str) -> str:
    try:
        return program(name, name)
    except LocalUnavailable as error:
        missing("kafka", str(error))
        raise


@pytest.mark.timeout(240)
async def test_any_kafka_client_publishes_and_a_webhook_hears_of_it(world: World) -> None:
    """librdkafka's kcat, Kafka's own console producer in Java and a Python producer; kcat reads the rejects."""
    kcat = tool("kcat")
    sent = [event("kcat-1", CMCC), event("kcat-2", CUCC), event("kcat-3", CMCC + 1)]
    bare = [{name: value for name, value in one.items() if name != "schema"} for one in sent]
    await run(
        kcat,
        "-P",
        "-b",
        world.bootstrap,
        "-t",
        world.source,
        "-z",
        "gzip",
        "-H",
        f"schema={SCHEMA}",
        stdin=lines(*bare),
    )

    try:
        jars = await asyncio.to_thread(kafka_jars, CONSOLE_PRODUCER)
    except LocalUnavailable as error:
        missing("kafka", str(error))
    console = [java(), "-Xmx128m", "-cp", f"{jars}/*", "kafka.tools.ConsoleProducer"]
    rows = [CMCC + 10_000 * place for place in range(1, 6)]
    await run(
        *console, "--bootstrap-server", world.bootstrap, "--topic", world.source,
        stdin=lines(event("java-1", CMCC + 2), numbers("java-2", [*rows, CUCC])),
    )  # fmt: skip

    producer = AIOKafkaProducer(bootstrap_servers=world.bootstrap, acks="all", max_request_size=20 << 20)
    await producer.start()
    place = await producer.send_and_wait(world.source, b"no json at all", b"k")
    with pytest.raises(MessageSizeTooLargeError):  # the topic's own limit: the hub never sees it
        await producer.send_and_wait(world.source, b"x" * 10_000_000, b"k")
    await producer.send_and_wait(world.source, None, b"k")  # what deletes a key elsewhere
    await producer.send_and_wait(world.source, lines(event("py-0", CMCC + 4, schema="numhub.ingress.v9")), b"k")
    await producer.send_and_wait(world.source, lines(event("py-1", CMCC + 3)), b"k")
    await producer.stop()

    await world.arrive({CMCC, CMCC + 1, CMCC + 2, CMCC + 3, *rows})
    assert CUCC not in world.bank.counted
    assert set(world.bank.counted.values()) == {1}

    kinds = await world.read(
        "rejects.cmcc", lambda found: sum(one["records"] for _, one in found if one["kind"] == "summary") == 9
    )
    refusals = [one for one in kinds if one["kind"] == "refusal"]
    for one in kinds:
        (IngressRefusal if one["kind"] == "refusal" else IngressSummary).model_validate_json(json.dumps(one))
    by_id = {one["id"]: one for one in refusals if one["reason"] not in ("invalid_json", "empty", "schema_unknown")}
    assert by_id.keys() == {"kcat-2", "java-2"}
    (poison,) = (one for one in refusals if one["reason"] == "invalid_json")
    assert {one["reason"] for one in refusals} >= {"empty", "schema_unknown"}
    assert (by_id["kcat-2"]["reason"], by_id["kcat-2"]["number"]) == ("foreign_block", "186****8000")
    assert [(one["reason"], one["rows"]) for one in by_id["java-2"]["rows"]] == [("foreign_block", [5])]
    assert (poison["reason"], poison["source"]) == (
        "invalid_json", {"topic": world.source, "partition": place.partition, "offset": place.offset},
    )  # fmt: skip
    out = await run(kcat, "-C", "-e", "-q", "-b", world.bootstrap, "-t", f"{world.prefix}rejects.cmcc", "-f", "%h %s\n")
    assert out.count(b"kind=refusal") == 5
    assert str(CUCC).encode() not in out


@pytest.mark.timeout(240)
async def test_the_examples_for_carriers_work(world: World, tmp_path: Path) -> None:
    """The kcat line of schemas/log/README.md as it stands there, and publish.py, twice: nothing is published twice."""
    tool("kcat")
    readme = (ROOT / "schemas/log/README.md").read_text(encoding="utf-8")
    line = next(block for block in re.findall(r"```sh\n(.*?)```", readme, re.DOTALL) if block.startswith("kcat"))
    line = line.replace("numhub.ingress.cmcc", world.source)
    assert line.count(world.source) == 1
    await run("bash", "-c", f"KAFKA={world.bootstrap}\n{line}")
    wanted = [CMCC + 10_000 * (1 + place) for place in range(7)]
    file = tmp_path / "numbers.txt"
    file.write_text("\n".join(map(str, wanted)))
    publish = [sys.executable, str(ROOT / "schemas/log/publish.py"), world.bootstrap, world.prefix, "cmcc", str(file)]
    first = await run(*publish)
    assert b": 7 accepted in " in first
    assert await run(*publish) == first
    await world.arrive({CMCC, *wanted})
    assert set(world.bank.counted.values()) == {1}


@pytest.mark.timeout(300)
async def test_killed_while_carriers_publish_every_number_counts_once(world: World) -> None:
    """SIGKILL at random moments: read again, recognised, reported; nothing twice, nothing missing."""
    random = Random(7)
    events = [CMCC + place for place in range(300)]
    lists = [[CMCC + 10_000 * (1 + n) + 13 * row for row in range(500)] for n in range(30)]
    producer = AIOKafkaProducer(bootstrap_servers=world.bootstrap, acks="all", linger_ms=5)
    await producer.start()

    async def publish() -> None:
        for place, number in enumerate(events):
            while world.hub.kills < place // 60:  # so that each hub gets something to do
                await asyncio.sleep(0.02)
            await producer.send_and_wait(world.source, lines(event(f"e-{number}", number)), str(number).encode())
            if place % 10 == 0:
                rows = lists[place // 10]
                await producer.send_and_wait(world.source, lines(numbers(f"l-{place}", [*rows, CUCC])), b"list")
            if random.random() < 0.1:  # a producer that did not hear the ack sends again
                await producer.send_and_wait(world.source, lines(event(f"e-{number}", number)), str(number).encode())
            await asyncio.sleep(0.01)

    load = asyncio.create_task(publish())
    while world.hub.kills < 5:
        await asyncio.sleep(random.uniform(0.1, 1.2))
        await world.hub.kill()
        await world.hub.start()
        await world.hub.ready(60.0)
    await load
    await producer.stop()
    wanted = {*events, *(number for rows in lists for number in rows)}
    await world.arrive(wanted, within=120.0)
    assert world.bank.counted.keys() == wanted
    assert set(world.bank.counted.values()) == {1}, "a number came in two chunks"

    def complete(found: list[Any]) -> bool:
        ids = {one["id"] for _, one in found if one["kind"] == "refusal"}
        told = {each["id"] for _, one in found if one["kind"] == "summary" for each in one["events"]}
        return len(ids) == len(lists) and len(told) == len(events)

    found = await world.read("rejects.cmcc", complete)
    event_ids: dict[str, set[str]] = {}
    for one in found:
        for each in one.get("events", ()):
            event_ids.setdefault(each["id"], set()).add(each["event_id"])
        if one["kind"] == "refusal":
            assert [(each["reason"], each["rows"]) for each in one["rows"]] == [("foreign_block", [500])]
    assert all(len(ids) == 1 for ids in event_ids.values()), "an id was told with two events"
    assert sum(one["refused"] for one in found if one["kind"] == "summary") >= len(lists)


@pytest.mark.timeout(240)
async def test_answers_are_told_after_their_commit_even_if_the_hub_dies_between(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Answered while the topics cannot be written, then killed: the next process tells. By class to the carrier, in
    full to the regulators; what was never answered is never told."""
    producer = AIOKafkaProducer(bootstrap_servers=world.bootstrap, acks="all")
    await producer.start()
    rows = [CMCC + place for place in range(20)]
    shared = {"occurred_at": 1_772_294_400, "terminated_at": 1_767_225_600}
    await producer.send_and_wait(world.source, lines(numbers("l1", rows, "release_scheduled", shared=shared)))
    await world.arrive(set(rows))
    (chunk,) = world.bank.chunks
    async with asyncio.timeout(30):
        while not world.mail.chunks:
            await asyncio.sleep(0.05)

    sys.path.insert(0, str(ROOT / "tests" / "contracts"))
    from kafka_world import delete_topic

    for name in ("answers", "answers.cmcc"):
        await delete_topic(world.bootstrap, world.prefix + name)
    await asyncio.sleep(0.5)
    later = datetime.now(UTC).replace(microsecond=0) + timedelta(days=30)
    answer = chunk.answer(default="no_account").row(3, "unbound").row(5, "held_funds", review_at=later)
    await insist(lambda: world.bank.client.acks.send(answer))
    await asyncio.sleep(1.0)  # the outbox tries in vain
    await world.hub.kill()
    await asyncio.to_thread(world.topics, "apply", "--development", "--carrier", "cmcc")
    await world.hub.start()
    await world.hub.ready(60.0)

    (told,) = await world.read("answers", lambda found: len(found) >= 1)
    RegulatorAnswer.model_validate_json(json.dumps(told))
    assert (told["chunk_id"], told["subscriber_id"], told["version"]) == (chunk.chunk_id, "bank-co", 0)
    assert told["dispositions"] == {"no_account": 18, "unbound": 1, "held_funds": 1}
    (mine,) = await world.read("answers.cmcc", lambda found: len(found) >= 1)
    CarrierAnswer.model_validate_json(json.dumps(mine))
    assert (mine["app_class"], mine["version"]) == ("bank", 1)
    assert mine["counts"] == {"done": 19, "held": 1, "pending": 0, "failed": 0}
    assert (mine["held_rows"], mine["failed_rows"]) == ([5], [])
    text = json.dumps(mine)
    assert not any(word in text for word in ("bank-co", "unbound", "no_account", "sub_", "held_funds"))

    # a correction that the carrier cannot see is not told to it; one that it can is, with the next version
    await insist(lambda: world.bank.client.acks.send(chunk.answer().row(4, "unbound")))
    await world.read("answers", lambda found: len(found) >= 2)
    await insist(lambda: world.bank.client.acks.send(chunk.answer().row(5, "unbound")))
    everything = await world.read("answers", lambda found: len(found) >= 3)
    seen = await world.read("answers.cmcc", lambda found: len(found) >= 2)
    assert [one["version"] for one in everything] == [0, 1, 2]
    assert [(one["version"], one["counts"]["done"]) for one in seen] == [(1, 19), (2, 20)]
    assert {one["app_class"] for one in seen} == {"bank"}, "mail has answered nothing"
    await producer.stop()


@pytest.mark.timeout(300)
async def test_a_broker_that_goes_away_and_comes_back_loses_nothing(
    make_kafka: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub stands still, says so once, and goes on by itself."""
    local = make_kafka()
    monkeypatch.setenv("NUMHUB_KAFKA_BOOTSTRAP", local.bootstrap)
    monkeypatch.setenv("NUMHUB_KAFKA_TOPIC_PREFIX", "k.")
    home = tmp_path / "hub"
    home.mkdir()
    async with opened(local.bootstrap, "k.", home) as world:
        kcat = tool("kcat")
        await run(kcat, "-P", "-b", local.bootstrap, "-t", world.source, stdin=lines(event("a", CMCC)))
        await world.arrive({CMCC})
        await asyncio.to_thread(local.kill)
        await asyncio.sleep(4.0)
        await asyncio.to_thread(local.start)
        await run(kcat, "-P", "-b", local.bootstrap, "-t", world.source, stdin=lines(event("b", CMCC + 1)))
        await world.arrive({CMCC, CMCC + 1}, within=90.0)
        said = world.hub.log_file.read_text()
        assert said.count('"ingress_waits", "carrier": "cmcc"') == 1, said
        assert set(world.bank.counted.values()) == {1}
