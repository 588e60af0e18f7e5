"""Statements about attachments, parts of releases, advisories and findings. Whoever calls them decides what matches what."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, Final

from sqlalchemy import Connection, Select, delete, func, insert, or_, select, tuple_

from tidegate.server.store import supply_tables as s
from tidegate.server.store import tables as t
from tidegate.server.store.scope import tenant_of

Row = dict[str, Any]
#: Values in one `IN (…)`.
_IN_MAX: Final = 500
#: An artifact and its release, as every answer here names them.
_ARTIFACT: Final = (
    t.artifact.c.id.label("artifact_id"),
    t.artifact.c.component,
    t.artifact.c.install_sha256,
    t.artifact.c.target,
    t.release.c.id.label("release_id"),
    t.release.c.name.label("release"),
    t.release.c.product,
    t.release.c.version.label("release_version"),
    t.release.c.counter,
    t.release.c.state.label("release_state"),
)


def _rows(conn: Connection, asked: Select[Any]) -> list[Row]:
    # names of columns are texts of a kind that msgspec does not take
    return [
        {str(name): value for name, value in row.items()} for row in conn.execute(asked).mappings()
    ]


def _pieces(values: Iterable[Any]) -> Iterator[list[Any]]:
    """Cut values into lists that fit into one statement."""
    found = sorted(set(values))
    for start in range(0, len(found), _IN_MAX):
        yield found[start : start + _IN_MAX]


# --- attachments -------------------------------------------------------------------------------------------------------


def add_attachment(conn: Connection, values: Mapping[str, Any]) -> None:
    """Add a document of an artifact."""
    conn.execute(insert(s.attachment).values(**values))


def attachments(conn: Connection, release_id: int) -> list[Row]:
    """Return the documents of a release, with the component that each belongs to."""
    a, art = s.attachment, t.artifact
    asked = (
        select(a.c.kind, a.c.format, a.c.name, a.c.sha256, a.c.length, a.c.notes, art.c.component)
        .join(art, art.c.id == a.c.artifact_id)
        .where(art.c.release_id == release_id)
        .order_by(a.c.id)
    )
    return _rows(conn, asked)


def has_parts(conn: Connection, sbom_sha256: str) -> bool:
    """Say whether the parts of a bill of materials are here."""
    asked = select(s.sbom_part.c.id).where(s.sbom_part.c.sbom_sha256 == sbom_sha256).limit(1)
    return conn.execute(asked).first() is not None


def add_parts(conn: Connection, rows: list[Row]) -> None:
    """Add parts of a bill of materials."""
    if rows:
        conn.execute(insert(s.sbom_part), [{**row} for row in rows])


def _with_sboms(*columns: Any) -> Select[Any]:
    """Select from parts and the artifacts whose bills of materials name them."""
    a = s.attachment
    return (
        select(*columns)
        .select_from(s.sbom_part)
        .join(a, (a.c.sha256 == s.sbom_part.c.sbom_sha256) & (a.c.kind == "sbom"))
        .join(t.artifact, t.artifact.c.id == a.c.artifact_id)
        .join(t.release, t.release.c.id == t.artifact.c.release_id)
    )


def parts_called(
    conn: Connection, *, name: str = "", key: str = "", product: str = "", release: str = ""
) -> list[Row]:
    """Return parts by name (in small letters) or by package, each with the artifact that it is in; the newest release first."""
    p = s.sbom_part
    asked = _with_sboms(*p.c, *_ARTIFACT).where(p.c.tenant == tenant_of(conn))
    if key:
        asked = asked.where(or_(p.c.key == key, p.c.source_key == key))
    if name:
        asked = asked.where(or_(p.c.name_key == name, p.c.alias_key == name))
    if product:
        asked = asked.where(t.release.c.product == product)
    if release:
        asked = asked.where(t.release.c.name == release)
    return _rows(conn, asked.order_by(t.release.c.id.desc(), t.artifact.c.id, p.c.id))


def parts_near(conn: Connection, text: str, limit: int = 8) -> list[str]:
    """Return names of parts that contain a text (untrusted), for suggestions."""
    p = s.sbom_part
    asked = (
        select(p.c.name)
        .distinct()
        .where(p.c.tenant == tenant_of(conn), p.c.name_key.icontains(text, autoescape=True))
        .order_by(p.c.name)
        .limit(limit)
    )
    return [str(one) for one in conn.execute(asked).scalars()]


def parts_of(conn: Connection, artifact_id: int) -> list[Row]:
    """Return the parts of an artifact, and the artifact with each."""
    asked = _with_sboms(*s.sbom_part.c, *_ARTIFACT).where(t.artifact.c.id == artifact_id)
    return _rows(conn, asked)


def parts_keyed(conn: Connection, keys: Collection[str], names: Collection[str]) -> list[Row]:
    """Return parts that are one of these packages, were built from one, or bear one of these names; each with its artifact."""
    p = s.sbom_part
    found: dict[tuple[int, int], Row] = {}
    for columns, values in (
        ((p.c.key, p.c.source_key), keys),
        ((p.c.name_key, p.c.alias_key), names),
    ):
        for piece in _pieces(values):
            for column in columns:
                for row in _rows(conn, _with_sboms(*p.c, *_ARTIFACT).where(column.in_(piece))):
                    found[row["id"], row["artifact_id"]] = row
    return list(found.values())


def covered(conn: Connection) -> set[tuple[str, int]]:
    """Return (product, counter) of the releases that have a bill of materials."""
    a = s.attachment
    asked = (
        select(t.release.c.product, t.release.c.counter)
        .join(t.artifact, t.artifact.c.release_id == t.release.c.id)
        .join(a, (a.c.artifact_id == t.artifact.c.id) & (a.c.kind == "sbom"))
        .distinct()
    )
    return {(str(product), int(counter)) for product, counter in conn.execute(asked)}


# --- advisories --------------------------------------------------------------------------------------------------------


def put_advisory(
    conn: Connection, values: Mapping[str, Any], keys: Iterable[str], names: Iterable[str]
) -> int:
    """Add an advisory, or put it in the place of the one of that name; return its id."""
    a = s.advisory
    known = conn.execute(
        select(a.c.id).where(a.c.tenant == tenant_of(conn), a.c.name == values["name"])
    ).scalar()
    if known is None:
        made = conn.execute(insert(a).values(**values)).inserted_primary_key
        assert made is not None  # noqa: S101 - one row was inserted
        number = int(made[0])
    else:
        number = int(known)
        conn.execute(a.update().where(a.c.id == number).values(**values))
        for table in (s.advisory_package, s.advisory_name):
            conn.execute(delete(table).where(table.c.advisory_id == number))
    for table, column, texts in (
        (s.advisory_package, "key", keys),
        (s.advisory_name, "name", names),
    ):
        rows = [{"advisory_id": number, column: one} for one in sorted(set(texts))]
        if rows:
            conn.execute(insert(table), rows)
    return number


def advisory(conn: Connection, number: int) -> Row | None:
    """Return an advisory, or None."""
    found = _rows(conn, select(s.advisory).where(s.advisory.c.id == number))
    return found[0] if found else None


def advisory_named(conn: Connection, name: str) -> Row | None:
    """Return the advisory of that id or, with no other of that alias, alias (untrusted text); None for none."""
    a, n = s.advisory, s.advisory_name
    exact = _rows(conn, select(a).where(a.c.tenant == tenant_of(conn), a.c.name == name))
    if exact:
        return exact[0]
    asked = select(a).join(n, n.c.advisory_id == a.c.id).where(n.c.name == name.upper()).limit(2)
    found = _rows(conn, asked)
    return found[0] if len(found) == 1 else None


def advisories(
    conn: Connection,
    *,
    rank: int = -1,
    before: int = 0,
    limit: int = 50,
    release_id: int = 0,
) -> list[Row]:
    """Return advisories, the most recently imported first; of a release, the worst first."""
    a, f = s.advisory, s.finding
    asked = select(a).where(a.c.tenant == tenant_of(conn))
    if rank >= 0:
        asked = asked.where(a.c.rank <= rank)
    if before:
        asked = asked.where(a.c.id < before)
    if release_id:
        mine = select(f.c.advisory_id).join(t.artifact, t.artifact.c.id == f.c.artifact_id)
        asked = asked.where(a.c.id.in_(mine.where(t.artifact.c.release_id == release_id)))
    return _rows(conn, asked.order_by(a.c.id.desc()).limit(limit))


def advisory_count(conn: Connection) -> int:
    """Return how many advisories there are."""
    return int(conn.execute(select(func.count()).select_from(s.advisory)).scalar() or 0)


def advisories_about(conn: Connection, keys: Iterable[str]) -> set[int]:
    """Return the ids of advisories that are about one of these packages."""
    p = s.advisory_package
    return {
        int(one)
        for piece in _pieces(keys)
        for one in conn.execute(select(p.c.advisory_id).where(p.c.key.in_(piece))).scalars()
    }


def advisories_called(conn: Connection, names: Iterable[str], but: str = "") -> set[int]:
    """Return the ids of advisories that bear one of these names, in capitals; those of one format left out."""
    n, a = s.advisory_name, s.advisory
    asked = select(n.c.advisory_id)
    if but:
        asked = asked.join(a, a.c.id == n.c.advisory_id).where(a.c.format != but)
    return {
        int(one)
        for piece in _pieces(names)
        for one in conn.execute(asked.where(n.c.name.in_(piece))).scalars()
    }


def drop_advisory(conn: Connection, number: int) -> None:
    """Forget an advisory and its findings."""
    for table in (s.finding, s.advisory_package, s.advisory_name):
        conn.execute(delete(table).where(table.c.advisory_id == number))
    conn.execute(delete(s.advisory).where(s.advisory.c.id == number))


# --- statements --------------------------------------------------------------------------------------------------------


def add_statement(conn: Connection, values: Mapping[str, Any], names: Iterable[str]) -> None:
    """Add a statement under the names of its vulnerability, in capitals."""
    made = conn.execute(insert(s.vex_statement).values(**values)).inserted_primary_key
    assert made is not None  # noqa: S101 - one row was inserted
    rows = [{"statement_id": made[0], "name": one} for one in sorted(set(names))]
    if rows:
        conn.execute(insert(s.vex_name), rows)


def drop_statements(conn: Connection, document: str) -> set[str]:
    """Forget what was imported from a document of that name; return the names of what it spoke of."""
    v, n = s.vex_statement, s.vex_name
    mine = select(v.c.id).where(
        v.c.tenant == tenant_of(conn), v.c.document == document, v.c.artifact_id.is_(None)
    )
    names = {str(one) for one in conn.execute(select(n.c.name).where(n.c.statement_id.in_(mine))).scalars()}  # fmt: skip
    conn.execute(delete(n).where(n.c.statement_id.in_(mine)))
    conn.execute(
        delete(v).where(
            v.c.tenant == tenant_of(conn), v.c.document == document, v.c.artifact_id.is_(None)
        )
    )
    return names


def statements(conn: Connection, names: Iterable[str]) -> list[Row]:
    """Return the statements about what bears one of these names, in the order in which they came."""
    v, n = s.vex_statement, s.vex_name
    found: dict[int, Row] = {}
    for piece in _pieces(names):
        asked = select(v).join(n, n.c.statement_id == v.c.id).where(n.c.name.in_(piece))
        found |= {int(row["id"]): row for row in _rows(conn, asked)}
    return [found[number] for number in sorted(found)]


# --- findings ----------------------------------------------------------------------------------------------------------


def put_findings(
    conn: Connection, advisory_id: int, rows: list[Row], artifact_id: int | None = None
) -> None:
    """Replace the findings of an advisory: all of them, or those in one artifact."""
    f = s.finding
    where = [f.c.advisory_id == advisory_id]
    if artifact_id is not None:
        where.append(f.c.artifact_id == artifact_id)
    conn.execute(delete(f).where(*where))
    if rows:
        conn.execute(insert(f), [{"advisory_id": advisory_id, **row} for row in rows])


def findings(
    conn: Connection, advisory_ids: Collection[int] = (), release_id: int = 0
) -> list[Row]:
    """Return findings of advisories, or of a release, each with its part and its artifact."""
    f, p = s.finding, s.sbom_part
    columns = (f.c.advisory_id, f.c.status, f.c.justification, f.c.note)
    part = (f.c.part_id, p.c.name, p.c.version, p.c.purl, p.c.type)
    asked = (
        select(*columns, *part, *_ARTIFACT)
        .join(p, p.c.id == f.c.part_id)
        .join(t.artifact, t.artifact.c.id == f.c.artifact_id)
        .join(t.release, t.release.c.id == t.artifact.c.release_id)
    )
    if release_id:
        asked = asked.where(t.release.c.id == release_id)
    order = (t.release.c.id.desc(), t.artifact.c.id, p.c.name, p.c.id)
    if not advisory_ids:
        return _rows(conn, asked.order_by(*order)) if release_id else []
    return [
        row
        for piece in _pieces(advisory_ids)
        for row in _rows(conn, asked.where(f.c.advisory_id.in_(piece)).order_by(*order))
    ]


def loud_findings(conn: Connection, silent: Collection[str]) -> list[Row]:
    """Return (advisory, artifact) of every finding that is not silent, each pair once."""
    f = s.finding
    asked = (
        select(f.c.advisory_id, *_ARTIFACT)
        .join(t.artifact, t.artifact.c.id == f.c.artifact_id)
        .join(t.release, t.release.c.id == t.artifact.c.release_id)
        .where(f.c.status.not_in(sorted(silent)))
        .group_by(f.c.advisory_id, t.artifact.c.id, t.release.c.id)
    )
    return _rows(conn, asked)


# --- devices -----------------------------------------------------------------------------------------------------------


def _ring() -> Any:
    """Return the ring in which a device confirmed what it runs; empty for a factory image."""
    u = t.update
    return func.coalesce(
        select(func.max(u.c.ring))
        .where(
            u.c.device_row == t.device.c.row,
            u.c.state == "confirmed",
            u.c.release_counter == t.device.c.running_counter,
        )
        .correlate(t.device)
        .scalar_subquery(),
        "",
    )


def running(conn: Connection, releases: Collection[tuple[str, int]]) -> list[Row]:
    """Return how many devices run these releases, (product, counter), by variant and ring, and when the first and the last of them confirmed it."""
    d = t.device
    ring = _ring().label("ring")
    found: list[Row] = []
    for piece in _pieces(releases):
        asked = (
            select(
                d.c.product,
                d.c.running_counter.label("counter"),
                d.c.variant,
                ring,
                func.count().label("devices"),
                func.min(d.c.confirmed_at).label("first_at"),
                func.max(d.c.confirmed_at).label("last_at"),
            )
            .where(d.c.state == "accepted", tuple_(d.c.product, d.c.running_counter).in_(piece))
            .group_by(d.c.product, d.c.running_counter, d.c.variant, ring)
        )
        found += _rows(conn, asked)
    return found


def devices_running(
    conn: Connection,
    releases: Collection[tuple[str, int]],
    *,
    after: int,
    limit: int,
    variant: str = "",
    ring: str | None = None,
    until: int = 0,
) -> list[Row]:
    """Return devices that run one of these releases, by row number.

    Args:
        conn: a connection.
        releases: (product, counter).
        after: row number of the last one that is known already.
        limit: most rows.
        variant: only of this hardware variant.
        ring: only those that confirmed it in this ring; None for all.
        until: only those that confirmed it at this time or before; 0 for all.
    """
    d = t.device
    told = _ring()
    columns = (d.c.row, d.c.id, d.c.product, d.c.variant, d.c.model, d.c.rev, d.c.site)
    asked = (
        select(
            *columns,
            d.c.running_counter.label("counter"),
            d.c.running_sha256,
            d.c.confirmed_at,
            d.c.last_seen,
            told.label("ring"),
        )
        .where(
            d.c.state == "accepted",
            d.c.row > after,
            tuple_(d.c.product, d.c.running_counter).in_(sorted(set(releases))),
        )
        .order_by(d.c.row)
        .limit(limit)
    )
    if variant:
        asked = asked.where(d.c.variant == variant)
    if ring is not None:
        asked = asked.where(told == ring)
    if until:
        asked = asked.where(d.c.confirmed_at <= until)
    return _rows(conn, asked) if releases else []


def device_row(conn: Connection, device_id: str) -> Row | None:
    """Return what a device runs (untrusted id), or None."""
    d = t.device
    columns = (d.c.row, d.c.product, d.c.running_counter.label("counter"), d.c.variant)
    found = _rows(conn, select(*columns).where(d.c.tenant == tenant_of(conn), d.c.id == device_id))
    return found[0] if found else None
