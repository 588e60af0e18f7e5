"""Keep the staging schedule that a release's signers set."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("release", sa.Column("mandate", sa.Text(), nullable=True))
