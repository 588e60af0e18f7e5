"""Tables about who may act: people's accounts, their logins, and tokens for machines."""

from sqlalchemy import JSON, BigInteger, Column, ForeignKey, String, Table, Text, UniqueConstraint

from tidegate.server.store.table_parts import Id, metadata, tenant

account = Table(
    "account",
    metadata,
    Column("id", Id, primary_key=True),
    tenant(),
    Column("name", String(64), nullable=False),
    Column("password_hash", Text, nullable=False),
    # one role held in everything, or "granted": then `grants` says
    Column("role", String(16), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("disabled_at", BigInteger),
    # texts, ROLE or ROLE@SCOPE
    Column("grants", JSON),
    # whose account it is, where one person has several; empty = its own
    Column("person", String(64), nullable=False, server_default=""),
    # who signs this account in, and as whom; empty = a password, here
    Column("issuer", String(255), nullable=False, server_default=""),
    Column("subject", String(255), nullable=False, server_default=""),
    # from where somebody of this name got in, the newest last
    Column("addresses", JSON),
    # the second factor: what its secret is derived from, since when it counts, the newest step that was used, digests of codes for when it is lost
    Column("totp_salt", String(64), nullable=False, server_default=""),
    Column("totp_confirmed_at", BigInteger),
    Column("totp_step", BigInteger, nullable=False, server_default="0"),
    Column("recovery", JSON),
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
    # session, ticket, half (a second factor is still to come), enrol (one has to be set up first)
    Column("kind", String(16), nullable=False, server_default="session"),
    # password, link, oidc
    Column("method", String(16), nullable=False, server_default=""),
    Column("address", String(64), nullable=False, server_default=""),
    Column("agent", String(200), nullable=False, server_default=""),
    Column("seen_at", BigInteger, nullable=False, server_default="0"),
    # when the owner last showed who sits there
    Column("proved_at", BigInteger, nullable=False, server_default="0"),
)

#: Acts on accounts that wait for a second person.
account_request = Table(
    "account_request",
    metadata,
    Column("id", Id, primary_key=True),
    tenant(),
    # create, edit, enable, reset, link, second_factor
    Column("act", String(16), nullable=False),
    Column("account", String(64), nullable=False),
    Column("grants", JSON, nullable=False),
    Column("person", String(64), nullable=False, server_default=""),
    Column("plan_sha256", String(64), nullable=False),
    Column("asked_at", BigInteger, nullable=False),
    Column("asked_by", String(128), nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    # open, approved, declined, used
    Column("state", String(16), nullable=False),
    Column("decided_at", BigInteger),
    Column("decided_by", String(128)),
)

#: Sign-ins that are under way at a provider: each is used once.
sign_in_flow = Table(
    "sign_in_flow",
    metadata,
    Column("state_sha256", String(64), primary_key=True),
    tenant(),
    Column("nonce", String(64), nullable=False),
    Column("verifier", String(128), nullable=False),
    # digest of a cookie of the browser that began it
    Column("browser_sha256", String(64), nullable=False),
    Column("next", Text, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
)

#: What was tried too often of late (`server.tries`), by the digest of who tried what.
tried = Table(
    "tried",
    metadata,
    Column("source_sha256", String(64), primary_key=True),
    tenant(),
    Column("quiet_ms", BigInteger, nullable=False, index=True),
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
    # texts, ROLE or ROLE@SCOPE, when `role` is "granted"
    Column("grants", JSON),
    # networks from which alone it is good
    Column("addresses", JSON),
    Column("last_address", String(64), nullable=False, server_default=""),
)
