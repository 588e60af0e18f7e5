"""Mender's phased deployments: fixed shares at fixed times, and no rule that stops.

What stops it is a person who looks at the reports every 12 hours and stops at more than 5 % reported failures of at least 50 reports: an assumption in
its favour (gates.md, section 16).
"""

from collections.abc import Mapping
from typing import Final

import numpy as np

from tidegate.sim.fleet.policy import REPORTS, News, Orders, View
from tidegate.sim.fleet.spec import TICKS_H

LOOK_H: Final = 12
LEAST_REPORTS: Final = 50
MOST_FAILED: Final = 0.05


class Mender:
    """Phases: cumulative share in percent → hour at which it starts. `looks`: whether somebody looks at the reports."""

    human = True
    hears = REPORTS

    def __init__(self, phases: tuple[tuple[float, float], ...], *, looks: bool = True) -> None:
        """Take (cumulative share in percent, hours from the start), in order."""
        self._phases = phases
        self._looks = looks

    def begin(self, view: View) -> None:
        """Fix who is in which phase."""
        self._order = np.argsort(view.fleet.order)
        self._given = 0
        self._failed = self._ok = 0

    def step(self, tick: int, news: News) -> Orders:
        """Start the phase whose hour has come."""
        self._failed += news["failed"].size if "failed" in news else 0
        self._ok += news["ok"].size if "ok" in news else 0
        reports = self._failed + self._ok
        if (
            self._looks
            and tick
            and tick % (LOOK_H * TICKS_H) == 0
            and reports >= LEAST_REPORTS
            and self._failed > MOST_FAILED * reports
        ):
            return Orders(stop="halted", why=f"somebody saw {self._failed} of {reports} fail")
        share = max((one for one, hour in self._phases if tick >= hour * TICKS_H), default=0.0)
        end = int(np.ceil(share / 100 * self._order.size))
        assign = self._order[self._given : end]
        self._given = max(self._given, end)
        return Orders(assign=assign)

    def meters(self) -> Mapping[str, float]:
        """Return the share of the reports that say failure."""
        return {"failed": self._failed / max(1, self._failed + self._ok)}


def big_bang() -> Mender:
    """Give everything to everybody at once; nobody looks at reports."""
    return Mender(((100.0, 0.0),), looks=False)
