"""An incident's report, put together from what the database knows at this moment; the words are `rollout.incident`'s."""

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tidegate.core import codec
from tidegate.core.errors import RequestError
from tidegate.core.protocol import EventBody
from tidegate.core.release import ReleaseTarget
from tidegate.core.scrub import scrub
from tidegate.rollout import incident as story
from tidegate.rollout import tally as sums
from tidegate.rollout.incident import (
    DeviceLog,
    DeviceOutcome,
    Entry,
    Fleet,
    FollowUp,
    Incident,
    IncidentReport,
    Population,
    Returned,
    Rhythm,
    Shown,
    Stood,
    Stopped,
    Told,
    WayBack,
    Written,
)
from tidegate.rollout.model import Evidence, Rollout
from tidegate.server import (
    device_logs,
    incident_story,
    incidents,
    outcomes,
    planning,
    reckoning,
    telemetry,
)
from tidegate.server.devices import slots_now
from tidegate.server.store import Connection, audit_rows, log_rows
from tidegate.server.store import admin_devices as device_rows
from tidegate.server.store import admin_incidents as rows
from tidegate.server.store import admin_rollouts as rollout_rows

Row = dict[str, Any]
#: Most devices that ended badly, and most others, that a report looks at one by one; the counts are of all.
BAD_MAX: Final = 4_000
OTHERS_MAX: Final = 6_000
#: Logs in a report, and most of each, in characters: its end.
LOGS_MAX: Final = 6
LOG_CHARS: Final = 4_096
#: Logs that devices sent when they were asked, looked at for a report.
_SENT_MAX: Final = 200
#: Kinds of content; the character set is added where they are sent, as to every text.
FORMATS: Final = {
    "json": "application/json",
    "md": "text/markdown",
    "html": "text/html",
}
#: Of a rollout that reached more devices it is not counted what the others run: each that it reached would be looked at.
IDLE_MAX: Final = 20_000
#: What a publication is made of.
_TEXTS: Final = ("title", "summary", "impact", "action")
#: What a kernel or a supervisor says when something died, and what it says when something is wrong: the first tells more.
_DEAD: Final = re.compile(r"(?i)panic|oops|\bBUG:|call trace|segfault|assert|watchdog")
_WRONG: Final = re.compile(r"(?i)\berror\b|failed|fatal|exception|timed? ?out")


def build(
    conn: Connection,
    name: str,
    now: int,
    *,
    rhythm: Rhythm | None = None,
    audience: planning.Audience | None = None,
) -> IncidentReport:
    """Return the report of an incident as it stands now.

    Args:
        conn: any connection.
        name: of the incident; untrusted.
        now: unix seconds.
        rhythm: when this server's gate looks; None = not known here.
        audience: counts who belongs to which ring; None = nobody counts.

    Raises:
        RequestError: `request.not_found`.
    """
    found = incidents.row_of(conn, name)
    notes = rows.notes(conn, int(found["id"]))
    hypotheses = [_written(one) for one in notes if one["kind"] == "hypothesis"]
    causes = [_written(one) for one in notes if one["kind"] == "cause"]
    said: dict[str, Any] = {
        "now": now,
        "because": incidents.findings_of(found),
        "hypothesis": hypotheses[-1] if hypotheses else None,
        "cause": causes[-1] if causes else None,
        "actions": [_written(one) for one in notes if one["kind"] == "action"],
        "followups": [_follow_up(one) for one in rows.followups(conn, int(found["id"]))],
        "evidence_of": [_shown(one) for one in notes if one["kind"] == "evidence"],
        "told": _told(conn, int(found["id"])),
        "pages": _pages(conn, found, notes),
    }
    written = incident_story.of_incident(conn, found, notes)
    told = incident_story.told(conn, found)
    about = _incident(conn, found, notes)
    row = (
        rollout_rows.rollout_by_id(conn, int(found["rollout_id"])) if found["rollout_id"] else None
    )
    if row is None:
        return story.build(about, entries=[*written, *told], **said)
    subject, model = str(found["subject"]), planning.model_of(row)
    devices, partial = _devices(conn, int(row["id"]))
    evidence = telemetry.evidence(conn, int(row["id"]))
    product, counter = str(row["product"]), int(row["release_counter"])
    release = rollout_rows.release(conn, str(row["release"])) or {}
    cancelled = rows.outcomes(
        conn, int(row["id"]), states={"cancelled"}, variant=subject, limit=story.LISTED_MAX
    )
    gone = _with_staged(conn, int(row["id"]), [_device(one) for one in cancelled])
    versions = rows.versions(conn, product, {one.from_counter for one in (*devices, *gone)})
    ended = [
        msgspec.structs.replace(one, from_version=versions.get(one.from_counter, ""))
        for one in gone
    ]
    if not partial and len(devices) <= incident_story.STAGED_MAX:
        devices = _with_staged(conn, int(row["id"]), devices)
    ways_back, way_back_steps = _ways_back(conn, row)
    stopped = _stopped(conn, int(row["id"]), subject)
    return story.build(
        msgspec.structs.replace(about, rollout=str(row["name"]), release=str(row["release"])),
        rollout=model,
        members=_members(conn, model, product, audience, now),
        version=str(row["release_version"]),
        evidence=evidence,
        devices=devices,
        partial=partial,
        stopped=stopped,
        cancelled=ended,
        versions=versions,
        # In this order within one second: what devices did, what was decided on it and what people wrote about it, in the order of their logs, what devices
        # that were ordered back did on that, and who was told of it.
        entries=[
            *incident_story.steps([*devices, *ended], subject, partial=partial),
            *incident_story.outcomes(devices, subject, evidence, partial=partial),
            *incident_story.woven(
                [
                    *incident_story.decisions(conn, row),
                    *incident_story.cancelled(ended, stopped.cancelled, row),
                ],
                written,
            ),
            *way_back_steps,
            *told,
        ],
        logs=_logs(conn, int(row["id"]), subject),
        product=product,
        last_bad=_last_bad(conn, int(row["id"])) if partial else None,
        running=device_rows.running_count(conn, product, counter),
        fleet=_fleet(conn, row, evidence),
        recalled_at=int(release.get("recalled_at") or 0),
        recall_reason=str(release.get("recall_reason") or ""),
        recalled_by=_recalled_by(notes, str(row["release"])),
        bars=incident_story.bars(conn, row),
        rhythm=rhythm,
        warmup_s=_warmup_s(conn, int(row["release_id"])),
        ways_back=ways_back,
        **said,
    )


def export(
    conn: Connection,
    name: str,
    form: str,
    now: int,
    *,
    rhythm: Rhythm | None = None,
    audience: planning.Audience | None = None,
) -> tuple[str, bytes]:
    """Return (media type, bytes) of a report as `json`, `md` or `html`.

    Raises:
        RequestError: `request.not_found`, `request.invalid`.
    """
    kind = FORMATS.get(form)
    if kind is None:
        raise RequestError("request.invalid", f"format: {', '.join(FORMATS)}")
    report = build(conn, name, now, rhythm=rhythm, audience=audience)
    if form == "json":
        return kind, codec.encode(report)
    read = story.lay_out(report)
    return kind, (story.to_markdown(read) if form == "md" else story.to_html(read)).encode()


def _incident(conn: Connection, found: Row, notes: list[Row]) -> Incident:
    """Return the incident without its rollout. Who moved it last stands in its notes, in words that only `incidents.move` writes."""
    moved = {
        verb: str(one["by"])
        for one in notes
        for verb in ("mitigated", "closed")
        if one["kind"] == "event" and str(one["text"]).partition(":")[0] == verb
    }
    held = rows.publication(conn, int(found["id"])) if found["published_at"] else None
    return Incident(
        name=str(found["name"]),
        kind=found["kind"],
        opened_at=int(found["opened_at"]),
        opened_by=str(found["opened_by"]),
        state=found["state"],
        severity=found["severity"],
        owner=str(found["owner"]),
        subject=str(found["subject"]),
        summary=str(found["summary"]),
        mitigated_at=int(found["mitigated_at"] or 0),
        closed_at=int(found["closed_at"] or 0),
        published_at=int(found["published_at"] or 0),
        mitigated_by=moved.get("mitigated", moved.get("closed", ""))
        if found["mitigated_at"]
        else "",
        closed_by=moved.get("closed", "") if found["closed_at"] else "",
        published_by=str(held["published_by"]) if held else "",
    )


def _written(one: Row) -> Written:
    return Written(at=int(one["at"]), by=str(one["by"]), text=str(one["text"]))


def _shown(one: Row) -> Shown:
    # What an older server wrote down says nothing of its means.
    return Shown(
        at=int(one["at"]),
        by=str(one["by"]),
        text=str(one["text"]),
        means=one["means"] or "other",
        kept=str(one["kept"]),
    )


def _follow_up(one: Row) -> FollowUp:
    return FollowUp(
        number=int(one["number"]),
        text=str(one["text"]),
        owner=str(one["owner"]),
        due_at=int(one["due_at"]),
        done_at=int(one["done_at"] or 0),
        done_by=str(one["done_by"] or ""),
        about=one["about"],
    )


def _fleet(conn: Connection, row: Row, evidence: Evidence) -> Fleet:
    """Count whom the release fits and whom it never reached, by hardware as it is now."""
    ranges = tuple(
        one
        for artifact in rollout_rows.artifacts(conn, int(row["release_id"]))
        for one in reckoning.ranges_of(artifact["target"])
    )
    there = device_rows.variant_counts(conn, str(row["product"]))
    people = [
        _population(name, count, evidence, fits=reckoning.fits(ranges, name))
        for name, count in sorted(there.items())
    ]
    matching = [one for one in people if one.fits]
    known = outcomes.OPEN | outcomes.ENDED
    reached = rollout_rows.count_updates(conn, int(row["id"]), known)
    made = int(row["created_at"])
    names = [one.variant for one in matching]
    late = device_rows.enrolled_since(conn, str(row["product"]), made, names)
    came = device_rows.enrolled_since(
        conn, str(row["product"]), made, names, reached_by=int(row["id"])
    )
    every = sum(one.devices for one in matching)
    idle = _idle(conn, row, names) if reached <= IDLE_MAX else None
    return Fleet(
        devices=sum(there.values()),
        matching=every,
        never=max(0, every - reached),
        untried=tuple(one.variant for one in matching if not one.attempts),
        since=min(every, sum(late.values())),
        alike=sum(one.meeting for one in matching if one.harmed),
        unknown=sum(one.meeting for one in matching if not one.attempts),
        well=sum(one.meeting for one in matching if one.attempts and not one.harmed),
        refusing=sum(one.refusing for one in matching),
        variants=tuple(people),
        idle=idle,
        joined=sum(came.values()),
    )


def _members(
    conn: Connection, model: Rollout, product: str, audience: planning.Audience | None, now: int
) -> Mapping[tuple[str, str], int] | None:
    """Count who belongs to which ring; None where nobody can: a report is told all the same when a fixed audience is not readable any more."""
    if audience is None:
        return None
    try:
        return audience(conn, model, product, now)
    except RequestError:
        return None


def _idle(conn: Connection, row: Row, variants: list[str]) -> dict[str, int]:
    """Return what those devices run that a rollout never reached, by version: all that there are but those that it reached."""
    every = device_rows.running_versions(conn, str(row["product"]), variants)
    reached = device_rows.running_reached(conn, int(row["id"]), variants)
    left = {version: count - reached.get(version, 0) for version, count in every.items()}
    return {version: count for version, count in sorted(left.items()) if count > 0}


def _population(name: str, count: int, evidence: Evidence, *, fits: bool) -> Population:
    tally = sums.total(evidence, variants={name})
    return Population(
        variant=name,
        devices=count,
        fits=fits,
        attempts=tally.attempts,
        harmed=tally.harmed,
        refusing=min(count, tally.reverted),
    )


def _recalled_by(notes: list[Row], release: str) -> str:
    """Return who recalled a release; only `followups.recalled` writes these words."""
    said = [
        str(one["by"])
        for one in notes
        if one["kind"] == "event" and str(one["text"]).partition(":")[0] == f"recalled {release}"
    ]
    return said[-1] if said else ""


def _warmup_s(conn: Connection, release_id: int) -> int:
    """Return for how long devices must be well on a release before they may confirm: the longest of its artifacts; 0 = it does not say."""
    targets = [one["target"] for one in rollout_rows.artifacts(conn, release_id)]
    found = [msgspec.convert(one, type=ReleaseTarget).health.warmup_s for one in targets]
    return max(found, default=0)


# --- devices ---


def _devices(conn: Connection, rollout_id: int) -> tuple[list[DeviceOutcome], bool]:
    """Return devices that acted on the release, those that ended badly first; and whether they are not all."""
    bad = rows.outcomes(conn, rollout_id, states=story.BAD, acted=True, limit=BAD_MAX + 1)
    others = rows.outcomes(
        conn,
        rollout_id,
        states=story.PAST_RETURN | {"confirmed"},
        acted=True,
        limit=OTHERS_MAX + 1,
    )
    partial = len(bad) > BAD_MAX or len(others) > OTHERS_MAX
    return [_device(one) for one in (*bad[:BAD_MAX], *others[:OTHERS_MAX])], partial


def _device(one: rows.Outcome) -> DeviceOutcome:
    own = {
        name: value
        for name, value in one.attributes.items()
        if isinstance(value, str | int | float | bool)
    }
    return DeviceOutcome(
        device=one.device,
        variant=one.variant,
        ring=one.ring,
        state=one.state,
        reason=one.reason or "",
        at=one.state_at,
        from_counter=one.from_counter,
        permitted_at=one.permitted_at or 0,
        offered_at=one.offered_at,
        # What the server knows of a device is not to be masked by what it says of itself.
        attributes={
            **own,
            "from": one.from_counter,
            "region": one.region,
            "site": one.site,
            "connectivity": one.connectivity,
        },
    )


def _last_bad(conn: Connection, rollout_id: int) -> DeviceOutcome | None:
    found = rows.outcomes(
        conn, rollout_id, states=story.BAD, acted=True, newest_first=True, limit=1
    )
    return _device(found[0]) if found else None


def _with_staged(
    conn: Connection, rollout_id: int, devices: list[DeviceOutcome]
) -> list[DeviceOutcome]:
    """Say of each of these devices when the server heard that it holds the image."""
    known = rows.staged(conn, rollout_id, [one.device for one in devices])
    return [msgspec.structs.replace(one, staged_at=known.get(one.device, 0)) for one in devices]


def _ways_back(conn: Connection, row: Row) -> tuple[list[WayBack], list[Entry]]:
    """Return the ways back of a rollout, and what devices did on each, for the timeline."""
    found, entries = [], list[Entry]()
    decided = incident_story.decisions(conn, row)
    for child in rollout_rows.children(conn, int(row["id"])):
        name = str(child["name"])
        evidence = telemetry.evidence(conn, int(child["id"]))
        tally = sums.total(evidence)
        devices, partial = _devices(conn, int(child["id"]))
        entries += incident_story.steps(devices, "", partial=partial, of=name)
        entries += incident_story.outcomes(devices, "", evidence, partial=partial, of=name)
        own = [one for one in decided if one.text.startswith(f"{name} ")]
        bars = incident_story.bars(conn, child)
        found.append(
            WayBack(
                rollout=name,
                release=str(child["release"]),
                state=str(child["state"]),
                taken=tally.offered,
                back=tally.confirmed,
                harmed=tally.harmed,
                ordered_at=int(child["created_at"]),
                ordered_by=str(child["created_by"]),
                ground=_ground(decided, int(child["created_at"])),
                devices=tuple(_returned(conn, int(child["id"]))),
                looks=() if partial else story.looks(own, devices, planning.model_of(child), bars),
            )
        )
    return found, entries


def _ground(decided: list[Entry], at: int) -> str:
    """Return why the devices were ordered back, in the words of whoever did."""
    said = [one for one in decided if one.at == at and one.text.startswith("fallback: ")]
    return said[0].because[0] if said and said[0].because else ""


def _returned(conn: Connection, rollout_id: int) -> list[Returned]:
    found = rows.outcomes(conn, rollout_id, states={"confirmed"}, limit=story.LISTED_MAX)
    return [
        Returned(
            device=one.device,
            variant=one.variant,
            at=one.state_at,
            other=_other_slot(device_rows.device(conn, one.device)),
        )
        for one in found
    ]


def _other_slot(device: Row | None) -> str:
    """Return what a device said last of the slot that it does not run."""
    slots = slots_now(device).values() if device else ()
    other = [one for one in slots if device and one.get("sha256") != device["running_sha256"]]
    return ", ".join(
        f"{one.get('version') or 'no version'} ({one.get('state') or 'state not known'})"
        for one in other
    )


def _told(conn: Connection, incident_id: int) -> Told | None:
    held = rows.publication(conn, incident_id)
    if held is None or held["withdrawn_at"] is not None:
        return None
    updates = rows.publication_updates(conn, [incident_id]).get(incident_id, [])
    return Told(
        at=int(held["published_at"]),
        title=str(held["title"]),
        summary=str(held["summary"]),
        impact=str(held["impact"]),
        action=str(held["action"]),
        updates=tuple(_written(one) for one in updates),
    )


def _pages(conn: Connection, found: Row, notes: list[Row]) -> list[Stood]:
    """Return every text that stood on the status page, each with the moment at which it came.

    The log of acts holds them, and has to be looked through for them. Where the notes say that one text was put there and nothing since, it stands there.
    """
    held = rows.publication(conn, int(found["id"]))
    if held is None:
        return []
    said = [str(one["text"]) for one in notes if one["kind"] == "event"]
    turns = [one for one in said if one.startswith(incident_story.TURNS)]
    if len(turns) == 1 and turns[0].startswith(incident_story.PUBLISHED):
        return [_stood(int(held["published_at"]), str(held["published_by"]), held)]
    pages: list[Stood] = []
    acts = audit_rows.entries(conn, action="incident.", thing=str(found["name"]))
    for act in acts:
        if act.action not in {"incident.publish", "incident.unpublish"}:
            continue
        if pages and not pages[-1].until:
            pages[-1] = msgspec.structs.replace(pages[-1], until=act.at)
        if act.action == "incident.publish":
            pages.append(_stood(act.at, act.actor, act.detail))
    return pages


def _stood(at: int, by: str, said: Mapping[str, Any]) -> Stood:
    title, summary, impact, action = (str(said.get(one, "")) for one in _TEXTS)
    return Stood(at=at, by=by, title=title, summary=summary, impact=impact, action=action)


def _stopped(conn: Connection, rollout_id: int, subject: str) -> Stopped:
    count = rollout_rows.count_updates
    return Stopped(
        held=count(conn, rollout_id, outcomes.BEFORE, variant=subject),
        cancelled=count(conn, rollout_id, {"cancelled"}, variant=subject),
    )


# --- logs ---


def _logs(conn: Connection, rollout_id: int, subject: str) -> list[DeviceLog]:
    """Return the first two logs, then the most telling one of every reason, then the most telling of all; in order of time."""
    found: list[DeviceLog] = []
    sent = dict(log_rows.of_rollout(conn, rollout_id, _SENT_MAX))
    for device, variant, at, body in rows.reported(conn, rollout_id, variant=subject):
        made = _log(device, variant, at, codec.decode(body.encode(), EventBody))
        if device in sent and not made.text:
            made = _with_sent(made, device_logs.unpacked(sent[device]))
        if made.text or made.checks or made.detail:
            found.append(made)
    return chosen(found)


def _with_sent(log: DeviceLog, text: str) -> DeviceLog:
    """Show the end of what a device sent when it was asked, where its outcome brought no log."""
    text = text.strip("\n")
    return msgspec.structs.replace(log, text=text[-LOG_CHARS:], cut=len(text) > LOG_CHARS)


def chosen(found: list[DeviceLog]) -> list[DeviceLog]:
    """Choose the logs of a report from all that there are, in the order of their arrival."""
    order = sorted(range(len(found)), key=lambda at: (-_tells(found[at]), at))
    picked = [at for at in range(len(found)) if found[at].text][:2]
    seen = {found[at].reason for at in picked}
    for at in order:
        if found[at].reason not in seen:
            seen.add(found[at].reason)
            picked.append(at)
    picked += [at for at in order if at not in picked and found[at].text]
    return [found[at] for at in sorted(dict.fromkeys(picked[:LOGS_MAX]))]


def _tells(log: DeviceLog) -> int:
    return (
        8 * bool(_DEAD.search(log.text))
        + 4 * bool(_WRONG.search(log.text))
        + 2 * bool(log.text)
        + bool(log.checks)
    )


def _log(device: str, variant: str, at: int, event: EventBody) -> DeviceLog:
    text = scrub(event.log).strip("\n")
    failed = [one for one in event.health if not one.ok]
    return DeviceLog(
        device=device,
        variant=variant,
        at=at,
        reason=event.reason or "",
        detail=scrub(event.detail),
        checks=tuple(f"{one.name}: {scrub(one.detail)}" for one in failed[:16]),
        text=text[-LOG_CHARS:],
        cut=len(text) > LOG_CHARS,
    )
