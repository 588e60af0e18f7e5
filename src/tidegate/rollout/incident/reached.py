"""Sections about devices: what became of whom, by variant and ring, who would meet the release again, how long they took, and which they are."""

from collections.abc import Mapping, Sequence
from typing import Final

from tidegate.core.reasons import REASONS
from tidegate.rollout.incident.blocks import Block, Table, Words
from tidegate.rollout.incident.model import (
    LISTED_MAX,
    Counts,
    DeviceOutcome,
    Fleet,
    IncidentReport,
    Population,
    Share,
)
from tidegate.rollout.incident.wording import NONE, counted, exactly, when

Row = tuple[str, ...]


def became(report: IncidentReport) -> list[Block]:
    """Return what became of whom, in tables whose rows add up to the number above them."""
    reach, counts = report.reach, report.reach.counts
    acted = [
        (counts.confirmed, _confirmed(report)),
        (counts.reverted, "went back by themselves"),
        (counts.failed, "failed before they booted it, or for good"),
        (counts.lost, "were not heard again"),
        (counts.open, "have no outcome yet: past the point of no return"),
    ]
    found: list[Block] = [
        _numbered(
            f"{counted(counts.attempts, 'device')} acted on it, {counts.exposed:,} of them with leave to activate (exposed)",
            acted,
        )
    ]
    stopped = reach.stopped
    if stopped.held or stopped.cancelled:
        rows = [
            (stopped.held, "are held: what they staged stays inert"),
            (stopped.cancelled, _cancelled(report)),
        ]
        before = counted(stopped.held + stopped.cancelled, "device")
        found.append(_numbered(f"{before} had been offered it and had not begun to activate", rows))
    if report.fleet is not None:
        found += _fleet(report, report.fleet)
    elif counts.audience:
        rows = [
            (counts.audience - counts.untouched, "acted on it"),
            (counts.untouched, "were not touched"),
        ]
        found.append(
            _numbered(
                f"{counted(counts.audience, 'device')} belonged to rings that were open", rows
            )
        )
    return found


def endings(report: IncidentReport) -> list[Block]:
    """Say who ended badly first and last, and for which reasons they did."""
    reach, found = report.reach, list[Block]()
    for word, device in (("First", reach.first), ("Last", reach.last)):
        if device is not None:
            text = f"{word} to end badly: {device.device} ({device.variant}), {when(device.at)} UTC, {_outcome(device)}."
            found.append(Words(text))
    if reach.reasons:
        reasons = tuple((one.code, one.text, f"{one.count:,}") for one in reach.reasons)
        found.append(Table(("reason", "meaning", "devices"), reasons, frozenset({2})))
    return found


def _numbered(title: str, rows: Sequence[tuple[int, str]]) -> Table:
    return Table(
        ("devices", title), tuple((f"{count:,}", said) for count, said in rows), frozenset({0})
    )


def _cancelled(report: IncidentReport) -> str:
    """Say of those that were cancelled how many hold the image, where all of them are named."""
    said, listed = "were cancelled: they run what they ran", report.reach.cancelled
    if listed and len(listed) == report.reach.stopped.cancelled:
        held = sum(bool(one.staged_at) for one in listed)
        said += f", {held:,} of them held the image by then, which nothing boots"
    return f"{said}; named below"


def _confirmed(report: IncidentReport) -> str:
    back = sum(one.back for one in report.ways_back)
    return "confirmed it then" + (
        f"; {back:,} {'of them ' * (back <= report.reach.counts.confirmed)}were since brought back"
        if back
        else ""
    )


def _fleet(report: IncidentReport, fleet: Fleet) -> list[Block]:
    """Say whom of the product it reached, and whom it would meet if it went out again."""
    stopped, acted = report.reach.stopped, report.reach.counts.attempts
    rows = [
        (fleet.never, "are of hardware that its manifest names as compatible, and it never reached them"),
        (fleet.devices - fleet.matching, "are on hardware that its manifest does not name"),
    ]  # fmt: skip
    if report.incident.subject:
        rows.insert(0, (fleet.matching - fleet.never, "were reached by it, of whatever variant"))
    else:
        begun = acted + stopped.held + stopped.cancelled
        other = max(0, fleet.matching - fleet.never - begun)
        rows[:0] = [(acted, "acted on it"), (begun - acted, "had not begun to activate")]
        if other:
            rows.insert(2, (other, "declined it, or ended before they acted on it"))
    found: list[Block] = [
        _numbered(f"the product has {counted(fleet.devices, 'device')} now", rows)
    ]
    if fleet.idle:
        run = ", ".join(f"{version}: {count:,}" for version, count in fleet.idle.items())
        found.append(Words(f"What those run now that it never reached, by version: {run}."))
    if fleet.since:
        late = "1 device was" if fleet.since == 1 else f"{fleet.since:,} devices were"
        there = fleet.matching - fleet.since
        joined = f", and it reached {fleet.joined or 'none'} of these" if fleet.joined >= 0 else ""
        found.append(
            Words(
                f"Of the {fleet.matching:,} that its manifest names, {late} enrolled after the rollout was made{joined}; {there:,} were there then."
            )
        )
    if not report.recalled_at:
        again = [
            (fleet.refusing, "went back by themselves, and refuse it from now on"),
            (fleet.alike, "are of variants of which at least one device ended badly with it"),
            (fleet.unknown, f"are of variants that never tried it: {', '.join(fleet.untried)}" if fleet.untried else "are of variants that never tried it"),
            (fleet.well, "are of variants that tried it, and of which no device ended badly"),
        ]  # fmt: skip
        title = f"if it went out again, of the {counted(fleet.matching, 'device')} that its manifest names"
        found.append(_numbered(title, again))
    return found


def _outcome(device: DeviceOutcome) -> str:
    return f"{device.state}: {device.reason}" if device.reason else device.state


_COUNTS: Final = ("attempts", "confirmed", "reverted", "failed", "lost", "open")


def variants(report: IncidentReport) -> list[Block]:
    """Return the variants with their counts and, where the fleet was counted, how many of each there are and would meet it again."""
    shares = {one.name: one for one in report.reach.variants}
    people = {one.variant: one for one in report.fleet.variants} if report.fleet else {}
    if report.incident.subject:
        people = {name: one for name, one in people.items() if name in shares}
    if not people:
        plain = tuple(
            (_label(one.name, one, None), *_numbers(one.counts)) for one in shares.values()
        )
        return [Table(("variant", *_COUNTS), plain, frozenset(range(1, 7)))] if shares else []
    named = sorted({*shares, *people})
    rows = [_variant(shares.get(name), people.get(name)) for name in named]
    labels = [_label(name, shares.get(name), people.get(name)) for name in named]
    total = [sum(column) for column in zip(*rows, strict=True)]
    # A recalled release meets nobody any more.
    again = () if report.recalled_at else ("would meet it again",)
    head = ("variant", "devices now", *_COUNTS, *again)
    cells = [
        (label, *(f"{one:,}" for one in row[: len(head) - 1]))
        for label, row in zip((*labels, "all"), (*rows, total), strict=True)
    ]
    return [Table(head, tuple(cells), frozenset(range(1, len(head))))]


def _label(name: str, share: Share | None, people: Population | None) -> str:
    if share is not None and share.isolated:
        return f"{name} (isolated)"
    if share is not None and share.counts.attempts:
        return name
    return f"{name} (tried by none)" if people is None or people.fits else f"{name} (not named)"


def _variant(share: Share | None, people: Population | None) -> list[int]:
    counts = share.counts if share else Counts()
    there, meeting = (people.devices, people.meeting) if people else (0, 0)
    return [there, *(getattr(counts, one) for one in _COUNTS), meeting]


def rings(report: IncidentReport) -> list[Block]:
    """Return the rings with their counts, and which variants acted in each: one that lacks a variant cannot warn of it."""
    shares = report.reach.rings
    rows = tuple(
        (
            one.name,
            *_numbers(one.counts),
            _listed(one.variants),
            *((_listed(one.members),) if one.members is not None else ()),
        )
        for one in shares
    )
    counted_now = any(one.members is not None for one in shares)
    head: Row = ("ring", *_COUNTS, "attempts by variant")
    if counted_now:
        head = (*head, "devices that it holds now, by variant")
    return [Table(head, rows, frozenset(range(1, 7)))] if shares else []


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name}: {count:,}" for name, count in counts.items()) or "none"


def _numbers(counts: Counts) -> Row:
    return tuple(f"{getattr(counts, name):,}" for name in _COUNTS)


def moves(report: IncidentReport) -> list[Block]:
    """Return from which version devices came."""
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


def passages(report: IncidentReport) -> list[Block]:
    """Say how long devices took from their permit to their outcome, and what that time is made of."""
    if not report.passages:
        return []
    rows = tuple(
        (
            one.state,
            f"{one.count:,}",
            exactly(one.shortest_s),
            exactly(one.median_s),
            exactly(one.longest_s),
        )
        for one in report.passages
    )
    head = ("from permit to", "devices", "shortest", "median", "longest")
    said = "From the permit a device sets its boot flag and restarts into the new system; "
    if report.warmup_s:
        said += (
            f"there it has to pass its health contract for {exactly(report.warmup_s)} on end (the warm-up, signed with the release) "
            "before it may confirm. What a time is longer than that went into the restart and into telling the server."
        )
    else:
        said += "there it has to pass its health contract for the warm-up before it may confirm."
    unmeasured = report.reach.counts.confirmed + report.reach.counts.reverted
    unmeasured -= sum(one.count for one in report.passages)
    if unmeasured > 0:
        why = "their permit and their outcome fell into one second of the server's clock"
        if report.contrast.partial:
            why = "this report looks at a part of the devices one by one"
        said += f" Not in it: {counted(unmeasured, 'device')} that confirmed or reverted; {why}."
    if report.ways_back:
        said += " These are the times on the way there; those on a way back stand in the timeline."
    return [Table(head, rows, frozenset({1})), Words(said)]


def devices(report: IncidentReport) -> list[Block]:
    """Return the first of those past the point of no return, of those that ended badly, and of those that were cancelled, by name."""
    found: list[Block] = []
    reach = report.reach
    for title, listed, every in (
        ("past the point of no return", reach.past_return, reach.counts.open),
        ("ended badly", reach.affected, reach.counts.harmed),
    ):
        if listed:
            found.append(Words(_heading(title, len(listed), every)))
            rows = tuple(
                (one.device, one.variant, one.ring, _outcome(one), when(one.at), _away(one))
                for one in listed
            )
            found.append(Table(("device", "variant", "ring", "state", "UTC", "away for"), rows))
            if title == "ended badly":
                found.append(Words(_AWAY))
    if reach.cancelled:
        title = "cancelled before they began to activate"
        found.append(Words(_heading(title, len(reach.cancelled), reach.stopped.cancelled)))
        why = tuple(
            (
                one.device,
                one.variant,
                one.ring,
                when(one.offered_at),
                one.from_version or "not known",
                _held(one),
                _said(one.reason),
                when(one.at),
            )
            for one in reach.cancelled
        )
        head = (
            "device",
            "variant",
            "ring",
            "offered",
            "runs as before",
            "held the image",
            "why",
            "cancelled",
        )
        found.append(Table(head, why))
    return found


def _held(one: DeviceOutcome) -> str:
    if one.staged_at:
        return f"yes, since {when(one.staged_at)}; nothing boots it"
    return "no: the server never heard so"


def _heading(title: str, listed: int, every: int) -> str:
    return f"{every:,} {title}{f', the first {listed:,} of them' if every > listed else ''}:"


def _said(reason: str) -> str:
    words = REASONS.get(reason, "")
    return f"{reason}: {words}" if words else reason


_AWAY: Final = (
    "Away for: from its leave to activate until the server heard how it ended. The device was down for a part of that. "
    "Not measured: both fell into one second of the server's clock."
)


def _away(one: DeviceOutcome) -> str:
    if not one.permitted_at or one.state == "lost":
        return NONE if one.state != "lost" else "not back"
    return exactly(one.at - one.permitted_at) if one.at > one.permitted_at else "not measured"


def returned(report: IncidentReport) -> list[Block]:
    """Return the first of those that were brought back, by name."""
    rows = [
        (one.device, one.variant, way.rollout, when(one.at), one.other or "not known")
        for way in report.ways_back
        for one in way.devices
    ][:LISTED_MAX]
    every = sum(way.back for way in report.ways_back)
    if not rows:
        return []
    head = (
        "device",
        "variant",
        "by",
        "heard to be back at",
        "in its other slot now, as it said last",
    )
    return [Words(_heading("were brought back", len(rows), every)), Table(head, tuple(rows))]
