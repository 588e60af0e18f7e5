"""Keep what the evidence gate weighs, the log that it follows from, and how many permits it leaves to whom."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False)


def _of_rollout(table: str) -> sa.ForeignKeyConstraint:
    name = op.f(f"fk_{table}_rollout_id")
    return sa.ForeignKeyConstraint(["rollout_id"], ["rollout.id"], name=name)


def upgrade() -> None:
    """Add four tables."""
    op.create_table(
        "gate_happening",
        sa.Column("seq", _ID, nullable=False),
        _tenant(),
        sa.Column("rollout_id", _ID, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("device_row", _ID, nullable=False),
        sa.Column("what", sa.String(length=12), nullable=False),
        sa.Column("value", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("seconds", sa.Integer(), server_default="0", nullable=False),
        _of_rollout("gate_happening"),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_gate_happening")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_gate_happening_rollout_id_seq"), "gate_happening", ["rollout_id", "seq"]
    )
    op.create_table(
        "gate_state",
        sa.Column("rollout_id", _ID, nullable=False),
        _tenant(),
        sa.Column("watched", sa.Integer(), server_default="1", nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("stepped_at", sa.BigInteger(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("scheme", sa.JSON(), nullable=False),
        sa.Column("known", sa.JSON(), nullable=False),
        sa.Column("baseline", sa.JSON(), nullable=False),
        sa.Column("harm", sa.JSON(), nullable=False),
        sa.Column("snapshot", sa.LargeBinary(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("facts", sa.BigInteger(), nullable=False),
        sa.Column("decision", sa.JSON(), nullable=False),
        sa.Column("decided_at", sa.BigInteger(), nullable=False),
        _of_rollout("gate_state"),
        sa.PrimaryKeyConstraint("rollout_id", name=op.f("pk_gate_state")),
    )
    op.create_table(
        "gate_fact",
        sa.Column("rollout_id", _ID, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        _tenant(),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("harm", sa.JSON(), nullable=True),
        sa.Column("digest", sa.String(length=64), nullable=False),
        _of_rollout("gate_fact"),
        sa.PrimaryKeyConstraint("rollout_id", "seq", name=op.f("pk_gate_fact")),
    )
    op.create_table(
        "gate_room",
        sa.Column("rollout_id", _ID, nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("name", sa.String(length=300), nullable=False),
        _tenant(),
        sa.Column("room", sa.Integer(), nullable=False),
        sa.Column("because", sa.Text(), server_default="", nullable=False),
        _of_rollout("gate_room"),
        sa.PrimaryKeyConstraint("rollout_id", "kind", "name", name=op.f("pk_gate_room")),
    )
