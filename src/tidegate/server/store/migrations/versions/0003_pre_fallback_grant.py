"""Grants of a way back, signed by the incident ring."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table, and to rollouts the grant that they carry out."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "fallback_grant",
        sa.Column("id", number, nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("product", sa.String(length=64), nullable=False),
        sa.Column("incident_id", number, nullable=False),
        sa.Column("rollout_id", number, nullable=False),
        sa.Column("release_id", number, nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("payload_sha256", sa.String(length=64), nullable=False),
        sa.Column("envelope", sa.JSON(), nullable=False),
        sa.Column("cohort_sha256", sa.String(length=64), nullable=True),
        sa.Column("cohort_count", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("way", sa.JSON(), nullable=False),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("accepted_at", sa.BigInteger(), nullable=True),
        sa.Column("accepted_by", sa.String(length=128), nullable=True),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incident.id"], name=op.f("fk_fallback_grant_incident_id")
        ),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollout.id"], name=op.f("fk_fallback_grant_rollout_id")
        ),
        sa.ForeignKeyConstraint(
            ["release_id"], ["release.id"], name=op.f("fk_fallback_grant_release_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_fallback_grant")),
        sa.UniqueConstraint(
            "tenant",
            "product",
            "epoch",
            "serial",
            name=op.f("uq_fallback_grant_tenant_product_epoch_serial"),
        ),
        sa.UniqueConstraint("payload_sha256", name=op.f("uq_fallback_grant_payload_sha256")),
    )
    op.create_index(
        op.f("ix_fallback_grant_incident_id"), "fallback_grant", ["incident_id"], unique=False
    )
    op.add_column("rollout", sa.Column("grant_id", sa.BigInteger(), nullable=True))
