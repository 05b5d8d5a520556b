"""The topics of carriers and regulators on a real Kafka: by id, from positions of our own, committed records only."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions

sys.path.insert(0, str(Path(__file__).parents[1] / "contracts"))
from kafka_world import delete_records, delete_topic, make_topic

from hub.adapters.kafka import parties
from hub.adapters.kafka.parties import KafkaTopicReader, KafkaTopics
from hub.domain.errors import LogUnavailable, PositionExpired, Unavailable
from hub.ports.topics import Publication, Stretch

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def topic() -> str:
    return f"t{secrets.token_hex(4)}.ingress.cmcc"


@pytest.fixture
async def topics(kafka_bootstrap: str) -> AsyncIterator[KafkaTopics]:
    opened = KafkaTopics(kafka_bootstrap)
    yield opened
    await opened.close()


async def send(bootstrap: str, topic: str, *values: bytes | None, partition: int = 0, **options: Any) -> None:
    headers = options.pop("headers", None)
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_request_size=20 << 20, **options)
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topic, value, b"key", partition=partition, headers=headers)
    finally:
        await producer.stop()


async def read_all(reader: KafkaTopicReader, topic_id: str, positions: dict[int, int], end: int) -> list[Stretch]:
    """Until partition 0 stands at ``end``. ``positions`` move."""
    found: list[Stretch] = []
    async with asyncio.timeout(20):
        while positions[0] < end:
            for stretch in await reader.read(topic_id, positions, within=0.5):
                positions[stretch.partition] = stretch.next_offset
                found.append(stretch)
    return found


async def test_records_are_read_as_they_were_sent(kafka_bootstrap: str, topics: KafkaTopics, topic: str) -> None:
    """Values, nulls, headers, offsets; nothing more at the end; from any position."""
    await make_topic(kafka_bootstrap, topic, 2)
    await send(kafka_bootstrap, topic, b"one", None, b"", headers=[("schema", b"v1"), ("x", b"\xff")])
    await send(kafka_bootstrap, topic, b"other", partition=1)
    reader = await topics.reader(topic)
    state = await reader.state()
    assert state is not None and (state.first, state.ends) == ({0: 0, 1: 0}, {0: 3, 1: 1})
    positions = {0: 0, 1: 0}
    stretches = await read_all(reader, state.topic_id, positions, 3)
    records = [record for stretch in stretches if stretch.partition == 0 for record in stretch.records]
    assert [(record.offset, record.value) for record in records] == [(0, b"one"), (1, None), (2, b"")]
    assert records[0].headers == (("schema", b"v1"), ("x", b"\xff"))
    assert records[0].size == len(b"key") + len(b"one") + 8 + 2
    while positions[1] < 1:
        for stretch in await reader.read(state.topic_id, positions, within=0.5):
            positions[stretch.partition] = stretch.next_offset
    assert await reader.read(state.topic_id, positions, within=0.1) == []
    (again,) = await reader.read(state.topic_id, {0: 2}, within=1.0)
    assert [record.offset for record in again.records] == [2]
    await reader.close()


async def test_a_record_of_ten_megabytes_is_read_and_passed(make_kafka: Any, topic: str) -> None:
    """However large, it comes whole, so that it can be refused and what follows be read."""
    bootstrap = make_kafka(properties={"message.max.bytes": str(20 << 20)}).bootstrap
    topics = KafkaTopics(bootstrap)
    await make_topic(bootstrap, topic, 1)
    await send(bootstrap, topic, b"x" * 10_000_000, b"after")
    reader = await topics.reader(topic)
    state = await reader.state()
    assert state is not None
    stretches = await read_all(reader, state.topic_id, {0: 0}, 2)
    assert [len(record.value or b"") for stretch in stretches for record in stretch.records] == [10_000_000, 5]
    await reader.close()


async def test_aborted_transactions_are_not_read(kafka_bootstrap: str, topics: KafkaTopics, topic: str) -> None:
    """What a carrier's transactional producer took back was never said; nothing of an open one is read."""
    await make_topic(kafka_bootstrap, topic, 1)
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, transactional_id=topic)
    await producer.start()
    for value, commit in ((b"kept", True), (b"taken back", False), (b"kept too", True)):
        await producer.begin_transaction()
        await producer.send_and_wait(topic, value)
        await (producer.commit_transaction() if commit else producer.abort_transaction())
    await producer.begin_transaction()
    await producer.send_and_wait(topic, b"open")
    reader = await topics.reader(topic)
    state = await reader.state()
    assert state is not None
    positions = {0: 0}
    found = await read_all(reader, state.topic_id, positions, 6)
    assert [record.value for stretch in found for record in stretch.records] == [b"kept", b"kept too"]
    assert await reader.read(state.topic_id, positions, within=0.1) == []
    await producer.commit_transaction()
    found = await read_all(reader, state.topic_id, positions, 7)
    assert [record.value for stretch in found for record in stretch.records] == [b"open"]
    await producer.stop()
    await reader.close()


async def test_retention_past_the_position_is_told(kafka_bootstrap: str, topics: KafkaTopics, topic: str) -> None:
    """Neither skipped nor answered with what is there now; a position beyond the end is told too."""
    await make_topic(kafka_bootstrap, topic, 1)
    await send(kafka_bootstrap, topic, *[b"x"] * 5)
    reader = await topics.reader(topic)
    state = await reader.state()
    assert state is not None
    await delete_records(kafka_bootstrap, topic, 0, 3)
    for offset in (1, 99):
        with pytest.raises(PositionExpired):
            await reader.read(state.topic_id, {0: offset}, within=0.5)
    now = await reader.state()
    assert now is not None and now.first == {0: 3}
    await reader.close()


async def test_a_topic_made_again_is_another_topic(kafka_bootstrap: str, topics: KafkaTopics, topic: str) -> None:
    """Though it has the same name and enough records, nothing of it is read under the old id."""
    await make_topic(kafka_bootstrap, topic, 1)
    await send(kafka_bootstrap, topic, b"old")
    reader = await topics.reader(topic)
    state = await reader.state()
    assert state is not None
    await delete_topic(kafka_bootstrap, topic)
    await asyncio.sleep(0.5)
    assert await reader.state() is None
    await make_topic(kafka_bootstrap, topic, 1)
    await send(kafka_bootstrap, topic, *[b"new"] * 3)
    with pytest.raises((PositionExpired, LogUnavailable)):
        await reader.read(state.topic_id, {0: 1}, within=0.5)
    now = await reader.state()
    assert now is not None and now.topic_id != state.topic_id
    (stretch,) = await reader.read(now.topic_id, {0: 0}, within=2.0)
    assert [record.value for record in stretch.records] == [b"new"] * 3
    await reader.close()


async def test_a_topic_grows(kafka_bootstrap: str, topics: KafkaTopics, topic: str) -> None:
    """New partitions show in the state."""
    await make_topic(kafka_bootstrap, topic, 1)
    reader = await topics.reader(topic)
    assert (await reader.state()) is not None
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    await admin.create_partitions({topic: NewPartitions(3)})
    await admin.close()
    async with asyncio.timeout(10):
        while True:
            state = await reader.state()
            if state is not None and len(state.ends) == 3:
                break
            await asyncio.sleep(0.1)
    await reader.close()


async def test_a_header_name_that_is_no_text_damages_only_its_batch(
    kafka_bootstrap: str, topics: KafkaTopics, topic: str
) -> None:
    """A client in another language may write any bytes there: the record is told as damaged, the next one is read."""
    await make_topic(kafka_bootstrap, topic, 1)
    await send(kafka_bootstrap, topic, b"before")
    await _produce_raw(kafka_bootstrap, topic, b"\xff\xfe")
    await send(kafka_bootstrap, topic, b"after")
    reader = await topics.reader(topic)
    state = await reader.state()
    assert state is not None
    found = await read_all(reader, state.topic_id, {0: 0}, 3)
    records = [record for stretch in found for record in stretch.records]
    assert [(record.value, record.damaged) for record in records] == [
        (b"before", False),
        (None, True),
        (b"after", False),
    ]
    await reader.close()


async def _produce_raw(bootstrap: str, topic: str, header: bytes) -> None:
    """One record with such a header name, as a Kafka client without checks would send it."""
    process = await asyncio.create_subprocess_exec(
        "kcat", "-P", "-b", bootstrap, "-t", topic, "-p", "0", "-H", os.fsdecode(header) + "=x",
        stdin=asyncio.subprocess.PIPE,
    )  # fmt: skip
    await process.communicate(b"value")
    assert process.returncode == 0


async def test_a_compressed_bomb_never_reaches_the_hub(kafka_bootstrap: str, topic: str) -> None:
    """With the topic's compression.type=uncompressed (deploy/topics.yaml) the broker inflates, and refuses by size."""
    await make_topic(kafka_bootstrap, topic, 1, compression_type="uncompressed", max_message_bytes="2200000")
    bomb = b"0" * 50_000_000
    producer = AIOKafkaProducer(
        bootstrap_servers=kafka_bootstrap,
        compression_type="gzip",
        max_request_size=100 << 20,
        request_timeout_ms=20_000,
    )
    await producer.start()
    try:
        with pytest.raises((kafka.MessageSizeTooLargeError, kafka.RecordTooLargeError, kafka.RecordListTooLargeError)):
            await producer.send_and_wait(topic, bomb)
        await producer.send_and_wait(topic, b"small")
    finally:
        await producer.stop()


async def test_what_is_published_arrives_with_key_and_headers(
    kafka_bootstrap: str, topics: KafkaTopics, topic: str
) -> None:
    """In order per key; a second publication goes on with the same producer."""
    await make_topic(kafka_bootstrap, topic, 2)
    await topics.publish([Publication(topic, "k", {"kind": "a"}, b"1"), Publication(topic, "k", {"kind": "b"}, b"2")])
    await topics.publish([Publication(topic, "k", {}, b"3")])
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=kafka_bootstrap, auto_offset_reset="earliest")
    await consumer.start()
    try:
        got = [await asyncio.wait_for(consumer.getone(), 10) for _ in range(3)]
    finally:
        await consumer.stop()
    assert [(one.key, one.value) for one in got] == [(b"k", b"1"), (b"k", b"2"), (b"k", b"3")]
    assert [dict(one.headers) for one in got] == [{"kind": b"a"}, {"kind": b"b"}, {}]


async def test_a_missing_topic_is_told_at_once_and_never_made(topics: KafkaTopics, topic: str) -> None:
    """Whoever publishes to it is told what to do; a reader finds nothing there."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    with pytest.raises(LogUnavailable, match="numhub topics apply"):
        await topics.publish([Publication(topic, "k", {}, b"1")])
    assert loop.time() - began < 8
    reader = await topics.reader(topic)
    assert await reader.state() is None
    await reader.close()


async def test_without_a_broker_everything_is_unavailable(
    make_kafka: Any, topic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And works again when it is back, with the same objects; of a producer that was given up nothing is left: no
    task, and no socket that a collection of garbage would find."""
    monkeypatch.setattr(parties, "PUBLISH_SECONDS", 5.0)
    local = make_kafka()
    topics = KafkaTopics(local.bootstrap)
    await make_topic(local.bootstrap, topic, 1)
    await topics.publish([Publication(topic, "k", {}, b"1")])
    reader = await topics.reader(topic)
    state = await reader.state()
    assert state is not None
    local.kill()
    with pytest.raises(Unavailable):
        await reader.state()
    with pytest.raises(Unavailable):
        await reader.read(state.topic_id, {0: 1}, within=0.5)
    with pytest.raises(Unavailable):
        await topics.publish([Publication(topic, "k", {}, b"2")])
    await asyncio.to_thread(local.start)
    async with asyncio.timeout(60):
        while True:
            try:
                await topics.publish([Publication(topic, "k", {}, b"2")])
                break
            except Unavailable:
                await asyncio.sleep(0.5)
        found = await read_all(reader, state.topic_id, {0: 0}, 2)
    values = [record.value for stretch in found for record in stretch.records]
    assert values[0] == b"1" and set(values[1:]) == {b"2"}
    await reader.close()
    await topics.close()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []
    del topics, reader
    gc.collect()  # warnings are errors
