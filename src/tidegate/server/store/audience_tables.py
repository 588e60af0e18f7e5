"""The audiences of snapshot rollouts: a row an audience, however many devices it means (`server.fixed`)."""

from sqlalchemy import Column, Integer, LargeBinary, String, Table

from tidegate.server.store.table_parts import metadata, tenant

fixed_audience = Table(
    "fixed_audience",
    metadata,
    Column("sha256", String(64), primary_key=True),
    tenant(primary_key=True),
    # bytes when unpacked: rows of devices that there were
    Column("size", Integer, nullable=False),
    # compressed: a byte a device row, 0 = not meant, else its ring's index and one
    Column("rings", LargeBinary, nullable=False),
)
