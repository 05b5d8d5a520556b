"""The brokers of one topic: connections by purpose, who leads which partition, and whether it is still that topic.

A connection carries one request at a time on the broker's side, so what may wait (the tail) and what must not
(appends) have connections of their own. Nothing here retries for ever: a request ends with its answer, an error or its
deadline, and a connection on which an answer is overdue is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from aiokafka import errors as kafka
from aiokafka.conn import AIOKafkaConnection, CloseReason, collect_hosts, create_conn

from hub.adapters.kafka.errors import REFUSED, TopicMissing, told, translating
from hub.adapters.kafka.messages import TopicRequest
from hub.domain.errors import LogReplaced, LogUnavailable

log = logging.getLogger(__name__)

Purpose = Literal["append", "tail", "read", "ask"]

CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 10.0
_CLOSE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Security:
    """How to talk to the brokers; the names of `protocol` and `mechanism` are Kafka's."""

    protocol: str = "PLAINTEXT"
    mechanism: str = "SCRAM-SHA-512"
    username: str = ""
    password: str = field(default="", repr=False)
    ca_file: str = ""

    def options(self) -> dict[str, Any]:
        """Keyword arguments of aiokafka's clients. Raises LogUnavailable for a certificate file that is none."""
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.protocol in ("SSL", "SASL_SSL"):
            try:
                options["ssl_context"] = ssl.create_default_context(cafile=self.ca_file or None)
            except (OSError, ssl.SSLError) as error:
                raise LogUnavailable(f"kafka_ca_file {self.ca_file}: {error.strerror or error}") from error
        if self.protocol.startswith("SASL"):
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"], options["sasl_plain_password"] = self.username, self.password
        return options


@dataclass(frozen=True, slots=True)
class Topology:
    topic_id: uuid.UUID
    leaders: tuple[int, ...]  # per partition, -1 = none at the moment
    copies: tuple[int, ...]  # per partition, how many brokers keep it
    brokers: dict[int, tuple[str, int]]

    def by_leader(self) -> dict[int, list[int]]:
        """Partitions per leading broker. Raises LeaderNotAvailableError if one has none."""
        found: dict[int, list[int]] = {}
        for partition, leader in enumerate(self.leaders):
            if leader not in self.brokers:
                raise kafka.LeaderNotAvailableError(f"partition {partition} has no leader")
            found.setdefault(leader, []).append(partition)
        return found


class Cluster:
    """``bootstrap`` is host:port,host:port. One event loop per instance."""

    def __init__(self, bootstrap: str, topic: str, security: Security, client_id: str = "numhub") -> None:
        self.topic, self.bootstrap = topic, bootstrap
        self._options = security.options()
        self._client_id = client_id
        self._connections: dict[tuple[str, int, Purpose], AIOKafkaConnection] = {}
        self._locks: dict[tuple[str, int, Purpose], asyncio.Lock] = {}
        self._refreshing: asyncio.Task[Topology] | None = None
        self._topology: Topology | None = None
        self._closed = False
        self.replaced: LogReplaced | None = None
        self.on_replaced: Callable[[], None] = lambda: None

    @property
    def known(self) -> bool:
        """Has the topic been found yet?"""
        return self._topology is not None

    @property
    def topology(self) -> Topology:
        if self.replaced is not None:
            raise self.replaced
        assert self._topology is not None, "refresh first"
        return self._topology

    def leader(self, partition: int) -> int:
        """Raises LeaderNotAvailableError where there is none at the moment."""
        leader = self.topology.leaders[partition]
        if leader not in self.topology.brokers:
            raise kafka.LeaderNotAvailableError(f"partition {partition} has no leader")
        return leader

    async def ask(self, node: int, request: Any, purpose: Purpose, within: float = REQUEST_SECONDS) -> Any:
        """Send ``request`` to broker ``node``. Raises what aiokafka raises, OSError, or TimeoutError.

        NodeNotReadyError means that nothing was sent."""
        address = self.topology.brokers.get(node)
        if address is None:
            raise kafka.NodeNotReadyError(f"broker {node} is not in the cluster")
        return await self._ask_at(address, request, purpose, within)

    async def refresh(self) -> Topology:
        """Learn the leaders anew; concurrent callers share one request. Raises LogReplaced when the topic was deleted
        and made again, LogUnavailable when no broker answers or the topic is not there."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._refresh())
            self._refreshing.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._refreshing)

    async def close(self) -> None:
        self._closed = True
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing], timeout=_CLOSE_SECONDS)
        connections, self._connections = list(self._connections.values()), {}
        closing = [gone for c in connections if (gone := c.close(reason=CloseReason.SHUTDOWN)) is not None]
        if closing:
            await asyncio.wait(closing, timeout=_CLOSE_SECONDS)

    async def _refresh(self) -> Topology:
        if self.replaced is not None:
            raise self.replaced
        return self._learn(await self.ask_any(TopicRequest([self.topic]), CONNECT_SECONDS))

    async def ask_any(self, request: Any, within: float = REQUEST_SECONDS) -> Any:
        """Send ``request`` to the first broker that answers. Raises LogUnavailable with the reason of each."""
        known = list(self._topology.brokers.values()) if self._topology else []
        first = [(host, port) for host, port, _ in collect_hosts(self.bootstrap)]
        reasons: list[str] = []
        for host, port in dict.fromkeys([*known, *first]):
            try:
                return await self._ask_at((host, port), request, "ask", within)
            except REFUSED as error:
                raise LogUnavailable(f"Kafka at {host}:{port}: {told(error)}") from error
            except (kafka.KafkaError, OSError, TimeoutError, NotImplementedError) as error:
                cause = error.__cause__ or error
                reasons.append(f"{host}:{port}: {told(cause)}")
        raise LogUnavailable("Kafka cannot be reached (" + "; ".join(reasons) + ")")

    def _learn(self, response: Any) -> Topology:
        brokers = {node: (host, port) for node, host, port, _, _ in response.brokers}
        ((code, _, topic_id, _, partitions, _, _),) = response.topics
        if code:
            error = kafka.for_code(code)
            if error is kafka.UnknownTopicOrPartitionError:
                raise TopicMissing(
                    f"Kafka has no topic {self.topic}; make it with `numhub topics apply` (or wait, if it was deleted)"
                )
            with translating():
                raise error(self.topic)
        if self._topology is not None and topic_id != self._topology.topic_id:
            self.replaced = LogReplaced(
                f"The topic {self.topic} was deleted and made again (id {self._topology.topic_id} is now {topic_id}): "
                "no position of the old log is valid in the new one."
            )
            log.error("kafka.log_replaced", extra={"topic": self.topic, "cause": self.replaced.message})
            self.on_replaced()
            raise self.replaced
        leaders, copies = [-1] * len(partitions), [0] * len(partitions)
        for _, partition, leader, _, replicas, *_ in partitions:
            leaders[partition], copies[partition] = leader, len(replicas)
        self._topology = Topology(topic_id, tuple(leaders), tuple(copies), brokers)
        return self._topology

    async def _ask_at(self, address: tuple[str, int], request: Any, purpose: Purpose, within: float) -> Any:
        connection = await self._connection(address, purpose)
        try:
            async with asyncio.timeout(within):
                return await connection.send(request)
        except TimeoutError:
            connection.close(reason=CloseReason.CONNECTION_TIMEOUT)
            raise

    async def _connection(self, address: tuple[str, int], purpose: Purpose) -> AIOKafkaConnection:
        key = (*address, purpose)
        connection = self._connections.get(key)
        if connection is not None and connection.connected():
            return connection
        async with self._locks.setdefault(key, asyncio.Lock()):
            connection = self._connections.get(key)
            if connection is not None and connection.connected():
                return connection
            if self._closed:
                raise kafka.NodeNotReadyError("the log is closed")
            if connection is not None:
                connection.close()
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    connection = await create_conn(
                        *address,
                        client_id=self._client_id,
                        request_timeout_ms=int(REQUEST_SECONDS * 2000),  # ours is shorter
                        max_idle_ms=540_000,
                        **self._options,
                    )
            except REFUSED:
                raise
            except (kafka.KafkaError, OSError, TimeoutError, EOFError) as error:
                raise kafka.NodeNotReadyError(f"{address[0]}:{address[1]}: {told(error)}") from error
            if self._closed:
                with contextlib.suppress(Exception):
                    connection.close()
                raise kafka.NodeNotReadyError("the log is closed")
            self._connections[key] = connection
            return connection
