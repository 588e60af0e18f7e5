"""How many may go: devices that are not proved, times how bad it could still be, within the harm that is put at risk; at every age.

The upper bound `U` is for one look. It steers speed only; the halt carries the guarantee.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence.settings import HOUR_S, MILLION, Harm

#: 95 %, one-sided.
_NATS: Final = 3.0
#: 92 %, one-sided: enough to doubt, not to condemn.
_DOUBT_NATS: Final = 1.0
_HALVINGS: Final = 28
_ALMOST_ONE: Final = 1.0 - 1e-12
#: The cohort of a small fleet is of age when four fifths of it are.
_ENOUGH, _WHOLE = 4, 5
#: Cohorts of a small fleet that open its gate whatever became of them: evidence decides then.
_TWICE: Final = 2


@lru_cache(maxsize=16_384)
def upper(count: int, bad: int, halvings: int = _HALVINGS) -> float:
    """Return how large a proportion could still be when `bad` of `count` were: the larger solution of count · KL(bad/count ‖ U) = 3; 1 without any."""
    if count <= 0:
        return 1.0
    if bad <= 0:
        return 1.0 - math.exp(-_NATS / count)
    seen = min(bad, count) / count
    if seen >= 1.0:
        return 1.0
    low, high = seen, _ALMOST_ONE
    if count * _divergence(seen, high) <= _NATS:
        return 1.0
    for _ in range(halvings):
        middle = (low + high) / 2
        # Written out: most of a decision went into calls of `_divergence`.
        far = seen * math.log(seen / middle) + (1 - seen) * math.log((1 - seen) / (1 - middle))
        if count * far <= _NATS:
            low = middle
        else:
            high = middle
    return high


@lru_cache(maxsize=16_384)
def lower(count: int, bad: int) -> float:
    """Return how small a proportion must at least be when `bad` of `count` were: the smaller solution of count · KL(bad/count ‖ L) = 1; 0 without any."""
    if count <= 0 or bad <= 0:
        return 0.0
    seen = min(bad, count) / count
    if seen >= 1.0:
        return math.exp(-_DOUBT_NATS / count)
    low, high = 0.0, seen
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if count * _divergence(seen, middle) <= _DOUBT_NATS:
            high = middle
        else:
            low = middle
    return low


def _divergence(seen: float, other: float) -> float:
    return seen * math.log(seen / other) + (1 - seen) * math.log((1 - seen) / (1 - other))


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What admission looks at. A device has one outcome."""

    exposed: int = 0
    bad: int = 0
    healthy: int = 0
    void: int = 0
    failed: int = 0

    @property
    def resolved(self) -> int:
        """Devices with an outcome that counts."""
        return self.bad + self.healthy

    @property
    def pending(self) -> int:
        """Permits whose outcome is not known."""
        return max(0, self.exposed - self.resolved - self.void)


def counts(row: Sequence[int]) -> Counts:
    """Return the counters of a row."""
    return Counts(
        exposed=row[at.EXPOSED],
        bad=row[at.FAILED] + row[at.SILENT],
        healthy=row[at.HEALTHY],
        void=row[at.VOID],
        failed=row[at.FAILED],
    )


def at_worst(harm: Harm, seen: Counts, base_ppm: float) -> float:
    """Return how many more than the baseline could still fail, as a share."""
    return upper(seen.resolved, seen.bad) - base_ppm / MILLION - harm.silence_ppm / MILLION


def doubtful(harm: Harm, seen: Counts, base_ppm: float) -> bool:
    """Say whether more devices fail than is tolerated, as far as all of them show, also those that are no evidence because their site has spoken already."""
    tolerated_ppm = base_ppm + harm.silence_ppm + harm.extra_failure_ppm
    return lower(seen.resolved, seen.bad) > tolerated_ppm / MILLION


def fast(harm: Harm, seen: Counts, base_ppm: float, first: int, *, late: bool = False) -> float:
    """Return how many more permits the outcomes known so far allow; negative when too many are out. `late`: a good part of the fleet is updated."""
    worst = max(at_worst(harm, seen, base_ppm), 1e-4)
    growth_pct = min(harm.growth_pct, harm.late_growth_pct) if late else harm.growth_pct
    cap = max(float(first), growth_pct * seen.healthy / 100)
    if worst <= harm.extra_failure_ppm / MILLION:
        return cap - seen.pending
    budget = max(float(first), harm.budget_ppm * seen.healthy / MILLION)
    return min(cap, budget / worst) - seen.pending


class Age(msgspec.Struct, frozen=True, kw_only=True):
    """Proof of health at one age. `worst`: upper bound of the share that could be lost by then, beyond what the control loses. `room` None = open."""

    age_s: int
    matured: int
    dead: int
    younger: int
    worst: float
    open: bool
    room: float | None


def soak(harm: Harm, row: Sequence[int], eligible: int, hazard_ppb: int) -> tuple[Age, ...]:
    """Return what each soak gate says.

    Args:
        harm: the settings.
        row: of the strata in play.
        eligible: devices of the strata in play.
        hazard_ppb: of the control, per device-hour, in 10⁻⁹.
    """
    return tuple(_age(harm, gate, row, eligible, hazard_ppb) for gate in range(len(harm.soaks)))


def _age(harm: Harm, gate: int, row: Sequence[int], eligible: int, hazard_ppb: int) -> Age:
    spec = harm.soaks[gate]
    alive, dead = row[at.ALIVE + gate], row[at.DEAD + gate]
    matured = alive + dead
    # Failures never age; who fell silent does, and is dead at the gate's age unless it was heard again.
    younger = row[at.EXPOSED] - row[at.FAILED] - row[at.VOID] - matured
    benign = spec.age_s / HOUR_S * hazard_ppb / 1e9
    worst = max(upper(matured, dead) - benign, 1e-6)
    few = harm.soak_most_ppm * eligible / MILLION
    # Some of a small cohort are rarely there, and come of age much later. If more of it are dead than the gate allows, another cohort must come of age
    # first; no more than that, as an outage darkens devices that are well. One dead device is no share, unless it is most of the cohort.
    known, needed = matured * _WHOLE, few * _ENOUGH
    allowed = benign + spec.open_ppm / MILLION
    well = dead <= max(1.0, matured * allowed) and lower(matured, dead) <= allowed
    enough = matured > 0 and known >= needed and (well or known >= _TWICE * needed)
    opened = worst <= spec.open_ppm / MILLION or enough
    room = None
    if not opened:
        # Of a handful one may always begin.
        cohort = max(1.0, spec.share_ppm * eligible / MILLION, min(float(spec.devices), few))
        prior = spec.prior_ppm / MILLION
        room = cohort * prior / min(prior, worst) - younger
    return Age(
        age_s=spec.age_s,
        matured=matured,
        dead=dead,
        younger=max(0, younger),
        worst=worst,
        open=opened,
        room=room,
    )


def amber(harm: Harm, lead: float) -> float:
    """Return the share of permits that is left as the odds rise: all at even odds, none well before a halt.

    Args:
        harm: the settings.
        lead: the largest ln E among the fleet and the strata concerned, each at its weight relative to the fleet's.
    """
    if lead <= 0:
        return 1.0
    return min(1.0, max(0.0, 1.0 - lead / (harm.amber_pct / 100 * math.log(harm.odds))))
