"""The log contract on Kafka, and what only that adapter promises."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from kafka_world import delete_records, delete_topic, make_topic
from log_contract import PARTITIONS, LogContract, everything, new

from hub.adapters.kafka import errors
from hub.adapters.kafka.log import KafkaLog
from hub.domain.errors import LogReplaced, LogUnavailable, NumhubError, PayloadTooLarge, Unavailable
from hub.ports.log import EventLog, Position


class TestKafkaLog(LogContract):
    bootstrap: str

    @pytest.fixture(autouse=True)
    def _broker(self, kafka_bootstrap: str) -> None:
        type(self).bootstrap = kafka_bootstrap

    async def make_log(self, where: Path) -> EventLog:
        topic = "contract." + hashlib.sha256(str(where).encode()).hexdigest()[:16]
        await make_topic(self.bootstrap, topic, PARTITIONS)
        return await KafkaLog.open(self.bootstrap, topic)

    async def drop_before(self, log: EventLog, partition: int, offset: int) -> None:
        assert isinstance(log, KafkaLog)
        await delete_records(self.bootstrap, log.topic, partition, offset)
        await log.starts()  # memory is told, as it is once a minute


@pytest.fixture
async def topic(kafka_bootstrap: str) -> str:
    topic = f"only.{uuid4().hex[:12]}"
    await make_topic(kafka_bootstrap, topic, PARTITIONS, max_message_bytes="100000")
    return topic


@pytest.fixture
async def log(kafka_bootstrap: str, topic: str) -> AsyncIterator[KafkaLog]:
    log = await KafkaLog.open(kafka_bootstrap, topic)
    yield log
    await log.close()


async def test_a_topic_deleted_and_made_again_is_another_log(kafka_bootstrap: str, log: KafkaLog) -> None:
    """Same name, another id: whoever asks is told so, by every call, and nothing of the new one is ever shown."""
    await log.append([new(p, f"{p}-{i}") for p in range(PARTITIONS) for i in range(3)])
    waiting = asyncio.create_task(_until_replaced(log))
    await delete_topic(kafka_bootstrap, log.topic)
    await make_topic(kafka_bootstrap, log.topic, PARTITIONS, max_message_bytes="100000")
    other = await KafkaLog.open(kafka_bootstrap, log.topic)
    try:
        assert other.log_id != log.log_id
        await other.append([new(0, "of another log")])
        await asyncio.wait_for(waiting, 15)
        for call in (
            lambda: log.read(0, 0),
            lambda: log.append([new(0, "x")]),
            log.ends,
            log.proven_ends,
            lambda: log.wait_for_more([99] * PARTITIONS, 0.01),
        ):
            with pytest.raises(LogReplaced, match="deleted and made again"):
                await call()
        assert await other.ends() == [1, 0, 0, 0]
    finally:
        await other.close()


async def _until_replaced(log: KafkaLog) -> None:
    while True:
        try:
            await log.wait_for_more([99] * PARTITIONS, 5)
        except LogReplaced:
            return


async def test_an_append_into_a_log_made_anew_is_never_a_success(kafka_bootstrap: str, log: KafkaLog) -> None:
    """Before anybody noticed: the first append after the change is refused or in doubt, whatever the broker says."""
    await log.append([new(0, f"r{i}") for i in range(3)])
    await log._tail.stop()  # nobody else looks
    await delete_topic(kafka_bootstrap, log.topic)
    await make_topic(kafka_bootstrap, log.topic, PARTITIONS)
    with pytest.raises(Unavailable):
        await log.append([new(0, "x")])
    with pytest.raises(LogReplaced):
        await log.append([new(0, "x")])


async def test_a_record_too_large_is_refused_before_it_is_sent(log: KafkaLog) -> None:
    """By size and limit; what came with it is not taken either, and the next append works."""
    with pytest.raises(PayloadTooLarge, match=r"takes 100,000 at most"):
        await log.append([new(0, "small"), new(1, "large", b"x" * 100_001)])
    assert log._appender.requests == 0
    assert await log.ends() == [0] * PARTITIONS
    large = [new(0, name, b"x" * 99_000) for name in "ab"]
    assert await log.append(large) == [Position(0, 0), Position(0, 1)]


async def test_a_topic_that_is_not_there_is_named(kafka_bootstrap: str) -> None:
    """One line, with the way out; and asking does not make the topic."""
    for _ in range(2):
        with pytest.raises(LogUnavailable, match=r"no topic nobody\.made\.it; make it with `numhub topics apply`"):
            await KafkaLog.open(kafka_bootstrap, "nobody.made.it")


async def test_no_broker_is_one_line_and_soon() -> None:
    """Each address with its reason."""
    began = time.monotonic()
    with pytest.raises(LogUnavailable) as told:
        await KafkaLog.open("127.0.0.1:1,127.0.0.1:2", "log")
    assert all(f"127.0.0.1:{port}: no broker listens there" in told.value.message for port in (1, 2))
    assert time.monotonic() - began < 5


async def test_a_thousand_callers_cost_a_request_or_two(log: KafkaLog) -> None:
    """Each gets an answer that was asked for after its call."""
    first = asyncio.create_task(log.ends())
    await asyncio.sleep(0)
    await asyncio.gather(*(log.ends() for _ in range(1000)))
    assert await first == [0] * PARTITIONS
    assert log._latest.runs <= 3
    await asyncio.gather(*(log.proven_ends() for _ in range(1000)))
    assert log._appender.barriers <= 2 * PARTITIONS


async def test_what_is_new_is_read_from_memory(log: KafkaLog) -> None:
    """The tail brings each record once; reading it any number of times asks no broker."""
    await log.append([new(0, f"r{i}", b"x" * 1000) for i in range(20)])
    while (await log.wait_for_more([0] * PARTITIONS, 5))[0] < 20:
        pass
    for _ in range(50):
        assert [r.record_id for r in await log.read(0, 0)] == [f"r{i}" for i in range(20)]
    assert log.reads == 0


async def test_memory_and_broker_give_the_same(kafka_bootstrap: str, log: KafkaLog) -> None:
    """Read back by a process that was not there; a page after the other, in any order."""
    await log.append([new(0, f"r{i}", bytes([i]) * 3000) for i in range(60)])
    again = await KafkaLog.open(kafka_bootstrap, log.topic)
    try:
        mine, theirs = await everything(log, 0), await everything(again, 0)
        assert mine == theirs
        assert [r.offset for r in theirs] == list(range(60))
        assert (await again.read(0, 37, max_records=1))[0] == mine[37]
        assert again.reads > 0
    finally:
        await again.close()


async def test_waiting_costs_nothing_and_reacts_at_once(kafka_bootstrap: str, log: KafkaLog) -> None:
    """An idle second asks the broker at most twice; an append of another process is there within milliseconds."""
    other = await KafkaLog.open(kafka_bootstrap, log.topic)
    try:
        await other.append([new(0, "warm")])
        ends = await log.wait_for_more([0] * PARTITIONS, 5)
        before = log._tail.fetches
        await asyncio.sleep(1)
        assert log._tail.fetches - before <= 2
        delays = []
        for number in range(20):
            waiting = asyncio.create_task(log.wait_for_more(ends, 10))
            await asyncio.sleep(0)
            began = time.perf_counter()
            await other.append([new(0, f"n{number}")])
            ends = await waiting
            delays.append(time.perf_counter() - began)
        assert sorted(delays)[10] < 0.25  # a loaded machine; usually 2 ms
    finally:
        await other.close()


async def test_what_other_programs_write_keeps_every_position(kafka_bootstrap: str, log: KafkaLog) -> None:
    """A transaction's markers leave no hole, records without key, value or text in their headers are read as empty."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, transactional_id=f"t-{uuid4().hex}")
    await producer.start()
    async with producer.transaction():
        await producer.send_and_wait(log.topic, b"first", partition=0)
    await producer.stop()
    while (await log.ends())[0] < 2:  # the marker comes a moment later
        await asyncio.sleep(0.01)
    plain = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, enable_idempotence=False)
    await plain.start()
    await plain.send_and_wait(log.topic, None, key=b"\xff", partition=0, headers=[("kind", b"\xfe"), ("none", None)])
    await plain.stop()
    found = await everything(log, 0)
    assert [(r.offset, r.record_id, r.body) for r in found] == [(0, "", b"first"), (1, "", b""), (2, "�", b"")]
    assert found[1].headers == {"kind": "gap"}
    assert found[2].headers == {"kind": "�", "none": ""}
    assert await log.append([new(0, "next")]) == [Position(0, 3)]


async def test_closing_twice_and_while_others_wait(log: KafkaLog) -> None:
    """Waiters return, everything else is told that the log is closed."""
    waiting = asyncio.create_task(log.wait_for_more([99] * PARTITIONS, 60))
    await asyncio.sleep(0.05)
    await log.close()
    await log.close()
    with pytest.raises(LogUnavailable):
        await asyncio.wait_for(waiting, 5)
    with pytest.raises(LogUnavailable):
        await log.read(0, 0)


NOT_ABOUT_APPENDS = {
    "BrokerResponseError",
    "CommitFailedError",
    "ConcurrentTransactions",
    "ConsumerStoppedError",
    "DelegationTokenAuthDisabled",
    "DelegationTokenExpired",
    "DelegationTokenNotFound",
    "DelegationTokenOwnerMismatch",
    "DelegationTokenRequestNotAllowed",
    "FetchSessionIdNotFound",
    "GroupIdNotFound",
    "IllegalArgumentError",
    "IllegalGenerationError",
    "IllegalOperation",
    "IllegalStateError",
    "InconsistentGroupProtocolError",
    "InvalidCommitOffsetSizeError",
    "InvalidConfigurationError",
    "InvalidFetchRequestError",
    "InvalidFetchSessionEpoch",
    "InvalidGroupIdError",
    "InvalidPartitionsError",
    "InvalidPrincipalType",
    "InvalidReplicationAssignmentError",
    "InvalidReplicationFactorError",
    "InvalidSessionTimeoutError",
    "InvalidTransactionTimeout",
    "InvalidTxnState",
    "KafkaConfigurationError",
    "KafkaError",
    "ListenerNotFound",
    "MemberIdRequired",
    "NoError",
    "NoOffsetForPartitionError",
    "NonEmptyGroup",
    "OffsetMetadataTooLargeError",
    "OffsetOutOfRangeError",
    "OperationNotAttempted",
    "ProducerClosed",
    "ReassignmentInProgress",
    "RebalanceInProgressError",
    "StaleControllerEpochError",
    "TooManyInFlightRequests",
    "TopicAlreadyExistsError",
    "TransactionCoordinatorFenced",
    "UnknownMemberIdError",
}
"""Of consumer groups, transactions, fetches and admin requests, and the classes above them: an append answered with one
of these is in doubt, as with anything unknown."""


def test_every_error_of_aiokafka_has_a_translation() -> None:
    """A class that a later version brings is named here until somebody decides what it means."""
    classes = {cls for cls in vars(kafka).values() if isinstance(cls, type) and issubclass(cls, Exception)}
    decided = {*errors.NOT_TAKEN, *errors.SEQUENCE, *errors.REFUSED, *errors.TOO_LARGE, *errors.IN_DOUBT}
    assert sorted({cls.__name__ for cls in classes - decided} ^ NOT_ABOUT_APPENDS) == []
    for cls in classes:
        told = errors.translated(cls() if cls is kafka.CommitFailedError else cls("x"))
        assert isinstance(told, NumhubError), cls.__name__
        with pytest.raises(NumhubError), errors.translating():
            raise cls() if cls is kafka.CommitFailedError else cls("x")


def test_mistakes_of_the_program_are_not_translated() -> None:
    """They are not the log's fault, and must be seen."""
    with pytest.raises(ZeroDivisionError), errors.translating():
        raise ZeroDivisionError
    with pytest.raises(asyncio.CancelledError), errors.translating():
        raise asyncio.CancelledError
