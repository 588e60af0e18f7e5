"""Files on their way here: a row each, from the first word of it until some time after its end (`server.uploads`)."""

from sqlalchemy import JSON, BigInteger, Column, Index, String, Table, Text

from tidegate.server.store.table_parts import metadata, tenant

upload = Table(
    "upload",
    metadata,
    Column("id", String(64), primary_key=True),
    tenant(),
    Column("sha256", String(64), nullable=False),
    Column("length", BigInteger, nullable=False),
    Column("part_bytes", BigInteger, nullable=False),
    # what the store calls it
    Column("handle", Text, nullable=False, server_default=""),
    # open, checking, done, failed
    Column("state", String(12), nullable=False),
    Column("created_by", String(200), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    # which process looks at it, and until when that is believed
    Column("holder", String(64), nullable=False, server_default=""),
    Column("held_until", BigInteger, nullable=False, server_default="0"),
    # what it brought, and why it was refused
    Column("published", JSON),
    Column("code", String(64), nullable=False, server_default=""),
    Column("detail", Text, nullable=False, server_default=""),
    Index(None, "tenant", "sha256"),
)
