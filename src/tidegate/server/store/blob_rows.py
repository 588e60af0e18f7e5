"""Which blobs the database names: payloads, attachments and the trees of grants. What is not among them, nobody asks for."""

from typing import Any, Final

import msgspec
from sqlalchemy import Connection, select

from tidegate.core.release import ReleaseTarget
from tidegate.server.store import tables as t
from tidegate.server.store.supply_tables import attachment

#: The size of a blob whose size the database does not say.
UNSAID: Final = -1


def named(conn: Connection) -> dict[str, int]:
    """Return the size of every blob that is named, by digest; `UNSAID` where it is not said."""
    found: dict[str, int] = {}
    for (target,) in conn.execute(select(t.artifact.c.target)):
        for part in _target(target).pieces:
            found |= {one.sha256: one.length for one in part.payloads if one.kind == "full"}
    for digest, length in conn.execute(select(attachment.c.sha256, attachment.c.length)):
        found[str(digest)] = int(length)
    grant = t.fallback_grant.c.cohort_sha256
    for (digest,) in conn.execute(select(grant).where(grant.is_not(None))):
        found.setdefault(str(digest), UNSAID)
    return found


def _target(value: Any) -> ReleaseTarget:
    return msgspec.convert(value, ReleaseTarget)
