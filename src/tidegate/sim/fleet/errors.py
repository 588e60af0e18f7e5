"""Error counts of devices over clock windows: what a device reports of itself, drawn when it is asked for.

Errors are Poisson with each device's own rate, the week's pattern, and what the release adds. Windows nest: the count over three days holds that of the first
twelve hours, as it does on a device.
"""

from typing import Final

import numpy as np

from tidegate.sim.fleet.population import Fleet, Floats, Ints
from tidegate.sim.fleet.spec import DAY_TICKS, TICK_H, TICKS_H, WEEK_TICKS, Scenario
from tidegate.sim.fleet.truth import OK, SLOW, Truth, pattern

#: Windows after activation, in hours; before = a day earlier for the first, a week earlier for the others.
WINDOWS_H: Final = (12, 72, 168)
_EARLIER: Final = (DAY_TICKS, WEEK_TICKS, WEEK_TICKS)


class Errors:
    """Counts errors. Asking draws, so each window of a device is asked for once."""

    def __init__(
        self, scenario: Scenario, fleet: Fleet, truth: Truth, rng: np.random.Generator
    ) -> None:
        """Tabulate the pattern of every time zone."""
        self._rng, self._truth = rng, truth
        self._rate = scenario.world.errors_h * fleet.frailty * TICK_H
        clocks, self._zone = np.unique(fleet.utc, return_inverse=True)
        start = round(scenario.starts_h * TICKS_H)
        ticks = np.arange(-WEEK_TICKS, scenario.ticks)
        whole = np.stack([pattern(scenario.world, start + clock + ticks) for clock in clocks])
        nothing = np.zeros((clocks.size, 1))
        self._sum = np.hstack([nothing, np.cumsum(whole, axis=1)])
        #: The same times the tick, for what grows with time.
        self._moment = np.hstack([nothing, np.cumsum(whole * ticks, axis=1)])
        self._runs = np.isin(truth.fate, (OK, SLOW))
        self._after = np.zeros(fleet.size, np.int64)
        self._before = np.zeros(fleet.size, np.int64)

    def updated(self, idx: Ints, activated: Ints, window: int) -> tuple[Ints, Ints]:
        """Return the counts after and before activation of devices that run the release, for `WINDOWS_H[window]`."""
        begin = activated + (WINDOWS_H[window - 1] * TICKS_H if window else 0)
        end = activated + WINDOWS_H[window] * TICKS_H
        more = self._rng.poisson(self._mean(idx, begin, end, activated))
        self._after[idx] += more
        earlier = _EARLIER[window]
        if window == 0:
            before = self._rng.poisson(self._mean(idx, begin - earlier, end - earlier))
            return self._after[idx].copy(), before
        if window == 1:  # the week before begins where the window does, not where the day's ended
            begin = activated
        self._before[idx] += self._rng.poisson(self._mean(idx, begin - earlier, end - earlier))
        return self._after[idx].copy(), self._before[idx].copy()

    def control(self, idx: Ints, activated: Ints, window: int) -> tuple[Ints, Ints]:
        """Return the same counts of devices not updated, over the clock windows of an updated one. Shapes: devices and ticks broadcast."""
        end, earlier = activated + WINDOWS_H[window] * TICKS_H, _EARLIER[window]
        after = self._rng.poisson(self._mean(idx, activated, end))
        before = self._rng.poisson(self._mean(idx, activated - earlier, end - earlier))
        return after, before

    def _mean(self, idx: Ints, begin: Ints, end: Ints, activated: Ints | None = None) -> Floats:
        zone = self._zone[idx]
        first, last = begin + WEEK_TICKS, end + WEEK_TICKS
        whole = self._sum[zone, last] - self._sum[zone, first]
        if activated is not None:
            moment = self._moment[zone, last] - self._moment[zone, first]
            grown = moment - activated * whole
            more = self._truth.shift[idx] * whole + self._truth.slope[idx] * grown
            whole = whole + np.where(self._runs[idx], more, 0.0)
        found: Floats = self._rate[idx] * whole
        return found
