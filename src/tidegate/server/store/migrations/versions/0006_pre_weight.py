"""Bound what one device's metrics can weigh."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Add a column to `device`, and a table."""
    op.add_column(
        "device", sa.Column("measured_until", sa.BigInteger(), server_default="0", nullable=False)
    )
    op.create_table(
        "exposure_device",
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("rollout_id", _ID, nullable=False),
        sa.Column("arm", sa.String(length=8), nullable=False),
        sa.Column("device_row", _ID, nullable=False),
        sa.Column("variant", sa.String(length=80), nullable=False),
        sa.Column("errors", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollout.id"], name=op.f("fk_exposure_device_rollout_id")
        ),
        sa.PrimaryKeyConstraint("rollout_id", "arm", "device_row", name=op.f("pk_exposure_device")),
    )
