"""Sections about grounds: what stood against which bar when the gate stopped it, what the counts show, and what shows the cause otherwise."""

from collections.abc import Sequence
from typing import Final

from tidegate.rollout.incident import brief, text
from tidegate.rollout.incident.blocks import Block, Points, Table, Words
from tidegate.rollout.incident.model import MEANS, IncidentReport, Look, WayBack
from tidegate.rollout.incident.wording import NONE, exactly, when


def stopped(report: IncidentReport) -> list[Block]:
    """Say why it was stopped."""
    over = tuple(one.text for one in report.because if not one.passed)
    other = tuple(one.text for one in report.because if one.passed or not over)
    if over:
        found: list[Block] = [Points(over)]
        if other:
            found += [
                Words("What else was seen then, and would not have stopped it:"),
                Points(other),
            ]
        return [*found, *_out(report)]
    if other:
        return [Points(other)]
    return [Words("Decided by a person; no gate had stopped it.")]


def _out(report: IncidentReport) -> list[Block]:
    """Say who could not be stopped any more: whoever had leave already."""
    reach = report.reach
    if report.incident.kind not in {"halt", "isolation"} or not report.looks:
        return []
    if not reach.out_count:
        return [Words("When it was stopped no device was past the point of no return.")]
    named = ", ".join(f"{one.device} ({one.state})" for one in reach.out[:10])
    more = f" and {reach.out_count - 10:,} more" if reach.out_count > 10 else ""
    were = "1 device was" if reach.out_count == 1 else f"{reach.out_count:,} devices were"
    return [
        Words(
            f"When it was stopped, {were} past the point of no return; what became of them: {named}{more}."
        )
    ]


def looks(report: IncidentReport) -> list[Block]:
    """Say what stood against which bar at each look, so that it can be seen why it was stopped then and not before."""
    if not report.looks:
        return []
    return [
        Words(
            "What the gate had before it each time that it changed what it did. A look that changed nothing is not written down. "
            "A limit is passed by more than it, not by as much; whole rollout and single rings are judged apart."
        ),
        *([Words(_SECOND_BAR)] if any(one.rare for one in report.looks) else []),
        Words(_rhythm(report)),
        _looked(report.looks),
        *_news(report),
    ]


def looks_back(way: WayBack) -> list[Block]:
    """Say what the gate of a way back had before it each time that it changed what it did."""
    if not way.looks:
        return []
    said = f"What the gate of {way.rollout} had before it each time that it changed what it did; looks that changed nothing are not written down:"
    return [Words(said), _looked(way.looks)]


def _looked(found: Sequence[Look]) -> Table:
    rows = tuple(
        (
            when(one.at),
            f"{one.harmed:,} of {one.attempts:,}",
            "; ".join(one.bars) or NONE,
            "; ".join(one.rare) or NONE,
            one.text,
        )
        for one in found
    )
    head = (
        "UTC",
        "had ended badly",
        "what stood against which bar",
        "the second bar",
        "what the gate did",
    )
    return Table(head, rows)


_SECOND_BAR: Final = (
    "The second bar is for the first few attempts, of which a share says little: below the number from which a share counts, "
    "it stops as well when luck would bring so many failures only so seldom at the limit itself."
)


def _rhythm(report: IncidentReport) -> str:
    if report.rhythm is None:
        return "How often the gate looked is not known here."
    often = f"The gate looks every {exactly(report.rhythm.every_s)}"
    if report.rhythm.at_once:
        return f"{often}, and at once when a device reports that it ended badly."
    return f"{often}, and not in between: what is reported meanwhile is judged at the next look."


def _news(report: IncidentReport) -> list[Block]:
    """Say what had come since the look before the stop: until the first of it arrived, there was nothing more to judge."""
    if len(report.looks) < 2:
        return []
    before, last = report.looks[-2:]
    new = [one for one in report.reach.affected if before.at < one.at <= last.at]
    named = ", ".join(f"{one.device} at {when(one.at)}" for one in new[:4])
    more = last.harmed - before.harmed
    if not named or more < 1:
        return []
    rest = f" and {more - 4:,} more" if more > 4 else ""
    return [
        Words(
            f"New at the look that stopped it, since the one before in this table: {named}{rest} ended badly."
        )
    ]


def contrast(report: IncidentReport) -> list[Block]:
    """Say what those that ended badly have in common: counts, and what luck alone would do."""
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
            f"Exact test (Fisher's, one-sided: it asks only whether more of them ended badly than of all others) over {of}. "
            f"How often luck alone would do it is corrected for the {table.looks:,} values and pairs that could have shown something"
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
                "No hardware variant stands in this table: for every single one of them luck would do as much more often than 1 in 10. "
                "Too few devices of a variant tried it to clear or to blame that variant by counting."
            )
        )
    caution = brief.apart(report)
    if caution:
        found.append(Words(caution))
    if report.fleet and report.fleet.untried:
        tried = f"Tried by no device of this rollout: {', '.join(report.fleet.untried)}."
        bench = any(one.means == "bench" for one in report.evidence)
        found.append(Words(f"{tried} What a bench showed stands under Cause." if bench else tried))
    return found


def _unresolved(report: IncidentReport) -> bool:
    """Say whether no row names a variant, though several were tried."""
    said = {name for one in report.contrast.rows for name, _ in (*one.terms, *one.same)}
    tried = sum(bool(one.counts.attempts) for one in report.reach.variants)
    return tried > 1 and "variant" not in said


def cause(report: IncidentReport) -> list[Block]:
    """Say what is held to be the cause, what the counts show of it, and apart from that what was shown otherwise: only this proves it."""
    found: list[Block] = []
    titles = {
        "proved": "Proved:",
        "said": "Said to be proved, and nothing is written down here that shows it but the counts:",
        "supposed": "Supposed, not proved:",
    }
    known = report.cause or report.hypothesis
    if known is not None:
        lines = [*text.paragraphs(known.text), f"{known.by}, {when(known.at)} UTC"]
        found = [Words(f"{titles[brief.cause(report)]} {lines[0]}"), *map(Words, lines[1:])]
    else:
        found = [Words("Not known, and nobody has said yet what it may be.")]
    if not report.incident.rollout and not report.evidence:
        return found
    found.append(Words(f"What the counts show: {_counts(report)}"))
    if not report.evidence:
        return [*found, Words("What was shown otherwise: nothing is written down.")]
    rows = tuple(
        (when(one.at), one.by, MEANS[one.means], one.text, one.kept or "not said")
        for one in report.evidence
    )
    head = ("UTC", "written down by", "by", "what was seen", "kept where")
    return [*found, Words("What was shown otherwise, and not by counting:"), Table(head, rows)]


def _counts(report: IncidentReport) -> str:
    """Say in a sentence what the counts of this rollout show; they never prove a cause."""
    table = report.contrast
    if not table.bad:
        return "no device with a known outcome ended badly."
    best = table.rows[0] if table.rows else None
    if best is None:
        return "nothing sets those that ended badly apart. They prove nothing."
    said = (
        f"{best.bad:,} of {best.count:,} with {best.label} ended badly, {best.other_bad:,} of {best.other_count:,} of all others; "
        f"luck alone would do that 1 in {best.odds:,.0f} times."
    )
    limit = (
        "These counts cannot tell the hardware from the ring."
        if brief.apart(report)
        else "That is where to look, and not why it happened."
    )
    return f"{said} {limit}"
