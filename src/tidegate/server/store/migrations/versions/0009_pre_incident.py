"""Give incidents a severity, an owner and follow-ups, and keep what the status page says."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant", sa.String(length=64), server_default="default", nullable=False)


def upgrade() -> None:
    """Add columns to `incident`, and three tables."""
    for column in (
        sa.Column("severity", sa.String(length=16), server_default="major", nullable=False),
        sa.Column("owner", sa.String(length=128), server_default="", nullable=False),
        sa.Column("mitigated_at", sa.BigInteger(), nullable=True),
    ):
        op.add_column("incident", column)
    op.create_table(
        "incident_followup",
        sa.Column("id", _ID, nullable=False),
        _tenant(),
        sa.Column("incident_id", _ID, nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=False),
        sa.Column("due_at", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.String(length=128), nullable=False),
        sa.Column("done_at", sa.BigInteger(), nullable=True),
        sa.Column("done_by", sa.String(length=128), nullable=True),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incident.id"], name=op.f("fk_incident_followup_incident_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident_followup")),
        sa.UniqueConstraint(
            "incident_id", "number", name=op.f("uq_incident_followup_incident_id_number")
        ),
    )
    op.create_table(
        "publication",
        sa.Column("incident_id", _ID, nullable=False),
        _tenant(),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("summary", sa.Text(), nullable=False),
        sa.Column("impact", sa.Text(), nullable=False),
        sa.Column("action", sa.Text(), server_default="", nullable=False),
        sa.Column("published_at", sa.BigInteger(), nullable=False),
        sa.Column("published_by", sa.String(length=128), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.Column("withdrawn_at", sa.BigInteger(), nullable=True),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incident.id"], name=op.f("fk_publication_incident_id")
        ),
        sa.PrimaryKeyConstraint("incident_id", name=op.f("pk_publication")),
    )
    op.create_table(
        "publication_update",
        sa.Column("id", _ID, nullable=False),
        _tenant(),
        sa.Column("incident_id", _ID, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("by", sa.String(length=128), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["incident_id"], ["incident.id"], name=op.f("fk_publication_update_incident_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_publication_update")),
    )
    op.create_index(
        op.f("ix_publication_update_incident_id"), "publication_update", ["incident_id"]
    )
