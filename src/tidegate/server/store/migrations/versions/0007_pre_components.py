"""Keep what a device says of its other components."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column to `device`."""
    op.add_column("device", sa.Column("components", sa.JSON(), server_default="{}", nullable=False))
