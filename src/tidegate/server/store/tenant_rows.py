"""Statements about the other tenants of a server: rows of the default tenant's database."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from tidegate.server.store.tenant_tables import other_tenant as table

Row = dict[str, Any]


def listed(conn: Connection) -> list[Row]:
    """Return every tenant, removed ones too, by name."""
    return [dict(row) for row in conn.execute(select(table).order_by(table.c.name)).mappings()]


def named(conn: Connection, name: str) -> Row | None:
    """Return a tenant, or None."""
    row = conn.execute(select(table).where(table.c.name == name)).mappings().first()
    return dict(row) if row else None


def at_host(conn: Connection, host: str) -> Row | None:
    """Return the tenant at a host, or None."""
    row = conn.execute(select(table).where(table.c.host == host)).mappings().first()
    return dict(row) if row else None


def add(conn: Connection, values: Mapping[str, Any]) -> int:
    """Add a tenant; return its number, which no other ever had."""
    return int(conn.execute(insert(table).values(**values).returning(table.c.number)).scalar_one())


def change(conn: Connection, name: str, values: Mapping[str, Any]) -> None:
    """Change a tenant."""
    conn.execute(update(table).where(table.c.name == name).values(**values))


def drop(conn: Connection, name: str) -> None:
    """Forget a tenant."""
    conn.execute(delete(table).where(table.c.name == name))
