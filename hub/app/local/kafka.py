"""Kafka brokers of our own (KRaft, no ZooKeeper): one or three combined nodes on loopback, from the published jars."""

from __future__ import annotations

import base64
import socket
import struct
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from hub.app.local.jars import KAFKA_VERSION, java, kafka_jars
from hub.app.local.process import LOOPBACK, Child, LocalError, free_ports

MAX_MESSAGE = 4 << 20

_LOG4J = """<Configuration status="WARN">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %m (%c{1})%n"/></Console></Appenders>
  <Loggers><Root level="INFO"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""


@dataclass(frozen=True)
class TlsFiles:
    """PEM files of a broker: its private key and certificate chain in one file, and the authority's certificate."""

    key_and_chain: Path
    authority: Path


class LocalKafka:
    """``bootstrap`` takes anybody. ``users`` (name -> password) adds listeners that demand SASL/SCRAM (both
    mechanisms), ``tls`` one that demands TLS, both together SASL over TLS. ``properties`` are any server properties of
    Kafka's, over the defaults below; ``log_dirs`` puts a broker's records elsewhere (a small file system, say).
    ``quick`` starts sooner and runs slower: for tests, not for measuring.
    """

    def __init__(
        self,
        folder: Path,
        brokers: int = 1,
        *,
        version: str = KAFKA_VERSION,
        properties: Mapping[str, str] | None = None,
        users: Mapping[str, str] | None = None,
        tls: TlsFiles | None = None,
        log_dirs: Path | None = None,
        ports: list[int] | None = None,
        quick: bool = False,
        outlive: bool = False,
    ) -> None:
        self.folder, self.version = folder.resolve(), version
        self._java, self._jars = java(), kafka_jars(version)
        self._users, self._tls, self._properties = dict(users or {}), tls, dict(properties or {})
        self.protocols = {"PLAIN": "PLAINTEXT"}
        if users:
            self.protocols["SASL"] = "SASL_PLAINTEXT"
        if tls:
            self.protocols["TLS"] = "SSL"
        if users and tls:
            self.protocols["SASLTLS"] = "SASL_SSL"
        each = len(self.protocols) + 1
        self.ports = ports or free_ports(each * brokers)
        self._heap = "512m" if brokers == 1 else "384m"
        self._log_dirs = log_dirs
        self._jvm = ["-XX:TieredStopAtLevel=1"] if quick else []
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "log4j2.xml").write_text(_LOG4J, encoding="utf-8")
        self.nodes = [self._child(number, outlive) for number in range(1, brokers + 1)]

    # ---- where it is

    def _port(self, number: int, listener: str) -> int:
        names = [*self.protocols, "CONTROLLER"]
        return self.ports[(number - 1) * len(names) + names.index(listener)]

    def _bootstrap(self, listener: str) -> str:
        if listener not in self.protocols:
            raise ValueError(f"this Kafka has no listener {listener}: it was started without users or tls")
        return ",".join(f"{LOOPBACK}:{self._port(number, listener)}" for number in range(1, len(self.nodes) + 1))

    @property
    def bootstrap(self) -> str:
        return self._bootstrap("PLAIN")

    @property
    def sasl_bootstrap(self) -> str:
        return self._bootstrap("SASL")

    @property
    def tls_bootstrap(self) -> str:
        return self._bootstrap("TLS")

    @property
    def sasl_tls_bootstrap(self) -> str:
        return self._bootstrap("SASLTLS")

    @property
    def running(self) -> bool:
        return all(node.running for node in self.nodes)

    # ---- life

    def start(self, within: float = 90.0, *, only: Sequence[bool] = ()) -> Self:
        """Start what is not running; returns when every broker is known to every other. ``only`` marks the nodes to
        start, where the others run as children of another process."""
        chosen = [node for node, mine in zip(self.nodes, only or [True] * len(self.nodes), strict=True) if mine]
        self._format()
        for node in chosen:
            node.start()
        for number, node in enumerate(self.nodes, 1):
            if node in chosen:
                self._wait_for(number, len(self.nodes), within)
        return self

    def start_node(self, number: int, within: float = 90.0) -> None:
        """Start one broker (counted from 1) again; returns when it knows at least itself."""
        self.nodes[number - 1].start()
        self._wait_for(number, 1, within)

    def _wait_for(self, number: int, known: int, within: float) -> None:
        port = self._port(number, "PLAIN")
        self.nodes[number - 1].wait_until(lambda: brokers_known(port) >= known, within)

    def stop(self) -> None:
        """All at once: a broker that leaves in order waits for a controller, and the controllers go as well."""
        with ThreadPoolExecutor(len(self.nodes)) as pool:
            list(pool.map(lambda node: node.stop(5.0 if len(self.nodes) == 1 else 3.0), self.nodes))

    def kill(self) -> None:
        for node in self.nodes:
            node.kill()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    # ---- making one

    def _child(self, number: int, outlive: bool) -> Child:
        home = self._home(number)
        home.mkdir(exist_ok=True)
        (home / "server.properties").write_text(self._server_properties(number), encoding="utf-8")
        argv = [
            self._java,
            f"-Xms{self._heap}",
            f"-Xmx{self._heap}",
            "-XX:+UseG1GC",
            "-XX:MaxGCPauseMillis=20",
            "-XX:-UsePerfData",
            *self._jvm,
            "-Djava.awt.headless=true",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.xml'}",
            "-cp",
            f"{self._jars}/*",
            "kafka.Kafka",
            str(home / "server.properties"),
        ]
        return Child(f"Kafka broker {number}", argv, log=home / "kafka.log", cwd=home, outlive=outlive)

    def _home(self, number: int) -> Path:
        return self.folder / f"broker-{number}"

    def data(self, number: int) -> Path:
        """Where this broker keeps its records."""
        return (self._log_dirs / str(number)) if self._log_dirs else self._home(number) / "data"

    def _server_properties(self, number: int) -> str:
        brokers = len(self.ports) // (len(self.protocols) + 1)
        copies = min(3, brokers)
        listeners = ",".join(f"{name}://{LOOPBACK}:{self._port(number, name)}" for name in self.protocols)
        controllers = ",".join(f"{n}@{LOOPBACK}:{self._port(n, 'CONTROLLER')}" for n in range(1, brokers + 1))
        protocols = ",".join(f"{name}:{protocol}" for name, protocol in self.protocols.items())
        properties = {
            "process.roles": "broker,controller",
            "node.id": str(number),
            "controller.quorum.voters": controllers,
            "controller.listener.names": "CONTROLLER",
            "listeners": f"{listeners},CONTROLLER://{LOOPBACK}:{self._port(number, 'CONTROLLER')}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": f"{protocols},CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAIN",
            "log.dirs": str(self.data(number)),
            "default.replication.factor": str(copies),
            "min.insync.replicas": "2" if copies == 3 else "1",
            "offsets.topic.replication.factor": str(copies),
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": str(copies),
            "transaction.state.log.min.isr": "2" if copies == 3 else "1",
            "transaction.state.log.num.partitions": "4",
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
            "unclean.leader.election.enable": "false",
            "message.max.bytes": str(MAX_MESSAGE),
            "replica.fetch.max.bytes": str(MAX_MESSAGE),
            "socket.request.max.bytes": str(MAX_MESSAGE * 16),
            "num.network.threads": "2",
            "num.io.threads": "4",
            "num.partitions": "1",
            "log.segment.bytes": str(64 << 20),
            "controlled.shutdown.enable": "true" if copies > 1 else "false",
        }
        if self._users:
            properties["sasl.enabled.mechanisms"] = "SCRAM-SHA-256,SCRAM-SHA-512"
            login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
            for listener in ("sasl", "sasltls"):
                for mechanism in ("scram-sha-256", "scram-sha-512"):
                    properties[f"listener.name.{listener}.{mechanism}.sasl.jaas.config"] = login
        if self._tls:
            properties |= {
                "ssl.keystore.type": "PEM",
                "ssl.keystore.location": str(self._tls.key_and_chain.resolve()),
                "ssl.truststore.type": "PEM",
                "ssl.truststore.location": str(self._tls.authority.resolve()),
            }
        properties |= self._properties
        return "".join(f"{name}={value}\n" for name, value in properties.items())

    def _format(self) -> None:
        """Prepare the data folders of brokers that never ran; users are written there too."""
        cluster_file = self.folder / "cluster.id"
        if not cluster_file.exists():
            cluster_file.write_text(_cluster_id(), encoding="ascii")
        cluster = cluster_file.read_text(encoding="ascii")
        fresh = [n for n in range(1, len(self.nodes) + 1) if not (self.data(n) / "meta.properties").exists()]
        if fresh:
            with ThreadPoolExecutor(len(fresh)) as pool:
                list(pool.map(lambda number: self._format_one(number, cluster), fresh))

    def _format_one(self, number: int, cluster: str) -> None:
        self.data(number).mkdir(parents=True, exist_ok=True)
        command = [self._java, "-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{self._jars}/*"]
        command += [
            "kafka.tools.StorageTool",
            "format",
            "-t",
            cluster,
            "-c",
            str(self._home(number) / "server.properties"),
        ]
        for name, password in self._users.items():
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512"):
                command += ["--add-scram", f"{mechanism}=[name={name},password={password}]"]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)  # noqa: S603
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
            raise LocalError(f"Kafka's storage could not be formatted: {said[-1][:300]}")


def _cluster_id() -> str:
    """22 characters of URL-safe base64; Kafka's tools take one that begins with a dash for an option."""
    while (name := base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return name


def brokers_known(port: int) -> int:
    """How many brokers the one on this port knows (a Metadata request, version 4); 0 without an answer."""
    body = struct.pack(">hhih6sib", 3, 4, 1, 6, b"numhub", 0, 0)
    try:
        with socket.create_connection((LOOPBACK, port), 1) as connection:
            connection.settimeout(2)
            connection.sendall(struct.pack(">i", len(body)) + body)
            head = b""
            while len(head) < 16:
                part = connection.recv(4096)
                if not part:
                    return 0
                head += part
    except OSError:
        return 0
    return int(struct.unpack(">iiii", head[:16])[3])
