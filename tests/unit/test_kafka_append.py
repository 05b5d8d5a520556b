"""What the appender makes of each answer of a broker, scripted: never a false success, never a false failure."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import errors as kafka
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.memory_records import MemoryRecords

from hub.adapters.kafka import append
from hub.adapters.kafka.append import Appender
from hub.adapters.kafka.cluster import Topology
from hub.domain.errors import AppendInDoubt, LogReplaced, LogUnavailable
from hub.ports.log import NewRecord

Answer = int | BaseException  # an offset, or what goes wrong


class ScriptedCluster:
    """One broker that leads everything. ``script`` answers the produce requests in turn; then all goes well."""

    topic = "log"

    def __init__(self, *script: Answer) -> None:
        self.script = list(script)
        self.sent: list[tuple[int, int, int, list[bytes]]] = []  # producer, sequence, partition, keys
        self.producers = self.refreshed = 0
        self.ends = [0] * 4
        self.replaced: LogReplaced | None = None
        self.topology = Topology(uuid.uuid4(), (1,) * 4, (1,) * 4, {1: ("broker", 9092)})
        self.hold: asyncio.Event | None = None
        self.no_leader = False

    def leader(self, partition: int) -> int:
        if self.no_leader:
            raise kafka.LeaderNotAvailableError
        return 1

    async def refresh(self) -> Topology:
        self.refreshed += 1
        return self.topology

    async def ask(self, node: int, request: Any, purpose: str, within: float) -> Any:
        if isinstance(request, InitProducerIdRequest):
            self.producers += 1
            return SimpleNamespace(error_code=0, producer_id=self.producers, producer_epoch=0)
        assert isinstance(request, ProduceRequest)
        assert request.required_acks == -1
        answers = []
        for partition, data in request._topics[0][1]:
            batch = MemoryRecords(data).next_batch()
            keys = [record.key for record in batch]
            self.sent.append((batch.producer_id, batch.base_sequence, partition, keys))
            if self.hold is not None:
                await self.hold.wait()
            await asyncio.sleep(0)
            answer = self.script.pop(0) if self.script else self.ends[partition]
            if isinstance(answer, kafka.BrokerResponseError):
                answers.append((partition, answer.errno, -1, -1, 0))
                continue
            if isinstance(answer, BaseException):
                raise answer
            self.ends[partition] = answer + len(keys)
            answers.append((partition, 0, answer, -1, 0))
        return SimpleNamespace(topics=[("log", answers)])


Make = Callable[..., tuple[ScriptedCluster, Appender]]


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setattr(append, "_BACKOFF_SECONDS", 0.001)
    made: list[Appender] = []

    def _make(*script: Answer) -> tuple[ScriptedCluster, Appender]:
        cluster = ScriptedCluster(*script)
        appender = Appender(cluster, [0] * 4, 1 << 20, lambda: 1_790_000_000_000)  # type: ignore[arg-type]
        made.append(appender)
        return cluster, appender

    yield _make
    for appender in made:
        await appender.close(0.1)


def records(*names: str) -> list[NewRecord]:
    return [NewRecord(0, name, {"kind": "chunk"}, b"body") for name in names]


async def test_sequences_go_on_and_callers_travel_together(make: Make) -> None:
    """One producer id; appends that wait together are one batch; offsets are the caller's own."""
    cluster, appender = make()
    assert await appender.append(0, records("a", "b"), 300, 5) == 0
    assert await asyncio.gather(*(appender.append(0, records(f"c{i}"), 300, 5) for i in range(3))) == [2, 3, 4]
    assert cluster.sent == [(1, 0, 0, [b"a", b"b"]), (1, 2, 0, [b"c0", b"c1", b"c2"])]


@pytest.mark.parametrize(
    "answer",
    [
        kafka.RequestTimedOutError(),
        kafka.NotEnoughReplicasAfterAppendError(),
        kafka.KafkaConnectionError("closed"),
        TimeoutError(),
        ConnectionResetError(),
        kafka.UnknownError(),
    ],
)
async def test_doubt_is_settled_by_the_same_bytes_again(make: Make, answer: BaseException) -> None:
    """The repeat has the same producer and sequence, so the broker takes the batch once."""
    cluster, appender = make(answer)
    assert await appender.append(0, records("a"), 300, 5) == 0
    assert cluster.sent == [(1, 0, 0, [b"a"])] * 2
    assert cluster.refreshed


async def test_doubt_that_lasts_is_told_and_ends_the_producer(make: Make) -> None:
    """AppendInDoubt at the deadline; the next append has a new producer id, so no hole in the sequence stops it."""
    cluster, appender = make(*[kafka.RequestTimedOutError()] * 10_000)
    with pytest.raises(AppendInDoubt):
        await appender.append(0, records("a"), 300, 0.05)
    cluster.script.clear()
    assert await appender.append(0, records("b"), 300, 5) == 0
    assert {sent[:2] for sent in cluster.sent if sent[3] == [b"a"]} == {(1, 0)}
    assert cluster.sent[-1] == (2, 0, 0, [b"b"])


@pytest.mark.parametrize(
    "answer", [kafka.NotEnoughReplicasError(), kafka.NotLeaderForPartitionError(), kafka.NodeNotReadyError("away")]
)
async def test_what_was_surely_not_taken_is_unavailable(make: Make, answer: BaseException) -> None:
    """Not in doubt: nothing stands in the log, the caller may be told so. It is tried again until the deadline."""
    cluster, appender = make(*[answer] * 10_000)
    with pytest.raises(LogUnavailable):
        await appender.append(0, records("a"), 300, 0.05)
    assert len(cluster.sent) > 1


async def test_an_earlier_doubt_is_not_forgotten(make: Make) -> None:
    """First maybe taken, then surely refused: still in doubt."""
    _, appender = make(kafka.RequestTimedOutError(), *[kafka.NotEnoughReplicasError()] * 10_000)
    with pytest.raises(AppendInDoubt):
        await appender.append(0, records("a"), 300, 0.05)


async def test_a_duplicate_without_a_place_is_in_doubt(make: Make) -> None:
    """aiokafka's producer calls it a success at offset -1, -1 + 1 for the second record: here it is neither."""
    cluster, appender = make(kafka.DuplicateSequenceNumber())
    with pytest.raises(AppendInDoubt):
        await appender.append(0, records("a", "b"), 300, 5)
    assert await appender.append(0, records("a", "b"), 300, 5) == 0
    assert [sent[0] for sent in cluster.sent] == [1, 2]


@pytest.mark.parametrize(
    "answer", [kafka.OutOfOrderSequenceNumber(), kafka.UnknownProducerId(), kafka.InvalidProducerEpoch()]
)
async def test_a_hole_in_the_sequence_begins_a_new_producer(make: Make, answer: BaseException) -> None:
    """Nothing was taken and nothing was in doubt: the same record goes out under a new id, unseen by the caller."""
    cluster, appender = make(0, answer)
    await appender.append(0, records("a"), 300, 5)
    assert await appender.append(0, records("b"), 300, 5) == 1
    assert cluster.sent == [(1, 0, 0, [b"a"]), (1, 1, 0, [b"b"]), (2, 0, 0, [b"b"])]


async def test_a_hole_after_doubt_stays_in_doubt(make: Make) -> None:
    """The earlier try may be the very reason: only the reader can tell."""
    _, appender = make(kafka.RequestTimedOutError(), kafka.OutOfOrderSequenceNumber())
    with pytest.raises(AppendInDoubt):
        await appender.append(0, records("a"), 300, 5)


async def test_a_place_given_out_before_is_never_a_success(make: Make) -> None:
    """A log deleted and made anew counts from zero again: what it confirms there is in doubt, not accepted."""
    cluster, appender = make()
    await appender.append(0, records("a", "b", "c"), 300, 5)
    cluster.ends[0] = 0
    with pytest.raises(AppendInDoubt):
        await appender.append(0, records("d"), 300, 5)
    assert cluster.refreshed


async def test_a_hanging_broker_holds_nobody_longer_than_the_deadline(make: Make) -> None:
    """Sent and unanswered is in doubt; what waited behind it was surely not sent; other partitions wait their turn."""
    cluster, appender = make()
    cluster.hold = asyncio.Event()
    first = asyncio.create_task(appender.append(0, records("a"), 300, 0.1))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(appender.append(0, records("b"), 300, 0.1))
    outcomes = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [AppendInDoubt, LogUnavailable]
    cluster.hold.set()
    assert await appender.append(0, records("c"), 300, 5) == 1
    assert [b"b"] not in [sent[3] for sent in cluster.sent]


async def test_a_send_task_cancelled_from_outside_does_not_hang_anybody(make: Make) -> None:
    """aiokafka's producer then hangs for ever; here the append goes out again under a new try."""
    cluster, appender = make()
    cluster.hold = asyncio.Event()
    waiting = asyncio.create_task(appender.append(0, records("a"), 300, 5))
    await asyncio.sleep(0.02)
    for task in list(appender._tasks):
        task.cancel()
    cluster.hold.set()
    assert await waiting == 0
    assert await appender.append(0, records("b"), 300, 5) == 1
    assert [sent[:2] for sent in cluster.sent] == [(1, 0), (1, 0), (1, 1)]


async def test_a_mistake_in_sending_is_doubt_and_the_next_append_works(make: Make) -> None:
    """An error nobody foresaw neither leaves the caller waiting nor stops the others."""
    _, appender = make(ZeroDivisionError("a mistake"))
    with pytest.raises(AppendInDoubt):
        await appender.append(0, records("a"), 300, 5)
    assert await appender.append(0, records("b"), 300, 5) == 0


async def test_closing_ends_under_its_deadline(make: Make) -> None:
    """A broker that never answers does not keep the process: what was sent is in doubt, what waited was not taken."""
    cluster, appender = make()
    cluster.hold = asyncio.Event()
    first = asyncio.create_task(appender.append(0, records("a"), 300, 60))
    await asyncio.sleep(0.02)
    second = asyncio.create_task(appender.append(0, records("b"), 300, 60))
    await asyncio.sleep(0)
    await asyncio.wait_for(appender.close(0.05), 5)
    outcomes = await asyncio.gather(first, second, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [AppendInDoubt, LogUnavailable]


async def test_one_barrier_serves_all_who_wait(make: Make) -> None:
    """And a waiting append serves as one: then no barrier is written."""
    cluster, appender = make()
    assert set(await asyncio.gather(*(appender.prove(1, 5) for _ in range(1000)))) == {1}
    assert (appender.barriers, len(cluster.sent)) == (1, 1)
    appended, proved = await asyncio.gather(appender.append(1, records("a"), 300, 5), appender.prove(1, 5))
    assert (appended, proved, appender.barriers) == (1, 2, 1)


async def test_a_proof_is_never_taken_from_what_was_already_on_its_way(make: Make) -> None:
    """The record that proves the end was sent after the question: one in flight may have been sent before."""
    cluster, appender = make()
    cluster.hold = asyncio.Event()
    under_way = asyncio.create_task(appender.append(1, records("a"), 300, 5))
    await asyncio.sleep(0.02)
    proof = asyncio.create_task(appender.prove(1, 5))
    await asyncio.sleep(0.02)
    assert len(cluster.sent) == 1
    cluster.hold.set()
    assert (await under_way, await proof) == (0, 2)
    assert [sent[3] for sent in cluster.sent] == [[b"a"], [b"barrier"]]


async def test_an_end_that_nobody_confirms_is_not_proven(make: Make) -> None:
    """A leader cut off from its peers gets no acknowledgement of theirs: the question fails, it is not guessed."""
    _, appender = make(*[kafka.NotEnoughReplicasAfterAppendError()] * 10_000)
    with pytest.raises(LogUnavailable, match="did not confirm the end"):
        await appender.prove(1, 0.05)


async def test_without_a_leader_callers_are_told_in_time(make: Make) -> None:
    """Nothing was sent, so nothing was taken; with a leader again appends work."""
    cluster, appender = make()
    cluster.no_leader = True
    with pytest.raises(LogUnavailable):
        await appender.append(0, records("a"), 300, 0.05)
    assert cluster.refreshed
    cluster.no_leader = False
    assert await appender.append(0, records("b"), 300, 5) == 0


async def test_a_replaced_log_takes_nothing(make: Make) -> None:
    """No append goes to another log under the old name."""
    cluster, appender = make()
    cluster.replaced = LogReplaced()
    with pytest.raises(LogReplaced):
        await appender.append(0, records("a"), 300, 5)
    assert cluster.sent == []


async def test_a_caller_that_gives_up_does_not_disturb_the_others(make: Make) -> None:
    """Its record is not sent if it was still waiting."""
    cluster, appender = make()
    gone = asyncio.create_task(appender.append(0, records("a"), 300, 5))
    await asyncio.sleep(0)
    gone.cancel()
    assert await appender.append(0, records("b"), 300, 5) == 0
    assert [sent[3] for sent in cluster.sent] == [[b"b"]]
