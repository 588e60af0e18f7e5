"""The incident report: what happened to whom, why it was stopped, and what is still missing from the story.

It is data first (`report`), so that web, command line and export print the same; `to_markdown` is one of these. Nothing is guessed: what nobody has said yet
is listed as missing.
"""

import datetime as dt
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

import msgspec

from tidegate.core.reasons import REASONS
from tidegate.rollout import tally as sums
from tidegate.rollout.contrast import contrasts
from tidegate.rollout.model import Evidence, Finding, IncidentReport, Rollout, Tally

#: States after the permit and before an outcome: the device may already run it, whatever is decided now.
PAST_RETURN: Final = ("permitted", "rebooting", "verifying")
#: Attributes that are looked at for what the failed have in common, beside a device's own.
_COMMON: Final = ("variant", "ring", "site", "region", "connectivity", "from")
_MOST_CONTRASTS: Final = 5
#: Below these odds a contrast is noise and is not shown.
_TELLING: Final = 10.0


class DeviceOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One device that acted on the release, as far as it got. `attributes` are compared to find what the failed have in common."""

    device: str
    variant: str
    ring: str
    state: str
    reason: str = ""
    at: int = 0
    runs: str = ""
    attributes: dict[str, str | int | float | bool] = {}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the timeline, or a note: who did what, when (unix seconds). `kind` is `event`, `note` or `action`."""

    at: int
    who: str
    text: str
    kind: Literal["event", "note", "action"] = "event"


def report(  # noqa: PLR0913 - the parts of a report
    *,
    name: str,
    kind: Literal["halt", "isolation", "fallback"],
    rollout: Rollout,
    release: str,
    opened_at: int,
    opened_by: str,
    because: tuple[Finding, ...],
    evidence: Evidence,
    devices: Sequence[DeviceOutcome] = (),
    entries: Sequence[Entry] = (),
    summary: str = "",
    subject: str = "",
) -> IncidentReport:
    """Put an incident's report together.

    Args:
        name: `INC-2026-014`.
        kind: what was done.
        rollout: as it stands now.
        release: the release's name.
        opened_at: unix seconds.
        opened_by: `planner`, or a person.
        because: the findings that led to it.
        evidence: of the rollout, now.
        devices: every exposed device that can be listed (a large fleet passes those not confirmed).
        entries: timeline, notes and corrective actions, in any order; untrusted text.
        summary: what a person wrote; empty = one is made of the figures.
        subject: the variant of an isolation.
    """
    scope = {subject} if kind == "isolation" and subject else None
    tally = sums.total(evidence, variants=scope)
    ordered = sorted(entries, key=lambda entry: entry.at)
    facts = _facts(rollout, evidence, tally, devices, subject)
    actions = [_plain(one) for one in ordered if one.kind == "action"]
    return IncidentReport(
        name=name,
        rollout=rollout.name,
        release=release,
        kind=kind,
        opened_at=opened_at,
        opened_by=opened_by,
        summary=summary or _summary(kind, release, tally, subject),
        facts=facts,
        timeline=tuple(_plain(one) for one in ordered if one.kind != "action"),
        because=because,
        actions=tuple(actions),
        missing=_missing(summary, tally, because, actions),
    )


def to_markdown(report: IncidentReport) -> str:
    """Write a report as Markdown. Text of strangers is escaped: it cannot make links, headings, tables or HTML."""
    facts = report.facts
    lines = [
        f"# {_safe(report.name)}: {report.kind} of {_safe(report.rollout)}",
        "",
        _safe(report.summary),
        "",
        f"- release: {_safe(report.release)}",
        f"- opened: {_when(report.opened_at)} by {_safe(report.opened_by)}",
        f"- state of the rollout: {facts['state']}",
        "",
        "## Reach and harm",
        "",
        *_counts(facts["counts"]),
        *_bullets("Past the point of no return when it was stopped", facts["past_return"]),
        *_bullets("Lost", facts["lost"]),
        "## Why",
        "",
        *[f"- {_safe(one.text)}" for one in report.because],
        *([] if report.because else ["- stopped by a person"]),
        "",
        *_reasons(facts["reasons"]),
        *_table("Variants", "variant", facts["variants"]),
        *_table("Rings", "ring", facts["rings"]),
        *_contrast_lines(facts["contrasts"]),
        "## Timeline (UTC)",
        "",
        *[
            f"- {_when(one['at'])} {_safe(one['who'])}: {_safe(one['text'])}"
            for one in report.timeline
        ],
        "",
        "## Corrective action",
        "",
        *[
            f"- {_when(one['at'])} {_safe(one['who'])}: {_safe(one['text'])}"
            for one in report.actions
        ],
        *([] if report.actions else ["Not written down yet."]),
        "",
    ]
    if report.missing:
        lines += [
            "## Missing from this report",
            "",
            *[f"- {_safe(one)}" for one in report.missing],
            "",
        ]
    return "\n".join(lines)


def _facts(
    rollout: Rollout,
    evidence: Evidence,
    tally: Tally,
    devices: Sequence[DeviceOutcome],
    subject: str,
) -> dict[str, Any]:
    within = [one for one in devices if not subject or one.variant == subject]
    bad = sorted((one for one in within if _is_bad(one)), key=lambda one: (one.at, one.device))
    rings = [ring.name for ring in rollout.policy.rings]
    return {
        "state": rollout.state,
        "subject": subject,
        "isolated": list(rollout.isolated),
        "counts": _count(tally),
        "reasons": [
            {"code": code, "text": REASONS.get(code, ""), "count": count}
            for code, count in sorted(tally.reasons.items(), key=lambda item: (-item[1], item[0]))
        ],
        "variants": [
            {"variant": one, "isolated": one in rollout.isolated}
            | _count(sums.total(evidence, variants={one}))
            for one in sums.variants_of(evidence)
        ],
        "rings": [{"ring": one} | _count(sums.total(evidence, rings={one})) for one in rings],
        "contrasts": _contrasts(devices),
        "past_return": [_device(one) for one in within if one.state in PAST_RETURN],
        "lost": [_device(one) for one in bad if one.state == "lost"],
        "first": _device(bad[0]) if bad else None,
        "last": _device(bad[-1]) if bad else None,
    }


def _count(tally: Tally) -> dict[str, int]:
    """Return the counts of a report; they add up: attempts = confirmed + harmed + open."""
    return {
        "audience": tally.audience,
        "attempts": tally.attempts,
        "exposed": tally.exposed,
        "confirmed": tally.confirmed,
        "harmed": tally.harmed,
        "reverted": tally.reverted,
        "failed": tally.failed_after + tally.install,
        "lost": tally.lost,
        "open": tally.pending,
        "untouched": max(0, tally.audience - tally.attempts),
    }


def _contrasts(devices: Sequence[DeviceOutcome]) -> list[dict[str, Any]]:
    """Compare only devices whose outcome is known; an open one is neither good nor bad."""
    rows: list[tuple[Mapping[str, object], bool]] = [
        ({"variant": one.variant, "ring": one.ring, **one.attributes}, _is_bad(one))
        for one in devices
        if one.state == "confirmed" or _is_bad(one)
    ]
    own = sorted({name for attrs, _ in rows for name in attrs} - set(_COMMON))
    found = contrasts(rows, (*_COMMON, *own))
    return [msgspec.to_builtins(one) for one in found[:_MOST_CONTRASTS] if one.odds >= _TELLING]


def _is_bad(one: DeviceOutcome) -> bool:
    return one.state in {"reverted", "lost", "failed"}


def _device(one: DeviceOutcome) -> dict[str, Any]:
    return {
        "device": one.device,
        "variant": one.variant,
        "ring": one.ring,
        "state": one.state,
        "reason": one.reason,
        "at": one.at,
        "runs": one.runs,
    }


def _plain(entry: Entry) -> dict[str, Any]:
    return {"at": entry.at, "who": entry.who, "text": entry.text, "kind": entry.kind}


def _summary(kind: str, release: str, tally: Tally, subject: str) -> str:
    who = f" on {subject}" if subject else ""
    done = {"halt": "Halted", "isolation": "Isolated", "fallback": "Brought back"}[kind]
    if not tally.attempts:
        return f"{done}: {release}{who}; no device had acted on it."
    parts = [
        f"{tally.harmed:,} of {tally.attempts:,} devices that acted on {release}{who} ended badly",
        f"{tally.reverted:,} went back by themselves",
        f"{tally.lost:,} lost",
        f"{tally.confirmed:,} confirmed it",
    ]
    if tally.pending:
        parts.append(f"the outcome of {tally.pending:,} is open")
    return f"{done}: " + ", ".join(parts) + "."


def _missing(
    summary: str, tally: Tally, because: tuple[Finding, ...], actions: list[dict[str, Any]]
) -> tuple[str, ...]:
    missing = []
    if not because and not summary:
        missing.append("why it was stopped")
    if tally.pending:
        missing.append(f"the outcome of {tally.pending:,} devices past the point of no return")
    if tally.lost:
        missing.append(f"what became of {tally.lost:,} lost devices")
    if not actions:
        missing.append("corrective action")
    return tuple(missing)


def _counts(counts: Mapping[str, int]) -> list[str]:
    said = {
        "exposed": "exposed (given leave to activate)",
        "confirmed": "confirmed it, and run it",
        "reverted": "went back by themselves",
        "failed": "failed",
        "lost": "were never heard again",
        "open": "have no outcome yet",
        "untouched": "were not touched",
    }
    return [*(f"- {counts[name]:,} {text}" for name, text in said.items()), ""]


def _bullets(title: str, devices: Sequence[Mapping[str, Any]]) -> list[str]:
    if not devices:
        return []
    rows = [
        f"- {_safe(one['device'])} ({_safe(one['variant'])}): {_safe(one['state'])}"
        for one in devices
    ]
    return [f"### {title}", "", *rows, ""]


def _reasons(reasons: Sequence[Mapping[str, Any]]) -> list[str]:
    if not reasons:
        return []
    rows = [
        f"| {_safe(one['code'])} | {_safe(one['text'])} | {one['count']:,} |" for one in reasons
    ]
    return ["| reason | meaning | devices |", "|---|---|---|", *rows, ""]


def _table(title: str, key: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    if not rows:
        return []
    made = []
    for row in rows:
        name = _safe(row[key]) + (" (isolated)" if row.get("isolated") else "")
        made.append(
            f"| {name} | {row['attempts']:,} | {row['confirmed']:,} | {row['reverted']:,} "
            f"| {row['failed']:,} | {row['lost']:,} | {row['open']:,} |"
        )
    head = f"| {key} | attempts | confirmed | reverted | failed | lost | open |"
    return [f"## {title}", "", head, "|---|---|---|---|---|---|---|", *made, ""]


def _contrast_lines(found: Sequence[Mapping[str, Any]]) -> list[str]:
    if not found:
        return []
    rows = [
        f"- {_safe(one['attribute'])} = {_safe(one['value'])}: {one['bad']:,} of {one['count']:,}; "
        f"all others: {one['other_bad']:,} of {one['other_count']:,} ({one['odds']:,.0f} : 1, already discounted)"
        for one in found
    ]
    return ["## What the failed have in common", "", *rows, ""]


def _when(at: int) -> str:
    return dt.datetime.fromtimestamp(at, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _safe(text: object) -> str:
    return re.sub(r"([\\`*_\[\]<>|#~])", r"\\\1", " ".join(str(text).split()))
