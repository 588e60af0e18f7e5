"""Keep what devices say of restarts that nobody asked for, and metrics by name."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns to `device` and `gate_happening`."""
    for name in ("restarts_from", "restarts", "restarted_at", "cut_at"):
        op.add_column(
            "device", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False)
        )
    for name, length in (("restarted_boot", 64), ("restart_cause", 16)):
        op.add_column(
            "device", sa.Column(name, sa.String(length=length), server_default="", nullable=False)
        )
    op.add_column(
        "gate_happening", sa.Column("name", sa.String(length=64), server_default="", nullable=False)
    )
    op.add_column("gate_happening", sa.Column("amount", sa.Float(), nullable=True))
