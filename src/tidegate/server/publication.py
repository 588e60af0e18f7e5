"""What the world is told of an incident: texts that a person published, word for word, and nothing that the database knows beside them.

The status page is made of these rows alone. A text that names a device of this fleet, by its name or serial number, is refused. Counts are offered rounded:
the page says how large it was, not which devices they were.
"""

import re
from typing import Any, Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.rollout.incident.model import Counts, IncidentReport
from tidegate.server import audit, incident_story, incidents, reports
from tidegate.server.auth import Actor
from tidegate.server.store import Connection, changes
from tidegate.server.store import admin_incidents as rows

Row = dict[str, Any]
TITLE_MAX: Final = 200
TEXT_MAX: Final = 4_000
SHOWN_MAX: Final = 100
#: Below this a count is not told: a small one could tell which devices they were.
_SMALL: Final = 10
#: What the name or serial number of a device may be made of.
_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._:-]*[A-Za-z0-9])?")


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """A line that was added later. `at` unix seconds."""

    at: int
    text: str


class Publication(msgspec.Struct, frozen=True, kw_only=True):
    """What the status page says of an incident. `status` is open, mitigated or closed."""

    name: str
    title: str
    status: str
    severity: str
    summary: str
    impact: str
    action: str
    published_at: int
    updated_at: int
    updates: tuple[Update, ...] = ()


class Texts(msgspec.Struct, frozen=True, kw_only=True):
    """The texts of a publication. An empty one is filled in: `title` and `impact` from rounded counts, `action` from the newest corrective action."""

    title: str = ""
    summary: str = ""
    impact: str = ""
    action: str = ""


def propose(report: IncidentReport) -> Texts:
    """Return what could be published. The summary is for people to write: what the gate said may hold details that are nobody's business."""
    one = report.incident
    what = {
        "halt": "Update stopped",
        "isolation": "Update stopped for some devices",
        "held": "Update waits for a decision",
        "fallback": "Update taken back",
        "manual": "Incident",
    }[one.kind]
    return Texts(
        title=f"{what}: {one.release}" if one.release else what,
        impact=impact(report.reach.counts, sum(way.taken for way in report.ways_back))
        if one.rollout
        else "",
        action=report.actions[-1].text if report.actions else "",
    )


def impact(counts: Counts, ordered: int = 0) -> str:
    """Say in rounded numbers who ended badly, and how many were ordered back."""
    if not counts.attempts:
        return "No device had installed the update."
    of = " of" if counts.attempts < _SMALL else ""
    parts = [f"{_first(rounded(counts.attempts))}{of} devices had installed the update"]
    if counts.harmed:
        parts.append(f"{rounded(counts.harmed)} of them had a problem")
    if counts.reverted:
        parts.append(f"{rounded(counts.reverted)} went back to the previous version by themselves")
    if ordered:
        parts.append(f"{rounded(ordered)} were told by us to go back")
    return ", ".join(parts) + "."


def rounded(count: int) -> str:
    """Return a count as words, to one or two digits: it says how large, not how many.

    `a small number`, `about 40`, `about 1,300`.
    """
    if count < _SMALL:
        return "a small number" if count else "none"
    step = 10 ** (len(str(count)) - (1 if count < 100 else 2))
    return f"about {(count + step // 2) // step * step:,}"


def publish(
    conn: Connection, name: str, texts: Texts, actor: Actor, now: int
) -> incidents.IncidentFacts:
    """Put an incident on the status page, or replace what it says there. The same texts again change nothing.

    Args:
        conn: the writer's connection.
        name: of the incident.
        texts: what to say; untrusted.
        actor: who publishes it.
        now: unix seconds.

    Raises:
        RequestError: `request.not_found`; `request.invalid`: a text is missing, too long, or names a device.
    """
    found = incidents.row_of(conn, name)
    proposed = propose(reports.build(conn, name, now))
    before = rows.publication(conn, int(found["id"]))
    held = before if before is not None and before["withdrawn_at"] is None else None
    said: Row = {
        field: _text(getattr(texts, field)) or (held or {}).get(field) or getattr(proposed, field)
        for field in Texts.__struct_fields__
    }
    _check(conn, said)
    if held is not None and all(held[field] == text for field, text in said.items()):
        return incidents.show(conn, name)
    row: Row = {
        **said,
        "published_at": held["published_at"] if held else now,
        "published_by": actor.name,
        "updated_at": now,
        "withdrawn_at": None,
    }
    rows.put_publication(conn, int(found["id"]), row)
    rows.change(conn, int(found["id"]), {"published_at": row["published_at"]})
    did = incident_story.CHANGED if held else incident_story.PUBLISHED
    incidents.write_event(conn, name, f"{did}: {said['title']}", actor.name, now)
    _done(conn, found, "incident.publish", actor, now, said)
    told: Row = {"title": said["title"], "changed": held is not None}
    incidents.tell(conn, "incident.published", found, actor.name, now, **told)
    return incidents.show(conn, name)


def add_update(
    conn: Connection, name: str, text: str, actor: Actor, now: int
) -> incidents.IncidentFacts:
    """Add a line below what the status page says of an incident.

    Raises:
        RequestError: `request.not_found`; `request.conflict`: it is not published; `request.invalid`: the text.
    """
    found, held = _published(conn, name)
    said = _text(text)
    if not said:
        raise RequestError("request.invalid", "an update has some text")
    _check(conn, {"update": said})
    row = {"incident_id": found["id"], "at": now, "by": actor.name, "text": said}
    rows.add_publication_update(conn, row)
    rows.put_publication(conn, int(found["id"]), {"updated_at": max(now, int(held["updated_at"]))})
    incidents.write_event(conn, name, f"added on the status page: {said}", actor.name, now)
    _done(conn, found, "incident.publish_update", actor, now, {"text": said})
    return incidents.show(conn, name)


def withdraw(
    conn: Connection, name: str, actor: Actor, reason: str, now: int
) -> incidents.IncidentFacts:
    """Take an incident off the status page. Taking off what is not there changes nothing.

    Raises:
        RequestError: `request.not_found`.
    """
    found = incidents.row_of(conn, name)
    held = rows.publication(conn, int(found["id"]))
    if found["published_at"] is None and (held is None or held["withdrawn_at"] is not None):
        return incidents.show(conn, name)
    if held is not None:
        rows.put_publication(conn, int(found["id"]), {"withdrawn_at": now})
    rows.change(conn, int(found["id"]), {"published_at": None})
    why = f": {reason.strip()[:500]}" if reason.strip() else ""
    incidents.write_event(conn, name, f"{incident_story.TAKEN_OFF}{why}", actor.name, now)
    _done(conn, found, "incident.unpublish", actor, now, {"reason": reason[:500]})
    return incidents.show(conn, name)


def of_incident(conn: Connection, name: str) -> Publication | None:
    """Return what the status page says of an incident; None where it says nothing.

    Raises:
        RequestError: `request.not_found`.
    """
    found = incidents.row_of(conn, name)
    held = rows.publication(conn, int(found["id"]))
    if held is None or held["withdrawn_at"] is not None:
        return None
    updates = rows.publication_updates(conn, [int(found["id"])])
    return _publication({**held, **_about(found)}, updates.get(int(found["id"]), []))


def published(conn: Connection) -> tuple[Publication, ...]:
    """Return all that the status page says, newest first."""
    found = rows.publications(conn, SHOWN_MAX)
    updates = rows.publication_updates(conn, [int(row["incident_id"]) for row in found])
    return tuple(_publication(row, updates.get(int(row["incident_id"]), [])) for row in found)


def _about(found: Row) -> Row:
    return {key: found[key] for key in ("name", "state", "severity")}


def _publication(row: Row, updates: list[Row]) -> Publication:
    """Take over the published texts, one by one: nothing else of an incident leaves by this way."""
    return Publication(
        name=str(row["name"]),
        title=str(row["title"]),
        status=str(row["state"]),
        severity=str(row["severity"]),
        summary=str(row["summary"]),
        impact=str(row["impact"]),
        action=str(row["action"]),
        published_at=int(row["published_at"]),
        updated_at=int(row["updated_at"]),
        updates=tuple(Update(at=int(one["at"]), text=str(one["text"])) for one in updates),
    )


def _published(conn: Connection, name: str) -> tuple[Row, Row]:
    found = incidents.row_of(conn, name)
    held = rows.publication(conn, int(found["id"]))
    if held is None or held["withdrawn_at"] is not None:
        raise RequestError("request.conflict", f"{name} is not published: publish it first")
    return found, held


def _text(text: str) -> str:
    return "\n".join(" ".join(part.split()) for part in text.strip().splitlines() if part.strip())


def _check(conn: Connection, texts: Row) -> None:
    for field, text in texts.items():
        limit = TITLE_MAX if field == "title" else TEXT_MAX
        if len(text) > limit:
            raise RequestError("request.invalid", f"{field}: at most {limit:,} characters")
        if field in {"title", "summary"} and not text:
            raise RequestError(
                "request.invalid", f"{field}: say in your own words what the world should know"
            )
        named = rows.known_devices(conn, _names(text))
        if named:
            raise RequestError(
                "request.invalid",
                f"{field}: names {', '.join(named[:3])}, a device of this fleet; say it without",
            )


def _names(text: str) -> set[str]:
    """Return everything in a text that could name a device: each run of name characters, and each of its parts. Words and numbers as short as any are not."""
    found: set[str] = set()
    for run in _NAME.findall(text):
        found.update((run, *re.split(r"[.:]", run)))
    return {one for one in found if len(one) >= (6 if one.isdigit() else 4)}


def _first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _done(conn: Connection, found: Row, action: str, actor: Actor, now: int, detail: Row) -> None:
    audit.record(conn, now, actor.name, action, str(found["name"]), detail)
    changes.bump(conn, "incident", str(found["name"]), now)
