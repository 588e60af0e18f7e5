"""Advisories and statements that people bring in as files, and which releases and devices they concern.

A finding is an advisory, an artifact and a part of it; it is made anew whenever one of the three arrives, and says what the statements make of it. How many
devices it concerns is not stored: that is counted from what they run now.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.supply import advisory as model
from tidegate.core.supply import documents
from tidegate.core.supply.advisory import SEVERITIES, Advisory, Imported, Statement, Subject, judge
from tidegate.core.supply.sbom import Part
from tidegate.server.reckoning import Installed
from tidegate.server.store import Connection, release_queries
from tidegate.server.store import supply as rows

Row = dict[str, Any]
#: Format whose statements stand in for an advisory until a file of another one describes it.
STAND_IN: Final = "openvex"


class ImportFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a file of advisories brought. `devices` run a release that one of them concerns."""

    format: str
    document: str
    advisories: tuple[str, ...]
    statements: int
    findings: int
    silenced: int
    devices: int


class AdvisoryFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An advisory, as the API gives it.

    Attributes:
        number: its own, for addresses.
        id: its publisher's.
        devices: run a release that it concerns, and no statement silences it there: exposed now.
        silenced: findings that a statement silences.
        findings: findings in all.
        releases: those with a finding that is not silenced.
    """

    number: int
    id: str
    aliases: tuple[str, ...]
    format: str
    title: str
    severity: str
    url: str
    published_at: int
    modified_at: int
    imported_at: int
    imported_by: str
    withdrawn: bool
    devices: int
    findings: int
    silenced: int
    releases: tuple[str, ...]


class FindingFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A part of a release that an advisory concerns, and what the statements say."""

    advisory: str
    release: str
    component: str
    part: str
    version: str
    purl: str
    status: str
    justification: str
    note: str
    devices: int


# --- taking in ---------------------------------------------------------------------------------------------------------


def take(conn: Connection, found: Imported, by: str, now: int) -> ImportFacts:
    """Write down what a file brought (`read`); the same file again changes nothing, a newer one of its name replaces it."""
    spoken = rows.drop_statements(conn, _document(found))
    touched = {_put(conn, one, found.format, by, now) for one in found.advisories}
    touched |= {_put(conn, one, found.format, by, now) for one in _only_told(conn, found)}
    spoken |= add_statements(conn, found, by, now)
    touched |= rows.advisories_called(conn, spoken)
    for number in sorted(touched):
        _match(conn, number)
    made = rows.findings(conn, touched)
    loud = [one for one in made if one["status"] not in model.SILENT]
    return ImportFacts(
        format=found.format,
        document=found.name,
        advisories=tuple(one.id for one in found.advisories),
        statements=len(found.statements),
        findings=len(made),
        silenced=len(made) - len(loud),
        devices=Installed(conn).devices(loud),
    )


def _put(conn: Connection, one: Advisory, form: str, by: str, now: int) -> int:
    values = {
        "name": one.id,
        "format": form,
        "rank": SEVERITIES.index(one.severity) if one.severity else len(SEVERITIES),
        "body": msgspec.to_builtins(one),
        "imported_at": now,
        "imported_by": by,
    }
    number = rows.put_advisory(conn, values, _keys(one), one.names)
    if form != STAND_IN:
        described = rows.advisories_called(conn, one.names, but=STAND_IN)
        for other in rows.advisories_called(conn, one.names) - described:
            rows.drop_advisory(conn, other)
    return number


def _only_told(conn: Connection, found: Imported) -> list[Advisory]:
    """Return advisories for what statements call affected and no other file described; several statements about one are one."""
    made: dict[str, Advisory] = {}
    if found.format != STAND_IN:
        return []
    for statement in found.statements:
        one = model.told(statement)
        if one is None or rows.advisories_called(conn, one.names, but=STAND_IN):
            continue
        before = made.get(one.id)
        affected = (*before.affected, *one.affected) if before else one.affected
        made[one.id] = msgspec.structs.replace(one, affected=affected)
    return list(made.values())


def read(body: bytes) -> Imported:
    """Read a file of advisories (untrusted). Raises like `core.supply.documents.read_advisories`."""
    return documents.read_advisories(body)


def add_statements(
    conn: Connection, found: Imported, by: str, now: int, artifact_id: int | None = None
) -> set[str]:
    """Write down statements; return the names of what they speak of."""
    names: set[str] = set()
    for one in found.statements:
        values = {
            "artifact_id": artifact_id,
            "document": _document(found),
            "body": msgspec.to_builtins(one),
            "imported_at": now,
            "imported_by": by,
        }
        rows.add_statement(conn, values, one.names)
        names |= one.names
    return names


def forget(conn: Connection, number: int) -> str:
    """Forget an advisory; return its id. Statements stay.

    Raises:
        RequestError: `request.not_found`.
    """
    row = _row(conn, number)
    rows.drop_advisory(conn, number)
    return str(row["name"])


def _document(found: Imported) -> str:
    return f"{found.format}:{found.name}"


def _keys(one: Advisory) -> set[str]:
    return {each.key or f"name:{each.name.lower()}" for each in one.affected}


# --- matching ----------------------------------------------------------------------------------------------------------


def match_artifact(conn: Connection, artifact_id: int) -> None:
    """Find the advisories that concern a new artifact, and those that its own statements speak of."""
    parts = rows.parts_of(conn, artifact_id)
    keys: set[str] = set()
    for row in parts:
        keys |= {
            row["key"],
            row["source_key"],
            f"name:{row['name_key']}",
            f"name:{row['alias_key']}",
        }
    for number in sorted(rows.advisories_about(conn, keys - {"", "name:"})):
        _match(conn, number, parts, artifact_id)


def _match(
    conn: Connection, number: int, parts: list[Row] | None = None, artifact_id: int | None = None
) -> None:
    """Make the findings of an advisory anew, everywhere or in one artifact."""
    row = rows.advisory(conn, number)
    if row is None:
        return
    one = msgspec.convert(row["body"], type=Advisory)
    if parts is None:
        keys = _keys(one)
        names = {key.removeprefix("name:") for key in keys if key.startswith("name:")}
        parts = rows.parts_keyed(conn, {key for key in keys if not key.startswith("name:")}, names)
    said = [
        (msgspec.convert(each["body"], type=Statement), each["artifact_id"])
        for each in rows.statements(conn, one.names)
    ]
    rows.put_findings(conn, number, list(_found(one, parts, said)), artifact_id)


def part_of(row: Mapping[str, Any]) -> Part:
    """Return the part that a row holds."""
    return Part(**{name: str(row[name]) for name in Part.__struct_fields__})


def _found(
    one: Advisory, parts: Iterable[Row], said: list[tuple[Statement, int | None]]
) -> Iterable[Row]:
    for row in parts:
        part = part_of(row)
        if not model.concerns(one, part):
            continue
        subject = Subject(
            product=row["product"],
            version=row["release_version"],
            sha256=frozenset({row["install_sha256"]}),
        )
        # what is attached to another release says nothing here
        mine = [
            (statement, owner is not None)
            for statement, owner in said
            if owner in {None, row["artifact_id"]}
        ]
        verdict = judge(one, part, subject, mine)
        yield {
            "artifact_id": row["artifact_id"],
            "part_id": row["id"],
            **msgspec.structs.asdict(verdict),
        }


# --- telling -----------------------------------------------------------------------------------------------------------


#: Products that are seen; None = all of them.
Products = frozenset[str] | None


def listed(
    conn: Connection,
    *,
    release: str = "",
    before: int = 0,
    limit: int = 50,
    products: Products = None,
) -> tuple[list[AdvisoryFacts], int]:
    """Return advisories, the latest import first, and the cursor of the next page (0 = there is none).

    Who sees some products only is shown those that concern a release of them; such a page may be shorter, even empty, and another one follow.

    Raises:
        RequestError: `request.not_found`: no such release.
    """
    release_id = _release_id(conn, release) if release else 0
    found = rows.advisories(conn, before=before, limit=limit + 1, release_id=release_id)
    more = int(found[limit - 1]["id"]) if len(found) > limit else 0
    facts = _facts(conn, found[:limit], release_id, products)
    return [one for one in facts if products is None or one.findings], more


def of_release(conn: Connection, release_id: int, limit: int = 100) -> list[AdvisoryFacts]:
    """Return the advisories that concern a release, those that nothing silences and the worst first."""
    found = _facts(conn, rows.advisories(conn, limit=limit, release_id=release_id), release_id)
    return sorted(found, key=lambda one: (one.findings == one.silenced, _rank(one), one.id))


def _rank(one: AdvisoryFacts) -> int:
    return SEVERITIES.index(one.severity) if one.severity else len(SEVERITIES)


def shown(conn: Connection, number: int, products: Products = None) -> AdvisoryFacts:
    """Return an advisory; to who sees some products only there is none that does not concern them.

    Raises:
        RequestError: `request.not_found`.
    """
    found = _facts(conn, [_row(conn, number)], 0, products)[0]
    if products is not None and not found.findings:
        raise RequestError("request.not_found", f"no advisory {number}")
    return found


def number_of(conn: Connection, name: str) -> int:
    """Return the number of an advisory by its id or alias (untrusted text).

    Raises:
        RequestError: `request.not_found`.
    """
    found = rows.advisory_named(conn, name)
    if found is None:
        raise RequestError(
            "request.not_found", f"no advisory {name[:80]}, or several of that alias"
        )
    return int(found["id"])


def findings(conn: Connection, number: int, products: Products = None) -> list[FindingFacts]:
    """Return what an advisory concerns, the newest release first; loud ones before silenced ones.

    Raises:
        RequestError: `request.not_found`.
    """
    row = _row(conn, number)
    installed = Installed(conn)
    found = _seen(rows.findings(conn, [number]), products)
    return sorted(
        (_finding(str(row["name"]), one, installed) for one in found),
        key=lambda one: one.status in model.SILENT,
    )


def exposed(conn: Connection, products: Products = None) -> tuple[int, int]:
    """Return how many devices run something that an advisory concerns and nothing silences, and how many such advisories there are."""
    loud = _seen(rows.loud_findings(conn, model.SILENT), products)
    return Installed(conn).devices(loud), len({one["advisory_id"] for one in loud})


def _finding(name: str, row: Mapping[str, Any], installed: Installed) -> FindingFacts:
    return FindingFacts(
        advisory=name,
        release=row["release"],
        component=row["component"],
        part=row["name"],
        version=row["version"],
        purl=row["purl"],
        status=row["status"],
        justification=row["justification"],
        note=row["note"],
        devices=installed.devices([row]),
    )


def _seen(found: Iterable[Row], products: Products) -> list[Row]:
    return [one for one in found if products is None or one["product"] in products]


def _facts(
    conn: Connection, found: list[Row], release_id: int, products: Products = None
) -> list[AdvisoryFacts]:
    installed = Installed(conn)
    mine: dict[int, list[Row]] = {int(row["id"]): [] for row in found}
    for one in _seen(rows.findings(conn, mine, release_id), products) if mine else []:
        mine[int(one["advisory_id"])].append(one)
    return [_advisory(row, mine[int(row["id"])], installed) for row in found]


def _advisory(row: Row, made: list[Row], installed: Installed) -> AdvisoryFacts:
    body = msgspec.convert(row["body"], type=Advisory)
    loud = [one for one in made if one["status"] not in model.SILENT]
    return AdvisoryFacts(
        number=row["id"],
        id=body.id,
        aliases=body.aliases,
        format=row["format"],
        title=body.title,
        severity=body.severity,
        url=body.url,
        published_at=body.published_at,
        modified_at=body.modified_at,
        imported_at=row["imported_at"],
        imported_by=row["imported_by"],
        withdrawn=body.withdrawn,
        devices=installed.devices(loud),
        findings=len(made),
        silenced=len(made) - len(loud),
        releases=tuple(dict.fromkeys(one["release"] for one in loud)),
    )


def _row(conn: Connection, number: int) -> Row:
    row = rows.advisory(conn, number)
    if row is None:
        raise RequestError("request.not_found", f"no advisory {number}")
    return row


def _release_id(conn: Connection, name: str) -> int:
    found = release_queries.release_by_name(conn, name)
    if found is None:
        raise RequestError("request.not_found", f"no release {name[:80]}")
    return int(found.id)
