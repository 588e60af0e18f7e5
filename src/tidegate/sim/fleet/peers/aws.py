"""AWS IoT Jobs: a rate of notifications, constant or growing, and an abort threshold over the executions that have ended.

Rates are 1 to 1000 a minute, the growth factor 1.1 to 5 for every so many devices notified. The job is cancelled when `failed / ended >= threshold` once
`least` executions have ended. Devices that fell silent never end (a time-out would have to be set, and then counts as one more kind of failure).
"""

from collections.abc import Mapping

import numpy as np

from tidegate.core.errors import ConfigError
from tidegate.sim.fleet.policy import REPORTS, News, Orders, View
from tidegate.sim.fleet.spec import TICK_H


class AwsJobs:
    """Base rate a minute, growth factor for every `every` devices notified, abort at `percent` of at least `least`."""

    human = True
    hears = REPORTS

    def __init__(
        self, base: float, *, factor: float, every: float, percent: float, least: int
    ) -> None:
        """Take the settings of a job. `every` ≤ 1 is a share of the fleet, otherwise a count.

        Raises:
            ConfigError: `config.invalid`: outside what the service accepts.
        """
        if not 1 <= base <= 1000 or not (factor == 1 or 1.1 <= factor <= 5):
            raise ConfigError("config.invalid", "aws: rate 1 to 1000 a minute, factor 1.1 to 5")
        self._base, self._factor, self._every = base, factor, every
        self._percent, self._least = percent, least

    def begin(self, view: View) -> None:
        """Fix the order in which devices are notified."""
        self._order = np.argsort(view.fleet.order)
        self._given = 0
        self._credit = 0.0
        self._failed = self._ended = 0
        if self._every <= 1:
            self._every = max(1.0, np.ceil(self._every * view.fleet.size))

    def step(self, tick: int, news: News) -> Orders:
        """Notify as many as the rate of this tick allows."""
        failed = news["failed"].size if "failed" in news else 0
        self._failed += failed
        self._ended += failed + (news["ok"].size if "ok" in news else 0)
        if self._ended >= self._least and self._failed * 100 >= self._percent * self._ended:
            return Orders(stop="halted", why=f"{self._failed} of {self._ended} ended have failed")
        rate = min(1000.0, self._base * self._factor ** (self._given // self._every))
        self._credit += rate * 60 * TICK_H
        count = int(self._credit)
        self._credit -= count
        assign = self._order[self._given : self._given + count]
        self._given += assign.size
        return Orders(assign=assign)

    def meters(self) -> Mapping[str, float]:
        """Return the share of the ended executions that failed."""
        return {"failed": self._failed / max(1, self._ended)}
