"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
GROWING = ("receipts", "attempts", "answers", "answer_tallies")
PART_CHUNKS = 1 << 20


def upgrade() -> None:
    op.create_table(
        "agreements",
        sa.Column("agreement_id", sa.Text(), nullable=False),
        sa.Column("carrier_id", sa.Text(), nullable=False),
        sa.Column("subscriber_id", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("pia_ref", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("agreement_id"),
    )
    op.create_index("agreements_by_subscriber", "agreements", ["subscriber_id", "purpose"], unique=False)
    op.create_table(
        "answer_tallies",
        sa.Column("subscription_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("chunk_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("code", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("delta", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("subscription_no", "chunk_no", "place", "code"),
        sqlite_with_rowid=False,
        postgresql_partition_by="RANGE (chunk_no)",
    )
    op.create_table(
        "answers",
        sa.Column("subscription_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("chunk_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("place", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("numbers", sa.Integer(), nullable=False),
        sa.Column("default_code", sa.SmallInteger(), nullable=False),
        sa.Column("default_review_at", sa.BigInteger(), nullable=True),
        sa.Column("answered_at", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("exceptions", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("subscription_no", "chunk_no", "place"),
        sqlite_with_rowid=False,
        postgresql_partition_by="RANGE (chunk_no)",
    )
    op.create_table(
        "apps",
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("subscriber_id", sa.Text(), nullable=False),
        sa.Column("app_class", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("app_id"),
    )
    op.create_table(
        "attempts",
        sa.Column("subscription_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("chunk_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("attempt", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("subscription_no", "chunk_no", "attempt"),
        sqlite_with_rowid=False,
        postgresql_partition_by="RANGE (chunk_no)",
    )
    op.create_table(
        "batches",
        sa.Column("batch_id", sa.Text(), nullable=False),
        sa.Column("carrier_id", sa.Text(), nullable=False),
        sa.Column("acting_for", sa.Text(), nullable=True),
        sa.Column("batch_seq", sa.BigInteger(), nullable=False),
        sa.Column("event_type", sa.SmallInteger(), nullable=False),
        sa.Column("declared_rows", sa.BigInteger(), nullable=False),
        sa.Column("declared_sha256", sa.Text(), nullable=False),
        sa.Column("content_format", sa.Text(), nullable=False),
        sa.Column("content_encoding", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("uploaded_bytes", sa.BigInteger(), nullable=False),
        sa.Column("rows_seen", sa.BigInteger(), nullable=False),
        sa.Column("rows_accepted", sa.BigInteger(), nullable=False),
        sa.Column("rows_refused", sa.BigInteger(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("reasons", sa.JSON(), nullable=False),
        sa.Column("committed_at", sa.BigInteger(), nullable=True),
        sa.Column("failure", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("batch_id"),
        sa.UniqueConstraint("carrier_id", "batch_seq", name="batches_by_seq"),
        sa.UniqueConstraint("carrier_id", "idempotency_key", name="batches_by_key"),
    )
    op.create_index("batches_by_time", "batches", ["created_at"], unique=False)
    op.create_table(
        "catalogue",
        sa.Column("chunk_no", KEY, autoincrement=False, nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("log_offset", sa.BigInteger(), nullable=False),
        sa.Column("event_type", sa.SmallInteger(), nullable=False),
        sa.Column("lane", sa.SmallInteger(), nullable=False),
        sa.Column("carrier_id", sa.Text(), nullable=False),
        sa.Column("numbers", sa.Integer(), nullable=False),
        sa.Column("reported_at", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.Column("renewal_id", sa.Text(), nullable=True),
        sa.Column("targeted", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("chunk_no"),
    )
    op.create_index(
        "catalogue_by_batch",
        "catalogue",
        ["batch_id"],
        unique=False,
        sqlite_where=sa.text("batch_id IS NOT NULL"),
        postgresql_where=sa.text("batch_id IS NOT NULL"),
    )
    op.create_index("catalogue_by_day", "catalogue", ["day"], unique=False)
    op.create_index("catalogue_by_place", "catalogue", ["part", "lane", "log_offset"], unique=False)
    op.create_table(
        "catalogue_apps",
        sa.Column("chunk_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("place", sa.SmallInteger(), nullable=False),
        sa.PrimaryKeyConstraint("chunk_no", "app_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "catalogue_positions",
        sa.Column("part", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("part"),
    )
    op.create_table(
        "catalogue_provinces",
        sa.Column("chunk_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("province", sa.Text(), nullable=False),
        sa.Column("numbers", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("chunk_no", "province"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "chunk_keys",
        sa.Column("chunk_no", KEY, nullable=False),
        sa.Column("chunk_id", sa.Text(), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("log_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("chunk_no"),
        sa.UniqueConstraint("chunk_id"),
    )
    op.create_table(
        "clearances",
        sa.Column("clearance_id", sa.Text(), nullable=False),
        sa.Column("carrier_id", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.Column("judged_at", sa.BigInteger(), nullable=False),
        sa.Column("log_positions", sa.JSON(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("go", sa.BigInteger(), nullable=False),
        sa.Column("go_with_exceptions", sa.BigInteger(), nullable=False),
        sa.Column("wait", sa.BigInteger(), nullable=False),
        sa.Column("waivers", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("clearance_id"),
    )
    op.create_index("clearances_by_time", "clearances", ["judged_at"], unique=False)
    op.create_table(
        "cursors",
        sa.Column("subscription_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("part", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("lane", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("start_offset", sa.BigInteger(), nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subscription_no", "part", "lane"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "directory_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "parked",
        sa.Column("subscription_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("chunk_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("parked_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("subscription_no", "chunk_no"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "parties",
        sa.Column("party_id", sa.Text(), nullable=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("suspended", sa.Boolean(), nullable=False),
        sa.Column("sandbox", sa.Boolean(), nullable=False),
        sa.Column("client_secret_hash", sa.Text(), nullable=True),
        sa.Column("carrier_no", sa.Integer(), nullable=False),
        sa.Column("block_holders", sa.JSON(), nullable=False),
        sa.Column("acting_for", sa.JSON(), nullable=False),
        sa.Column("coverage_since", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("party_id"),
    )
    op.create_index(
        "parties_by_carrier_no",
        "parties",
        ["carrier_no"],
        unique=True,
        sqlite_where=sa.text("carrier_no > 0"),
        postgresql_where=sa.text("carrier_no > 0"),
    )
    op.create_table(
        "party_keys",
        sa.Column("party_id", sa.Text(), nullable=False),
        sa.Column("kid", sa.Text(), nullable=False),
        sa.Column("jwk", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("retired_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("party_id", "kid"),
    )
    op.create_table(
        "receipts",
        sa.Column("subscription_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("chunk_no", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.SmallInteger(), nullable=False),
        sa.Column("via", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("subscription_no", "chunk_no"),
        sqlite_with_rowid=False,
        postgresql_partition_by="RANGE (chunk_no)",
    )
    op.create_index("receipts_by_time", "receipts", ["subscription_no", "received_at"], unique=False)
    op.create_table(
        "renewals",
        sa.Column("renewal_id", sa.Text(), nullable=False),
        sa.Column("carrier_id", sa.Text(), nullable=False),
        sa.Column("chunk_id", sa.Text(), nullable=False),
        sa.Column("apps", sa.JSON(), nullable=False),
        sa.Column("app_count", sa.Integer(), nullable=False),
        sa.Column("consent_digest", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.Text(), nullable=False),
        sa.Column("requested_at", sa.BigInteger(), nullable=False),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("due_at", sa.BigInteger(), nullable=False),
        sa.Column("due_approximate", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("renewal_id"),
    )
    op.create_index("renewals_by_day", "renewals", ["day"], unique=False)
    op.create_table(
        "schema_info",
        sa.Column("version", sa.Integer(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("version"),
    )
    op.create_table(
        "subscription_keys",
        sa.Column("subscription_no", KEY, nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("subscription_no"),
        sa.UniqueConstraint("subscription_id"),
    )
    op.create_table(
        "subscription_secrets",
        sa.Column("subscription_no", KEY, autoincrement=False, nullable=False),
        sa.Column("place", sa.SmallInteger(), autoincrement=False, nullable=False),
        sa.Column("scheme", sa.Text(), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("subscription_no", "place"),
    )
    op.create_table(
        "subscriptions",
        sa.Column("subscription_no", KEY, autoincrement=False, nullable=False),
        sa.Column("subscription_id", sa.Text(), nullable=False),
        sa.Column("subscriber_id", sa.Text(), nullable=False),
        sa.Column("app_id", sa.Text(), nullable=False),
        sa.Column("app_class", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("event_mask", sa.Integer(), nullable=False),
        sa.Column("lane_mask", sa.Integer(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("endpoint", sa.Text(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("subscription_no"),
        sa.UniqueConstraint("subscription_id"),
    )
    op.create_table(
        "waivers",
        sa.Column("waiver_id", sa.Text(), nullable=False),
        sa.Column("subscriber_id", sa.Text(), nullable=False),
        sa.Column("batch_id", sa.Text(), nullable=True),
        sa.Column("person", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("issued_by", sa.Text(), nullable=False),
        sa.Column("issued_at", sa.BigInteger(), nullable=False),
        sa.Column("statement", sa.Text(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("waiver_id"),
    )

    op.execute("INSERT INTO schema_info (version) VALUES (1)")
    op.bulk_insert(
        sa.table("directory_state", sa.column("id"), sa.column("version"), sa.column("policy", sa.JSON())),
        [{"id": 1, "version": 0, "policy": {}}],
    )
    if op.get_bind().dialect.name == "postgresql":
        for name in GROWING:
            op.execute(f"CREATE TABLE {name}_rest PARTITION OF {name} DEFAULT")
            for place in range(4):
                first = place * PART_CHUNKS
                op.execute(
                    f"CREATE TABLE {name}_p{place} PARTITION OF {name} "
                    f"FOR VALUES FROM ({first}) TO ({first + PART_CHUNKS})"
                )
