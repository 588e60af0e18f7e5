"""Say what a follow-up is about and by what a cause was shown; find devices by when they were enrolled without looking at all of them."""

import sqlalchemy as sa
from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add two columns to notes, one to follow-ups, and an index of devices."""
    for table, name, size in (
        ("incident_note", "means", 16),
        ("incident_note", "kept", 500),
        ("incident_followup", "about", 16),
    ):
        column = sa.Column(name, sa.String(length=size), server_default="", nullable=False)
        op.add_column(table, column)
    columns = ["tenant", "product", "state", "variant", "enrolled_at"]
    op.create_index(op.f(f"ix_device_{'_'.join(columns)}"), "device", columns)
