"""Keep the audiences of snapshot rollouts, and when a rollout that fetches ahead was let go."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a table, and columns to `rollout`."""
    op.create_table(
        "fixed_audience",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("rings", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", "tenant", name=op.f("pk_fixed_audience")),
    )
    op.add_column("rollout", sa.Column("fixed", sa.String(length=64), nullable=True))
    op.add_column("rollout", sa.Column("released_at", sa.BigInteger(), nullable=True))
