"""Device identity: sessions in order, promised and retired keys, the factory's list, salts of the daily MAC keys."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False)


def upgrade() -> None:
    """Add columns to `device`, and three tables."""
    for column in (
        sa.Column("session_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("session_nonce", sa.String(length=32), server_default="", nullable=False),
        sa.Column("trail", sa.JSON(), nullable=True),
        sa.Column("key_promised", sa.String(length=64), server_default="", nullable=False),
        sa.Column("key_promised_until", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("rekey", sa.Integer(), server_default="0", nullable=False),
        sa.Column("given", sa.JSON(), nullable=True),
    ):
        op.add_column("device", column)
    op.create_index(op.f("ix_device_key_sha256"), "device", ["key_sha256"])
    op.create_table(
        "retired_key",
        _tenant(),
        sa.Column("key_sha256", sa.String(length=64), nullable=False),
        sa.Column("device_row", _ID, nullable=False),
        sa.Column("reason", sa.String(length=16), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key_sha256", name=op.f("pk_retired_key")),
    )
    op.create_table(
        "preauthorized",
        sa.Column("id", _ID, nullable=False),
        _tenant(),
        sa.Column("key_sha256", sa.String(length=64), nullable=False),
        sa.Column("device_id", sa.String(length=64), nullable=True),
        sa.Column("serial", sa.String(length=128), nullable=True),
        sa.Column("product", sa.String(length=64), nullable=True),
        sa.Column("channel", sa.String(length=32), nullable=True),
        sa.Column("attributes", sa.JSON(), nullable=True),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("used_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_preauthorized")),
        sa.UniqueConstraint(
            "tenant", "key_sha256", name=op.f("uq_preauthorized_tenant_key_sha256")
        ),
    )
    op.create_index(op.f("ix_preauthorized_device_id"), "preauthorized", ["device_id"])
    op.create_table(
        "session_salt",
        _tenant(),
        sa.Column("day", sa.Integer(), nullable=False),
        sa.Column("salt", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("day", name=op.f("pk_session_salt")),
    )
    op.execute(
        "INSERT INTO retired_key (tenant, key_sha256, device_row, reason, at) "
        "SELECT tenant, key_sha256, min(row), 'revoked', 0 FROM device WHERE state = 'revoked' "
        "GROUP BY tenant, key_sha256"
    )
