"""Incidents: opened by a halt, an isolation or a fallback, or by hand; led through by people; closed when somebody has said what was done about it.

What an incident tells is put together elsewhere (`server.reports`), and what the world is told is decided elsewhere (`server.publication`).
"""

import datetime as dt
from typing import Any, Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.rollout.incident import MEANS, RECALL_ASKED, UNSHOWN
from tidegate.rollout.incident.model import Kind, Severity, Status
from tidegate.rollout.model import Finding
from tidegate.server import audit
from tidegate.server.auth import Actor
from tidegate.server.store import Connection, admin_log, changes
from tidegate.server.store import admin_incidents as rows
from tidegate.server.store.ordering import NEWEST, Order

Row = dict[str, Any]
TEXT_MAX: Final = 10_000
SUMMARY_MAX: Final = 500
OWNER_MAX: Final = 128
SEVERITIES: Final = ("critical", "major", "minor")
NOTES: Final = ("note", "action", "hypothesis", "cause", "evidence")
KEPT_MAX: Final = 500
#: Which way a status may go, by the verb that moves it.
_MOVES: Final[dict[str, tuple[frozenset[str], Status]]] = {
    "mitigate": (frozenset({"open"}), "mitigated"),
    "reopen": (frozenset({"mitigated", "closed"}), "open"),
    "close": (frozenset({"open", "mitigated"}), "closed"),
}
_SEVERITY_OF: Final[dict[Kind, Severity]] = {
    "halt": "major",
    "isolation": "minor",
    "held": "major",
    "fallback": "major",
    "manual": "major",
}


class IncidentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """An incident, as lists show it. `state` is open, mitigated or closed; `due_at` the first date of follow-ups not done, 0 = none."""

    name: str
    kind: str
    state: str
    severity: str
    owner: str
    rollout: str | None
    summary: str
    subject: str
    opened_at: int
    opened_by: str
    mitigated_at: int | None
    closed_at: int | None
    published_at: int | None
    due_at: int = 0


class NoteFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wrote into an incident: a note, a hypothesis, a cause, its evidence, a corrective action, or an event that the server noted.

    `means` and `kept` of evidence: by what it was shown, and where that is kept.
    """

    at: int
    by: str
    kind: str
    text: str
    means: str = ""
    kept: str = ""


def open_one(
    conn: Connection,
    *,
    kind: Kind,
    rollout: Row | None,
    summary: str,
    because: list[Any],
    by: str,
    now: int,
    subject: str = "",
    severity: Severity | None = None,
    owner: str = "",
) -> str:
    """Open an incident in the transaction of what caused it, and return its name, `INC-2026-014`. The word to the world is owed from the same transaction on.

    Args:
        conn: the writer's connection.
        kind: what was done.
        rollout: its row; None where it belongs to none.
        summary: one sentence.
        because: the findings that led to it, as plain values.
        by: `planner`, or who did it.
        now: unix seconds.
        subject: the variant of an isolation.
        severity: None = as the kind suggests.
        owner: who leads; empty = nobody yet.
    """
    prefix = f"INC-{dt.datetime.fromtimestamp(now, dt.UTC).year:04d}-"
    name = f"{prefix}{rows.count_like(conn, prefix) + 1:03d}"
    about = rollout or {}
    row = {
        "name": name,
        "rollout_id": about.get("id"),
        "kind": kind,
        "state": "open",
        "severity": severity or _SEVERITY_OF[kind],
        "owner": owner,
        "summary": summary[:SUMMARY_MAX],
        "subject": subject,
        "because": because,
        "opened_at": now,
        "opened_by": by,
    }
    rows.add(conn, row)
    audit.record(
        conn, now, by, "incident.open", name, {"kind": kind, "rollout": about.get("name", "")}
    )
    changes.bump(conn, "incident", name, now)
    detail = {
        "kind": kind,
        "rollout": about.get("name", ""),
        "release": about.get("release", ""),
        "summary": row["summary"],
        "subject": subject,
    }
    tell(conn, "incident.opened", row, by, now, **detail)
    return name


def open_by_hand(
    conn: Connection,
    *,
    summary: str,
    rollout: Row | None,
    subject: str,
    severity: str,
    owner: str,
    actor: Actor,
    now: int,
) -> str:
    """Open an incident that no halt opened, and return its name.

    Raises:
        RequestError: `request.invalid`.
    """
    if not summary.strip() or len(summary) > SUMMARY_MAX:
        raise RequestError("request.invalid", f"a summary has 1 to {SUMMARY_MAX} characters")
    if subject and rollout is None:
        raise RequestError("request.invalid", "a variant is hit by a rollout: name it too")
    return open_one(
        conn,
        kind="manual",
        rollout=rollout,
        summary=summary.strip(),
        because=[],
        by=actor.name,
        now=now,
        subject=subject.strip()[:OWNER_MAX],
        severity=severity_of(severity or "major"),
        owner=owner.strip()[:OWNER_MAX],
    )


def severity_of(word: str) -> Severity:
    """Return a severity by its word (untrusted).

    Raises:
        RequestError: `request.invalid`.
    """
    for one in SEVERITIES:
        if word == one:
            return one
    raise RequestError("request.invalid", f"severity: {', '.join(SEVERITIES)}")


def tell(conn: Connection, event: str, found: Row, by: str, now: int, **detail: Any) -> None:
    """Owe the world a word about an incident, in this transaction."""
    payload = {
        "event": event,
        "incident": found["name"],
        "state": found["state"],
        "severity": found["severity"],
        **detail,
        "at": now,
        "by": by,
    }
    admin_log.add_outbox(conn, "event", payload, now)


def of_rollout(conn: Connection, rollout_id: int, *, unclosed: bool = False) -> list[IncidentFacts]:
    """Return a rollout's incidents, newest first."""
    return [_facts(row) for row in rows.listed(conn, rollout_id=rollout_id, unclosed=unclosed)]


def listed(
    conn: Connection,
    *,
    state: str = "",
    unclosed: bool = False,
    order: Order = NEWEST,
    limit: int = 50,
) -> tuple[list[IncidentFacts], Order | None]:
    """Return incidents in an order (by `id`), and that of the next page."""
    found, more = order.cut(
        rows.listed(conn, state=state, unclosed=unclosed, order=order, limit=limit + 1), limit
    )
    return [_facts(row) for row in found], more


def row_of(conn: Connection, name: str) -> Row:
    """Return an incident's row.

    Raises:
        RequestError: `request.not_found`.
    """
    found = rows.by_name(conn, name)
    if found is None:
        near = did_you_mean(name, rows.names(conn))
        raise RequestError("request.not_found", f'no incident "{name[:40]}"{near}')
    return found


def show(conn: Connection, name: str) -> IncidentFacts:
    """Return an incident.

    Raises:
        RequestError: `request.not_found`.
    """
    return _facts(row_of(conn, name))


def notes(conn: Connection, name: str) -> list[NoteFacts]:
    """Return what was written into an incident.

    Raises:
        RequestError: `request.not_found`.
    """
    found = rows.notes(conn, int(row_of(conn, name)["id"]))
    fields = NoteFacts.__struct_fields__
    return [NoteFacts(**{field: one[field] for field in fields}) for one in found]


def note(
    conn: Connection,
    name: str,
    kind: str,
    text: str,
    actor: Actor,
    now: int,
    *,
    means: str = "",
    kept: str = "",
) -> None:
    """Write a note, a hypothesis, the proved cause (the newest of each holds), what shows it (`evidence`) or a corrective `action` into an incident.

    Args:
        conn: the writer's connection.
        name: of the incident.
        kind: of `NOTES`; untrusted.
        text: untrusted.
        actor: who writes it.
        now: unix seconds.
        means: of evidence: by what it was shown, of `rollout.incident.MEANS`; empty = other. Untrusted.
        kept: of evidence: where it can be looked at again (a ticket, a digest, a device's log in the report); empty = not said, and missing. Untrusted.

    Raises:
        RequestError: `request.not_found`, `request.invalid`.
    """
    found = row_of(conn, name)
    if kind not in NOTES:
        raise RequestError("request.invalid", f"kind is one of {', '.join(NOTES)}")
    if kind != "evidence" and (means or kept):
        raise RequestError("request.invalid", "means and kept are of evidence alone")
    if means and means not in MEANS:
        near = did_you_mean(means, MEANS)
        raise RequestError("request.invalid", f"means is one of {', '.join(MEANS)}{near}")
    place = " ".join(kept.split())
    if len(place) > KEPT_MAX:
        raise RequestError("request.invalid", f"kept has at most {KEPT_MAX} characters")
    shown = {"means": means or "other", "kept": place} if kind == "evidence" else {}
    _write(conn, found, kind, worded(text, "a note"), actor.name, now, **shown)
    audit.record(conn, now, actor.name, "incident.note", name, {"kind": kind})


def edit(
    conn: Connection,
    name: str,
    actor: Actor,
    now: int,
    *,
    severity: str | None = None,
    owner: str | None = None,
    summary: str | None = None,
) -> IncidentFacts:
    """Set severity, owner or summary; None leaves it. What was there before stays in the timeline. Safe to repeat.

    Raises:
        RequestError: `request.not_found`, `request.invalid`.
    """
    found = row_of(conn, name)
    wanted: Row = {}
    if severity is not None:
        wanted["severity"] = severity_of(severity)
    if owner is not None:
        wanted["owner"] = owner.strip()[:OWNER_MAX]
    if summary is not None:
        if not summary.strip() or len(summary) > SUMMARY_MAX:
            raise RequestError("request.invalid", f"a summary has 1 to {SUMMARY_MAX} characters")
        wanted["summary"] = summary.strip()
    values = {key: value for key, value in wanted.items() if found[key] != value}
    if not values:
        return _facts(found)
    rows.change(conn, int(found["id"]), values)
    said = ", ".join(
        f"{key} {value or 'nobody'} (was {found[key] or 'nobody'})" for key, value in values.items()
    )
    _write(conn, found, "event", said, actor.name, now)
    before = {key: found[key] for key in values}
    audit.record(conn, now, actor.name, "incident.edit", name, values, before=before, after=values)
    return show(conn, name)


def move(
    conn: Connection, name: str, verb: str, actor: Actor, reason: str, now: int
) -> IncidentFacts:
    """Mitigate (harm has stopped), close or reopen an incident. Repeating the last one changes nothing.

    Raises:
        RequestError: `request.not_found`; `request.conflict`: its state does not allow that; or it is to be closed and no corrective action was written down,
            or no cause is proved, nothing shows it but the counts, nobody is to decide on a recall or a follow-up has no date, and no reason is given.
    """
    found = row_of(conn, name)
    sources, state = _MOVES[verb]
    if found["state"] == state:
        return _facts(found)
    if found["state"] not in sources:
        raise RequestError(
            "request.conflict", f"cannot {verb} an incident that is {found['state']}"
        )
    if verb == "close" and not _has_action(conn, found):
        raise RequestError(
            "request.conflict", f"{name} has no corrective action: add one, then close it"
        )
    if verb == "close" and not reason.strip() and (gaps := _gaps(conn, found)):
        raise RequestError(
            "request.conflict",
            f"{name}: {' and '.join(gaps)}: say why it is closed all the same (a reason)",
        )
    values: Row = {"state": state}
    if state == "open":
        values |= {"closed_at": None, "mitigated_at": None}
    elif found["mitigated_at"] is None:
        values["mitigated_at"] = now
    if state == "closed":
        values["closed_at"] = now
    rows.change(conn, int(found["id"]), values)
    if state == "closed" and "mitigated_at" in values:
        _write(
            conn,
            found,
            "event",
            "mitigated: nobody had said so before it was closed",
            actor.name,
            now,
        )
    said = {"mitigated": "mitigated", "closed": "closed", "open": "reopened"}[state]
    text = f"{said}: {reason.strip()[:5000]}" if reason.strip() else said
    _write(conn, found, "event", text, actor.name, now)
    audit.record(conn, now, actor.name, f"incident.{verb}", name, {"reason": reason[:500]})
    tell(conn, f"incident.{said}", {**found, "state": state}, actor.name, now, reason=reason[:500])
    return show(conn, name)


def _has_action(conn: Connection, found: Row) -> bool:
    return any(one["kind"] == "action" for one in rows.notes(conn, int(found["id"])))


def _gaps(conn: Connection, found: Row) -> list[str]:
    """Return what an incident that is to be closed lacks."""
    noted = {one["kind"] for one in rows.notes(conn, int(found["id"]))}
    left = [one for one in rows.followups(conn, int(found["id"])) if not one["done_at"]]
    gaps = [] if "cause" in noted else ["no cause is proved"]
    if "cause" in noted and "evidence" not in noted:
        gaps.append(f"nobody has written down {UNSHOWN}")
    if (
        found["kind"] in RECALL_ASKED
        and found["release_state"] == "live"
        and not any(one["about"] == "recall" for one in rows.followups(conn, int(found["id"])))
    ):
        gaps.append(
            f"nobody is named who decides whether {found['release']} is recalled (a follow-up about the recall)"
        )
    if any(not one["due_at"] for one in left):
        gaps.append("a follow-up has no date")
    return gaps


# --- what the server writes itself ---


def newest(conn: Connection, rollout_id: int, kind: Kind) -> Row | None:
    """Return the newest incident of a kind that a rollout has, closed ones included; None = it has none."""
    return rows.newest(conn, rollout_id, kind)


def happened(conn: Connection, rollout_id: int, text: str, by: str, now: int) -> None:
    """Write what was done to a rollout into its open incidents."""
    for found in rows.listed(conn, unclosed=True, rollout_id=rollout_id):
        _write(conn, found, "event", text, by, now)


def write_event(conn: Connection, name: str, text: str, by: str, now: int) -> None:
    """Write what was done about an incident into it.

    Raises:
        RequestError: `request.not_found`.
    """
    _write(conn, row_of(conn, name), "event", text, by, now)


def findings_of(row: Row) -> tuple[Finding, ...]:
    """Return the findings that led to an incident."""
    return tuple(msgspec.convert(one, type=Finding) for one in row["because"])


def worded(text: str, what: str, limit: int = TEXT_MAX) -> str:
    """Return what somebody wrote, without the space around it.

    Raises:
        RequestError: `request.invalid`: there is nothing, or too much; `what` names it.
    """
    if not text.strip() or len(text) > limit:
        raise RequestError("request.invalid", f"{what} has 1 to {limit:,} characters")
    return text.strip()


def _write(
    conn: Connection, found: Row, kind: str, text: str, by: str, now: int, **shown: str
) -> None:
    row = {"incident_id": found["id"], "at": now, "by": by, "kind": kind, "text": text, **shown}
    rows.add_note(conn, row)
    changes.bump(conn, "incident", str(found["name"]), now)


def _facts(row: Row) -> IncidentFacts:
    return IncidentFacts(**{name: row[name] for name in IncidentFacts.__struct_fields__})
