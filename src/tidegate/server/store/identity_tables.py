"""Tables about who devices are, beside the columns of `device`."""

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
)

from tidegate.server.store.table_parts import Id, metadata, tenant

# Keys that had their time, and never come back under any name.
retired_key = Table(
    "retired_key",
    metadata,
    tenant(),
    Column("key_sha256", String(64), primary_key=True),
    Column("device_row", Id, nullable=False),
    # replaced, revoked, decommissioned
    Column("reason", String(16), nullable=False),
    Column("at", BigInteger, nullable=False),
)

# Devices that the factory announced: who comes with this key is let in.
preauthorized = Table(
    "preauthorized",
    metadata,
    Column("id", Id, primary_key=True),
    tenant(),
    Column("key_sha256", String(64), nullable=False),
    # what must be true of the device as well; NULL = anything
    Column("device_id", String(64)),
    Column("serial", String(128)),
    Column("product", String(64)),
    Column("channel", String(32)),
    Column("attributes", JSON),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("used_at", BigInteger),
    UniqueConstraint("tenant", "key_sha256"),
    Index(None, "device_id"),
)

# Salts of the daily MAC keys of device sessions (server.keyring), by unix day.
session_salt = Table(
    "session_salt",
    metadata,
    tenant(),
    Column("day", Integer, primary_key=True),
    Column("salt", LargeBinary, nullable=False),
)
