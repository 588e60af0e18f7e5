"""A report as a document: sections of paragraphs, lists, tables and logs. Markdown and HTML are written from this, so they say the same in the same order."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tidegate.rollout.incident import brief, text
from tidegate.rollout.incident.model import (
    LISTED_MAX,
    Counts,
    DeviceLog,
    DeviceOutcome,
    Entry,
    IncidentReport,
    Share,
)
from tidegate.rollout.incident.wording import NONE, day, exactly, when, who


@dataclass(frozen=True, slots=True)
class Words:
    """A paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Points:
    """A list."""

    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table; columns named in `numbers` are numbers."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Log:
    """Lines as a device wrote them, with a heading."""

    title: str
    lines: tuple[str, ...]


Block = Words | Points | Table | Log


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
    yield "Published", _moment(one.published_at, one.published_by)
    yield "Product", report.product
    yield "Rollout", f"{one.rollout} {brief.state(report)}" if one.rollout else ""
    yield "Release", f"{one.release} ({report.version})" if report.version else one.release
    yield "Report of", f"{when(report.at)} UTC" if report.at else ""


def _sections(report: IncidentReport) -> Iterator[tuple[str, list[Block]]]:
    reach = report.reach
    yield "In short", [Points(tuple(brief.in_short(report)))]
    yield "What happened", [Words(one) for one in _happened(report) if one]
    yield "Missing from this report", [Points(report.missing)] if report.missing else []
    yield "How long it took", _spans(report)
    yield "What became of whom", _reach(report) if report.incident.rollout else []
    yield "Variants", _shares("variant", reach.variants)
    yield "Rings", _shares("ring", reach.rings)
    yield "Versions", _moves(report)
    yield "Why it was stopped", _why(report)
    yield "What those that ended badly have in common", _contrast(report)
    yield "Cause", _cause(report)
    yield "The way back", _ways_back(report)
    barriers = tuple(brief.barriers(report)) if report.incident.release else ()
    yield "What keeps it from going out again", [Points(barriers)] if barriers else []
    yield "Decisions", _decisions(report)
    yield "Timeline (UTC)", _timeline(report)
    yield "Devices", _devices(report)
    yield "Logs", [_log(one) for one in report.logs]
    yield "Corrective action", _actions(report)
    yield "Follow-ups", _followups(report)
    yield "What the status page says", _told(report)
    yield "Words", [Table(("word", "means"), brief.GLOSSARY)]


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
        ("mitigated", one.mitigated_at),
        ("closed", one.closed_at),
    ]
    known = sorted(((at, what) for what, at in marks if at), key=lambda mark: mark[0])
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
        found += [Words(_between(report)), Table(head, rows, frozenset(range(3, 6)))]
        found += _returned(report)
    elif report.incident.rollout:
        found.append(Words("Nobody was ordered back."))
    return found


def _between(report: IncidentReport) -> str:
    """Say how long after the stop the way back was ordered, and what people had decided until then."""
    one = report.incident
    first = min((way.ordered_at for way in report.ways_back), default=0)
    if one.kind != "halt" or first < one.opened_at:
        return f"The first was ordered at {when(first)} UTC."
    between = [
        entry.text
        for entry in report.decisions
        if one.opened_at < entry.at < first and entry.who != "planner"
    ]
    tried = "; ".join(between[:5]) or "nothing else was decided by anybody"
    return f"Ordered {exactly(first - one.opened_at)} after the stop. Between the two: {tried}."


def _returned(report: IncidentReport) -> list[Block]:
    rows = [
        (one.device, one.variant, way.rollout, when(one.at))
        for way in report.ways_back
        for one in way.devices
    ][:LISTED_MAX]
    every = sum(way.back for way in report.ways_back)
    if not rows:
        return []
    more = f", the first {len(rows):,} of them" if every > len(rows) else ""
    head = ("device", "variant", "by", "heard to be back at")
    return [Words(f"{every:,} were brought back{more}:"), Table(head, tuple(rows))]


def _told(report: IncidentReport) -> list[Block]:
    told = report.told
    if told is None:
        return [Words("Nothing: it was not published.")]
    done = f"What is done: {told.action}" if told.action else ""
    texts = (told.title, *text.paragraphs(told.summary), told.impact, done)
    found: list[Block] = [Words(one) for one in texts if one]
    found.insert(0, Words(f"On the page since {when(told.at)} UTC, word for word:"))
    updates = tuple((when(one.at), one.text) for one in told.updates)
    found.append(
        Words("Counts there are rounded on purpose, so that no device can be told from them.")
    )
    return [*found, *([Table(("UTC", "added"), updates)] if updates else [])]


def _reach(report: IncidentReport) -> list[Block]:
    reach, counts = report.reach, report.reach.counts
    rows = [
        (f"{counts.audience:,}", "belonged to rings that were open") if counts.audience else None,
        (f"{counts.exposed:,}", "exposed: given leave to activate"),
        (f"{counts.confirmed:,}", _confirmed(report)),
        (f"{counts.reverted:,}", "went back by themselves"),
        (f"{counts.failed:,}", "failed before they booted it, or for good"),
        (f"{counts.lost:,}", "were not heard again"),
        (f"{counts.open:,}", "have no outcome yet: past the point of no return"),
        (f"{reach.stopped.held:,}", "had not begun to activate, and are held: what they staged stays inert"),
        (f"{reach.stopped.cancelled:,}", "had not begun to activate, and were cancelled"),
        (f"{counts.untouched:,}", "were not touched") if counts.audience else None,
        *_others(report),
    ]  # fmt: skip
    found: list[Block] = [
        Table(("devices", "what became of them"), tuple(one for one in rows if one), frozenset({0}))
    ]
    for word, device in (("First", reach.first), ("Last", reach.last)):
        if device is not None:
            found.append(
                Words(
                    f"{word} to end badly: {device.device} ({device.variant}), {when(device.at)} UTC, {_outcome(device)}."
                )
            )
    if reach.reasons:
        reasons = tuple((one.code, one.text, f"{one.count:,}") for one in reach.reasons)
        found.append(Table(("reason", "meaning", "devices"), reasons, frozenset({2})))
    return found


def _confirmed(report: IncidentReport) -> str:
    back = sum(one.back for one in report.ways_back)
    return "confirmed it then" + (f"; {back:,} were since brought back" if back else "")


def _others(report: IncidentReport) -> list[tuple[str, str]]:
    """Return rows about devices of the product that did not act on it, and about what it would meet if it went out again."""
    fleet = report.fleet
    if fleet is None:
        return []
    there = fleet.matching - fleet.since
    rows = [
        (fleet.never, "are of hardware that its manifest names as compatible, and it never reached them"),
        (fleet.since, f"of those that its manifest names were enrolled after the rollout was made; {there:,} were there then") if fleet.since else None,
        (fleet.devices - fleet.matching, "are of the same product, on hardware that its manifest does not name"),
        (fleet.alike, "are of variants that ended badly, and do not refuse it: they would take it if it went out again") if not report.recalled_at else None,
    ]  # fmt: skip
    return [(f"{row[0]:,}", row[1]) for row in rows if row]


def _outcome(device: DeviceOutcome) -> str:
    return f"{device.state}: {device.reason}" if device.reason else device.state


def _shares(name: str, shares: Sequence[Share]) -> list[Block]:
    if not shares:
        return []
    head = (name, "attempts", "confirmed", "reverted", "failed", "lost", "open")
    rows = tuple(
        (one.name + (" (isolated)" if one.isolated else ""), *_numbers(one.counts))
        for one in shares
    )
    return [Table(head, rows, frozenset(range(1, 7)))]


def _numbers(counts: Counts) -> tuple[str, ...]:
    found = (
        counts.attempts,
        counts.confirmed,
        counts.reverted,
        counts.failed,
        counts.lost,
        counts.open,
    )
    return tuple(f"{one:,}" for one in found)


def _moves(report: IncidentReport) -> list[Block]:
    to = report.version or report.incident.release
    rows = tuple(
        (
            one.from_version or f"counter {one.from_counter}",
            to,
            f"{one.attempts:,}",
            f"{one.harmed:,}",
        )
        for one in report.reach.moves
    )
    return (
        [Table(("from", "to", "attempts", "ended badly"), rows, frozenset({2, 3}))] if rows else []
    )


def _why(report: IncidentReport) -> list[Block]:
    stopped = tuple(one.text for one in report.because if not one.passed)
    other = tuple(one.text for one in report.because if one.passed or not stopped)
    if stopped:
        found: list[Block] = [Points(stopped)]
        if other:
            found += [
                Words("What else was seen then, and would not have stopped it:"),
                Points(other),
            ]
        return [*found, *_looks(report)]
    if other:
        return [Points(other)]
    return [Words("Decided by a person; no gate had stopped it.")]


def _looks(report: IncidentReport) -> list[Block]:
    """Say what the gate had before it at each look, so that it can be seen why it stopped it then and not before."""
    if not report.looks:
        return []
    rows = tuple(
        (when(one.at), f"{one.harmed:,} of {one.attempts:,}", one.text) for one in report.looks
    )
    said = (
        "Why not before: what the gate had before it each time that it changed what it did. "
        "A look that changed nothing is not written down."
    )
    return [Words(said), Table(("UTC", "had ended badly", "what it did"), rows)]


def _contrast(report: IncidentReport) -> list[Block]:
    table = report.contrast
    if not table.bad:
        return []
    of = f"{table.devices:,} devices with a known outcome, {table.bad:,} of them ended badly"
    if table.partial:
        of = f"a part of the devices: {of}"
    rows = tuple(
        (
            one.label
            + "".join(f"; the same devices: {name} = {value}" for name, value in one.same),
            f"{one.bad:,} of {one.count:,}",
            f"{one.other_bad:,} of {one.other_count:,}",
            f"1 in {one.odds:,.0f}",
        )
        for one in table.rows
    )
    found: list[Block] = [
        Words(
            f"Exact test over {of}. How often luck alone would do it is corrected for the {table.looks:,} values and pairs that could have shown something"
            + (f", of: {', '.join(table.attributes)}." if table.attributes else ".")
        )
    ]
    if rows:
        head = ("devices that have", "ended badly", "all others", "by luck")
        found.append(Table(head, rows, frozenset({1, 2, 3})))
    else:
        found.append(
            Words("Nothing sets them apart: everything would be luck more often than 1 in 10.")
        )
    if _unresolved(report):
        found.append(
            Words(
                "No hardware variant is among them: each alone would be luck more often than 1 in 10. "
                "Too few of each were tried to clear or to blame any of them."
            )
        )
    caution = brief.apart(report)
    if caution:
        found.append(Words(caution))
    if report.fleet and report.fleet.untried:
        found.append(Words(f"Never tried: {', '.join(report.fleet.untried)}."))
    return found


def _unresolved(report: IncidentReport) -> bool:
    """Say whether no row names a variant, though several were tried."""
    said = {name for one in report.contrast.rows for name, _ in (*one.terms, *one.same)}
    tried = sum(bool(one.counts.attempts) for one in report.reach.variants)
    return tried > 1 and "variant" not in said


def _cause(report: IncidentReport) -> list[Block]:
    found: list[Block] = []
    for known, title in ((report.cause, "Proved:"), (report.hypothesis, "Supposed, not proved:")):
        if known is not None and not found:
            said = [*text.paragraphs(known.text), f"{known.by}, {when(known.at)} UTC"]
            found = [Words(f"{title} {said[0]}"), *(Words(one) for one in said[1:])]
    if report.cause is not None:
        rows = tuple((when(one.at), one.by, one.text) for one in report.evidence)
        alone = (
            "The figures alone do not prove it: they cannot tell the hardware from the ring. "
            if brief.apart(report)
            else ""
        )
        rests = (
            "The proof rests on:" if rows else "Nobody has written down what the proof rests on."
        )
        found.append(Words(alone + rests))
        found += [Table(("UTC", "written down by", "what was looked at"), rows)] if rows else []
    return found or [Words("Not known, and nobody has said yet what it may be.")]


def _decisions(report: IncidentReport) -> list[Block]:
    rows = tuple((when(one.at), who(one.who), one.text, _grounds(one)) for one in report.decisions)
    if not rows:
        return []
    people = {one.who for one in report.decisions} - {"planner"}
    said: list[Block] = []
    if len(people) == 1:
        alone = f"All that people decided here was decided by one of them: {people.pop()}. No second person agreed to it (no four-eyes)."
        said = [Words(alone)]
    return [*said, Table(("UTC", "who", "decided", "because"), rows)]


def _grounds(one: Entry) -> str:
    """Say on what ground it was decided; where nothing else is known, it is what its own line says."""
    if one.text.startswith("cause, proved: "):
        return "see Cause"
    own = "" if one.text.startswith(_NO_GROUND) else one.text.partition(": ")[2]
    return "; ".join(one.because) or own or "not said"


#: Decisions whose line says what was decided, and not why.
_NO_GROUND: Final = ("corrective action: ", "published on ", "owner ", "severity ", "summary ")


def _timeline(report: IncidentReport) -> list[Block]:
    rows = tuple((when(one.at), who(one.who), one.text) for one in report.timeline)
    return [Table(("UTC", "who", "what"), rows)] if rows else []


def _devices(report: IncidentReport) -> list[Block]:
    found: list[Block] = []
    reach = report.reach
    for title, devices, every in (
        ("past the point of no return", reach.past_return, reach.counts.open),
        ("ended badly", reach.affected, reach.counts.harmed),
    ):
        if devices:
            more = f", the first {len(devices):,} of them" if every > len(devices) else ""
            found.append(Words(f"{every:,} {title}{more}:"))
            rows = tuple(
                (one.device, one.variant, one.ring, _outcome(one), when(one.at), _away(one))
                for one in devices
            )
            found.append(Table(("device", "variant", "ring", "state", "UTC", "away for"), rows))
            if title == "ended badly":
                found.append(Words(_AWAY))
    return found


_AWAY: Final = (
    "Away for: from its leave to activate until the server heard how it ended. The device was down for a part of that. "
    "Not measured: both fell into one second of the server's clock."
)


def _away(one: DeviceOutcome) -> str:
    if not one.permitted_at or one.state == "lost":
        return NONE if one.state != "lost" else "not back"
    return exactly(one.at - one.permitted_at) if one.at > one.permitted_at else "not measured"


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
        (day(one.at), one.by, one.text, "done, by his or her word") for one in report.actions
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
            day(one.due_at),
            f"done {day(one.done_at)}" if one.done_at else "open",
        )
        for one in report.followups
    )
    return [Table(("no.", "what", "owner", "due", "state"), rows, frozenset({0}))]
