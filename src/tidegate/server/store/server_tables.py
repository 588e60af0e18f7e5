"""About the servers of a database, whichever of them asks."""

from sqlalchemy import BigInteger, Column, String, Table

from tidegate.server.store.table_parts import metadata, tenant

# Which online keys its servers have, all of them: one row. A digest, from which no key can be told.
online_key = Table(
    "online_key",
    metadata,
    Column("name", String(16), primary_key=True),
    tenant(),
    Column("digest", String(64), nullable=False),
    Column("at", BigInteger, nullable=False),
)
