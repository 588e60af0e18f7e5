"""How many devices belong to which ring, counted from the fleet in memory and remembered for a while where counting is much work.

Small fleets are counted anew each time, so that simulations and tests see no age; a hundred thousand devices are counted every minute and a half at most.
A count that is a little old delays a decision, and never lets one through: gates ask for outcomes, not for audiences.
"""

from collections.abc import Mapping
from typing import Final

from tidegate.rollout.model import Policy, Rollout
from tidegate.server.snapshot import Fleet

Counts = Mapping[tuple[str, str], int]
#: Up to so many devices are counted every time.
SMALL: Final = 5_000
#: Devices that may be counted per second of age.
_PER_S: Final = 1_000
_REMEMBERED_MAX: Final = 256


class Audiences:
    """Counts audiences of rollouts. Safe to call from any thread: at worst something is counted twice."""

    def __init__(self, fleet: Fleet) -> None:
        """Count in this fleet."""
        self._fleet = fleet
        self._known: dict[str, tuple[Policy, int, Counts]] = {}

    def count(self, rollout: Rollout, product: str, now: int) -> Counts:
        """Return the audience of a rollout by (ring, variant); `now` in unix seconds."""
        size = len(self._fleet)
        known = self._known.get(rollout.name)
        if known is not None and size > SMALL and known[0] == rollout.policy:
            age = now - known[1]
            if 0 <= age < size // _PER_S:
                return known[2]
        counts = self._fleet.audience(rollout, product)
        if len(self._known) >= _REMEMBERED_MAX:
            self._known.clear()
        self._known[rollout.name] = (rollout.policy, now, counts)
        return counts
