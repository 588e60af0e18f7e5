"""Logs of single devices, asked for after a failure: a row from the wish on (`server.device_logs`)."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    UniqueConstraint,
)
from sqlalchemy import Table as _Table

from tidegate.server.store.table_parts import Id, metadata, tenant

device_log = _Table(
    "device_log",
    metadata,
    Column("id", Id, primary_key=True),
    tenant(),
    Column("device_row", Id, nullable=False),
    Column("rollout_id", Id, ForeignKey("rollout.id"), nullable=False),
    Column("update_id", String(64), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("reason", String(40), nullable=False),
    Column("wanted_at", BigInteger, nullable=False),
    # NULL until it came
    Column("received_at", BigInteger),
    # characters of the text, and the text: UTF-8, scrubbed, zlib
    Column("chars", Integer, nullable=False, server_default="0"),
    Column("body", LargeBinary),
    UniqueConstraint("update_id", "attempt"),
    Index(None, "rollout_id", "reason"),
    Index(None, "device_row"),
    Index(None, "wanted_at"),
)
