"""`evidence`: the odds against the release, weighed over everything that is known, halt it; permits follow what is proved.

Every permit is a small loss for a gambler who bets that the release is worse than allowed, every failure and every device that falls silent a win; late
crashes, devices gone dark and worse metrics are bet on against devices not updated. At `odds` to 1 the rollout halts, or the one variant that carries the
evidence is isolated. A release within its limits gets there with probability 1/`odds` at most, however often one looks: `docs/concepts/evidence.md` has the
argument.

While nobody weighs evidence for a rollout this guard finds nothing, and the plain ones that it `replaces` are judged; once there are odds, they are not: a
ratio looked at again and again stops good releases. Guards that it does not name are always judged.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from tidegate.core.amounts import format_duration
from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.rollout.evidence.decide import Decision, odds
from tidegate.rollout.evidence.settings import PRESETS, Harm
from tidegate.rollout.limits import Setting, Value
from tidegate.rollout.model import Finding
from tidegate.rollout.view import View

NAME: Final = "evidence"
#: Of the finding that says that a person has to decide, since evidence cannot.
HELD: Final = "held"
#: A share in basis points, as ppm.
_PPM: Final = 100
#: Metrics that a rollout may compare (`Harm.metrics`).
METRICS_MAX: Final = 8
_METRIC: Final = re.compile(r"-?[a-z][a-z0-9_]{0,31}")
SETTINGS: Final[Mapping[str, Setting]] = {
    "preset": Setting("text", "normal", "soak, watch and odds: careful, normal, fast or emergency"),
    "odds": Setting(
        "count", 0, "evidence to 1 at which it stops; 0 = the preset's: 300 for careful, else 1000"
    ),
    "failures": Setting("share", "1%", "more failures than the baseline that are tolerated"),
    "silence": Setting("share", "0.25%", "more silent devices that are tolerated"),
    "hazard": Setting("ratio", 1.5, "times the late crashes of devices not updated"),
    "metrics": Setting(
        "text", "errors", "what is compared, as errors,-battery: - where less is worse"
    ),
    "metric": Setting(
        "share", "1%", "how far the mean rank of updated devices may be off the middle"
    ),
    "answer": Setting("duration", "1h", "until a healthy device has confirmed; later is silence"),
    "replaces": Setting("text", "none", "plain guards that give way, as failure_rate,metric"),
}


@dataclass(frozen=True, slots=True)
class Weighed:
    """What is tolerated, and the names of the guards that give way once evidence is weighed."""

    harm: Harm
    replaces: frozenset[str]
    stops: bool = field(default=True, init=False)

    def judge(self, view: View, now: int) -> Finding:
        """Say what the odds are."""
        known = view.evidence.weighed
        idle = "evidence: nothing is weighed yet; other guards stand in"
        text = idle if known is None else meter(known, self.harm)
        return Finding(
            gate=NAME,
            passed=known is None or known.verdict == "go",
            text=view.prefix + text,
            ring=view.ring,
            variant=view.variant,
            observed=None if known is None else round(known.odds, 1),
            limit=self.harm.odds,
            sample=None if known is None else known.facts,
        )

    def calm(self, view: View) -> bool:
        """Say whether betting against the release has lost money."""
        known = view.evidence.weighed
        return known is not None and known.log_e < 0

    def findings(self, known: Decision) -> tuple[Finding, ...]:
        """Return what is to be told of a decision, what decided first."""
        text = meter(known, self.harm)
        found = [
            Finding(
                gate=NAME,
                passed=known.verdict == "go",
                text=text,
                observed=round(known.odds, 1),
                limit=self.harm.odds,
                sample=known.facts,
            )
        ]
        if known.verdict == "go":
            found += [Finding(gate=NAME, passed=True, text=one) for one in proofs(known)]
        else:
            found += self._others(known)
        return tuple(found)

    def _others(self, known: Decision) -> list[Finding]:
        """Return what else the meter showed when it stopped something: a report is read when the book is long closed."""
        guilty = known.blame.stratum if known.blame is not None else None
        found = [
            Finding(
                gate=NAME,
                passed=one.odds < self.harm.odds,
                text=f"{one.odds:,.1f} : 1 that {one.name or 'the release'} is worse than allowed ({one.stream.replace('_', ' ')})",
                observed=round(one.odds, 1),
                limit=self.harm.odds,
            )
            for one in known.needles
            if one.stratum != guilty
        ]
        return [*found, Finding(gate=NAME, passed=True, text=by_stream(known))]


def meter(known: Decision, harm: Harm) -> str:
    """Return the odds in one sentence."""
    needle = known.needles[0] if known.needles else None
    who = needle.name if needle and needle.name else "the release"
    stream = needle.stream if needle else "failure"
    odds = f"{known.odds:,.0f} : 1"
    if known.blame is not None:
        who = known.blame.name or "the release"
        stream = known.blame.stream
    said = f"{odds} that {who} is worse than allowed ({stream.replace('_', ' ')}); halts at {harm.odds:,} : 1"
    if known.verdict == "isolate" and known.blame is not None:
        said += f"; {known.blame.rest_healthy:,} others are healthy"
    return said


def held(known: Decision) -> Finding | None:
    """Return what a person has to decide because evidence cannot; None = nothing."""
    one = known.held
    if one is None:
        return None
    ground = {
        "handful": "the fleet is too small to spend another device on a proof",
        "spent": "everybody has had a permit, and that is too few to prove it",
    }[one.ground]
    text = (
        f"held: {one.bad:,} of {one.out:,} devices that were let go failed or have not come back in time; "
        f"{ground}: nothing goes on by itself, decide yourself"
    )
    return Finding(
        gate=HELD, passed=False, text=text, observed=one.bad, limit=one.ground, sample=one.out
    )


def by_stream(known: Decision) -> str:
    """Return the odds of the whole fleet stream by stream, before their weights, in one sentence."""
    said = [
        f"{name.replace('_', ' ')} {odds(log):,.1f} : 1"
        if log > 0
        else f"{name.replace('_', ' ')} below 1 : 1"
        for name, log in known.streams.items()
    ]
    return f"the whole fleet, stream by stream: {', '.join(said)}"


def proofs(known: Decision) -> tuple[str, ...]:
    """Return what is proved by now, what limits the speed and what could still be lost."""
    said = [f"limit: {known.limits}; room for {sum(known.permits.values()):,} more"]
    for age in known.ages:
        old = format_duration(age.age_s)
        if age.matured:
            worst = f"at most {max(0.0, age.worst) * 100:.1f} % more would be lost by then"
            said.append(f"{age.matured:,} devices are past {old}: {worst}")
        elif age.younger:
            said.append(f"nobody is past {old} yet; {age.younger:,} are on their way there")
    if known.at_worst:
        said.append(
            f"if it turned out bad now, about {known.at_worst:,} devices at most would be lost"
        )
    return tuple(said)


def create(**settings: Value) -> Weighed:
    """Make the gate of read settings.

    Raises:
        RequestError: `request.invalid`: no such preset, or limits that make no sense.
    """
    name = str(settings["preset"])
    if name not in PRESETS:
        near = did_you_mean(name, PRESETS)
        raise RequestError("request.invalid", f'evidence, preset: no preset "{name}"{near}')
    failures, silence = int(settings["failures"]), int(settings["silence"])
    odds_to_one = int(settings["odds"]) or PRESETS[name].odds
    if odds_to_one < 2 or not (1 <= failures <= 5_000 and 1 <= silence <= 5_000):
        detail = "evidence: odds must be 2 or more, failures and silence over 0% and at most 50%"
        raise RequestError("request.invalid", detail)
    harm = msgspec.structs.replace(
        PRESETS[name],
        odds=odds_to_one,
        extra_failure_ppm=failures * _PPM,
        extra_silence_ppm=silence * _PPM,
        metric_ppm=500_000 + int(settings["metric"]) * _PPM,
        metrics=_metrics(str(settings["metrics"])),
        report_s=max(60, int(settings["answer"])),
        hazard_pct=min(10_000, round(float(settings["hazard"]) * 100)),
    )
    if not 1 <= int(settings["metric"]) <= 1_000:
        raise RequestError("request.invalid", "evidence, metric: over 0% and at most 10%")
    words = str(settings["replaces"]).replace(",", " ").split()
    return Weighed(harm=harm, replaces=frozenset(words) - {"none"})


def _metrics(text: str) -> tuple[str, ...]:
    """Return the metrics that are compared, as `Harm.metrics` has them.

    Raises:
        RequestError: `request.invalid`: no such names, one twice, or too many.
    """
    names = tuple(text.replace(",", " ").split())
    names = () if names == ("none",) else names
    if len({one.lstrip("-") for one in names}) < len(names):
        raise RequestError("request.invalid", "evidence, metrics: one is named twice")
    if len(names) > METRICS_MAX:
        raise RequestError("request.invalid", f"evidence, metrics: at most {METRICS_MAX}")
    for one in names:
        if not _METRIC.fullmatch(one):
            detail = f'evidence, metrics: "{one[:40]}" is no name of a metric: small letters, digits and _, with - before it where less is worse'
            raise RequestError("request.invalid", detail)
    return names
