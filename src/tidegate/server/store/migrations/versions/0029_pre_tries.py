"""Count in the database what can be guessed, for all processes together."""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table `tried`."""
    op.create_table(
        "tried",
        sa.Column("source_sha256", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("quiet_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("source_sha256", name=op.f("pk_tried")),
    )
    op.create_index(op.f("ix_tried_quiet_ms"), "tried", ["quiet_ms"])
