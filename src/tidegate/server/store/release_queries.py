"""Statements about published metadata, releases and artifacts."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Row, func, insert, select, update

from tidegate.server.store import tables
from tidegate.server.store.raw import raw_connection
from tidegate.server.store.scope import tenant_of


class DocumentRow(NamedTuple):
    """A published document."""

    role: str
    version: int
    body: bytes
    expires_at: int
    created_at: int

    @property
    def sha256(self) -> str:
        """Return the digest of the bytes."""
        return hashlib.sha256(self.body).hexdigest()


_DOCUMENT: Final = "SELECT role, version, body, expires_at, created_at FROM repository "


def put_document(conn: Connection, row: DocumentRow) -> bool:
    """Store a document under its version, which only the first to come gets; say whether that version now is this document.

    What is published is never replaced, so that no two devices see different contents under one version, however many replicas sign.
    """
    raw = raw_connection(conn)
    raw.execute(
        "INSERT INTO repository (tenant, role, version, body, sha256, expires_at, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (role, version) DO NOTHING",
        (tenant_of(conn), row.role, row.version, row.body, row.sha256, *row[3:]),
    )
    found = raw.execute(
        "SELECT sha256 FROM repository WHERE role = ? AND version = ?", (row.role, row.version)
    )
    return bool(found.fetchone()[0] == row.sha256)


def newest_document(conn: Connection, role: str) -> DocumentRow | None:
    """Return the newest version of a role's document, or None."""
    found = raw_connection(conn).execute(
        _DOCUMENT + "WHERE role = ? ORDER BY version DESC LIMIT 1",
        (role,),
    )
    row = found.fetchone()
    return DocumentRow(*row) if row else None


def newest_offline(conn: Connection) -> list[DocumentRow]:
    """Return the newest targets role and product roles: what a snapshot names."""
    found = raw_connection(
        conn
    ).execute(
        _DOCUMENT  # noqa: S608 - words of ours
        + "AS one WHERE role NOT IN ('root', 'snapshot', 'timestamp') AND version = "
        "(SELECT max(version) FROM repository WHERE role = one.role) ORDER BY role"
    )
    return [DocumentRow(*row) for row in found]


class EndRow(NamedTuple):
    """When the newest document of a role lapses; unix seconds."""

    role: str
    version: int
    expires_at: int
    created_at: int


def ends(conn: Connection) -> list[EndRow]:
    """Return when the newest document of each role lapses, without reading any of them: every page of the web asks."""
    found = raw_connection(conn).execute(
        "SELECT role, version, expires_at, created_at FROM repository AS one WHERE version = "
        "(SELECT max(version) FROM repository WHERE role = one.role) ORDER BY role"
    )
    return [EndRow(*row) for row in found]


def documents(conn: Connection, kept: int) -> list[DocumentRow]:
    """Return every root, and the newest `kept` versions of every other role."""
    found = raw_connection(
        conn
    ).execute(
        _DOCUMENT  # noqa: S608 - words of ours
        + "AS one WHERE role = 'root' OR "
        "(SELECT count(*) FROM repository WHERE role = one.role AND version > one.version) < ? "
        "ORDER BY role, version",
        (kept,),
    )
    return [DocumentRow(*row) for row in found]


def add_release(conn: Connection, values: Mapping[str, Any]) -> int:
    """Add a release and return its id."""
    made = conn.execute(insert(tables.release).values(**values)).inserted_primary_key
    assert made is not None  # noqa: S101 - one row was inserted
    return int(made[0])


def add_artifact(conn: Connection, values: Mapping[str, Any]) -> int:
    """Add an artifact of a release and return its id."""
    made = conn.execute(insert(tables.artifact).values(**values)).inserted_primary_key
    assert made is not None  # noqa: S101 - one row was inserted
    return int(made[0])


def release_by_name(conn: Connection, name: str) -> Row[Any] | None:
    """Return a release by its name (untrusted text), or None."""
    release = tables.release
    statement = select(release).where(release.c.tenant == tenant_of(conn), release.c.name == name)
    return conn.execute(statement).one_or_none()


def release_by_counter(conn: Connection, product: str, counter: int) -> Row[Any] | None:
    """Return a product's release by its counter, or None."""
    release = tables.release
    statement = select(release).where(
        release.c.tenant == tenant_of(conn),
        release.c.product == product,
        release.c.counter == counter,
    )
    return conn.execute(statement).one_or_none()


def security_version_max(conn: Connection, product: str) -> int:
    """Return the highest security version of a product's releases; 0 = it has none."""
    asked = select(func.max(tables.release.c.security_version)).where(
        tables.release.c.product == product
    )
    return int(conn.execute(asked).scalar() or 0)


def recall(conn: Connection, release_id: int, reason: str, now: int) -> None:
    """Mark a release as recalled."""
    conn.execute(
        update(tables.release)
        .where(tables.release.c.id == release_id)
        .values(state="recalled", recalled_at=now, recall_reason=reason)
    )


def releases_of(conn: Connection, product: str) -> list[Row[Any]]:
    """Return a product's releases, the newest first."""
    release = tables.release
    statement = (
        select(release)
        .where(release.c.tenant == tenant_of(conn), release.c.product == product)
        .order_by(release.c.counter.desc())
    )
    return list(conn.execute(statement))


def recalled(conn: Connection) -> list[str]:
    """Return the names of the releases that were recalled."""
    release = tables.release
    statement = select(release.c.name).where(release.c.state == "recalled")
    return [str(name) for (name,) in conn.execute(statement)]


def put_mandate(conn: Connection, product: str, counter: int, mandate: str | None) -> None:
    """Write the staging schedule (JSON text) that the product role now has for a release; None = none."""
    raw_connection(conn).execute(
        "UPDATE release SET mandate = ? WHERE tenant = ? AND product = ? AND counter = ?",
        (mandate, tenant_of(conn), product, counter),
    )


def live_ids(conn: Connection) -> list[int]:
    """Return the ids of the releases that are not recalled."""
    found = raw_connection(conn).execute("SELECT id FROM release WHERE state = 'live' ORDER BY id")
    return [int(one[0]) for one in found]
