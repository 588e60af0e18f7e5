"""Incidents: the list, and a report as `rollout.incident` tells it."""

from typing import Any, Final

from tidegate.core.errors import RequestError
from tidegate.rollout.model import IncidentReport
from tidegate.server import grants, reports
from tidegate.server.grants import GrantFacts
from tidegate.server.store import Connection
from tidegate.server.store import web_queries as rows
from tidegate.server.web import words
from tidegate.server.web.queries import sums
from tidegate.server.web.queries.rollout import DECISIONS
from tidegate.server.web.views import (
    Fact,
    IncidentPage,
    IncidentRow,
    IncidentsPage,
    Pair,
    Shares,
    TimelineRow,
    VariantRow,
)
from tidegate.server.web.words import Tone

Row = dict[str, Any]
_MOST: Final = 100


def listing(conn: Connection, now: int) -> IncidentsPage:
    """Return open incidents, then the newest."""
    found = rows.incidents(conn, _MOST)
    actions = rows.action_counts(conn, [int(row["id"]) for row in found])
    return IncidentsPage(
        now,
        tuple(_row(row, actions.get(int(row["id"]), 0)) for row in found),
        rows.incident_count(conn),
    )


def _row(row: Row, actions: int) -> IncidentRow:
    return IncidentRow(
        name=str(row["name"]),
        summary=str(row["summary"]),
        kind=str(row["kind"]),
        state=str(row["state"]),
        rollout=str(row["rollout"] or ""),
        opened_at=int(row["opened_at"]),
        opened_by=str(row["opened_by"]),
        closed_at=int(row["closed_at"] or 0),
        actions=actions,
    )


def page(conn: Connection, name: str, now: int) -> IncidentPage | None:
    """Return one report, or None."""
    row = rows.incident(conn, name)
    if row is None:
        return None
    try:
        report = reports.build(conn, name)
    except RequestError:
        return None
    counts = report.facts["counts"]
    reasons = {str(one["code"]): int(one["count"]) for one in report.facts["reasons"]}
    return IncidentPage(
        now=now,
        name=name,
        title=_title(report),
        kind=report.kind,
        state=str(row["state"]),
        opened_at=report.opened_at,
        opened_by=report.opened_by,
        rollout=report.rollout,
        release=report.release,
        summary=_summary(report),
        closed_at=int(row["closed_at"] or 0),
        published_at=int(row["published_at"] or 0),
        cohort=_cohort(counts),
        cohort_rows=_cohort_rows(counts),
        facts=_facts(report, counts),
        reasons=sums.reason_rows(reasons),
        because=sums.because_rows(report.because),
        variants=_variants(report),
        timeline=tuple(_entry(one) for one in report.timeline if one["kind"] == "event"),
        actions=tuple(_entry(one) for one in report.actions),
        notes=tuple(_entry(one) for one in report.timeline if one["kind"] == "note"),
        missing=report.missing,
        related=_related(conn, row),
    )


def _title(report: IncidentReport) -> str:
    subject = str(report.facts["subject"])
    if report.kind == "isolation":
        return f"{subject} isolated in {report.rollout}"
    verb = "brought back" if report.kind == "fallback" else "halted"
    return f"{report.release} {verb}"


def _summary(report: IncidentReport) -> str:
    """Return what a person (or the gate) said, and the figures below it."""
    counts = report.facts["counts"]
    figures = (
        f"{counts['attempts']:,} of {counts['audience'] or counts['attempts']:,} devices acted on {report.release}: "
        f"{counts['confirmed']:,} confirmed it, {counts['reverted']:,} went back by themselves, {counts['failed']:,} failed, "
        f"{counts['lost']:,} were lost, the outcome of {counts['open']:,} is open."
    )
    return f"{report.summary}\n\n{figures}" if report.summary else figures


def _cohort(counts: dict[str, int]) -> Shares:
    if not counts["attempts"]:
        return ()
    return (
        ("ok", counts["confirmed"]),
        ("go", counts["open"]),
        ("bad", counts["reverted"] + counts["failed"]),
        ("lost", counts["lost"]),
    )


def _cohort_rows(counts: dict[str, int]) -> tuple[Pair, ...]:
    said = (
        ("confirmed", "Confirmed it", ""),
        ("reverted", "Went back by themselves", ""),
        ("failed", "Failed", ""),
        ("lost", "Lost", "silent past the deadline"),
        ("open", "Outcome open", "past the point of no return"),
    )
    return tuple(
        Pair(term, words.number(counts[key]), note) for key, term, note in said if counts[key]
    )


def _facts(report: IncidentReport, counts: dict[str, int]) -> tuple[Fact, ...]:
    first = report.facts["first"]
    opened = report.opened_at
    told = bool(first) and first["at"] <= opened
    since = words.duration(opened - int(first["at"])) if told else "\N{EN DASH}"
    sign = (
        "The first device that ended badly."
        if told
        else "No device had ended badly when it was stopped."
    )
    tone: Tone = "bad" if counts["harmed"] else ""
    untouched = words.number(counts["untouched"])
    return (
        Fact("Exposed", words.number(counts["exposed"]), "given leave to activate"),
        Fact("Harmed", words.number(counts["harmed"]), "reverted, failed or lost", tone=tone),
        Fact("From first sign to stop", since, "", sign),
        Fact("Not touched", untouched, "of its audience")
        if counts["audience"]
        else Fact("Past the point of no return", words.number(counts["open"])),
    )


def _variants(report: IncidentReport) -> tuple[VariantRow, ...]:
    return tuple(
        VariantRow(
            str(one["variant"]),
            "isolated" if one["isolated"] else "active",
            int(one["attempts"]),
            int(one["confirmed"]),
            int(one["harmed"]),
        )
        for one in report.facts["variants"]
        if one["attempts"]
    )


def _entry(one: dict[str, Any]) -> TimelineRow:
    text, who = str(one["text"]), str(one["who"])
    icon, tone = _look(one)
    by = {"planner": "by gate", "device": ""}.get(who, who)
    return TimelineRow(
        int(one["at"]), icon, tone, text if who == "device" else _opened(text), by=by
    )


def _opened(text: str) -> str:
    """Begin a text with a capital, unless it begins with a name (`gw-1.4.0.back1: ...`)."""
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    return text if any(char.isdigit() for char in first) else text[:1].upper() + text[1:]


def _look(one: dict[str, Any]) -> tuple[str, Tone]:
    if one["kind"] == "action":
        return "ok", "ok"
    if one["kind"] == "note":
        return "person", ""
    verb = str(one["text"]).partition(":")[0]
    if one["who"] == "device":
        if " reverted" in one["text"]:
            return "revert", "bad"
        return ("lost", "lost") if " lost" in one["text"] else ("bad", "bad")
    return DECISIONS.get(verb, ("wait", ""))


def _related(conn: Connection, row: Row) -> tuple[Pair, ...]:
    if row["rollout_id"] is None:
        return ()
    found = rows.rollout(conn, str(row["rollout"]))
    if found is None:
        return ()
    _, children = rows.parent_and_children(conn, found)
    ways = tuple(Pair("Fallback", child, href=f"/rollouts/{child}") for child in children)
    return ways + tuple(_grant(one) for one in grants.of_incident(conn, str(row["name"])))


def _grant(one: GrantFacts) -> Pair:
    whom = "every device" if one.everybody else words.plural(one.devices, "device")
    how = f"signed by {one.signatures}" if one.signatures else "not signed yet"
    return Pair(
        f"Grant {one.serial}",
        f"{one.leaves} back to {one.to}, {whom}: {one.state}, {how}",
        href=f"/rollouts/{one.rollout}" if one.rollout else "",
    )
