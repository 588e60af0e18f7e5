"""Count what a rollout does by the hour. What was counted before belongs to the hour in which a rollout began."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0024"
branch_labels = None
depends_on = None

#: What one update counts for, at most.
_BYTES_MAX = 1 << 40


def upgrade() -> None:
    """Add the table `rollout_hour`; what the counters stand at already belongs to the hour in which each rollout began."""
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "rollout_hour",
        sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False),
        sa.Column("rollout_id", number, nullable=False),
        sa.Column("hour", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollout.id"], name=op.f("fk_rollout_hour_rollout_id")
        ),
        sa.PrimaryKeyConstraint("rollout_id", "hour", "name", name=op.f("pk_rollout_hour")),
    )
    began = "CAST(coalesce(rollout.started_at, rollout.created_at) / 3600 AS INTEGER)"
    into = "INSERT INTO rollout_hour (tenant, rollout_id, hour, name, value) SELECT rollout.tenant, rollout.id, "
    grouped = "GROUP BY rollout.tenant, rollout.id, rollout.started_at, rollout.created_at"
    op.execute(
        f"{into} {began}, tally.name, sum(tally.value) "
        "FROM tally JOIN rollout ON rollout.id = tally.rollout_id "
        f"WHERE tally.name NOT IN ('last_permit_at', 'last_confirmed_at') {grouped}, tally.name"
    )
    op.execute(
        f"{into} {began}, 'bytes', "
        f'sum(CASE WHEN "update".bytes > {_BYTES_MAX} THEN {_BYTES_MAX} ELSE "update".bytes END) '
        f'FROM "update" JOIN rollout ON rollout.id = "update".rollout_id '
        f'WHERE "update".bytes > 0 {grouped}'
    )
