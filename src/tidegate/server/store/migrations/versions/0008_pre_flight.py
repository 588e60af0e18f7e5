"""Keep count of devices on their way, and of the budget of bytes."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add three tables."""
    op.create_table(
        "flight",
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("attribute", sa.String(length=100), nullable=False),
        sa.Column("value", sa.String(length=512), nullable=False),
        sa.Column("device_row", _ID, nullable=False),
        sa.Column("update_id", sa.String(length=64), nullable=False),
        sa.Column("lost_at", sa.BigInteger()),
        sa.PrimaryKeyConstraint(
            "tenant", "attribute", "value", "device_row", name=op.f("pk_flight")
        ),
    )
    op.create_index(op.f("ix_flight_update_id"), "flight", ["update_id"])
    op.create_table(
        "flight_attribute",
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("attribute", sa.String(length=100), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "attribute", name=op.f("pk_flight_attribute")),
    )
    op.create_table(
        "egress",
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("site", sa.String(length=64), nullable=False),
        sa.Column("free_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "site", name=op.f("pk_egress")),
    )
