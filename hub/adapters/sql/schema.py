"""The tables of the ledger and the directory.

Subscriptions and chunks have small integer keys (`subscription_keys`, `chunk_keys`), made on first sight whether or
not the directory or the catalogue know them yet: an answer may come before its chunk is listed. Everything that is
kept per (chunk, subscription) hangs on that pair of integers; nothing is ever kept per (number, subscription).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    event,
    text,
)
from sqlalchemy.engine import Dialect

from hub.domain.events import Lane

REVISION = "0003"
"""The newest migration, which this description of the tables equals; a test compares the two."""

PART_CHUNKS = 1 << 20
"""Chunks in one part of a partitioned table: with 239 apps up to 250 million receipts, some 40 GB. The nation's files
are 25,000 chunks a year; live events, one chunk each, decide how many years a part lasts."""

PARTS_AHEAD = 4
"""Parts that stand ready beyond the one being filled."""

GROWING: list[str] = []
"""Names of the partitioned tables."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 UTC. Raises TypeError for a naive moment."""
    return (moment - EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    return EPOCH + timedelta(microseconds=micros)


class Moment(TypeDecorator[datetime]):
    """An aware datetime, stored as integer microseconds: exact, sortable and the same on every database."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> int | None:
        return None if value is None else to_micros(value)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        return None if value is None else from_micros(value)


LANE_NUMBER = {Lane.bulk: 0, Lane.live: 1}
LANE_BY_NUMBER = {number: lane for lane, number in LANE_NUMBER.items()}

# An INTEGER PRIMARY KEY is the row id itself on SQLite; elsewhere the key must be able to grow.
_Key = BigInteger().with_variant(Integer, "sqlite")

metadata = MetaData()


def _clustered(name: str, *columns: Any) -> Table:
    """A table stored in the order of its primary key where the database can do so: no second copy of the key."""
    return Table(name, metadata, *columns, sqlite_with_rowid=False)


def _partitioned(name: str, *columns: Any) -> Table:
    """A clustered table that grows for years: on PostgreSQL in parts of PART_CHUNKS chunks, so that what is old lies
    still (vacuumed once, its indexes out of memory) and can be detached."""
    table = Table(name, metadata, *columns, sqlite_with_rowid=False, postgresql_partition_by="RANGE (chunk_no)")
    GROWING.append(name)
    event.listen(table, "after_create", _make_parts)
    return table


def _make_parts(table: Table, conn: Connection, **_: Any) -> None:
    if conn.dialect.name == "postgresql":
        conn.exec_driver_sql(f"CREATE TABLE {table.name}_rest PARTITION OF {table.name} DEFAULT")
        for place in range(PARTS_AHEAD):
            conn.exec_driver_sql(part_of(table.name, place))


def part_of(name: str, place: int) -> str:
    """The statement that makes the part of ``name`` for chunks from ``place`` * PART_CHUNKS on."""
    first = place * PART_CHUNKS
    return (
        f"CREATE TABLE IF NOT EXISTS {name}_p{place} PARTITION OF {name} "
        f"FOR VALUES FROM ({first}) TO ({first + PART_CHUNKS})"
    )


schema_version = Table(
    "alembic_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)

# ---- directory -------------------------------------------------------------------------------------------------

directory_state = Table(
    "directory_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("version", BigInteger, nullable=False),
    Column("policy", JSON, nullable=False),
)

parties = Table(
    "parties",
    metadata,
    Column("party_id", Text, primary_key=True),
    Column("role", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("suspended", Boolean, nullable=False),
    Column("sandbox", Boolean, nullable=False),
    Column("client_secret_hash", Text),
    Column("carrier_no", Integer, nullable=False),
    Column("block_holders", JSON, nullable=False),
    Column("acting_for", JSON, nullable=False),
    Column("coverage_since", Moment),
)
Index(
    "parties_by_carrier_no",
    parties.c.carrier_no,
    unique=True,
    sqlite_where=text("carrier_no > 0"),
    postgresql_where=text("carrier_no > 0"),
)

party_keys = Table(
    "party_keys",
    metadata,
    Column("party_id", Text, primary_key=True),
    Column("kid", Text, primary_key=True),
    Column("jwk", JSON, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("retired_at", Moment),
)

apps = Table(
    "apps",
    metadata,
    Column("app_id", Text, primary_key=True),
    Column("subscriber_id", Text, nullable=False),
    Column("app_class", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
)

agreements = Table(
    "agreements",
    metadata,
    Column("agreement_id", Text, primary_key=True),
    Column("carrier_id", Text, nullable=False),
    Column("subscriber_id", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("pia_ref", Text, nullable=False),
    Column("starts_at", Moment, nullable=False),
    Column("ends_at", Moment, nullable=False),
    Column("created_at", Moment, nullable=False),
    Index("agreements_by_subscriber", "subscriber_id", "purpose"),
)

subscriptions = Table(
    "subscriptions",
    metadata,
    Column("subscription_no", _Key, primary_key=True, autoincrement=False),
    Column("subscription_id", Text, nullable=False, unique=True),
    Column("subscriber_id", Text, nullable=False),
    Column("app_id", Text, nullable=False),
    Column("app_class", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("event_mask", Integer, nullable=False),  # bit EventType.number
    Column("lane_mask", Integer, nullable=False),  # bit LANE_NUMBER
    Column("mode", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("state_reason", Text),
    Column("endpoint", Text),
    Column("created_at", Moment, nullable=False),
)

# A table of its own, so that it can be encrypted, granted and backed up apart from the rest.
subscription_secrets = Table(
    "subscription_secrets",
    metadata,
    Column("subscription_no", _Key, primary_key=True, autoincrement=False),
    Column("place", SmallInteger, primary_key=True, autoincrement=False),
    Column("scheme", Text, nullable=False),
    Column("secret", LargeBinary, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("expires_at", Moment),
)

# ---- keys ------------------------------------------------------------------------------------------------------

subscription_keys = Table(
    "subscription_keys",
    metadata,
    Column("subscription_no", _Key, primary_key=True),
    Column("subscription_id", Text, nullable=False, unique=True),
)

chunk_keys = Table(
    "chunk_keys",
    metadata,
    Column("chunk_no", _Key, primary_key=True),
    Column("chunk_id", Text, nullable=False, unique=True),
    Column("part", Integer, nullable=False),
    Column("log_offset", BigInteger, nullable=False),
)

# ---- delivery --------------------------------------------------------------------------------------------------

cursors = _clustered(
    "cursors",
    Column("subscription_no", BigInteger, primary_key=True, autoincrement=False),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("lane", SmallInteger, primary_key=True, autoincrement=False),
    Column("start_offset", BigInteger, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
)

receipts = _partitioned(
    "receipts",
    Column("subscription_no", BigInteger, primary_key=True, autoincrement=False),
    Column("chunk_no", BigInteger, primary_key=True, autoincrement=False),
    Column("received_at", Moment, nullable=False),
    Column("attempts", SmallInteger, nullable=False),
    Column("via", Text, nullable=False),
    Index("receipts_by_time", "subscription_no", "received_at"),
)

parked = _clustered(
    "parked",
    Column("subscription_no", BigInteger, primary_key=True, autoincrement=False),
    Column("chunk_no", BigInteger, primary_key=True, autoincrement=False),
    Column("parked_at", Moment, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("reason", Text, nullable=False),
)

attempts = _partitioned(
    "attempts",
    Column("subscription_no", BigInteger, primary_key=True, autoincrement=False),
    Column("chunk_no", BigInteger, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("at", Moment, nullable=False),
    Column("status", Integer),
    Column("reason", Text, nullable=False),
    Column("next_at", Moment),
)

# ---- who does what ---------------------------------------------------------------------------------------------

leases = Table(
    "leases",
    metadata,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),  # "" = nobody
    Column("epoch", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),  # microseconds by the database's clock
)

lease_members = _clustered(
    "lease_members",
    Column("pool", Text, primary_key=True),
    Column("holder", Text, primary_key=True),
    Column("expires_at", BigInteger, nullable=False),
)

redrive_orders = Table(
    "redrive_orders",
    metadata,
    Column("order_id", Text, primary_key=True),
    Column("subscription_id", Text, nullable=False),
    Column("offsets", JSON, nullable=False),  # [part, lane number, start, offset] of each cursor to set back
    Column("chunk_ids", JSON, nullable=False),  # parked chunks to send once more
    Column("ordered_at", Moment, nullable=False),
)

# ---- catalogue -------------------------------------------------------------------------------------------------

catalogue = Table(
    "catalogue",
    metadata,
    Column("chunk_no", _Key, primary_key=True, autoincrement=False),
    Column("part", Integer, nullable=False),
    Column("log_offset", BigInteger, nullable=False),
    Column("event_type", SmallInteger, nullable=False),
    Column("lane", SmallInteger, nullable=False),
    Column("carrier_id", Text, nullable=False),
    Column("numbers", Integer, nullable=False),
    Column("reported_at", Moment, nullable=False),
    Column("day", Integer, nullable=False),  # of reported_at, days since 1970 in China
    Column("due_at", Moment, nullable=False),
    Column("batch_id", Text),
    Column("renewal_id", Text),
    Column("targeted", Boolean, nullable=False),  # only the apps in catalogue_apps are meant
    Index("catalogue_by_place", "part", "lane", "log_offset"),
    Index("catalogue_by_day", "day"),
)
Index(
    "catalogue_by_batch",
    catalogue.c.batch_id,
    sqlite_where=text("batch_id IS NOT NULL"),
    postgresql_where=text("batch_id IS NOT NULL"),
)

catalogue_apps = _clustered(
    "catalogue_apps",
    Column("chunk_no", BigInteger, primary_key=True, autoincrement=False),
    Column("app_id", Text, primary_key=True),
    Column("place", SmallInteger, nullable=False),
)

catalogue_provinces = _clustered(
    "catalogue_provinces",
    Column("chunk_no", BigInteger, primary_key=True, autoincrement=False),
    Column("province", Text, primary_key=True),
    Column("numbers", Integer, nullable=False),
)

catalogue_positions = Table(
    "catalogue_positions",
    metadata,
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("next_offset", BigInteger, nullable=False),
)

# ---- answers ---------------------------------------------------------------------------------------------------

answers = _partitioned(
    "answers",
    Column("subscription_no", BigInteger, primary_key=True, autoincrement=False),
    Column("chunk_no", BigInteger, primary_key=True, autoincrement=False),
    Column("place", Integer, primary_key=True, autoincrement=False),  # 0, 1, 2 .. within the pair
    Column("numbers", Integer, nullable=False),  # rows in the chunk
    Column("default_code", SmallInteger, nullable=False),  # 0 = none
    Column("default_review_at", Moment),
    Column("answered_at", Moment, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("exceptions", LargeBinary),  # packing.pack_exceptions
)

# By how much one answer changed the number of rows whose effective disposition is `code`. Summed up over the answers
# of a pair it is what a recount of the effective codes gives.
answer_tallies = _partitioned(
    "answer_tallies",
    Column("subscription_no", BigInteger, primary_key=True, autoincrement=False),
    Column("chunk_no", BigInteger, primary_key=True, autoincrement=False),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("code", SmallInteger, primary_key=True, autoincrement=False),
    Column("delta", Integer, nullable=False),
)

# ---- batches, clearance, renewals ------------------------------------------------------------------------------

batches = Table(
    "batches",
    metadata,
    Column("batch_id", Text, primary_key=True),
    Column("carrier_id", Text, nullable=False),
    Column("acting_for", Text),
    Column("batch_seq", BigInteger, nullable=False),
    Column("event_type", SmallInteger, nullable=False),
    Column("declared_rows", BigInteger, nullable=False),
    Column("declared_sha256", Text, nullable=False),
    Column("content_format", Text, nullable=False),
    Column("content_encoding", Text, nullable=False),
    Column("idempotency_key", Text, nullable=False),
    Column("request_digest", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("created_at", Moment, nullable=False),
    Column("uploaded_bytes", BigInteger, nullable=False),
    Column("rows_seen", BigInteger, nullable=False),
    Column("rows_accepted", BigInteger, nullable=False),
    Column("rows_refused", BigInteger, nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("reasons", JSON, nullable=False),
    Column("committed_at", Moment),
    Column("failure", Text),
    UniqueConstraint("carrier_id", "batch_seq", name="batches_by_seq"),
    UniqueConstraint("carrier_id", "idempotency_key", name="batches_by_key"),
    Index("batches_by_time", "created_at"),
)

clearances = Table(
    "clearances",
    metadata,
    Column("clearance_id", Text, primary_key=True),
    Column("carrier_id", Text, nullable=False),
    Column("batch_id", Text),
    Column("judged_at", Moment, nullable=False),
    Column("log_positions", JSON, nullable=False),
    Column("policy", Text, nullable=False),
    Column("go", BigInteger, nullable=False),
    Column("go_with_exceptions", BigInteger, nullable=False),
    Column("wait", BigInteger, nullable=False),
    Column("waivers", JSON, nullable=False),
    Index("clearances_by_time", "judged_at"),
)

waivers = Table(
    "waivers",
    metadata,
    Column("waiver_id", Text, primary_key=True),
    Column("subscriber_id", Text, nullable=False),
    Column("batch_id", Text),
    Column("person", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("issued_by", Text, nullable=False),
    Column("issued_at", Moment, nullable=False),
    Column("statement", Text, nullable=False),
    Column("ends_at", Moment),
)

# One row: how many changes there were on which a judgement may rest. See `judgements`.
ledger_log = Table(
    "ledger_log",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1; no row before the first start
    Column("log_id", Text, nullable=False),
)

judgement_state = Table(
    "judgement_state",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # always 1
    Column("changes", BigInteger, nullable=False),
)

judgement_changes = _clustered(
    "judgement_changes",
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("chunk_no", BigInteger, primary_key=True, autoincrement=False),  # 0 = everything
)

renewals = Table(
    "renewals",
    metadata,
    Column("renewal_id", Text, primary_key=True),
    Column("carrier_id", Text, nullable=False),
    Column("chunk_id", Text, nullable=False),
    Column("apps", JSON, nullable=False),
    Column("app_count", Integer, nullable=False),
    Column("consent_digest", Text, nullable=False),
    Column("request_digest", Text, nullable=False),
    Column("requested_at", Moment, nullable=False),
    Column("day", Integer, nullable=False),  # of requested_at, days since 1970 in China
    Column("due_at", Moment, nullable=False),
    Column("due_approximate", Boolean, nullable=False),
    Index("renewals_by_day", "day"),
)

# ---- the parties' topics ---------------------------------------------------------------------------------------

# How far each carrier's own topic has been taken in. Another topic id is another topic: no offset means the same there.
ingress_positions = Table(
    "ingress_positions",
    metadata,
    Column("carrier_id", Text, primary_key=True),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("topic_id", Text, nullable=False),
    Column("next_offset", BigInteger, nullable=False),
)

# Answers that have not been told on the topics yet: written with the answer, deleted when the brokers have it.
answer_outbox = Table(
    "answer_outbox",
    metadata,
    Column("outbox_no", _Key, primary_key=True),
    Column("subscription_no", BigInteger, nullable=False),
    Column("chunk_no", BigInteger, nullable=False),
    Column("place", Integer, nullable=False),
)

# What a carrier was told last of a chunk and an app class.
answers_told = _clustered(
    "answers_told",
    Column("chunk_no", BigInteger, primary_key=True, autoincrement=False),
    Column("app_class", Text, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("digest", LargeBinary, nullable=False),
)
