"""Tables about tenants (docs/decisions/0034): whose database this is, and, in that of the default tenant, which others there are."""

from sqlalchemy import BigInteger, Column, String, Table, UniqueConstraint

from tidegate.server.store.table_parts import Id, metadata, tenant

# One row: the tenant that this database, or this schema of one, belongs to.
cell = Table(
    "cell",
    metadata,
    tenant(primary_key=True),
    Column("at", BigInteger, nullable=False),
)


def _bound(name: str) -> Column[int]:
    return Column(name, BigInteger, nullable=False, server_default="0")


# Tenants beside the default one. Numbers stand in devices' tokens and are never used twice.
other_tenant = Table(
    "other_tenant",
    metadata,
    Column("number", Id, primary_key=True),
    tenant(),
    Column("name", String(32), nullable=False),
    Column("host", String(253), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("created_by", String(128), nullable=False),
    Column("suspended_at", BigInteger),
    Column("removed_at", BigInteger),
    # `scope.Quotas`: devices, bytes, bytes on their way, events a day, requests of people a second
    _bound("devices_max"),
    _bound("stored_max"),
    _bound("uploads_max"),
    _bound("events_per_day"),
    _bound("requests_per_s"),
    UniqueConstraint("name"),
    UniqueConstraint("host"),
    sqlite_autoincrement=True,
)
