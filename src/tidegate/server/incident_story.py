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
#: Of up to so many devices it is told when each staged the image; of more, only of those that were cancelled.
STAGED_MAX: Final = 200
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
#: How it begins that what stands there was changed, and that it was taken off.
CHANGED: Final = "changed what the status page says"
TAKEN_OFF: Final = "taken off the status page"
TURNS: Final = (PUBLISHED, CHANGED, TAKEN_OFF)
#: Acts by which a gate stops something.
_STOPS: Final = frozenset({"halt", "isolate"})
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
    """Return what belongs to an incident itself, in order: that it was opened, that it was published, what was written into it."""
    opened = Entry(
        at=int(found["opened_at"]), who=str(found["opened_by"]), text=f"opened {found['name']}"
    )
    return [opened, *_published(conn, found, notes), *(_note(one) for one in notes)]


def woven(decided: Sequence[Entry], written: Sequence[Entry]) -> list[Entry]:
    """Return two logs as one, each in its own order, whatever fell into one second.

    What was done to a rollout stands in both: there they are tied together. Between two such lines what was decided comes before what was written.
    """
    found: list[Entry] = []
    ties: list[tuple[int, Entry]] = []
    reached = 0
    for one in written:
        at = next((n for n in range(reached, len(decided)) if _same(decided[n], one)), None)
        if at is not None:
            reached = at + 1
        ties.append((-1 if at is None else at, one))
    tied = [at for at, _ in ties if at >= 0] + [len(decided)]
    found += decided[: tied[0]]
    for at, one in ties:
        if at >= 0:
            tied = tied[1:]
            found += [decided[at], one, *decided[at + 1 : tied[0]]]
        else:
            found.append(one)
    return sorted(found, key=lambda one: one.at)


def _same(decided: Entry, written: Entry) -> bool:
    return decided.at == written.at and written.text in {
        decided.text,
        decided.text.partition(": ")[2],
    }


def _note(one: Row) -> Entry:
    """Return what somebody wrote. Whatever changes the incident, what is held to be its cause or what is done about it is a decision; a note is none."""
    kind, by = str(one["kind"]), str(one["by"])
    decided = kind in {"hypothesis", "cause", "action"} or (kind == "event" and by != "planner")
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
    gone = Entry(at=int(held["withdrawn_at"]), who="somebody", text=TAKEN_OFF)
    return [first, gone]


def told(conn: Connection, incident: Row) -> list[Entry]:
    """Return whom the server told, when, by which channel, and whether it arrived."""
    found = []
    name, since = str(incident["name"]), int(incident["opened_at"])
    for row in admin_log.told(conn, outbox.KINDS, name, since, _TOLD_MAX):
        one = outbox.facts_of(row)
        how = {"delivered": "delivered", "dead": "given up, not delivered"}.get(
            one.state, "not delivered yet"
        )
        found.append(
            Entry(
                at=one.done_at or one.created_at,
                who="the server",
                text=f"told {one.channel} ({one.kind}) of {one.event}{_which(row['payload']['body'])}: {how}",
            )
        )
    return found


def _which(body: Row) -> str:
    """Say of what is told more than once which time it was: a page is published once, and then changed."""
    if "changed" not in body:
        return ""
    return " (the text was changed)" if body["changed"] else " (the first text)"


def decisions(conn: Connection, row: Row) -> list[Entry]:
    """Return what was decided about a rollout and about its ways back, in the order in which it was."""
    found = [(one, "") for one in admin_log.plan_log(conn, int(row["id"]), limit=_STORY_MAX)]
    for child in rollout_rows.children(conn, int(row["id"])):
        lines = admin_log.plan_log(conn, int(child["id"]), limit=_STORY_MAX)
        found += [(one, f"{child['name']} ") for one in lines]
    return [_decision(one, of) for one, of in sorted(found, key=lambda pair: int(pair[0]["id"]))]


def _decision(one: Row, of: str) -> Entry:
    action, text = str(one["action"]), str(one["text"])
    # Of what a gate stopped the ground is what had passed its bar, and not what was seen beside it.
    stopped = [finding for finding in one["because"] if finding.get("passed") is False]
    founded = stopped if action in _STOPS and stopped else one["because"]
    grounds = dict.fromkeys(
        said for said in (str(finding.get("text", "")) for finding in founded) if said
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
        because=tuple(ground for ground in grounds if ground != text or action in _STOPS),
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
    devices: Sequence[DeviceOutcome],
    subject: str,
    evidence: Evidence,
    *,
    partial: bool,
    of: str = "",
) -> list[Entry]:
    """Return the devices that ended badly: the first of them by name, the others as a number. `of`: the way back that they are of."""
    bad = [one for one in devices if one.state in story.BAD and subject in ("", one.variant)]
    shown = bad[:_OUTCOMES_SHOWN]
    found = [
        Entry(
            at=one.at,
            who="device",
            text=f"{of} " * bool(of)
            + f"{one.device} {one.state}"
            + (f": {one.reason}" if one.reason else ""),
            kind="outcome",
        )
        for one in shown
    ]
    if len(bad) > len(shown):
        every = sums.total(evidence, variants={subject} if subject else None).harmed
        rest, upto = len(bad) - len(shown), "up to here"
        if partial and every > len(bad):
            rest, upto = every - len(shown), "from here on"
        text = f"{of} " * bool(of) + f"and {rest:,} more devices {upto}"
        found.append(Entry(at=bad[-1].at, who="device", text=text, kind="outcome"))
    return found


def steps(
    devices: Sequence[DeviceOutcome], subject: str, *, partial: bool, of: str = ""
) -> list[Entry]:
    """Return to whom it was offered, who staged it, who got leave to activate and who confirmed, stretch by stretch.

    Args:
        devices: that were offered it, as far as this report looks at them.
        subject: variant of an isolation; empty = all.
        partial: whether `devices` are not all.
        of: the way back that they are of; empty = the rollout itself.
    """
    mine = [one for one in devices if subject in ("", one.variant)]
    offers = [(one.offered_at, one.device) for one in mine if one.offered_at]
    stored = [(one.staged_at, one.device) for one in mine if one.staged_at]
    permits = [(one.permitted_at, one.device) for one in mine if one.permitted_at]
    well = [(one.at, one.device) for one in mine if one.state == "confirmed"]
    part = " of the devices that this report looks at" if partial else ""
    ahead = f"{of} " if of else ""
    return [
        *_stretches(offers, f"{ahead}offered to", f"{ahead}offered to", part, "the server"),
        *_stretches(stored, f"{ahead}staged by", f"{ahead}staged by", part, "device"),
        *_stretches(permits, f"{ahead}permit for", f"{ahead}permits for", part, "the gate"),
        *_stretches(well, f"{ahead}confirmed by", f"{ahead}confirmed by", part, "device"),
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
