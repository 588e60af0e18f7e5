"""Say whose database this is, and which other tenants there are."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables `cell` and `other_tenant`, and the tenant of a lease. What was in use before there were tenants belongs to the default one."""
    cell = op.create_table(
        "cell",
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("tenant", name=op.f("pk_cell")),
    )
    op.create_table(
        "other_tenant",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("name", sa.String(length=32), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("suspended_at", sa.BigInteger(), nullable=True),
        sa.Column("removed_at", sa.BigInteger(), nullable=True),
        sa.Column("devices_max", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("stored_max", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("uploads_max", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("events_per_day", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("requests_per_s", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_other_tenant")),
        sa.UniqueConstraint("name", name=op.f("uq_other_tenant_name")),
        sa.UniqueConstraint("host", name=op.f("uq_other_tenant_host")),
        sqlite_autoincrement=True,
    )
    op.add_column(
        "lease",
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
    )
    conn = op.get_bind()
    first = conn.execute(sa.text("SELECT at FROM audit ORDER BY seq LIMIT 1")).scalar()
    if first is not None:
        conn.execute(sa.insert(cell).values(tenant="default", at=first))
