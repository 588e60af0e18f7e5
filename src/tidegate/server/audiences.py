"""How many devices belong to which ring, counted from the fleet in memory and remembered for a while where counting is much work.

A snapshot rollout means whom it meant when it was made; those who are still in the fleet are counted.

Small fleets are counted anew each time, so that simulations and tests see no age; a hundred thousand devices are counted every minute and a half at most.
A count that is a little old delays a decision, and never lets one through: gates ask for outcomes, not for audiences.
"""

from collections.abc import Mapping
from typing import Final

import msgspec

from tidegate.core.hardware import Hardware
from tidegate.rollout.cohort import Fixed
from tidegate.rollout.model import Policy, RingSpec, Rollout
from tidegate.server import fixed, headcount
from tidegate.server.snapshot import OF_KIND, Fleet
from tidegate.server.store import Connection, device_queries

Counts = Mapping[tuple[str, str], int]
#: Up to so many devices are counted every time.
SMALL: Final = 5_000
#: Up to so many devices are asked one by one what they would be offered; of more, so many are, by lot.
ASKED_ALL: Final = 50_000
SAMPLED: Final = 10_000
#: Devices that may be counted per second of age.
_PER_S: Final = 1_000
_REMEMBERED_MAX: Final = 256


class Audiences:
    """Counts audiences of rollouts. Safe to call from any thread: at worst something is counted twice."""

    def __init__(self, fleet: Fleet) -> None:
        """Count in this fleet."""
        self._fleet = fleet
        self._known: dict[tuple[str, str], tuple[Policy, int, Counts]] = {}

    def count(self, conn: Connection, rollout: Rollout, product: str, now: int) -> Counts:
        """Return the audience of a rollout by (ring, variant); `now` in unix seconds, and a connection for what is not in memory."""
        size = len(self._fleet)
        known = self._known.get((rollout.name, rollout.fixed))
        if known is not None and size > SMALL and known[0] == rollout.policy:
            age = now - known[1]
            if 0 <= age < size // _PER_S:
                return known[2]
        if rollout.fixed:
            meant = fixed.load(conn, rollout.fixed)
            counts: Counts = headcount.count_fixed(self._fleet, rollout, meant)
        else:
            serials = self._serials(conn, rollout)
            counts = headcount.count(self._fleet, rollout, product, now, serials)
        self._remember(rollout, counts, now)
        return counts

    def meant_by(self, conn: Connection, asked: str, product: str, now: int) -> int | None:
        """Return how many devices of a product a query finds; None: there are too many to ask them one by one while somebody waits."""
        ring = RingSpec(name="all", audience=asked)
        everybody = Rollout(
            name="", release_sha256="", state="draft", generation=0,
            policy=Policy(rings=(ring,)), rings=(),
        )  # fmt: skip
        if len(self._fleet) > ASKED_ALL and not self._fleet.names_asked(everybody) <= OF_KIND:
            return None
        serials = self._serials(conn, everybody)
        return sum(headcount.count(self._fleet, everybody, product, now, serials).values())

    def variants(self, product: str) -> frozenset[str]:
        """Return the hardware variants that devices of a product have, or had."""
        kinds = (one for one in self._fleet.kinds if one and one[0] == product)
        return frozenset(Hardware(model, rev).variant for _, model, rev, *_ in kinds)

    def fix(self, conn: Connection, rollout: Rollout, product: str, now: int) -> Fixed:
        """Return whom a rollout that is about to be made means, device by device; arguments as of `count`.

        It is counted as well, so that whoever makes it finds it counted.
        """
        serials = self._serials(conn, rollout)
        meant = headcount.fix(self._fleet, rollout, product, now, serials)
        counts = self.count(conn, rollout, product, now)
        made = msgspec.structs.replace(rollout, fixed=fixed.digest_of(meant))
        self._remember(made, counts, now)
        return meant

    def sample(
        self, conn: Connection, rollout: Rollout, product: str, now: int
    ) -> headcount.Sample | None:
        """Return devices that stand for all that a rollout means, or None: there are few enough to ask everybody. Arguments as of `count`."""
        if len(self._fleet) <= ASKED_ALL:
            return None
        meant = (
            fixed.load(conn, rollout.fixed)
            if rollout.fixed
            else headcount.fix(self._fleet, rollout, product, now, self._serials(conn, rollout))
        )
        counts = self.count(conn, rollout, product, now)
        return headcount.sample(self._fleet, meant, counts, SAMPLED)

    def _remember(self, rollout: Rollout, counts: Counts, now: int) -> None:
        if len(self._known) >= _REMEMBERED_MAX:
            self._known.clear()
        self._known[(rollout.name, rollout.fixed)] = (rollout.policy, now, counts)

    def _serials(self, conn: Connection, rollout: Rollout) -> Mapping[int, str]:
        """Return serial numbers by row, where a query asks for them: they are not kept in memory."""
        if "serial" not in self._fleet.names_asked(rollout):
            return {}
        return device_queries.serials(conn)
