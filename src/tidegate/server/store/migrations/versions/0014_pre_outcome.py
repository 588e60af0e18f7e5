"""Give updates of a state in the order of their last change, so that an incident's page looks at those alone that it shows."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add an index of `update`, in place of one that it begins with."""
    op.create_index(
        op.f("ix_update_rollout_id_state_state_at"), "update", ["rollout_id", "state", "state_at"]
    )
    op.drop_index(op.f("ix_update_rollout_id_state"), table_name="update")
