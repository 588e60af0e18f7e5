"""The timeline of an incident: what devices did, what was decided about its rollout and the ways back, what people wrote, and who was told.

It stays short however large the fleet is: single outcomes are named up to a number, and of many permits or confirmations those of one stretch share a line.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final

from tidegate.rollout import incident as story
from tidegate.rollout import tally as sums
from tidegate.rollout.incident import DeviceOutcome, Entry
from tidegate.rollout.incident.wording import who
from tidegate.rollout.model import Evidence
from tidegate.server import outbox
from tidegate.server.store import Connection, admin_log
from tidegate.server.store import admin_incidents as rows
from tidegate.server.store import admin_rollouts as rollout_rows

Row = dict[str, Any]
#: Most single device outcomes in a timeline: the first of them tell how it began.
_OUTCOMES_SHOWN: Final = 20
#: Most lines of a rollout's story; it has one for each time that it moved.
_STORY_MAX: Final = 5_000
#: Most messages to channels.
_TOLD_MAX: Final = 50
#: Permits, and confirmations, that have a line each; most lines where there are more; devices that a line names.
_ONE_BY_ONE: Final = 20
_STRETCHES: Final = 24
_NAMED: Final = 4
#: What may stand in the plan's log without being somebody's decision.
_NO_DECISION: Final = frozenset({"create", "hold"})
_WRITTEN: Final = {
    "action": "corrective action: ",
    "hypothesis": "hypothesis: ",
    "cause": "cause, proved: ",
    "evidence": "what shows the cause: ",
}
#: How the event begins that says that an incident was put on the status page.
PUBLISHED: Final = "published on the status page"
#: Gates that find harm: what they said is what stood against the bar.
_STOPPING: Final = frozenset({"failure_rate", "metric", "evidence", "held"})
#: Why an update that had not begun was cancelled, by its reason; whoever decided that decided this with it.
_FOLLOWS: Final = {
    "operator.halted": "follows from the halt{by}: a device that has not begun is cancelled when it asks again",
    "operator.fallback": "follows from the order to go back: a device that has not begun stays where it is",
    "operator.cancelled": "follows from the end of the rollout",
    "operator.recalled": "follows from the recall",
}


def of_incident(conn: Connection, found: Row, notes: Sequence[Row]) -> list[Entry]:
    """Return what belongs to an incident itself: that it was opened, what was written into it, that it was published, and who was told."""
    opened = Entry(
        at=int(found["opened_at"]), who=str(found["opened_by"]), text=f"opened {found['name']}"
    )
    told = _told(conn, str(found["name"]), int(found["opened_at"]))
    # Whoever is told of something within its second is told after it.
    return [opened, *_published(conn, found, notes), *(_note(one) for one in notes), *told]


def _note(one: Row) -> Entry:
    """Return what somebody wrote. Whatever changes the incident, its cause or what is done about it is a decision; a note or a guess is none."""
    kind, by = str(one["kind"]), str(one["by"])
    decided = kind in {"cause", "action"} or (kind == "event" and by != "planner")
    more = ""
    if kind == "evidence":
        more = f" ({story.MEANS[one['means'] or 'other']}, kept: {one['kept'] or 'not said'})"
    return Entry(
        at=int(one["at"]),
        who=by,
        text=_WRITTEN.get(kind, "") + str(one["text"]) + more,
        kind="decision" if decided else "event" if kind == "event" else "note",
    )


def _published(conn: Connection, found: Row, notes: Sequence[Row]) -> list[Entry]:
    """Return what the status page said when no event told of it yet: servers before wrote none."""
    if any(one["kind"] == "event" and str(one["text"]).startswith(PUBLISHED) for one in notes):
        return []
    held = rows.publication(conn, int(found["id"]))
    if held is None:
        return []
    first = Entry(
        at=int(held["published_at"]),
        who=str(held["published_by"]),
        text=f"{PUBLISHED}: {held['title']}",
        kind="decision",
    )
    if held["withdrawn_at"] is None:
        return [first]
    gone = Entry(at=int(held["withdrawn_at"]), who="somebody", text="taken off the status page")
    return [first, gone]


def _told(conn: Connection, name: str, since: int) -> list[Entry]:
    """Return whom the server told, when, by which channel, and whether it arrived."""
    found = []
    for row in admin_log.told(conn, outbox.KINDS, name, since, _TOLD_MAX):
        one = outbox.facts_of(row)
        how = {"delivered": "delivered", "dead": "given up, not delivered"}.get(
            one.state, "not delivered yet"
        )
        found.append(
            Entry(
                at=one.done_at or one.created_at,
                who="the server",
                text=f"told {one.channel} ({one.kind}) of {one.event}: {how}",
            )
        )
    return found


def decisions(conn: Connection, row: Row) -> list[Entry]:
    """Return what was decided about a rollout and about its ways back, in the order in which it was."""
    found = [(one, "") for one in admin_log.plan_log(conn, int(row["id"]), limit=_STORY_MAX)]
    for child in rollout_rows.children(conn, int(row["id"])):
        lines = admin_log.plan_log(conn, int(child["id"]), limit=_STORY_MAX)
        found += [(one, f"{child['name']} ") for one in lines]
    return [_decision(one, of) for one, of in sorted(found, key=lambda pair: int(pair[0]["id"]))]


def _decision(one: Row, of: str) -> Entry:
    action, text = str(one["action"]), str(one["text"])
    grounds = dict.fromkeys(
        said for said in (str(finding.get("text", "")) for finding in one["because"]) if said
    )
    if action == "fallback" and ": " in text:
        grounds = {text.partition(": ")[2]: None}
    # That a rollout from which all were brought back is complete would read as if it had succeeded.
    word = "ended" if action == "complete" else action
    said = text.removeprefix("complete: ") if action == "complete" else text
    return Entry(
        at=int(one["at"]),
        who=str(one["actor"]),
        text=f"{of}{word}: {said}" if said else f"{of}{word}",
        kind="event" if action in _NO_DECISION else "decision",
        because=tuple(ground for ground in grounds if ground != text),
    )


def bars(conn: Connection, row: Row) -> dict[int, list[str]]:
    """Return what gates that stop said at each moment at which the gate wrote down what it did with a rollout."""
    found: dict[int, list[str]] = {}
    for one in admin_log.plan_log(conn, int(row["id"]), limit=_STORY_MAX):
        said = [str(each["text"]) for each in one["because"] if each.get("gate") in _STOPPING]
        found.setdefault(int(one["at"]), []).extend(said)
    return found


def cancelled(devices: Sequence[DeviceOutcome], every: int, row: Row) -> list[Entry]:
    """Return who was cancelled before it began to activate, reason by reason, as what follows from a decision.

    Args:
        devices: the first of them, in order of time.
        every: how many there are in all.
        row: of the rollout.
    """
    found = []
    for reason in dict.fromkeys(one.reason for one in devices):
        mine = [one for one in devices if one.reason == reason]
        names = ", ".join(one.device for one in mine)
        rest = every - len(devices)
        more = f" and more ({every:,} were cancelled in all)" if rest > 0 else ""
        first, last = mine[0].at, mine[-1].at
        spread = f", within {last - first:,} s" if last > first else ""
        by = f" by {who(str(row['halted_by']))}" if row["halted_by"] else ""
        found.append(
            Entry(
                at=first,
                who="the server",
                text=f"cancelled before they began to activate: {names}{more}{spread}",
                kind="decision",
                because=(_FOLLOWS.get(reason, reason).format(by=by),),
            )
        )
    return found


def outcomes(
    devices: Sequence[DeviceOutcome], subject: str, evidence: Evidence, *, partial: bool
) -> list[Entry]:
    """Return the devices that ended badly: the first of them by name, the others as a number."""
    bad = [one for one in devices if one.state in story.BAD and subject in ("", one.variant)]
    shown = bad[:_OUTCOMES_SHOWN]
    found = [
        Entry(
            at=one.at,
            who="device",
            text=f"{one.device} {one.state}" + (f": {one.reason}" if one.reason else ""),
            kind="outcome",
        )
        for one in shown
    ]
    if len(bad) > len(shown):
        every = sums.total(evidence, variants={subject} if subject else None).harmed
        rest, upto = len(bad) - len(shown), "up to here"
        if partial and every > len(bad):
            rest, upto = every - len(shown), "from here on"
        text = f"and {rest:,} more devices {upto}"
        found.append(Entry(at=bad[-1].at, who="device", text=text, kind="outcome"))
    return found


def steps(devices: Sequence[DeviceOutcome], subject: str, *, partial: bool) -> list[Entry]:
    """Return who got leave to activate and who confirmed, stretch by stretch."""
    mine = [one for one in devices if subject in ("", one.variant)]
    permits = [(one.permitted_at, one.device) for one in mine if one.permitted_at]
    well = [(one.at, one.device) for one in mine if one.state == "confirmed"]
    part = " of the devices that this report looks at" if partial else ""
    return [
        *_stretches(permits, "permit for", "permits for", part, "the gate"),
        *_stretches(well, "confirmed by", "confirmed by", part, "device"),
    ]


def _stretches(
    found: Iterable[tuple[int, str]], one: str, many: str, part: str, by: str
) -> list[Entry]:
    """Return lines for these moments: one each where they are few, otherwise those of one stretch together."""
    ordered = sorted(found)
    if not ordered:
        return []
    span = ordered[-1][0] - ordered[0][0] + 1
    width = 1 if len(ordered) <= _ONE_BY_ONE else -(-span // _STRETCHES)
    start, lines = ordered[0][0], []
    for _, group in groupby(ordered, key=lambda pair: (pair[0] - start) // width):
        some = list(group)
        names = ", ".join(name for _, name in some[:_NAMED])
        more = f" and {len(some) - _NAMED:,} more" if len(some) > _NAMED else ""
        spread = some[-1][0] - some[0][0]
        until = f", within {spread:,} s" if spread else ""
        text = f"{one if len(some) == 1 else many} {len(some):,}{part}: {names}{more}{until}"
        lines.append(Entry(at=some[0][0], who=by, text=text))
    return lines
