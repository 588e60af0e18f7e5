"""Keep the event log in pieces, on PostgreSQL; what is there becomes the first of them. Old servers write and read the same name."""

import re

from alembic import op

revision = "0023"
down_revision = "0021"
branch_labels = None
depends_on = None

#: The width of the first pieces; `store.partitions` makes more.
_WIDTH = 1_000_000
_INDEXES = (
    "pk_event",
    "uq_event_device_row_seq",
    "ix_event_kind_received_at",
    "ix_event_update_id",
)


def upgrade() -> None:
    """Make `event` a table in pieces. It takes no time where `store.partitions.prepare` looked it through before."""
    conn = op.get_bind()
    if conn.dialect.name != "postgresql":
        return

    def run(statement: str) -> None:
        conn.exec_driver_sql(statement)

    newest = conn.exec_driver_sql("SELECT max(position) FROM event").scalar() or 0
    known = conn.exec_driver_sql(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint "
        "WHERE conrelid = 'event'::regclass AND conname = 'event_first' AND convalidated"
    ).scalar()
    found = re.search(r"position\D+(\d+)", known or "")
    high = int(found[1]) if found else newest + 1 if newest else _WIDTH
    run("ALTER TABLE event RENAME TO event_0")
    for name in _INDEXES:
        run(f"ALTER INDEX {name} RENAME TO {name.replace('event', 'event_0')}")
    run("CREATE TABLE event (LIKE event_0 INCLUDING DEFAULTS) PARTITION BY RANGE (position)")
    run("ALTER SEQUENCE event_position_seq OWNED BY event.position")
    run("ALTER TABLE event_0 ALTER COLUMN position DROP DEFAULT")
    run("ALTER TABLE event ADD CONSTRAINT pk_event PRIMARY KEY (position)")
    run("CREATE INDEX ix_event_kind_received_at ON event (kind, received_at)")
    run("CREATE INDEX ix_event_update_id ON event (update_id)")
    run(f"ALTER TABLE event ATTACH PARTITION event_0 FOR VALUES FROM (0) TO ({high})")
    run("ALTER TABLE event_0 DROP CONSTRAINT IF EXISTS event_first")
    for low in (high, high + _WIDTH):
        _piece(f"event_{low}", f"FOR VALUES FROM ({low}) TO ({low + _WIDTH})")
    _piece("event_rest", "DEFAULT")
    if newest:
        # the first piece is complete: whatever comes now is behind it
        run(f"SELECT setval('event_position_seq', {high - 1})")


def _piece(name: str, bound: str) -> None:
    op.execute(f"CREATE TABLE {name} PARTITION OF event {bound}")
    op.execute(
        f"ALTER TABLE {name} ADD CONSTRAINT uq_{name}_device_row_seq UNIQUE (device_row, seq)"
    )
