"""Whose rows a connection reads and writes: the one place that says so.

A database, or a schema of one, belongs to one tenant (docs/decisions/0034). The store gives each of its connections the tenant's name when it is made, and
there is no way to change it afterwards: statements ask here, and rows that are added get it by themselves (`table_parts.tenant`).
"""

from typing import Any, Final

from sqlalchemy import Connection

#: The tenant of whoever needs only one.
DEFAULT: Final = "default"
_OPTION: Final = "tidegate_tenant"


def options(tenant: str) -> dict[str, str]:
    """Return the execution options with which an engine makes connections of a tenant."""
    return {_OPTION: tenant}


def tenant_of(conn: Connection) -> str:
    """Return whose rows this connection reads and writes."""
    found: str = conn.get_execution_options().get(_OPTION, DEFAULT)
    return found


def tenant_of_row(context: Any) -> str:
    """Return whose row is added, from SQLAlchemy's context of the statement that adds it."""
    return tenant_of(context.root_connection)
