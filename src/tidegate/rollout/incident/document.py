"""A report as a document: sections of paragraphs, lists, tables and logs. Markdown and HTML are written from this, so they say the same in the same order."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from tidegate.rollout.incident import brief, grounds, reached, text
from tidegate.rollout.incident.blocks import Block, Log, Points, Table, Words
from tidegate.rollout.incident.model import (
    DeviceLog,
    Entry,
    FollowUp,
    IncidentReport,
    Stood,
    Told,
)
from tidegate.rollout.incident.wording import NONE, day, exactly, when, who


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what is below it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Document:
    """A report to be read. Texts are one line each but not escaped."""

    title: str
    facts: tuple[tuple[str, str], ...]
    sections: tuple[Section, ...]


def lay_out(report: IncidentReport) -> Document:
    """Lay a report out; sections without content are left out, but for those whose absence says something."""
    incident = report.incident
    return Document(
        title=f"{'DRILL: ' if report.drill else ''}{incident.name}: {report.title}",
        facts=tuple((name, value) for name, value in _facts(report) if value),
        sections=tuple(
            Section(title, tuple(blocks)) for title, blocks in _sections(report) if blocks
        ),
    )


def _facts(report: IncidentReport) -> Iterator[tuple[str, str]]:
    one = report.incident
    yield "Status", one.state
    yield "Severity", one.severity
    yield "Owner", one.owner or "nobody"
    yield "Opened", f"{when(one.opened_at)} UTC by {who(one.opened_by)}"
    yield "Mitigated", _moment(one.mitigated_at, one.mitigated_by)
    yield "Closed", _moment(one.closed_at, one.closed_by)
    yield "Published", _publication(report)
    yield "Product", report.product
    yield "Rollout", f"{one.rollout} {brief.state(report)}" if one.rollout else ""
    yield "Release", f"{one.release} ({report.version})" if report.version else one.release
    yield "Report of", f"{when(report.at)} UTC" if report.at else ""


def _sections(report: IncidentReport) -> Iterator[tuple[str, list[Block]]]:
    yield "In short", [Points(tuple(brief.in_short(report)))]
    yield "What happened", [Words(one) for one in _happened(report) if one]
    yield "Missing from this report", [Points(report.missing)] if report.missing else []
    yield "How long it took", [*_spans(report), *reached.passages(report)]
    yield "What became of whom", reached.became(report) if report.incident.rollout else []
    yield "How they ended badly", reached.endings(report)
    yield "Variants", reached.variants(report)
    yield "Rings", reached.rings(report)
    yield "Versions", reached.moves(report)
    yield "Why it was stopped", grounds.stopped(report)
    yield "Why it was not stopped before", grounds.looks(report)
    yield "What those that ended badly have in common", grounds.contrast(report)
    yield "Cause", grounds.cause(report)
    yield "The way back", _ways_back(report)
    barriers = tuple(brief.barriers(report)) if report.incident.release else ()
    yield "What keeps it from going out again", [Points(barriers)] if barriers else []
    yield "Decisions", _decisions(report)
    yield "Timeline (UTC)", _timeline(report)
    yield "Devices", reached.devices(report)
    yield "Logs", [_log(one) for one in report.logs]
    yield "Corrective action", _actions(report)
    yield "Follow-ups", _followups(report)
    yield "What the status page says", _told(report)
    yield "Words", [Table(("word", "means"), brief.GLOSSARY)]


def _publication(report: IncidentReport) -> str:
    """Say since when the status page tells of it, and how often what it says was changed since: each of these is told to channels as well."""
    one = report.incident
    first = report.pages[0] if report.pages else None
    said = _moment(one.published_at, one.published_by)
    if first is not None:
        said = _moment(first.at, first.by)
        if not one.published_at:
            said += f"; taken off at {when(report.pages[-1].until)} UTC"
    if len(report.pages) > 1:
        last, times = report.pages[-1], len(report.pages) - 1
        often = "once" if times == 1 else f"{times:,} times, the last time"
        gone = any(one.until < later.at for one, later in pairwise(report.pages))
        said += f"; its text was {'changed or put there anew' if gone else 'changed'} {often} at {when(last.at)} UTC by {who(last.by)}"
    return said


def _moment(at: int, by: str) -> str:
    return f"{when(at)} UTC{f' by {who(by)}' if by else ''}" if at else ""


def _happened(report: IncidentReport) -> Iterator[str]:
    """Say what was known when it was opened, what is known now, and when it was."""
    then = list(text.paragraphs(report.incident.summary))
    if then and report.incident.kind in {"halt", "isolation"}:
        then[0] = f"When it was stopped: {then[0]}"
    yield from then
    yield f"By now: {report.figures}" if then and report.figures else report.figures
    yield _course(report)


def _course(report: IncidentReport) -> str:
    """Say when it began, and when it was stopped."""
    one = report.incident
    if one.kind != "halt" or not report.started_at:
        return ""
    began = f"The rollout began at {when(report.started_at)} UTC"
    if report.first_bad_at:
        began += f"; the first device ended badly at {when(report.first_bad_at)} UTC"
    return f"{began}; {who(one.opened_by)} stopped it at {when(one.opened_at)} UTC."


def _spans(report: IncidentReport) -> list[Block]:
    """Return how long each part of it took."""
    one = report.incident
    marks = [
        ("the first device ended badly", report.first_bad_at),
        ("it was stopped" if one.kind in {"halt", "isolation"} else "it was opened", one.opened_at),
        ("the last device ended badly", report.last_bad_at),
        (
            "the first way back was ordered",
            min((way.ordered_at for way in report.ways_back), default=0),
        ),
        ("recalled", report.recalled_at),
        ("mitigated", one.mitigated_at),
        ("published", one.published_at),
        ("closed", one.closed_at),
    ]
    known = sorted(
        ((at, what) for what, at in marks if at), key=lambda mark: mark[0]
    )  # stable: in the order above within a second
    began = report.started_at or (known[0][0] if known else 0)
    rows = tuple((what, exactly(at - began)) for at, what in known if at >= began)
    since = "after the rollout began" if report.started_at else "after it began"
    return [Table(("what", since), rows)] if rows else []


def _ways_back(report: IncidentReport) -> list[Block]:
    found: list[Block] = []
    if report.running >= 0 and report.incident.release:
        runs = "1 device runs" if report.running == 1 else f"{report.running:,} devices run"
        found.append(Words(f"{runs} {report.incident.release} now."))
    rows = tuple(
        (
            one.rollout,
            one.release,
            "ended: complete" if one.state == "completed" else one.state,
            f"{one.taken:,}",
            f"{one.back:,}",
            f"{one.harmed:,}",
        )
        for one in report.ways_back
    )
    head = ("rollout", "back to", "state", "took it", "are back", "ended badly")
    if rows:
        found += [Words(_between(report)), *_grounds_then(report)]
        found.append(Table(head, rows, frozenset(range(3, 6))))
        found += reached.returned(report)
        found += [block for one in report.ways_back for block in grounds.looks_back(one)]
    elif report.incident.rollout:
        found.append(Words("Nobody was ordered back."))
    return found


def _grounds_then(report: IncidentReport) -> Iterator[Block]:
    """Say why they were ordered back: a ground is that of its hour, and what was shown later may be at odds with it."""
    for one in report.ways_back:
        if one.ground:
            yield Words(
                f"Why {one.rollout} was ordered, as it was said then: {one.ground.rstrip('.')}.{_overtaken(report, one.ordered_at)}"
            )


def _overtaken(report: IncidentReport, at: int) -> str:
    """Say that the cause was not proved yet at a moment, where it was later."""
    if brief.cause(report) != "proved" or report.cause is None or report.cause.at <= at:
        return ""
    return f" That was the ground of its hour: at {when(report.cause.at)} UTC the proof of the cause overtook it."


def _between(report: IncidentReport) -> str:
    """Say how long after the stop the way back was ordered, and what people did and wrote down until then."""
    one = report.incident
    first = min((way.ordered_at for way in report.ways_back), default=0)
    if one.kind != "halt" or first < one.opened_at:
        return f"The first was ordered at {when(first)} UTC."
    between = [
        f"{when(entry.at)[11:]} {entry.text}"
        for entry in report.timeline
        if one.opened_at <= entry.at < first
        and entry.kind in {"decision", "note"}
        and entry.who not in {"planner", "the server"}
    ]
    more = f"; and {len(between) - 6:,} more, in the timeline" if len(between) > 6 else ""
    tried = "; ".join(between[:6]) + more if between else "nobody decided or wrote down anything"
    return f"Ordered {exactly(first - one.opened_at)} after the stop. Between the two: {tried}."


def _told(report: IncidentReport) -> list[Block]:
    """Return every text that stood on the status page with its own times, and what was added below."""
    told = report.told
    if told is None and not report.pages:
        return [Words("Nothing: it was not published.")]
    found = [block for n, page in enumerate(report.pages) for block in _page(report, n, page)]
    if told is not None and not report.pages:
        found = [
            Words(
                f"Something is on the page since {when(told.at)} UTC. Earlier texts are not kept here, nor since when it says just this, word for word:"
            ),
            *_texts(told),
        ]
    found.append(
        Words("Counts there are rounded on purpose, so that no device can be told from them.")
    )
    if told is None:
        return [*found, Words("Nothing stands there now: it was taken off.")]
    updates = tuple((when(one.at), one.by, one.text) for one in told.updates)
    return [*found, *([Table(("UTC", "by", "added below the text"), updates)] if updates else [])]


def _page(report: IncidentReport, number: int, page: Stood) -> Iterator[Block]:
    """Yield one text of the status page: from when until when it stood there, and the words."""
    every = len(report.pages)
    which = f"Text {number + 1:,} of {every:,}" if every > 1 else "One text"
    until = f"until {when(page.until)} UTC" if page.until else "and it still stands there"
    at = f"on the page from {when(page.at)} UTC (put there by {who(page.by)}) {until}"
    yield Words(f"{which}, {at}, word for word:")
    yield from _texts(page)


def _texts(page: Stood | Told) -> list[Block]:
    done = f"What is done: {page.action}" if page.action else ""
    texts = (page.title, *text.paragraphs(page.summary), page.impact, done)
    return [Words(one) for one in texts if one]


def _decisions(report: IncidentReport) -> list[Block]:
    rows = tuple(_decision(report, one) for one in report.decisions)
    if not rows:
        return []
    people = {one.who for one in report.decisions} - {"planner", "the server"}
    said: list[Block] = []
    if len(people) == 1:
        alone = f"All that people decided here was decided by one of them: {people.pop()}. No second person agreed to it (no four-eyes)."
        said = [Words(alone)]
    if any(row[-1] == NONE for row in rows):
        said.append(Words(f"{NONE} under because: no reason was given beside what was decided."))
    return [*said, Table(("UTC", "who", "decided", "because"), rows)]


def _decision(report: IncidentReport, one: Entry) -> tuple[str, ...]:
    """Return a decision and its ground apart: what its line says behind the colon is the ground, and is not said twice."""
    decided, ground = one.text, "; ".join(one.because)
    if one.text.startswith("cause, proved: "):
        ground = "see Cause"
    elif one.text.startswith(_NO_GROUND):
        ground = ground or NONE
    elif ground and decided.endswith(f": {ground}"):
        decided = decided.removesuffix(f": {ground}")
    elif not ground and decided.startswith(_OUTCOMES):
        ground = NONE
    elif not ground:
        decided, _, ground = decided.partition(": ")
    later = _overtaken(report, one.at) if one.text.startswith("fallback: ") else ""
    if later:
        ground = f"{ground.rstrip('.')}.{later}"
    return when(one.at), who(one.who), decided, ground or "no reason was given"


#: Decisions whose line says what was decided and needs no other ground.
_NO_GROUND: Final = (
    "corrective action: ",
    "hypothesis: ",
    "published on ",
    "changed what ",
    "added on the ",
    "owner ",
    "severity ",
    "summary ",
    "follow-up ",
)
#: Lines that say behind the colon what it came to, and not why.
_OUTCOMES: Final = ("ended: ", "cancelled before ")


def _timeline(report: IncidentReport) -> list[Block]:
    rows = tuple((when(one.at), who(one.who), one.text) for one in report.timeline)
    return [Table(("UTC", "who", "what"), rows)] if rows else []


def _log(log: DeviceLog) -> Log:
    title = f"{log.device} ({log.variant}), {when(log.at)} UTC: {log.reason}"
    lines = [*([f"detail: {text.line(log.detail)}"] if log.detail else [])]
    lines += [f"check: {text.line(one)}" for one in log.checks]
    lines += ["[...]"] if log.cut else []
    return Log(title, (*lines, *(text.block(log.text) if log.text else ())))


def _actions(report: IncidentReport) -> list[Block]:
    if not report.actions:
        return [Words("Not written down yet.")]
    rows = tuple(
        (day(one.at), one.by, one.text, "done, by his or her word; no evidence of it is attached")
        for one in report.actions
    )
    head = ("said on", "owner", "what is done so that it does not happen again", "state")
    said = "What is only planned is a follow-up, below, with its owner and its date."
    return [Words(said), Table(head, rows)]


def _followups(report: IncidentReport) -> list[Block]:
    if not report.followups:
        return [Words("None.")]
    rows = tuple(
        (
            str(one.number),
            one.text,
            one.owner,
            day(one.due_at) if one.due_at else "no date",
            _standing(one, report.at),
        )
        for one in report.followups
    )
    return [Table(("no.", "what", "owner", "due", "state"), rows, frozenset({0}))]


def _standing(one: FollowUp, at: int) -> str:
    if one.done_at:
        return f"done {day(one.done_at)} by {one.done_by}"
    late = one.overdue_s(at)
    return f"OVERDUE by {exactly(late)}" if late else "open"
