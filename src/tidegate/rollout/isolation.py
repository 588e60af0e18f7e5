"""Who is to blame: one hardware variant, or the release.

Every gate that finds harm is asked in this order, at every decision:

1. **each variant** by itself, over all rings. One that is over the limit is a *suspect*.
2. **the others**, without the suspects. If they are over the limit too, it is the release: halt.
3. If too many variants are suspects or out already, that is no longer a matter of a variant: halt.
4. While permits of the others are still out, nothing new is permitted to anybody until these are known (`pending`): failures report before successes, so the
   others look well for a while even when they are not. The deadlines of the policy bound that time.
5. If the others are *calm* then (enough of them confirmed, nothing elevated), the suspects are isolated and the rest goes on. Otherwise: halt.
6. **the whole**, and **each ring** by itself, of whoever is not isolated: a failing pilot must not hide behind a large healthy ring. Over the limit: halt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from tidegate.rollout import keeping
from tidegate.rollout import tally as sums
from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.gates import Gate
from tidegate.rollout.model import Evidence, Finding
from tidegate.rollout.view import View

#: Of so many variants one may be isolated before it is held to be the release.
_VARIANTS_PER_ISOLATION: Final = 4


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the gates that stop say together. `isolate` only with `isolate`; `findings` has what decided first, then the rest."""

    verdict: Literal["well", "pending", "isolate", "halt"]
    isolate: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()


def judge(
    gates: Sequence[tuple[str, Gate]],
    evidence: Evidence,
    isolated: Iterable[str],
    now: int,
) -> Judgement:
    """Judge harm over all gates that stop; the worst verdict wins (halt, isolate, pending, well).

    Args:
        gates: (scope, gate): a ring's name, or empty for the whole rollout.
        evidence: all of it.
        isolated: variants, and devices found by a query, that are out already; their outcomes count no more.
        now: unix seconds.
    """
    out = frozenset(isolated)
    left = keeping.variants(out)
    everyone = keeping.variants(sums.variants_of(evidence))
    most = max(1, len(everyone | left) // _VARIANTS_PER_ISOLATION) - len(left)
    judged = [_one(gate, ring, evidence, out, most, now) for ring, gate in gates]
    findings = tuple(finding for one in judged for finding in one.findings)
    ordered = tuple(sorted(findings, key=lambda finding: finding.passed))
    for verdict in ("halt", "isolate", "pending"):
        if any(one.verdict == verdict for one in judged):
            guilty = {variant for one in judged for variant in one.isolate}
            return _bounded(verdict, guilty, most, ordered)
    return Judgement("well", findings=ordered)


def joined(
    plain: Judgement, weighed: Decision, said: tuple[Finding, ...], isolated: Iterable[str]
) -> Judgement:
    """Return what plain gates and weighed evidence say together; the worse verdict wins.

    A hardware variant leaves by its name, any other part of the fleet by the query that finds it; what no query can say halts all.
    """
    findings = (*said, *plain.findings)
    if weighed.verdict == "go" or plain.verdict == "halt":
        ordered = tuple(sorted(findings, key=lambda finding: finding.passed))
        return Judgement(plain.verdict, plain.isolate, ordered)
    blame = weighed.blame
    entry = keeping.entry_of_part(blame.attributes, blame.values) if blame is not None else ""
    if weighed.verdict == "halt" or not entry:
        return Judgement("halt", findings=findings)
    if entry in set(isolated):
        # It has left already; what it had out is still told of.
        return Judgement(plain.verdict, plain.isolate, findings)
    return Judgement("isolate", tuple(sorted({entry, *plain.isolate})), findings)


def _bounded(
    verdict: Literal["halt", "isolate", "pending"],
    guilty: set[str],
    most: int,
    findings: tuple[Finding, ...],
) -> Judgement:
    """Two gates may each blame another variant: together they may be too many."""
    if verdict != "isolate":
        return Judgement(verdict, findings=findings)
    if len(guilty) > most:
        return Judgement("halt", findings=(_too_many(guilty), *findings))
    return Judgement("isolate", tuple(sorted(guilty)), findings)


def _one(
    gate: Gate, ring: str, evidence: Evidence, out: frozenset[str], most: int, now: int
) -> Judgement:
    """Judge one gate in its scope, by the steps of the module's text."""
    rings = {ring} if ring else None
    scope = sums.only(evidence, rings=rings)
    variants = [variant for variant in sums.variants_of(scope) if variant not in out]
    suspects = {
        variant: found
        for variant in variants
        if not (found := gate.judge(_of_variant(scope, variant, ring), now)).passed
    }
    others = [variant for variant in variants if variant not in suspects]
    rest = View(evidence=sums.only(scope, variants=others), label=_label(ring, suspects), ring=ring)
    whole = _whole(gate, rest, now, by_ring=not ring)
    if not suspects or any(not finding.passed for finding in whole):
        halted = any(not finding.passed for finding in whole)
        return Judgement("halt" if halted else "well", findings=(*suspects.values(), *whole))
    return _blame(gate, rest, suspects, whole, most)


def _blame(
    gate: Gate, rest: View, suspects: dict[str, Finding], whole: tuple[Finding, ...], most: int
) -> Judgement:
    """Decide about suspects while nobody else is over the limit."""
    said = tuple(suspects.values())
    if len(suspects) > most:
        return Judgement("halt", findings=(*said, _too_many(suspects), *whole))
    if rest.tally.pending:
        return Judgement("pending", findings=(*said, _waiting(rest, suspects), *whole))
    if gate.calm(rest):
        return Judgement("isolate", tuple(sorted(suspects)), (*said, *whole))
    return Judgement("halt", findings=(*said, _unproved(rest, suspects), *whole))


def _whole(gate: Gate, rest: View, now: int, *, by_ring: bool) -> tuple[Finding, ...]:
    """Judge all of the scope, and each ring in it that is over the limit by itself."""
    findings = [gate.judge(rest, now)]
    rings = sorted({ring for ring, _ in rest.evidence.tallies}) if by_ring else []
    for ring in rings if len(rings) > 1 else ():
        part = sums.only(rest.evidence, rings={ring})
        view = View(evidence=part, label=f"ring {ring}", ring=ring)
        found = gate.judge(view, now)
        # A ring has its own outcomes but no errors per hour of its own: those were judged above.
        if not found.passed and findings[0].passed:
            findings.insert(0, found)
    return tuple(findings)


def _of_variant(scope: Evidence, variant: str, ring: str) -> View:
    label = f"{variant} in ring {ring}" if ring else variant
    part = sums.only(scope, variants={variant})
    return View(evidence=part, label=label, ring=ring, variant=variant)


def _label(ring: str, suspects: dict[str, Finding]) -> str:
    words = [f"ring {ring}"] if ring else []
    if suspects:
        words.append("all others")
    return ", ".join(words)


def _too_many(suspects: Iterable[str]) -> Finding:
    names = ", ".join(sorted(suspects))
    text = f"too many variants to blame one ({names}): it is the release"
    return Finding(gate="isolation", passed=False, text=text)


def _waiting(rest: View, suspects: Iterable[str]) -> Finding:
    text = (
        f"{', '.join(sorted(suspects))} is over the limit; no permit is given until the outcome of "
        f"{rest.tally.pending:,} other devices shows whether it is the variant or the release"
    )
    return Finding(gate="isolation", passed=False, text=text, observed=rest.tally.pending)


def _unproved(rest: View, suspects: Iterable[str]) -> Finding:
    text = (
        f"{', '.join(sorted(suspects))} is over the limit, and the others ({rest.tally.confirmed:,} confirmed) are not "
        "proved well enough to say that the variant alone is to blame"
    )
    return Finding(gate="isolation", passed=False, text=text, observed=rest.tally.confirmed)
