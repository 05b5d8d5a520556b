"""The local services are the real ones: they answer, survive `kill -9` on the same port and data, and end when told."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError
from aiokafka.helpers import create_ssl_context
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from hub.app.local import LocalError, LocalKafka, LocalPostgres, LocalRedis, LocalUnavailable, TlsFiles
from hub.app.local.jars import kafka_jars
from hub.app.local.process import free_ports

pytestmark = pytest.mark.timeout(300)


async def roundtrip(bootstrap: str, topic: str, copies: int = 1, **security: object) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **security)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, 1, copies)])
    finally:
        await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, **security)
    await producer.start()
    try:
        await producer.send_and_wait(topic, b"a number ended")
    finally:
        await producer.stop()
    assert await read(bootstrap, topic, **security) == b"a number ended"


async def read(bootstrap: str, topic: str, **security: object) -> bytes | None:
    consumer = AIOKafkaConsumer(topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest", **security)
    try:
        await consumer.start()
        return (await consumer.getone()).value
    finally:
        await consumer.stop()


async def test_the_shared_broker_takes_and_gives_records(kafka_bootstrap: str) -> None:
    """`kafka_bootstrap` is a broker that keeps what it confirmed."""
    await roundtrip(kafka_bootstrap, f"t{time.monotonic_ns()}")


async def test_a_killed_broker_comes_back_with_its_records(make_kafka: Callable[..., LocalKafka]) -> None:
    """Same port, same data after SIGKILL."""
    kafka = make_kafka()
    before = kafka.bootstrap
    await roundtrip(before, "kept")
    kafka.kill()
    assert not kafka.running
    kafka.start()
    assert kafka.bootstrap == before
    assert await read(before, "kept") == b"a number ended"


@pytest.mark.slow
async def test_three_brokers_go_on_when_one_is_killed(make_kafka: Callable[..., LocalKafka]) -> None:
    """Three nodes form one cluster; two of them keep taking records that demand two copies."""
    kafka = make_kafka(brokers=3)
    await roundtrip(kafka.bootstrap, "before", copies=3)
    kafka.nodes[2].kill()
    two = ",".join(kafka.bootstrap.split(",")[:2])
    producer = AIOKafkaProducer(bootstrap_servers=two, acks="all", enable_idempotence=True)
    await producer.start()
    try:
        await producer.send_and_wait("before", b"still here")
    finally:
        await producer.stop()
    kafka.start_node(3)
    assert kafka.running


async def test_a_listener_demands_scram_over_tls(make_kafka: Callable[..., LocalKafka], tmp_path: Path) -> None:
    """`users` and `tls` give listeners that let in who has both the password and the authority, and nobody else."""
    files = certificates(tmp_path)
    kafka = make_kafka(users={"alice": "correct horse"}, tls=files)
    context = create_ssl_context(cafile=str(files.authority))
    login = {"sasl_mechanism": "SCRAM-SHA-512", "sasl_plain_username": "alice"}
    secure = {"security_protocol": "SASL_SSL", "ssl_context": context, **login}
    await roundtrip(kafka.sasl_tls_bootstrap, "secret", sasl_plain_password="correct horse", **secure)
    with pytest.raises(KafkaError):
        await read(kafka.sasl_tls_bootstrap, "secret", sasl_plain_password="wrong", **secure)
    assert await read(kafka.tls_bootstrap, "secret", security_protocol="SSL", ssl_context=context)
    plain = {"security_protocol": "SASL_PLAINTEXT", "sasl_plain_password": "correct horse", **login}
    assert await read(kafka.sasl_bootstrap, "secret", **plain)


async def test_each_test_gets_a_database_of_its_own(postgres_url: str) -> None:
    """`postgres_url` is empty and writable."""
    connection = await asyncpg.connect(postgres_url)
    try:
        assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        await connection.execute("CREATE TABLE numbers (number bigint)")
    finally:
        await connection.close()


async def test_a_killed_postgresql_keeps_what_was_committed(make_postgres: Callable[..., LocalPostgres]) -> None:
    """Same port, same rows after SIGKILL, even though it refuses to start while its last backends hold on."""
    postgres = make_postgres()
    url = postgres.create_database("kept")
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE numbers AS SELECT 1 AS one")
    postgres.kill()
    connection.terminate()
    postgres.start()
    connection = await asyncpg.connect(url)
    try:
        assert await connection.fetchval("SELECT one FROM numbers") == 1
        assert await connection.fetchval("SHOW fsync") == "on"
    finally:
        await connection.close()


def test_postgresql_lets_nobody_in_without_its_password(make_postgres: Callable[..., LocalPostgres]) -> None:
    """The password is random, demanded, and in a file only its owner may read."""
    postgres = make_postgres(fsync=False)
    secret = postgres.folder / "password"
    assert secret.stat().st_mode & 0o077 == 0
    secret.write_text("guessed")
    with pytest.raises(LocalError, match="password authentication failed"):
        postgres.run_sql("SELECT 1")


def test_redis_is_empty_fresh_and_restartable(redis_url: str, make_redis: Callable[..., LocalRedis]) -> None:
    """`redis_url` is flushed; an own one forgets at a kill, keeps its port, and can be paused."""
    with redis.Redis.from_url(redis_url) as shared:
        assert shared.dbsize() == 0
    own = make_redis()
    with redis.Redis.from_url(own.url, socket_timeout=0.3) as client:
        client.set("a", 1)
        own.pause()
        with pytest.raises(redis.exceptions.TimeoutError):
            client.get("a")
        own.resume()
        own.kill()
        own.start()
        assert client.get("a") is None


def test_a_service_dies_with_the_process_that_started_it(tmp_path: Path, redis_url: str) -> None:
    """SIGKILL for a test run leaves no servers behind."""
    program = "import sys, time, pathlib\nfrom hub.app.local import LocalRedis\n"
    program += "print(LocalRedis(pathlib.Path(sys.argv[1])).start().child.pid, flush=True)\ntime.sleep(60)\n"
    parent = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    assert server.name() == "redis-server"
    parent.kill()
    parent.communicate()
    server.wait(10)


@pytest.mark.parametrize(
    ("kind", "needed"), [(LocalKafka, "java"), (LocalPostgres, "initdb|postgres|setpriv"), (LocalRedis, "redis-server")]
)
def test_what_is_missing_is_said_in_one_line(
    kind: Callable[[Path], object], needed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the program the message names it and the package that has it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr("hub.app.local.postgres.INSTALLED", tmp_path)
    with pytest.raises(LocalUnavailable, match=f"no ({needed}) on the PATH .Debian's package") as told:
        kind(tmp_path / "service")
    assert "\n" not in str(told.value)


def test_jars_that_cannot_be_fetched_leave_no_half_filled_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing Maven is told in one line; the cache holds nothing that looks like a version."""
    maven = tmp_path / "bin" / "mvn"
    maven.parent.mkdir()
    maven.write_text("#!/bin/sh\necho '[ERROR] no such artifact'\nexit 1\n")
    maven.chmod(0o755)
    monkeypatch.setenv("PATH", f"{maven.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(LocalUnavailable, match="no such artifact"):
        kafka_jars("0.0.0", cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_ports_are_free_and_below_those_of_clients() -> None:
    """A port of the clients' range could be taken while its service restarts."""
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(18_000 <= port < 32_000 for port in ports)


def certificates(folder: Path) -> TlsFiles:
    """An authority and a certificate for 127.0.0.1 and localhost, made for this test."""
    now, name = datetime.now(UTC), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def builder(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
        )

    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    authority = (
        builder(name, authority_key.public_key())
        .add_extension(x509.BasicConstraints(True, None), True)
        .add_extension(usage, True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), False)
        .sign(authority_key, hashes.SHA256())
    )
    names = [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost")]
    broker = (
        builder(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "broker")]), key.public_key())
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    files = TlsFiles(folder / "broker.pem", folder / "authority.pem")
    files.key_and_chain.write_bytes(private + broker.public_bytes(pem) + authority.public_bytes(pem))
    files.authority.write_bytes(authority.public_bytes(pem))
    return files
