"""The operators' log for the web: the same functions as the API's."""

from typing import Final

from tidegate.server import audit
from tidegate.server.store import Connection, audit_rows
from tidegate.server.web.views import AuditPage

_ROWS: Final = 50


def page(
    conn: Connection, actor: str, action: str, thing: str, cursor: str, now: int, *, check: bool
) -> AuditPage:
    """Return one page of the log; everything asked for is untrusted. `check` reads the whole log."""
    actor, action, thing = (one.strip()[:200] for one in (actor, action, thing))
    before = int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) < 16 else 0
    found = audit.newest(
        conn, before=before, limit=_ROWS + 1, actor=actor, action=action, thing=thing
    )
    return AuditPage(
        now,
        tuple(found[:_ROWS]),
        actor,
        action,
        thing,
        size=audit_rows.newest_seq(conn),
        signed=audit.newest_checkpoint(conn),
        verdict=audit.verify(conn) if check else None,
        next_cursor=str(found[_ROWS - 1].seq) if len(found) > _ROWS else "",
    )
