"""Components and advisories for the web: the same functions as the API's."""

from typing import Any, Final

from tidegate.core.errors import RequestError
from tidegate.server import advisories, components
from tidegate.server.actors import SEES_ALL, Sight
from tidegate.server.components import Wanted
from tidegate.server.store import Connection
from tidegate.server.store import supply as rows
from tidegate.server.web.views import AdvisoriesPage, AdvisoryPage, AttachmentRow, ComponentsPage

#: Rows of one page.
_PARTS: Final = 50
_DEVICES: Final = 50
_ADVISORIES: Final = 50
#: Pages of advisories that are looked through for one that has something to show.
_LOOKS: Final = 20
_FINDINGS: Final = 200


def components_page(
    conn: Connection, name: str, below: str, cursor: str, now: int, sight: Sight = SEES_ALL
) -> ComponentsPage:
    """Return the answer to a search, of what is seen; name, version and cursor are untrusted."""
    products = None if sight.whole else sight.products
    of = () if products is None else tuple(sorted(products))
    if not name.strip() or products == frozenset():
        return ComponentsPage(now, of=of, narrowed=not sight.whole)
    wanted = Wanted(name=name, below=below.strip(), products=products)
    try:
        found, _ = components.find(conn, wanted, limit=_PARTS)
        devices, more = components.devices(conn, wanted, after=_row(cursor), limit=_DEVICES)
    except RequestError as error:
        return ComponentsPage(
            now, name, below, problem=error.detail, of=of, narrowed=not sight.whole
        )
    return ComponentsPage(
        now,
        name,
        below,
        devices=found.devices,
        unknown=found.unknown,
        parts=found.parts,
        parts_in_all=found.parts_in_all,
        groups=found.groups,
        rows=tuple(devices),
        near=found.near,
        of=of,
        narrowed=not sight.whole,
        next_cursor=str(more) if more else "",
    )


def advisories_page(
    conn: Connection, cursor: str, now: int, sight: Sight = SEES_ALL
) -> AdvisoriesPage:
    """Return one page of advisories, of those that are seen; the cursor is untrusted."""
    products = None if sight.whole else sight.products
    found: list[advisories.AdvisoryFacts] = []
    more = _row(cursor)
    for _ in range(_LOOKS):  # pages of others' advisories are empty to who does not see them
        found, more = advisories.listed(conn, before=more, limit=_ADVISORIES, products=products)
        if found or not more:
            break
    exposed, loud = advisories.exposed(conn, products)
    return AdvisoriesPage(
        now,
        tuple(found),
        rows.advisory_count(conn) if sight.whole else len(found),
        exposed,
        loud,
        next_cursor=str(more) if more else "",
        narrowed=not sight.whole,
        of=tuple(sorted(products or ())),
    )


def advisory_page(
    conn: Connection, number: int, now: int, sight: Sight = SEES_ALL
) -> AdvisoryPage | None:
    """Return one advisory, or None."""
    products = None if sight.whole else sight.products
    try:
        found = advisories.shown(conn, number, products)
    except RequestError:
        return None
    findings = advisories.findings(conn, number, products)
    return AdvisoryPage(now, found, tuple(findings[:_FINDINGS]), len(findings))


def attachment_rows(conn: Connection, release_id: int) -> tuple[AttachmentRow, ...]:
    """Return the documents of a release."""
    return tuple(
        AttachmentRow(
            component=one["component"],
            kind=one["kind"],
            name=one["name"],
            format=one["format"],
            length=one["length"],
            sha256=one["sha256"],
            told=_told(one["kind"], one["notes"]),
        )
        for one in rows.attachments(conn, release_id)
    )


def _told(kind: str, notes: dict[str, Any]) -> str:
    if kind == "sbom":
        return f"{int(notes.get('parts', 0)):,} parts"
    if kind == "vex":
        return f"{int(notes.get('statements', 0)):,} statements"
    if kind == "provenance":
        where = f", from {notes['source']}" if notes.get("source") else ""
        signed = "signed by a key of the policy" if notes.get("signer") else "signer not checked"
        image = "this image" if notes.get("covers") else "another image"
        return f"{image} by {notes.get('builder', '')}{where}; {signed}"
    return ""


def _row(cursor: str) -> int:
    return int(cursor) if cursor.isascii() and cursor.isdigit() and len(cursor) < 16 else 0
