"""From counters to what pages print: shares, findings, reasons. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from tidegate.core.reasons import family
from tidegate.rollout.model import Finding, Tally
from tidegate.server.web import words
from tidegate.server.web.views import BecauseRow, Odds, ReasonRow, RingRow, Shares, VariantRow

Row = dict[str, Any]
Audience = Mapping[tuple[str, str], int]
PLANNER: Final = "planner"

EVIDENCE: Final = "evidence"
#: Gates that stop when the observed is above the limit; the others wait until it is reached.
STOPPING: Final = frozenset({"failure_rate", "metric", EVIDENCE})
#: How an update ends, by the family of its reason.
_ENDS: Final = {
    "boot": "reverted",
    "health": "reverted",
    "lost": "lost",
    "user": "declined",
    "operator": "cancelled",
    "sig": "refused",
    "compat": "refused",
    "security": "noticed",
}
#: Families that say something against the release.
_HARM: Final = frozenset({"boot", "health", "lost", "install", "activate", "agent"})


def by(actor: str, generation: int) -> str:
    """Say who decided."""
    who = "by gate" if actor == PLANNER else words.plain(actor, 60)
    return f"{who}, plan {generation}" if generation else who


def findings(because: Any) -> tuple[Finding, ...]:
    """Read the findings of a JSON column."""
    return msgspec.convert(because, type=tuple[Finding, ...])


def because_rows(found: Iterable[Finding]) -> tuple[BecauseRow, ...]:
    """Return findings as a page prints them: what does not pass first."""
    rows = [_because(one) for one in found]
    return tuple(sorted(rows, key=lambda row: row.passed))


def _because(finding: Finding) -> BecauseRow:
    return BecauseRow(
        gate=finding.gate,
        passed=finding.passed,
        text=finding.text,
        ring=finding.ring,
        variant=finding.variant,
        observed=_number(finding.observed),
        limit=_number(finding.limit),
        sample=finding.sample,
        opens_at=finding.opens_at,
        fails_above=finding.gate in STOPPING,
        odds=odds_in(finding),
    )


def odds_in(finding: Finding) -> Odds | None:
    """Return the odds that a finding of the evidence gate tells; None where it tells none."""
    observed, limit = _number(finding.observed), _number(finding.limit)
    if finding.gate != EVIDENCE or observed is None or limit is None or limit < 2:
        return None
    return Odds(observed, int(limit))


def _number(value: float | str | None) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def because_line(row: Row) -> str:
    """Return the one sentence that says why a rollout stands where it stands."""
    if row["state"] == "halted" and row["halt_reason"]:
        return str(row["halt_reason"])
    found = findings(row["because"])
    open_one = next((one for one in found if not one.passed), None)
    first = open_one or (found[0] if found else None)
    if first is None:
        return ""
    return f"{first.ring}: {first.text}" if first.ring else first.text


def reason_rows(reasons: Mapping[str, int]) -> tuple[ReasonRow, ...]:
    """Return failures by reason, most first."""
    ordered = sorted(reasons.items(), key=lambda one: (-one[1], one[0]))
    return tuple(
        ReasonRow(
            code=code,
            words=words.reason(code),
            end=_ENDS.get(family(code), "failed"),
            devices=count,
            harm=family(code) in _HARM,
        )
        for code, count in ordered
        if count > 0
    )


def failed(tally: Tally) -> int:
    """Return updates that failed, before or after their permit."""
    return tally.failed_before + tally.failed_after


def staged(tally: Tally) -> int:
    """Return updates under way before their permit."""
    return tally.downloading + tally.staged


def shares(tally: Tally, isolated: int) -> Shares:
    """Return the bar of a rollout, in the fixed order."""
    row = ring_row("", "", "", tally, isolated)
    return row.shares


def ring_row(
    name: str,
    state: str,
    state_sub: str,
    tally: Tally,
    isolated: int,
    *,
    open_bp: int = 0,
    step_text: str = "",
) -> RingRow:
    """Return a ring's row; what is in no other column waits."""
    told = tally.confirmed + tally.pending + staged(tally) + failed(tally)
    told += tally.reverted + tally.lost + isolated
    return RingRow(
        name=name,
        state=state,
        state_sub=state_sub,
        audience=max(tally.audience, told),
        confirmed=tally.confirmed,
        under_way=tally.pending,
        staged=staged(tally),
        failed=failed(tally),
        reverted=tally.reverted,
        lost=tally.lost,
        isolated=isolated,
        waiting=max(0, tally.audience - told),
        open_bp=open_bp,
        step_text=step_text,
    )


def isolated_count(tallies: Mapping[tuple[str, str], Tally], isolated: Iterable[str]) -> int:
    """Return devices of isolated variants that the release did not touch."""
    out = frozenset(isolated)
    return sum(
        max(0, tally.audience - tally.attempts - tally.failed_before + tally.install)
        for (_, variant), tally in tallies.items()
        if variant in out
    )


def variant_rows(
    by_variant: Mapping[str, Tally], isolated: Iterable[str]
) -> tuple[VariantRow, ...]:
    """Return the variants that acted on a release, by name."""
    out = frozenset(isolated)
    return tuple(
        VariantRow(
            name=name,
            state="isolated" if name in out else "active",
            attempts=tally.attempts,
            confirmed=tally.confirmed,
            harmed=tally.harmed,
            top_reason=_top(tally.reasons),
        )
        for name, tally in sorted(by_variant.items())
        if tally.attempts or name in out
    )


def _top(reasons: Mapping[str, int]) -> str:
    harm = {code: count for code, count in reasons.items() if count and family(code) in _HARM}
    return max(harm, key=lambda code: (harm[code], code)) if harm else ""


def title(row: Row) -> str:
    """Return what a rollout brings, in words."""
    return f"{row['product']} {row['release_version']}"
