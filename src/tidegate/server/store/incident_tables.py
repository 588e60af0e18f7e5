"""Tables about what follows an incident, beside `incident` and `incident_note`: what is left to do, and what the world was told."""

from sqlalchemy import (
    BigInteger,
    Column,
    ForeignKey,
    Index,
    Integer,
    String,
    Table,
    Text,
    UniqueConstraint,
)

from tidegate.server.store.table_parts import Id, metadata, tenant

# `number` counts from 1 in each incident.
incident_followup = Table(
    "incident_followup",
    metadata,
    Column("id", Id, primary_key=True),
    tenant(),
    Column("incident_id", Id, ForeignKey("incident.id"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("text", Text, nullable=False),
    Column("owner", String(128), nullable=False),
    Column("due_at", BigInteger, nullable=False, server_default="0"),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("done_at", BigInteger),
    Column("done_by", String(128)),
    # recall: to decide whether the release is recalled
    Column("about", String(16), nullable=False, server_default=""),
    UniqueConstraint("incident_id", "number"),
)

# What the status page says of an incident: these texts and nothing else. One row an incident; withdrawn ones are not shown.
publication = Table(
    "publication",
    metadata,
    Column("incident_id", Id, ForeignKey("incident.id"), primary_key=True),
    tenant(),
    Column("title", String(200), nullable=False),
    Column("summary", Text, nullable=False),
    Column("impact", Text, nullable=False),
    Column("action", Text, nullable=False, server_default=""),
    Column("published_at", BigInteger, nullable=False),
    Column("published_by", String(128), nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    Column("withdrawn_at", BigInteger),
)

publication_update = Table(
    "publication_update",
    metadata,
    Column("id", Id, primary_key=True),
    tenant(),
    Column("incident_id", Id, ForeignKey("incident.id"), nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("by", String(128), nullable=False),
    Column("text", Text, nullable=False),
    Index(None, "incident_id"),
)
