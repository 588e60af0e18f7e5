"""When evidence stands that can neither stop a rollout nor let it go on: a person decides, and has to be told so.

Odds need devices. A handful of which the first were lost proves nothing at 1000 : 1, and no further device is spent on the question. The same holds where
everybody has had a permit and half of them are bad, or the odds stand where permits end. Silence about that would be the worst of all: the rollout looks as
if it were under way.
"""

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence import room
from tidegate.rollout.evidence.settings import MILLION, Harm

Ground: TypeAlias = Literal["handful", "spent"]


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What a person has to decide about.

    `bad` of the `out` devices that were let go failed, or have not answered in time. `ground`: `handful` = too few devices to spend another one;
    `spent` = everybody has had a permit.
    """

    bad: int
    out: int
    ground: Ground


def nobody_well(row: Sequence[int]) -> bool:
    """Say whether of the devices that were let go some are bad and none was ever well, late or not."""
    seen = room.counts(row)
    return seen.bad > 0 and not seen.healthy and not row[at.ALIVE]


def is_handful(harm: Harm, eligible: int) -> bool:
    """Say whether a fleet is so small that none of its devices may be left for an answer."""
    return harm.soak_most_ppm * eligible < harm.first_fleet * MILLION


def of_fleet(row: Sequence[int], *, handful: bool, left: int, amber: float) -> Held | None:
    """Return what a person has to decide about; None = evidence goes on deciding by itself.

    Args:
        row: of the fleet.
        handful: no further device is spent (`is_handful`).
        left: devices that have had no permit.
        amber: the share of permits that the odds leave (`room.amber`); 0 = none.
    """
    seen = room.counts(row)
    if seen.pending or not seen.bad:
        return None
    bad = seen.exposed - seen.healthy
    if handful and nobody_well(row):
        return Held(bad=bad, out=seen.exposed, ground="handful")
    if not left and (bad * 2 >= seen.exposed or amber <= 0.0):
        return Held(bad=bad, out=seen.exposed, ground="spent")
    return None
