"""The devices of an incident, all of them, page by page: who was affected, who was exposed, who is past the point of no return, who was stopped in time."""

from typing import Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.rollout.incident import BAD, PAST_RETURN
from tidegate.server import incidents, outcomes
from tidegate.server.store import Connection
from tidegate.server.store import admin_incidents as rows

#: Which states belong to which list, and whether only devices count that acted on the release.
LISTS: Final[dict[str, tuple[frozenset[str], bool]]] = {
    "affected": (BAD, True),
    "exposed": (BAD | PAST_RETURN | {"confirmed"}, True),
    "past-return": (PAST_RETURN, True),
    "stopped": (outcomes.BEFORE | {"cancelled"}, False),
}


class CohortDevice(msgspec.Struct, frozen=True, kw_only=True):
    """A device of an incident, as far as it got with the release. `at`: since when, unix seconds."""

    device: str
    variant: str
    ring: str
    state: str
    reason: str
    at: int
    from_counter: int
    site: str
    region: str


def page(
    conn: Connection, name: str, which: str, after: tuple[int, str], limit: int
) -> tuple[list[CohortDevice], tuple[int, str] | None]:
    """Return devices of a list in order of time, and where the next page begins.

    Args:
        conn: any connection.
        name: of the incident; untrusted.
        which: of `LISTS`; untrusted.
        after: (at, device) of the last one of the page before; (0, "") = from the first.
        limit: most devices.

    Raises:
        RequestError: `request.not_found`, `request.invalid`.
    """
    found = incidents.row_of(conn, name)
    if which not in LISTS:
        raise RequestError("request.invalid", f"list: {', '.join(LISTS)}")
    states, acted = LISTS[which]
    if not found["rollout_id"]:
        return [], None
    listed = rows.outcomes(
        conn,
        int(found["rollout_id"]),
        states=states,
        variant=str(found["subject"]),
        acted=acted,
        after=after,
        limit=limit + 1,
    )
    more = (listed[limit - 1].state_at, listed[limit - 1].device) if len(listed) > limit else None
    return [_device(one) for one in listed[:limit]], more


def _device(one: rows.Outcome) -> CohortDevice:
    return CohortDevice(
        device=one.device,
        variant=one.variant,
        ring=one.ring,
        state=one.state,
        reason=one.reason or "",
        at=one.state_at,
        from_counter=one.from_counter,
        site=one.site,
        region=one.region,
    )
