"""Figures over many runs: medians with their standard errors, shares, and differences between two policies on the same draws."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec
import numpy as np

from tidegate.sim.fleet.outcome import Outcome

#: One-sided 95 %.
_Z: Final = 1.645
_RESAMPLES: Final = 400
Key = TypeVar("Key")
SIZES: Final[tuple[tuple[str, float, float], ...]] = (
    ("N < 1000", 0, 1_000),
    ("1000 to 10 000", 1_000, 10_000),
    ("N > 10 000", 10_000, math.inf),
)


class Mode(msgspec.Struct, frozen=True, kw_only=True):
    """One scenario file under one policy, over seeds. Exposed and harmed: medians (p95); `stopped` is a share."""

    scenario: str
    policy: str
    runs: int
    exposed: float
    exposed_se: float
    exposed_p95: float
    exposed_end: float
    harmed: float
    harmed_end: float
    stopped: float
    stopped_h: float | None
    halts: int
    isolations: int
    without_cause: int
    t95_h: float | None
    t99_h: float | None


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A share of runs, with its standard error."""

    hits: int
    of: int
    share: float
    se: float


class Drawn(msgspec.Struct, frozen=True, kw_only=True):
    """A policy over random draws. `groups`: share of the bad caught, by class and by size of fleet."""

    policy: str
    caught: Share
    groups: dict[str, Share]
    exposed: float
    exposed_p95: float
    harmed: float
    harmed_p95: float
    without_cause: Share
    without_cause_groups: dict[str, int]
    with_cause: int
    t95_plain_h: float | None
    t95_plain_se_h: float


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """Two policies on the same bad draws: `first` caught more than `second` by `difference`, at least by `lower` (95 %, one-sided).

    `harm_ratio`: mean harm of the first over that of the second, where both stop in time; its standard error by resampling the draws.
    """

    first: str
    second: str
    runs: int
    difference: float
    se: float
    lower: float
    both: int
    harm_first: float
    harm_second: float
    harm_ratio: float | None
    harm_ratio_se: float


def modes(outcomes: Iterable[Outcome]) -> list[Mode]:
    """Summarize scenario files."""
    found = _by(outcomes, lambda one: (one.scenario, one.policy))
    return [_mode(scenario, policy, runs) for (scenario, policy), runs in found.items()]


def drawn(outcomes: Iterable[Outcome]) -> list[Drawn]:
    """Summarize random draws by policy."""
    return [_drawn(policy, runs) for policy, runs in _by(outcomes, lambda one: one.policy).items()]


def paired(outcomes: Sequence[Outcome], first: str, second: str) -> Paired | None:
    """Compare two policies where both played the same bad draw with the same seed; None without any."""
    bad = [one for one in outcomes if one.bad]
    mine = {(one.scenario, one.seed): one for one in bad if one.policy == first}
    theirs = {(one.scenario, one.seed): one for one in bad if one.policy == second}
    both = [(mine[key], theirs[key]) for key in sorted(mine.keys() & theirs.keys())]
    if len(both) < 2:
        return None
    differences = np.array([float(one.caught) - float(other.caught) for one, other in both])
    se = float(differences.std(ddof=1) / math.sqrt(len(both)))
    timely = [(one, other) for one, other in both if one.caught and other.caught]
    harms = [_mean([float(one[side].harmed_end) for one in timely]) for side in (0, 1)]
    return Paired(
        first=first,
        second=second,
        runs=len(both),
        difference=float(differences.mean()),
        se=se,
        lower=float(differences.mean()) - _Z * se,
        both=len(timely),
        harm_first=harms[0],
        harm_second=harms[1],
        harm_ratio=harms[0] / harms[1] if harms[1] else None,
        harm_ratio_se=_se_of_ratio([(one.harmed_end, other.harmed_end) for one, other in timely]),
    )


def _by(outcomes: Iterable[Outcome], key: Callable[[Outcome], Key]) -> Mapping[Key, list[Outcome]]:
    found: dict[Key, list[Outcome]] = {}
    for one in outcomes:
        found.setdefault(key(one), []).append(one)
    return found


def _mode(scenario: str, policy: str, runs: Sequence[Outcome]) -> Mode:
    exposed = [float(one.exposed) for one in runs]
    stopped = [one.stopped_h for one in runs if one.stopped_h is not None]
    return Mode(
        scenario=scenario,
        policy=policy,
        runs=len(runs),
        exposed=_quantile(exposed, 0.5),
        exposed_se=_se_of_median(exposed),
        exposed_p95=_quantile(exposed, 0.95),
        exposed_end=_quantile([float(one.exposed_end) for one in runs], 0.5),
        harmed=_quantile([float(one.harmed) for one in runs], 0.5),
        harmed_end=_quantile([float(one.harmed_end) for one in runs], 0.5),
        stopped=len(stopped) / len(runs),
        stopped_h=_quantile(stopped, 0.5) if stopped else None,
        halts=sum(one.state == "halted" for one in runs),
        isolations=sum(one.isolations for one in runs),
        without_cause=sum(one.stopped_h is not None and not one.true_cause for one in runs),
        t95_h=_middle([one.t95_h for one in runs]),
        t99_h=_middle([one.t99_h for one in runs]),
    )


def _drawn(policy: str, runs: Sequence[Outcome]) -> Drawn:
    bad, good = [one for one in runs if one.bad], [one for one in runs if not one.bad]
    groups = {group: [one for one in bad if one.group == group] for group in _groups(bad)}
    for name, low, high in SIZES:
        groups[name] = [one for one in bad if low <= one.devices < high]
    wrong = [one for one in good if one.stopped_h is not None and not one.true_cause]
    exposed = [float(one.exposed_end) for one in bad]
    harmed = [float(one.harmed_end) for one in bad]
    plain = [one.t95_h for one in good if one.group == "plain"]
    return Drawn(
        policy=policy,
        caught=_share(one.caught for one in bad),
        groups={name: _share(one.caught for one in some) for name, some in groups.items()},
        exposed=_quantile(exposed, 0.5),
        exposed_p95=_quantile(exposed, 0.95),
        harmed=_quantile(harmed, 0.5),
        harmed_p95=_quantile(harmed, 0.95),
        without_cause=_share(one in wrong for one in good),
        without_cause_groups={
            group: sum(one.group == group for one in wrong) for group in _groups(good)
        },
        with_cause=sum(one.stopped_h is not None and one.true_cause for one in good),
        t95_plain_h=_middle(plain),
        t95_plain_se_h=_se_of_median([one for one in plain if one is not None]),
    )


def _groups(runs: Iterable[Outcome]) -> list[str]:
    return list(dict.fromkeys(one.group for one in runs))


def _share(hits: Iterable[bool]) -> Share:
    found = list(hits)
    count, of = sum(found), len(found)
    share = count / of if of else 0.0
    return Share(hits=count, of=of, share=share, se=math.sqrt(share * (1 - share) / max(1, of)))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _quantile(values: Sequence[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else 0.0


def _middle(values: Iterable[float | None]) -> float | None:
    """Return the median of those that came to an end; None unless at least half did."""
    whole = list(values)
    known = [one for one in whole if one is not None]
    return _quantile(known, 0.5) if known and 2 * len(known) >= len(whole) else None


def _se_of_median(values: Sequence[float]) -> float:
    """Return the standard error of a median, by resampling with a fixed seed."""
    if len(values) < 2:
        return 0.0
    rng = np.random.default_rng(1)
    sample = rng.choice(np.asarray(values), (_RESAMPLES, len(values)))
    return float(np.median(sample, axis=1).std(ddof=1))


def _se_of_ratio(pairs: Sequence[tuple[float, float]]) -> float:
    """Return the standard error of a ratio of two means over the same draws, by resampling with a fixed seed."""
    if len(pairs) < 2:
        return 0.0
    rng = np.random.default_rng(1)
    sums = np.asarray(pairs, float)[rng.integers(0, len(pairs), (_RESAMPLES, len(pairs)))].sum(1)
    known = sums[sums[:, 1] > 0]
    return float((known[:, 0] / known[:, 1]).std(ddof=1)) if len(known) > 1 else 0.0
