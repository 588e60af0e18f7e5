"""Whose rows a connection reads and writes, and what may be taken there: the one place that says so.

A database, or a schema of one, belongs to one tenant (docs/decisions/0034). The store gives each of its connections its scope when it is made, and there is no
way to change whose it is afterwards: statements ask here, and rows that are added get it by themselves (`table_parts.tenant`).
"""

from typing import Any, Final

import msgspec
from sqlalchemy import Connection

#: The tenant of whoever needs only one.
DEFAULT: Final = "default"
_OPTION: Final = "tidegate_scope"


class Quotas(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant may take, 0 = no bound (`server.quotas`).

    Attributes:
        devices_max: devices that are accepted.
        stored_max: bytes of payloads.
        uploads_max: bytes of files on their way.
        events_per_day: events of devices in a day (UTC).
        requests_per_s: requests of people and programs a second; ten seconds' worth may come at once.
    """

    devices_max: int = 0
    stored_max: int = 0
    uploads_max: int = 0
    events_per_day: int = 0
    requests_per_s: int = 0


class Scope:
    """A tenant, as a store has it. `quotas` may be replaced at any time, from any thread."""

    def __init__(self, tenant: str = DEFAULT) -> None:
        """Have no bounds."""
        self.tenant: Final = tenant
        self.quotas = Quotas()

    @property
    def options(self) -> dict[str, "Scope"]:
        """Return the execution options with which an engine makes connections of this scope."""
        return {_OPTION: self}


_NONE: Final = Scope()


def scope_of(conn: Connection) -> Scope:
    """Return the scope of a connection."""
    found: Scope = conn.get_execution_options().get(_OPTION, _NONE)
    return found


def tenant_of(conn: Connection) -> str:
    """Return whose rows this connection reads and writes."""
    return scope_of(conn).tenant


def tenant_of_row(context: Any) -> str:
    """Return whose row is added, from SQLAlchemy's context of the statement that adds it."""
    return tenant_of(context.root_connection)
