"""Tables about who may act: people's accounts, their logins, and tokens for machines."""

from sqlalchemy import BigInteger, Column, ForeignKey, String, Table, Text, UniqueConstraint

from tidegate.server.store.table_parts import Id, metadata, tenant

account = Table(
    "account",
    metadata,
    Column("id", Id, primary_key=True),
    tenant(),
    Column("name", String(64), nullable=False),
    Column("password_hash", Text, nullable=False),
    # viewer, operator, approver, admin
    Column("role", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
    UniqueConstraint("tenant", "name"),
)

login = Table(
    "login",
    metadata,
    Column("token_sha256", String(64), primary_key=True),
    tenant(),
    Column("account_id", Id, ForeignKey("account.id"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

api_token = Table(
    "api_token",
    metadata,
    Column("id", Id, primary_key=True),
    tenant(),
    Column("name", String(64), nullable=False),
    Column("token_sha256", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
    Column("last_used_at", BigInteger),
)
