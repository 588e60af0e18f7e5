"""The evidence against a rollout in lines: the meter, who may go, what is proved, what is assumed."""

from tidegate.cli._people import when
from tidegate.client import structs
from tidegate.core.amounts import format_duration

_MILLION = 1_000_000


def shown(name: str, gate: structs.GateFacts) -> list[str]:
    """Return the lines of `rollout evidence`."""
    head = f"{name}   {gate.odds:,.0f} : 1 against the release; halts at {gate.halts_at:,} : 1"
    lines = [f"{head}   ({gate.verdict}, {when(gate.at)} UTC)", ""]
    for one in gate.needles:
        stream = one.stream.replace("_", " ")
        lines.append(f"  {one.odds:>9,.1f} : 1  {one.name or 'the release'} ({stream})")
    if gate.blame:
        blame = gate.blame
        lines.append(
            f"Blame     {blame.name or 'the release'} ({blame.stream.replace('_', ' ')}); "
            f"{blame.rest_healthy:,} others are healthy"
        )
    if held := gate.held:
        lines.append(
            f"Held      {held.bad:,} of {held.out:,} devices that were let go failed or have not come back in time; "
            f"a person decides: tidegate rollout explain {name}"
        )
    lines += ["", *_permits(gate), *_proofs(gate), *_rests_on(gate)]
    return lines


def _permits(gate: structs.GateFacts) -> list[str]:
    left = [f"{name} {count:,}" for name, count in sorted(gate.permits.items())]
    lines = [f"Permits   {', '.join(left) or 'none'}"]
    variants = {f"variant={name}" for name in gate.permits}
    lines += [
        f"          {one.name}: {one.room:,} ({one.because})"
        for one in gate.parts
        if one.name not in variants and not one.name.startswith("variant=")
    ]
    if gate.limits:
        lines.append(f"Limit     {gate.limits}")
    return lines


def _proofs(gate: structs.GateFacts) -> list[str]:
    lines = []
    for age in gate.ages:
        worst = max(0.0, age.worst) * 100
        state = "open" if age.open else "closed"
        lines.append(
            f"Past {format_duration(age.age_s):<4} {age.matured:,} devices, {age.dead:,} lost by then; "
            f"at most {worst:.1f} % more would be; {state}"
        )
    lines.append(f"At worst  {gate.at_worst:,} devices would be lost if it turned out bad now")
    return lines


def _rests_on(gate: structs.GateFacts) -> list[str]:
    base = gate.baseline
    rates = ", ".join(
        f"{name} {ppm * 100 / _MILLION:.2f} %" for name, ppm in sorted(base.failure_ppm.items())
    )
    silence = ", ".join(
        f"{name} {ppm * 100 / _MILLION:.2f} %" for name, ppm in sorted(base.silence_ppm.items())
    )
    said = "assumed: this product has no history" if base.assumed else "from earlier rollouts"
    least = gate.least_visible_ppm
    seen = (
        f"fewer than {least * 100 / _MILLION:.1f} % failures would pass unseen in {gate.devices:,} devices"
        if least is not None
        else f"{gate.devices:,} devices are too few to prove anything by odds: a person decides"
    )
    return [
        f"Normal    failures {rates} ({said})",
        f"          silence {silence}; an answer is waited for {format_duration(gate.answer_s)}",
        f"Can see   {seen}",
        f"Book      {gate.facts:,} facts, digest {gate.digest[:16]}",
    ]


def replayed(name: str, found: structs.Replayed) -> list[str]:
    """Return the lines of `rollout evidence --replay`."""
    if found.differs_at or found.digest != found.kept:
        where = f" from page {found.differs_at:,} on" if found.differs_at else ""
        return [
            f"{name}: the log does NOT lead to what is kept{where}.",
            f"  log   {found.digest}",
            f"  kept  {found.kept}",
        ]
    return [
        f"{name}: {found.facts:,} facts on {found.pages:,} pages lead to what is kept.",
        f"  {found.digest}",
    ]
