"""Which tenant a database belongs to, as it says itself: asked whenever one is opened, so that no setting mixes up two tenants."""

from sqlalchemy import Connection, insert, inspect, select

from tidegate.core.errors import ConfigError
from tidegate.server.store.scope import tenant_of
from tidegate.server.store.tenant_tables import cell, other_tenant


def claim(conn: Connection, now: int) -> None:
    """Note on the first opening whose database this is, and insist on it ever after.

    Raises:
        ConfigError: `data.other_tenant`.
    """
    if owner(conn) is None:
        conn.execute(insert(cell).values(at=now))
    require_own(conn)


def require_own(conn: Connection) -> None:
    """Insist that the database belongs to the tenant of the connection, as far as it says anything: an older schema says nothing.

    Raises:
        ConfigError: `data.other_tenant`.
    """
    held, tenant = owner(conn), tenant_of(conn)
    if held not in {None, tenant}:
        raise ConfigError(
            "data.other_tenant",
            f'this database belongs to the tenant "{held}", and was opened as that of "{tenant}"',
        )


def owner(conn: Connection) -> str | None:
    """Return the tenant that a database belongs to; None = it does not say."""
    if not inspect(conn).has_table(cell.name):
        return None
    found: str | None = conn.execute(select(cell.c.tenant)).scalar()
    return found


def knows_tenants(conn: Connection) -> bool:
    """Say whether the schema is one that has other tenants."""
    return bool(inspect(conn).has_table(other_tenant.name))
