"""Brokers killed, stopped, locked up: nothing acknowledged is lost, nobody waits for ever, one clear line each."""

from __future__ import annotations

import asyncio
import datetime
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from hub.adapters.kafka.cluster import Security
from hub.adapters.kafka.log import KafkaLog
from hub.app.local.kafka import LocalKafka, TlsFiles
from hub.domain.errors import AppendInDoubt, LogUnavailable, Unavailable
from hub.ports.log import NewRecord
from tests.contracts.kafka_world import make_topic

MakeKafka = Callable[..., LocalKafka]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def record(partition: int, name: str, size: int = 200) -> NewRecord:
    return NewRecord(partition, name, {"kind": "chunk"}, name.encode().ljust(size, b"."))


async def everything(log: KafkaLog) -> dict[str, list[tuple[int, int]]]:
    """Record id -> where it stands."""
    found: dict[str, list[tuple[int, int]]] = {}
    for partition in range(log.partitions):
        offset = 0
        while records := await log.read(partition, offset):
            for each in records:
                assert each.headers["kind"] == "barrier" or each.body.rstrip(b".").decode() == each.record_id
                found.setdefault(each.record_id, []).append((each.partition, each.offset))
            offset = records[-1].offset + 1
    return found


OpenLog = Callable[..., Awaitable[KafkaLog]]


@pytest.fixture
async def open_log() -> AsyncIterator[OpenLog]:
    """`KafkaLog.open`; closed at the end, also of a test that fails."""
    opened: list[KafkaLog] = []

    async def open_it(*arguments: Any, **options: Any) -> KafkaLog:
        opened.append(await KafkaLog.open(*arguments, **options))
        return opened[-1]

    yield open_it
    for log in opened:
        await log.close()


class Writers:
    """Append without pause, repeat under the same id while in doubt; ``confirmed`` is where each success was put."""

    def __init__(self, log: KafkaLog, writers: int = 8) -> None:
        self.log = log
        self.confirmed: dict[str, tuple[int, int]] = {}
        self.when: list[float] = []
        self.refused = self.doubts = 0
        self._stop = False
        self._tasks = [asyncio.create_task(self._write(number)) for number in range(writers)]

    async def _write(self, writer: int) -> None:
        number = 0
        while not self._stop:
            each = record((writer + number) % self.log.partitions, f"w{writer}-{number}")
            try:
                (position,) = await self.log.append([each])
            except AppendInDoubt:
                self.doubts += 1
                continue  # again, under the same id
            except Unavailable:
                self.refused += 1
                await asyncio.sleep(0.05)
                continue
            self.confirmed[each.record_id] = position
            self.when.append(time.monotonic())
            number += 1

    async def stop(self) -> None:
        self._stop = True
        await asyncio.wait_for(asyncio.gather(*self._tasks), 60)


async def test_a_killed_broker_loses_nothing_that_was_confirmed(make_kafka: MakeKafka, open_log: OpenLog) -> None:
    """kill -9 and back, twice, under appends: every confirmed record stands where it was said to; repeats keep ids.

    The machine stays up, so what the broker wrote survives in the system's memory; several copies are for the rest."""
    kafka = make_kafka()
    await make_topic(kafka.bootstrap, "log", 4)
    log = await open_log(kafka.bootstrap, "log", append_within=3)
    writers = Writers(log)
    for _ in range(2):
        await asyncio.sleep(1.0)
        await asyncio.to_thread(kafka.kill)
        await asyncio.sleep(1.0)
        before = len(writers.confirmed)
        await asyncio.to_thread(kafka.start)
        while len(writers.confirmed) < before + 50:
            await asyncio.sleep(0.05)
    await writers.stop()
    found = await everything(log)
    assert len(writers.confirmed) > 100
    assert {name: place in found.get(name, []) for name, place in writers.confirmed.items()} == dict.fromkeys(
        writers.confirmed, True
    )
    assert writers.refused + writers.doubts > 0
    ends, seen = await log.ends(), [0] * 4
    async with asyncio.timeout(20):
        while seen != ends:  # what `wait_for_more` knows may lag behind, but not stay there
            seen = await log.wait_for_more(seen, 5)


async def test_a_locked_up_broker_keeps_nobody_waiting(make_kafka: MakeKafka, open_log: OpenLog) -> None:
    """It takes connections and never answers: appends end in doubt by their deadline, closing ends too; when it wakes
    up everything goes on."""
    kafka = make_kafka()
    await make_topic(kafka.bootstrap, "log", 4)
    log = await open_log(kafka.bootstrap, "log", append_within=1)
    closing = await open_log(kafka.bootstrap, "log", append_within=1)
    await log.append([record(0, "before")])
    await closing.append([record(0, "before2")])
    pid = kafka.nodes[0].pid
    os.kill(pid, 19)
    try:
        began = time.monotonic()
        with pytest.raises(AppendInDoubt):
            await log.append([record(0, "stopped")])
        with pytest.raises(Unavailable):
            await log.proven_ends()
        with pytest.raises(LogUnavailable):
            await log.ends()
        assert time.monotonic() - began < 10
        stuck = asyncio.create_task(closing.append([record(0, "stuck")]))
        await asyncio.sleep(0.05)
        began = time.monotonic()
        await closing.close()
        assert time.monotonic() - began < 12
        assert isinstance((await asyncio.gather(stuck, return_exceptions=True))[0], AppendInDoubt)
    finally:
        os.kill(pid, 18)
    for _ in range(60):
        try:
            await log.append([record(0, "after")])
            break
        except Unavailable:
            await asyncio.sleep(0.5)
    assert {"before", "before2", "after"} <= set(await everything(log))


async def test_three_brokers_and_one_killed(make_kafka: MakeKafka, open_log: OpenLog) -> None:
    """Appends go on in seconds with two; with one nothing succeeds, neither an append nor a proof of the end; with two
    again they go on, and everything confirmed is there, once under its place."""
    kafka = make_kafka(brokers=3)
    await make_topic(kafka.bootstrap, "log", 6, 3, min_insync_replicas="2")
    log = await open_log(kafka.bootstrap, "log", append_within=3)
    assert await log.unsafe() != []  # the message size and retention of a bare topic
    writers = Writers(log)
    await asyncio.sleep(2)
    kafka.nodes[0].kill()
    killed = time.monotonic()
    while not any(when > killed + 1 for when in writers.when):
        await asyncio.sleep(0.05)
        assert time.monotonic() - killed < 60
    await asyncio.sleep(3)
    assert await log.proven_ends()
    kafka.nodes[1].kill()
    await asyncio.sleep(1)  # what the two had taken together may still be answered
    alone = time.monotonic()
    await asyncio.sleep(6)
    assert [when for when in writers.when if when > alone] == []
    with pytest.raises(Unavailable):
        await log.proven_ends()
    await asyncio.to_thread(kafka.start_node, 1)
    back = time.monotonic()
    while not any(when > back for when in writers.when):
        await asyncio.sleep(0.1)
        assert time.monotonic() - back < 90
    await writers.stop()
    found = await everything(log)
    assert [name for name, place in writers.confirmed.items() if place not in found.get(name, [])] == []
    assert len(writers.confirmed) > 50


# ---- who may come in


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[TlsFiles, Path]:
    """A broker's certificate for 127.0.0.1 from an authority of its own, and another authority."""
    folder = tmp_path_factory.mktemp("tls")
    authority_key, authority = _certificate("numhub test authority", None, None, None)
    key, certificate = _certificate("broker", authority_key, authority, "127.0.0.1")
    _, stranger = _certificate("somebody else", None, None, None)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = serialization.Encoding.PEM
    (folder / "broker.pem").write_bytes(private + certificate.public_bytes(pem) + authority.public_bytes(pem))
    (folder / "ca.pem").write_bytes(authority.public_bytes(pem))
    (folder / "other.pem").write_bytes(stranger.public_bytes(pem))
    return TlsFiles(folder / "broker.pem", folder / "ca.pem"), folder / "other.pem"


def _certificate(
    name: str, issuer_key: ec.EllipticCurvePrivateKey | None, issuer: x509.Certificate | None, address: str | None
) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if issuer_key is not None:
        builder = builder.add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False
        )
    if address:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = builder.add_extension(names, critical=False)
    return key, builder.sign(issuer_key or key, hashes.SHA256())


async def test_who_is_let_in_and_how_the_others_are_told(
    make_kafka: MakeKafka, certificates: tuple[TlsFiles, Path]
) -> None:
    """SASL/SCRAM, TLS and both work from the settings; a wrong password, mechanism, name or authority is one line."""
    tls, stranger = certificates
    kafka = make_kafka(users={"hub": "secret"}, tls=tls)
    await make_topic(kafka.bootstrap, "log", 2)
    ca = str(tls.authority)
    good = [
        (kafka.sasl_bootstrap, Security("SASL_PLAINTEXT", "SCRAM-SHA-512", "hub", "secret")),
        (kafka.sasl_bootstrap, Security("SASL_PLAINTEXT", "SCRAM-SHA-256", "hub", "secret")),
        (kafka.tls_bootstrap, Security("SSL", ca_file=ca)),
        (kafka.sasl_tls_bootstrap, Security("SASL_SSL", "SCRAM-SHA-512", "hub", "secret", ca)),
    ]
    for bootstrap, security in good:
        log = await KafkaLog.open(bootstrap, "log", security=security)
        await log.append([record(0, "in")])
        await log.close()
    # A certificate for 127.0.0.1 is none for the name localhost.
    other_name = kafka.tls_bootstrap.replace("127.0.0.1", "localhost")
    bad = [
        (kafka.sasl_bootstrap, Security("SASL_PLAINTEXT", "SCRAM-SHA-512", "hub", "wrong"), "refuses the credentials"),
        (kafka.sasl_bootstrap, Security("SASL_PLAINTEXT", "SCRAM-SHA-512", "nobody", "x"), "refuses the credentials"),
        (kafka.sasl_bootstrap, Security("SASL_PLAINTEXT", "PLAIN", "hub", "secret"), "refuses the credentials"),
        (other_name, Security("SSL", ca_file=ca), "certificate is not accepted: Hostname mismatch"),
        (kafka.tls_bootstrap, Security("SSL", ca_file=str(stranger)), "certificate is not accepted"),
        (kafka.tls_bootstrap, Security("SSL", ca_file="/nowhere/ca.pem"), "kafka_ca_file /nowhere/ca.pem"),
        (kafka.bootstrap, Security("SSL", ca_file=ca), ""),
        (kafka.tls_bootstrap, Security(), ""),
    ]
    for bootstrap, security, said in bad:
        began = time.monotonic()
        with pytest.raises(LogUnavailable) as told:
            await KafkaLog.open(bootstrap, "log", security=security)
        assert said in told.value.message, (security, told.value.message)
        assert "\n" not in told.value.message
        assert "secret" not in told.value.message
        assert time.monotonic() - began < 15
