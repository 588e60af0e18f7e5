"""When one device of a batched scenario has a network: its habit, the outages laid over it, and what its own fate adds.

Times are seconds of the simulation; ticks count from the start of the rollout, and before it everybody is online, to enrol.
"""

from dataclasses import dataclass, field

from tidegate.sim.fleet.population import NEVER
from tidegate.sim.fleet.spec import TICK_H

TICK_S = TICK_H * 3600


@dataclass
class Habit:
    """`sim.link.Presence` of one device.

    Attributes:
        zero: when the rollout starts.
        period, opens, length: ticks; online while `(tick - opens) mod period < length`, as in `fleet.population.Fleet`.
        outages: (from, to) in which it cannot be reached.
    """

    zero: float
    period: int
    opens: int
    length: int
    outages: list[tuple[float, float]] = field(default_factory=list)

    def is_online(self, at: float) -> bool:
        """Say whether there is a network at this time."""
        return self._regular(at) and not any(start <= at < end for start, end in self.outages)

    def next_online(self, at: float) -> float:
        """Return when there is a network next; `at` itself when there is one."""
        while not self.is_online(at):
            ends = [end for start, end in self.outages if start <= at < end]
            at = max(ends) if ends else self._opens_after(at)
        return at

    def cut(self, start: float, end: float) -> None:
        """Cut it off from one time to another."""
        self.outages.append((start, end))

    def _phase_s(self, at: float) -> float:
        return (at - self.zero - self.opens * TICK_S) % (self.period * TICK_S)

    def _regular(self, at: float) -> bool:
        return at < self.zero or self._phase_s(at) < self.length * TICK_S

    def _opens_after(self, at: float) -> float:
        # A hair later: rounding must not lead back to before the window.
        return at + self.period * TICK_S - self._phase_s(at) + 0.001


def second(zero: float, tick: int) -> float:
    """Return when a tick begins; infinite for one that never comes."""
    return float("inf") if tick >= NEVER else zero + tick * TICK_S
