"""What one rollout's book teaches the next: how long each device is usually not heard, and how often devices crash or go dark without any update.

Taken from the book of the product that was written last, whatever became of its rollout: only what its devices did before they were updated is taken over
as a hazard, and habits are the devices' own. A book that cannot be read any more teaches nothing, and the gate opens as if there had been none.
"""

import logging
from typing import Final, NamedTuple

from tidegate.rollout.evidence.facts import Kind
from tidegate.rollout.evidence.roster import Roster
from tidegate.server.gatekeeper.kept import Kept
from tidegate.server.store import Connection, gate_rows

_log = logging.getLogger("tidegate.gatekeeper")
#: What is known of hazards weighs as much as this fleet's last days, so many of them.
_DAYS: Final = 30
#: The share of devices, per cent, that must have told of their restarts for a hazard of crashes to be one.
_TELLING_PCT: Final = 90


class Before(NamedTuple):
    """An earlier book. `told`: its devices could tell of crashes."""

    roster: Roster
    told: bool


def book_before(conn: Connection, tenant: str, product: str, rollout_id: int) -> Before | None:
    """Return the newest other book of a product; None = there is none that can be read.

    Args:
        conn: any connection.
        tenant: of the rollout.
        product: of its release.
        rollout_id: that opens now.
    """
    number = gate_rows.latest(conn, tenant, product, rollout_id)
    stored = None if number is None else gate_rows.kept(conn, number)
    if number is None or stored is None:
        return None
    try:
        kept = Kept.restored(number, stored)
    except ValueError as error:
        _log.warning("the book of rollout %d teaches nothing: %s", number, error)
        return None
    telling, whole = gate_rows.recording(conn, tenant, product, stored.opened_at)
    return Before(kept.roster, bool(whole) and telling * 100 >= whole * _TELLING_PCT)


def hazards(before: Before | None, devices: int) -> dict[Kind, tuple[int, int]] | None:
    """Return (late events, device-hours) by kind that a book may begin with; None = nothing is known.

    What is older weighs less: of more than thirty days of this fleet only their worth is kept, events rounded up. Crashes of a fleet that could not tell of
    them are not known to be rare.

    Args:
        before: the earlier book.
        devices: of the rollout that opens.
    """
    if before is None:
        return None
    most = _DAYS * 24 * max(1, devices)
    found: dict[Kind, tuple[int, int]] = {}
    for kind, (events, hours) in before.roster.watch.desk.hazards().items():
        if hours and (kind == "dark" or before.told):
            kept = min(hours, most)
            found[kind] = (-(-events * kept // hours), kept)
    return found or None
