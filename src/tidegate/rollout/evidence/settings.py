"""What is tolerated, how sure a halt must be, and how fast trust grows.

Shares are parts per million (`_ppm`), ratios per cent (`_pct`), weights per mille; all integers, so that what a fact is worth is the same everywhere. The
defaults are the refined engine of gates.md, but for the ramp after the soak (docs/decisions/0043).
"""

from typing import Annotated, Final

import msgspec
from msgspec import Meta

MILLION: Final = 1_000_000
HOUR_S: Final = 3_600
DAY_S: Final = 86_400

#: Extra failures that are bet on, per million of those that would not have failed: slight to total.
DELTAS_PPM: Final = (10_000, 30_000, 80_000, 200_000, 500_000, 950_000)
#: Hazard ratios that are bet on in the race of updated against not updated devices, per cent.
THETAS_PCT: Final = (250, 500, 1_200, 4_000, 20_000)
#: Hazard ratios that are bet on against the bound of the fleet's own hazard, per cent of that bound.
RATES_PCT: Final = (150, 250, 500, 1_200, 4_000)
#: Shares of the wealth that are bet on each rank of a metric, per cent.
LAMBDAS_PCT: Final = (10, 25, 50, 100, 160)
#: Trouble that begins late meets a gambler who has lost for days on trouble that was not there. So a quarter of what is bet on late events is held back, and
#: laid down afresh in equal stakes: one every four hours, `LATER_STAKES` in all (60 days).
LATER_S: Final = 4 * HOUR_S
LATER_STAKES: Final = 360
HELD_BACK: Final = (1, 4)
#: Not-updated devices that each updated one is ranked against.
CONTROLS: Final = 8

Ppm = Annotated[int, Meta(ge=0, le=MILLION)]
Weight = Annotated[int, Meta(ge=0, le=1_000)]


class SoakGate(msgspec.Struct, frozen=True, kw_only=True):
    """At this age: how bad the rest could still be, and how many may be younger until that is known.

    `prior_ppm`: what is feared before anything is known. `open_ppm`: the gate opens when the upper bound is at most this. `share_ppm`: of the eligible
    devices, how many may be exposed and younger; `devices`: so many at least, as far as a small fleet has them (`Harm.soak_most_ppm`).
    """

    age_s: Annotated[int, Meta(ge=HOUR_S, le=60 * DAY_S)]
    prior_ppm: Annotated[int, Meta(ge=1, le=MILLION)]
    open_ppm: Ppm
    share_ppm: Ppm
    devices: Annotated[int, Meta(ge=0)] = 600


class StreamWeights(msgspec.Struct, frozen=True, kw_only=True):
    """How the wealth is divided between streams at the start; only their proportions count. `metric` = one for each window."""

    failure: Weight = 300
    silence: Weight = 300
    crash: Weight = 150
    dark: Weight = 150
    crash_rate: Weight = 150
    dark_rate: Weight = 150
    metric: tuple[Weight, ...] = (50, 50, 50)


class StratumWeights(msgspec.Struct, frozen=True, kw_only=True):
    """How the wealth is divided between groups of strata; inside a group equally. What a fleet has no strata for goes to the others in proportion."""

    fleet: Weight = 350
    variants: Weight = 250
    singles: Weight = 150
    pairs: Weight = 250


DAY: Final = SoakGate(age_s=DAY_S, prior_ppm=200_000, open_ppm=15_000, share_ppm=5_000)
FOUR_DAYS: Final = SoakGate(age_s=4 * DAY_S, prior_ppm=50_000, open_ppm=20_000, share_ppm=20_000)
#: Its bound is that of four days, at the same rate a day: two in a hundred in four days are three and a half in seven.
WEEK: Final = SoakGate(age_s=7 * DAY_S, prior_ppm=50_000, open_ppm=35_000, share_ppm=250_000)


class Harm(msgspec.Struct, frozen=True, kw_only=True):
    """What a release may do before it is stopped, and what must be seen before more devices get it.

    `odds`: it halts at so many to one, which a release within all limits reaches with probability at most 1/odds, however long and often one looks.
    `extra_failure_ppm`, `extra_silence_ppm`: more failures and silences than the baseline that are tolerated. `shock_pct`: margin on the share of
    not-updated devices that vanished at the same time. `hazard_pct`: tolerated ratio of late crashes and of going dark. `metric_ppm`: tolerated mean rank.
    `least_control`: not-updated devices at risk before a late event is weighed. `first_*`: devices out before anything is proved. `growth_pct`: devices
    out, of those proved healthy; `late_growth_pct`: the same once more are out than the largest soak cohort, `soak_most_ppm`. `doubt_pct`: after the soak,
    devices that have had a permit grow by no more a day while the odds are against the release or their variant. `budget_ppm`: harm that is put at risk, of
    those proved healthy. `silence_ppm`: silence that is benign, in admission. `soak_most_ppm`: the share of a small fleet that a soak cohort may be; four
    fifths of it suffice. `amber_pct`: of the way to a halt where permits end. `healthy_others`: needed before a part is isolated instead of all halted.
    `blame_most_ppm`: a part larger than this is the release. `watch_s`: how long evidence can halt a rollout that is complete. `report_s`: how long an
    answer to a permit is waited for before it is silence. `away_s`: the same of classes of connection whose devices may be gone before they have answered,
    where that is longer. `again_s`: so much longer than an answer takes is every answer waited for; who of the devices not updated is not heard in that
    time could not have answered either. At least two polls.
    """

    odds: Annotated[int, Meta(ge=2, le=10**9)] = 1_000
    extra_failure_ppm: Annotated[int, Meta(ge=1, le=500_000)] = 10_000
    extra_silence_ppm: Annotated[int, Meta(ge=1, le=500_000)] = 2_500
    shock_pct: Annotated[int, Meta(ge=100, le=1_000)] = 115
    hazard_pct: Annotated[int, Meta(ge=100, le=10_000)] = 150
    metric_ppm: Annotated[int, Meta(ge=500_000, le=600_000)] = 510_000
    least_control: Annotated[int, Meta(ge=1)] = 5
    streams: StreamWeights = StreamWeights()
    strata: StratumWeights = StratumWeights()
    metrics: Annotated[tuple[str, ...], Meta(max_length=8)] = ("errors",)
    windows_s: Annotated[tuple[int, ...], Meta(max_length=4)] = (12 * HOUR_S, 3 * DAY_S, 7 * DAY_S)
    soaks: Annotated[tuple[SoakGate, ...], Meta(max_length=3)] = (DAY, FOUR_DAYS)
    first_fleet: Annotated[int, Meta(ge=1)] = 8
    first_variant: Annotated[int, Meta(ge=1)] = 4
    growth_pct: Annotated[int, Meta(ge=1, le=10_000)] = 150
    late_growth_pct: Annotated[int, Meta(ge=1, le=10_000)] = 50
    doubt_pct: Annotated[int, Meta(ge=1, le=100_000)] = 25
    budget_ppm: Ppm = 5_000
    silence_ppm: Ppm = 5_000
    soak_most_ppm: Ppm = 100_000
    amber_pct: Annotated[int, Meta(ge=1, le=100)] = 60
    healthy_others: Annotated[int, Meta(ge=0)] = 20
    blame_most_ppm: Ppm = 800_000
    watch_s: Annotated[int, Meta(ge=0)] = 14 * DAY_S
    tick_s: Annotated[int, Meta(ge=1, le=HOUR_S)] = 900
    report_s: Annotated[int, Meta(ge=60)] = HOUR_S
    away_s: Annotated[tuple[tuple[str, int], ...], Meta(max_length=8)] = ()
    again_s: Annotated[int, Meta(ge=60, le=DAY_S)] = 900
    site_s: Annotated[int, Meta(ge=0)] = DAY_S

    def answer_s(self, connectivity: str) -> int:
        """Return how long an answer of a class of connection is waited for, in seconds."""
        return max(self.report_s, dict(self.away_s).get(connectivity, 0))

    def __post_init__(self) -> None:
        """Check what the bounds of single fields cannot say.

        Raises:
            ValueError: weights that do not fit the windows, or ages of soak gates that do not rise.
        """
        if len(self.streams.metric) != len(self.windows_s):
            raise ValueError("streams.metric: one weight for each of windows_s")
        ages = [gate.age_s for gate in self.soaks]
        if ages != sorted(set(ages)):
            raise ValueError("soaks: ages must rise")


#: The ready settings. They differ in the longest soak and in how long the watch goes on. `careful` stops at lower odds and is slower in doubt, too
#: (docs/decisions/0047).
PRESETS: Final = {
    "careful": Harm(odds=300, soaks=(DAY, FOUR_DAYS, WEEK), doubt_pct=10, watch_s=28 * DAY_S),
    "normal": Harm(),
    "fast": Harm(soaks=(DAY,), watch_s=7 * DAY_S),
    "emergency": Harm(soaks=(), late_growth_pct=150, doubt_pct=100_000, watch_s=7 * DAY_S),
}
