"""Keep logs of devices that failed."""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table `device_log`."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "device_log",
        sa.Column("id", number, nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("device_row", number, nullable=False),
        sa.Column("rollout_id", number, nullable=False),
        sa.Column("update_id", sa.String(length=64), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("wanted_at", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=True),
        sa.Column("chars", sa.Integer(), server_default="0", nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollout.id"], name=op.f("fk_device_log_rollout_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_device_log")),
        sa.UniqueConstraint("update_id", "attempt", name=op.f("uq_device_log_update_id_attempt")),
    )
    for columns in (["rollout_id", "reason"], ["device_row"], ["wanted_at"]):
        name = op.f(f"ix_device_log_{'_'.join(columns)}")
        op.create_index(name, "device_log", columns, unique=False)
