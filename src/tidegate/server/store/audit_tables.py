"""Tables of the operators' log: its rows, the nodes of the tree over them, and the heads that were signed."""

from sqlalchemy import JSON, BigInteger, Column, Integer, LargeBinary, String, Table, Text

from tidegate.server.store.scope import tenant_of_row
from tidegate.server.store.table_parts import Id, metadata, tenant


def _extra(name: str, length: int) -> Column[str]:
    return Column(name, String(length), nullable=False, server_default="")


audit = Table(
    "audit",
    metadata,
    Column("seq", Id, primary_key=True),
    tenant(),
    Column("at", BigInteger, nullable=False),
    Column("actor", String(128), nullable=False),
    Column("action", String(64), nullable=False),
    Column("object", String(200), nullable=False),
    Column("detail", JSON, nullable=False),
    # SHA-256 over the previous row's hash and this row's canonical JSON
    Column("hash", String(64), nullable=False),
    _extra("plan_sha256", 64),
    _extra("request_id", 64),
    _extra("ip", 64),
    _extra("before_sha256", 64),
    _extra("after_sha256", 64),
)

# Roots of complete subtrees; level 0 holds the leaves, number 0 being the first row's. Never changed.
audit_node = Table(
    "audit_node",
    metadata,
    Column("level", Integer, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    tenant(),
    Column("hash", LargeBinary, nullable=False),
)

# How far the tree reaches: rows of an older server, which knows of no tree, come later. Rows that vanish leave a gap: no number is used twice.
audit_head = Table(
    "audit_head",
    metadata,
    Column("tenant", String(64), primary_key=True, default=tenant_of_row),
    Column("size", BigInteger, nullable=False),
    Column("hash", String(64), nullable=False),
)

audit_checkpoint = Table(
    "audit_checkpoint",
    metadata,
    Column("size", BigInteger, primary_key=True, autoincrement=False),
    tenant(),
    Column("at", BigInteger, nullable=False),
    Column("root", String(64), nullable=False),
    Column("note", Text, nullable=False),
)
