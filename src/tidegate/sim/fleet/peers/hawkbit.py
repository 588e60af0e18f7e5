"""hawkBit's rollout groups, as its source has them.

Groups are fixed at the start. The next one starts when `finished / all of the group >= success %`, or when everybody in it has ended
(`ThresholdRolloutGroupSuccessCondition`, `JpaRolloutExecutor`); `errors / all of the group > error %`, in whole percent, pauses the rollout
(`ThresholdRolloutGroupErrorCondition`): running groups complete, no new one starts. Devices never heard of stand in both denominators, and one that fell
silent counts nowhere (eclipse-hawkbit/hawkbit at 67ca1c43).
"""

from collections.abc import Mapping

import numpy as np

from tidegate.sim.fleet.policy import REPORTS, News, Orders, View


class HawkBit:
    """Groups by cumulative share, an error and a success threshold in percent."""

    human = True
    hears = REPORTS

    def __init__(self, shares: tuple[float, ...], *, error: int, success: int) -> None:
        """Take cumulative shares in percent, the last one 100."""
        self._shares = shares
        self._error = error
        self._success = success

    def begin(self, view: View) -> None:
        """Put every device into its group."""
        size = view.fleet.size
        ends = np.unique(np.ceil(np.array(self._shares) / 100 * size).astype(np.int64))
        rank = view.fleet.order
        self._group = np.searchsorted(ends, rank, side="right")
        self._total = np.bincount(self._group)
        self._errors = np.zeros_like(self._total)
        self._finished = np.zeros_like(self._total)
        self._running = 0

    def step(self, tick: int, news: News) -> Orders:
        """Count what was reported, then ask both conditions of every group that runs."""
        for kind, counts in (("failed", self._errors), ("ok", self._finished)):
            if kind in news:
                np.add.at(counts, self._group[news[kind]], 1)
        if self._running == 0:
            return self._start()
        running = slice(0, self._running)
        over = self._errors[running] * 100 > self._error * self._total[running]
        if over.any():
            group = int(np.flatnonzero(over)[0])
            failed, total = int(self._errors[group]), int(self._total[group])
            return Orders(stop="paused", why=f"{failed} of {total} of group {group + 1} failed")
        last = self._running - 1
        finished, total = self._finished[last], self._total[last]
        ended = finished + self._errors[last] >= total
        if self._running < self._total.size and (finished * 100 >= self._success * total or ended):
            return self._start()
        return Orders()

    def meters(self) -> Mapping[str, float]:
        """Return the number of groups that run."""
        return {"groups": float(self._running)}

    def _start(self) -> Orders:
        self._running += 1
        return Orders(assign=np.flatnonzero(self._group == self._running - 1))
