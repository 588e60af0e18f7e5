"""Tables of acts on many devices: the job, and each device that it is about."""

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, Index, Integer, String, Table, Text

from tidegate.server.store.table_parts import Id, metadata, tenant

job = Table(
    "job",
    metadata,
    Column("id", Id, primary_key=True),
    tenant(),
    # tag, untag, move, revoke, decommission
    Column("act", String(32), nullable=False),
    # what the act takes: tags, groups
    Column("detail", JSON, nullable=False),
    Column("query", Text, nullable=False),
    Column("reason", Text, nullable=False),
    # running, done, cancelled
    Column("state", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("ended_at", BigInteger),
    Column("ended_by", String(128), nullable=False, server_default=""),
    Column("devices", Integer, nullable=False),
    Index(None, "state"),
    sqlite_autoincrement=True,
)

# `place` counts the devices of a job from 1: what is done, is done in this order.
job_item = Table(
    "job_item",
    metadata,
    Column("job_id", Id, ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    Column("place", Integer, primary_key=True),
    tenant(),
    Column("device_row", Id, nullable=False),
    # waiting, done, already, failed
    Column("state", String(16), nullable=False),
    Column("code", String(64), nullable=False, server_default=""),
    Column("detail", Text, nullable=False, server_default=""),
    Index(None, "job_id", "state", "place"),
)
