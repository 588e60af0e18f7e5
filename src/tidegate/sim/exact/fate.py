"""What the truth of a batched scenario means for one real agent: how the release behaves on its board, and what befalls it besides.

An installation that fails, fails here as the batched model has it: after the permit, at the first boot. A real agent installs before it asks for one, so that
a release whose installation fails never gets as far; the batched model is the harder one.
"""

from dataclasses import dataclass

import numpy as np

from tidegate.sim.faults import Behaviour, Truth
from tidegate.sim.fleet import truth as drawn
from tidegate.sim.fleet.play import DEADLINE
from tidegate.sim.fleet.population import NEVER, Fleet
from tidegate.sim.fleet.spec import Scenario
from tidegate.sim.fleet.truth import BRICKED, INSTALL_FAILED, OK, REVERTED, SLOW

#: Behaviours of the release, by the fate of a device.
_BEHAVIOURS = {
    # Both end in the old system within minutes; what differs is what the log says.
    INSTALL_FAILED: Behaviour(boots=False),
    REVERTED: Behaviour(hangs=True),
    BRICKED: Behaviour(bricks=True),
}


@dataclass
class Blow:
    """What the release does to one device that has set its boot flag, in ticks from then; `NEVER` for what does not happen.

    Attributes:
        fate: one of `fleet.truth`'s, as it comes true here.
        crash: a late crash.
        dark: it falls silent for ever.
        mute: so long nobody hears of it; 0 = not.
    """

    fate: int
    crash: int
    dark: int
    mute: int


def blow(scenario: Scenario, fleet: Fleet, truth: drawn.Truth, device: int, tick: int) -> Blow:
    """Say what a device meets that sets its boot flag at a tick: the same that `fleet.play` makes of it."""
    fate, crash = int(truth.fate[device]), int(truth.crash[device])
    if truth.night[device]:
        night = drawn.first_night(fleet, scenario, np.array([device]), tick)
        crash = min(crash, int(night[0]))
    runs = fate in (OK, SLOW)
    if runs and crash < DEADLINE:
        fate, runs = REVERTED, False
    lies = bool(truth.lies[device]) and fate in (INSTALL_FAILED, REVERTED)
    mute = int(truth.delay[device]) + (int(truth.back[device]) if fate == SLOW else 0)
    dark = int(truth.dark[device]) if runs else NEVER
    # Whoever falls silent before its answer is due never gives it, however soon a real agent is done.
    mute = DEADLINE + mute if mute else dark if dark <= DEADLINE else 0
    return Blow(
        fate=OK if lies else fate,
        crash=crash if runs else NEVER,
        dark=dark,
        mute=mute,
    )


class OwnTruth(Truth):
    """`sim.faults.Truth` of one device: all that it runs errs at its own rate, and the release at what the scenario adds.

    Attributes:
        blow: what the release does, once the boot flag was set.
        since: when that was, in seconds of the simulation.
    """

    def __init__(self, release: int, rate_h: float, shift: float, slope_h: float) -> None:
        """Take the release's counter, errors an hour, by which share they rise under the release, and by how much more each hour."""
        super().__init__(errors_per_hour=rate_h)
        self._release = release
        self._shift, self._slope_h = shift, slope_h
        self.blow: Blow | None = None
        self.since = 0.0
        self.at = 0.0

    def of(self, counter: int, variant: str) -> Behaviour:
        """Return how the image `counter` behaves on this device now."""
        del variant
        if counter != self._release or self.blow is None:
            return Behaviour(errors_per_hour=self.errors_per_hour)
        bad = _BEHAVIOURS.get(self.blow.fate)
        if bad is not None:
            return bad
        hours = max(0.0, self.at - self.since) / 3600
        factor = 1 + self._shift + self._slope_h * hours
        return Behaviour(errors_per_hour=self.errors_per_hour * factor)
