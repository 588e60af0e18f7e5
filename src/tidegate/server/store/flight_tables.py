"""Tables about what is bounded over all rollouts: devices on their way, and bytes."""

from sqlalchemy import BigInteger, Column, Index, String, Table

from tidegate.server.store.table_parts import Id, metadata, tenant

# Devices on their way, by attribute, for caps (`server.caps`): one row an attribute that is kept count of.
flight = Table(
    "flight",
    metadata,
    tenant(primary_key=True),
    Column("attribute", String(100), primary_key=True),
    Column("value", String(512), primary_key=True),
    Column("device_row", Id, primary_key=True),
    Column("update_id", String(64), nullable=False),
    # when it was given up; NULL = it is on its way
    Column("lost_at", BigInteger),
    Index(None, "update_id"),
)

flight_attribute = Table(
    "flight_attribute",
    metadata,
    tenant(primary_key=True),
    Column("attribute", String(100), primary_key=True),
)

# When the budget of bytes of a site (empty = of the server) is free again.
egress = Table(
    "egress",
    metadata,
    tenant(primary_key=True),
    Column("site", String(64), primary_key=True),
    Column("free_at_ms", BigInteger, nullable=False),
)
