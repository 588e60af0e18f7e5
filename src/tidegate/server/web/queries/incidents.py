"""Incidents: the list, and a report as `rollout.incident` tells it."""

from typing import Any, Final

from tidegate.core.errors import RequestError
from tidegate.rollout.contrast import ContrastTable
from tidegate.rollout.incident import (
    DeviceLog,
    DeviceOutcome,
    Entry,
    IncidentReport,
    Rhythm,
    Written,
    lay_out,
)
from tidegate.rollout.incident.model import Counts, FollowUp
from tidegate.rollout.incident.text import block
from tidegate.server import grants, publication, reports, scopes
from tidegate.server.actors import SEES_ALL, Sight
from tidegate.server.grants import GrantFacts
from tidegate.server.planning import Audience
from tidegate.server.store import Connection
from tidegate.server.store import web_queries as rows
from tidegate.server.web import words
from tidegate.server.web.queries import odds, sums
from tidegate.server.web.queries.rollout import DECISIONS
from tidegate.server.web.views import (
    CohortRow,
    ContrastRow,
    DeviceList,
    Fact,
    FollowUpRow,
    IncidentPage,
    IncidentRow,
    IncidentsPage,
    LogRow,
    Pair,
    PublicationView,
    Shares,
    TimelineRow,
)
from tidegate.server.web.words import Tone

Row = dict[str, Any]
_MOST: Final = 100


def listing(conn: Connection, now: int, sight: Sight = SEES_ALL) -> IncidentsPage:
    """Return incidents in `sight` that are not closed, then the newest."""
    found = rows.incidents(conn, _MOST)
    found = [row for row in found if scopes.sees_incident(conn, sight, str(row["name"]))]
    ids = [int(row["id"]) for row in found]
    actions, due = rows.action_counts(conn, ids), rows.first_due(conn, ids)
    return IncidentsPage(
        now,
        tuple(
            _row(row, actions.get(int(row["id"]), 0), due.get(int(row["id"]), 0)) for row in found
        ),
        rows.incident_count(conn) if sight.whole else len(found),
    )


def _row(row: Row, actions: int, due_at: int) -> IncidentRow:
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
        severity=str(row["severity"]),
        owner=str(row["owner"]),
        due_at=due_at,
    )


def page(
    conn: Connection,
    name: str,
    now: int,
    *,
    public: bool = False,
    rhythm: Rhythm | None = None,
    audience: Audience | None = None,
) -> IncidentPage | None:
    """Return one report, or None. `public`: whether this server has a status page; `rhythm`: when its gate looks; `audience` counts who is in which ring."""
    row = rows.incident(conn, name)
    if row is None:
        return None
    try:
        report = reports.build(conn, name, now, rhythm=rhythm, audience=audience)
    except RequestError:
        return None
    incident, reach = report.incident, report.reach
    reasons = {one.code: one.count for one in reach.reasons}
    return IncidentPage(
        now=now,
        name=name,
        title=report.title,
        kind=incident.kind,
        state=incident.state,
        opened_at=incident.opened_at,
        opened_by=incident.opened_by,
        rollout=incident.rollout,
        release=incident.release,
        summary="\n\n".join(part for part in (incident.summary, report.figures) if part),
        severity=incident.severity,
        owner=incident.owner,
        mitigated_at=incident.mitigated_at,
        closed_at=incident.closed_at,
        cohort=_cohort(reach.counts),
        parts={one.title: one.blocks for one in lay_out(report).sections},
        facts=_facts(report) if incident.rollout else (),
        reasons=sums.reason_rows(reasons),
        because=sums.because_rows(report.because),
        evidence=odds.at_the_stop(report.because),
        contrast=_contrast(report.contrast),
        contrast_note=_contrast_note(report.contrast),
        devices=_devices(report),
        logs=tuple(_log(one) for one in report.logs),
        timeline=tuple(_entry(one) for one in report.timeline),
        hypothesis=_written(report.hypothesis, "person", "") if report.hypothesis else None,
        proved=report.cause is not None,
        actions=tuple(_written(one, "ok", "ok") for one in report.actions),
        followups=tuple(_follow_up(one, now) for one in report.followups),
        missing=report.missing,
        related=_related(conn, row),
        publication=_publication(conn, report, public=public),
    )


def _cohort(counts: Counts) -> Shares:
    if not counts.attempts:
        return ()
    return (
        ("ok", counts.confirmed),
        ("go", counts.open),
        ("bad", counts.reverted + counts.failed),
        ("lost", counts.lost),
    )


def _facts(report: IncidentReport) -> tuple[Fact, ...]:
    counts, first = report.reach.counts, report.reach.first
    opened = report.incident.opened_at
    told = first is not None and first.at <= opened
    since = words.duration(opened - first.at) if told and first else "\N{EN DASH}"
    sign = (
        "The first device that ended badly."
        if told
        else "No device had ended badly when it was stopped."
    )
    tone: Tone = "bad" if counts.harmed else ""
    return (
        Fact("Exposed", words.number(counts.exposed), "given leave to activate"),
        Fact("Ended badly", words.number(counts.harmed), "reverted, failed or lost", tone=tone),
        Fact("From first sign to incident", since, "", sign),
        Fact("Not touched", words.number(counts.untouched), "of its audience")
        if counts.audience
        else Fact("Past the point of no return", words.number(counts.open)),
    )


def _contrast(table: ContrastTable) -> tuple[ContrastRow, ...]:
    return tuple(
        ContrastRow(
            label=one.label,
            bad=one.bad,
            count=one.count,
            other_bad=one.other_bad,
            other_count=one.other_count,
            odds=f"1 in {one.odds:,.0f}",
            same=", ".join(f"{name} = {value}" for name, value in one.same),
        )
        for one in table.rows
    )


def _contrast_note(table: ContrastTable) -> str:
    if not table.bad:
        return ""
    part = "a part of the devices, " if table.partial else ""
    return f"{part}{words.plural(table.devices, 'device')} with a known outcome; corrected for {words.plural(table.looks, 'look')}"


def _devices(report: IncidentReport) -> tuple[DeviceList, ...]:
    reach = report.reach
    lists = (
        DeviceList(
            "Past the point of no return",
            "past-return",
            reach.counts.open,
            tuple(_device(one) for one in reach.past_return),
        ),
        DeviceList(
            "Ended badly",
            "affected",
            reach.counts.harmed,
            tuple(_device(one) for one in reach.affected),
        ),
        DeviceList(
            "Cancelled before they began to activate",
            "stopped",
            report.reach.stopped.cancelled,
            tuple(_device(one) for one in reach.cancelled),
        ),
    )
    return tuple(one for one in lists if one.rows)


def _device(one: DeviceOutcome) -> CohortRow:
    return CohortRow(one.device, one.variant, one.ring, one.state, one.reason, one.at)


def _log(one: DeviceLog) -> LogRow:
    lines = [*([f"detail: {one.detail}"] if one.detail else [])]
    lines += [f"check: {check}" for check in one.checks]
    lines += ["[...]"] if one.cut else []
    return LogRow(
        one.device,
        f"{one.variant}: {one.reason}",
        one.at,
        (*lines, *(block(one.text) if one.text else ())),
    )


def _written(one: Written, icon: str, tone: Tone) -> TimelineRow:
    return TimelineRow(one.at, icon, tone, one.text, by=one.by)


def _follow_up(one: FollowUp, now: int) -> FollowUpRow:
    late = bool(one.due_at) and not one.done_at and one.due_at < now
    return FollowUpRow(one.number, one.text, one.owner, one.due_at, one.done_at, late)


def _entry(one: Entry) -> TimelineRow:
    icon, tone = _look(one)
    text = one.text if one.kind == "outcome" else _opened(one.text)
    by = {"planner": "by gate", "device": ""}.get(one.who, one.who)
    more = [ground for ground in one.because if not one.text.endswith(ground)]
    return TimelineRow(one.at, icon, tone, text, by=by, detail="; ".join(more))


def _opened(text: str) -> str:
    """Begin a text with a capital, unless it begins with a name (`gw-1.4.0.back1: ...`)."""
    first = text.split(maxsplit=1)[0] if text.strip() else ""
    return text if any(char.isdigit() for char in first) else text[:1].upper() + text[1:]


def _look(one: Entry) -> tuple[str, Tone]:
    if one.kind == "note":
        return "person", ""
    if one.kind == "outcome":
        if " reverted" in one.text:
            return "revert", "bad"
        return ("lost", "lost") if " lost" in one.text else ("bad", "bad")
    verb = one.text.partition(":")[0].rpartition(" ")[2]
    if verb == "ended":
        return DECISIONS["complete"]
    people = one.kind == "decision" and one.who != "planner"
    return DECISIONS.get(verb, ("person" if people else "wait", ""))


def _publication(conn: Connection, report: IncidentReport, *, public: bool) -> PublicationView:
    held = publication.of_incident(conn, report.incident.name)
    if held is None:
        proposed = publication.propose(report)
        return PublicationView(
            public, title=proposed.title, impact=proposed.impact, action=proposed.action
        )
    return PublicationView(
        public,
        held.published_at,
        held.title,
        held.summary,
        held.impact,
        held.action,
        tuple(TimelineRow(one.at, "person", "", one.text) for one in held.updates),
    )


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
