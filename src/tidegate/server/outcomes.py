"""The life of an update, as data, and how it is counted.

What an update adds to its rollout's counters is a pure function of its row (`contributions`); a change is booked as the difference. So the counters can be
recomputed from the rows at any time, and a test does.
"""

from collections import Counter
from typing import Final

from tidegate.core.reasons import family
from tidegate.server.gatekeeper.happenings import happened
from tidegate.server.store import Connection, changes, device_queries, flight_rows, gate_rows, hot
from tidegate.server.store.hot import UpdateRow

#: States before leave to activate: the device still runs what it ran.
BEFORE: Final = frozenset({"offered", "downloading", "staged"})
#: States past the point of no return.
AFTER: Final = frozenset({"permitted", "rebooting", "verifying"})
OPEN: Final = BEFORE | AFTER
ENDED: Final = frozenset(
    {"confirmed", "declined", "failed", "reverted", "lost", "cancelled", "superseded"}
)
#: On its way, or lost on it: what caps count (`server.caps`).
_FLYING: Final = AFTER | {"lost"}
#: Ends with a reason that is counted.
_WITH_REASON: Final = frozenset({"failed", "reverted", "lost", "declined"})

#: Which event leads from which states to which state. Everything else is stored and changes nothing.
TRANSITIONS: Final[dict[str, tuple[frozenset[str], str]]] = {
    "downloading": (frozenset({"offered", "lost"}), "downloading"),
    "staged": (frozenset({"offered", "downloading", "lost"}), "staged"),
    "rebooting": (frozenset({"permitted"}), "rebooting"),
    "verifying": (frozenset({"permitted", "rebooting"}), "verifying"),
    "confirmed": (AFTER | {"lost"}, "confirmed"),
    "failed": (OPEN | {"lost"}, "failed"),
    "reverted": (AFTER | {"lost", "confirmed"}, "reverted"),
    "declined": (BEFORE | {"permitted", "lost"}, "declined"),
    "permit_returned": (frozenset({"permitted"}), "staged"),
}
#: What follows a permit, from `lost`.
_ARRIVED: Final = AFTER | {"confirmed", "reverted"}
#: Ends after which the harm of a release has to be judged at once.
HARMFUL: Final = frozenset({"failed", "reverted", "lost"})
DAY_S: Final = 86_400
HOUR_S: Final = 3_600
#: What one device says that it fetched counts up to this: a lie of one must not spoil the sum of all.
BYTES_MAX: Final = 1 << 40


def may_follow(update: UpdateRow, state: str) -> bool:
    """Say whether an update that was given up may go on to `state`: one that never had a permit on its way to it, one that had on its way from it."""
    if update.state != "lost" or state == "failed":
        return True
    return state in (BEFORE | {"declined"} if update.permitted_at is None else _ARRIVED)


def contributions(update: UpdateRow) -> Counter[str]:
    """Return what an update adds to the counters of its rollout, ring and variant.

    `offered` counts every update that was made; `downloading`, `staged`, `rebooting` and `verifying` those that are there now; the rest as
    `rollout.model.Tally` says.
    """
    counts = Counter({"offered": 1})
    if update.attempt > 1:
        counts["retried"] = update.attempt - 1
    if update.permitted_at is not None:
        counts["exposed"] = 1
    match update.state:
        case "downloading" | "staged" | "rebooting" | "verifying" | "confirmed" | "reverted":
            counts[update.state] = 1
        case "lost" if update.permitted_at is None:
            counts["unstarted"] = 1
        case "lost" | "declined":
            counts[update.state] = 1
        case "failed" if update.permitted_at is not None:
            counts["failed_after"] = 1
        case "failed":
            counts["failed_before"] = 1
            side = {"download": "transfer", "install": "install"}.get(family(update.reason or ""))
            if side:
                counts[side] = 1
        case _:
            pass
    if update.state in _WITH_REASON and update.reason:
        counts[f"reason:{update.reason}"] = 1
    return counts


def book(
    conn: Connection, old: UpdateRow | None, new: UpdateRow, *, product: str, now: int
) -> None:
    """Write an update and count the difference that it makes, in this transaction.

    Args:
        conn: of a unit of work on the writer.
        old: the row as it was; None when it is made.
        new: the row as it will be.
        product: of the device, for the counters of the day.
        now: unix seconds.
    """
    hot.put_update(conn, new)
    difference = contributions(new)
    if old is not None:
        difference.subtract(contributions(old))
    steps = [(name, by) for name, by in difference.items() if by]
    key = (new.rollout_id, new.ring, new.variant)
    if steps:
        hot.add_tally(conn, new.tenant, key, steps)
    count_hour(conn, old, new, steps, now)
    if difference.get("exposed", 0) > 0:
        hot.raise_tally(conn, new.tenant, key, "last_permit_at", now)
    if difference.get("confirmed", 0) > 0:
        hot.raise_tally(conn, new.tenant, key, "last_confirmed_at", now)
    told = happened(old, new)
    if told:
        gate_rows.tell(conn, new.tenant, new.rollout_id, new.device_row, told, now)
    if old is not None and old.state in _FLYING and new.state not in AFTER:
        if new.state == "lost":
            flight_rows.lose(conn, new.id, now)
        else:
            flight_rows.leave(conn, new.id)
    if old is not None and new.state in ENDED and old.state not in ENDED:
        device_queries.change(conn, new.device_row, {"waiting": ""})  # it waited with this one
    if old is None or old.state != new.state:
        _count_day(conn, new, product, now)
        changes.notify(conn, "update", str(new.rollout_id))
        changes.notify(conn, "device", str(new.device_row))


def count_hour(
    conn: Connection,
    old: UpdateRow | None,
    new: UpdateRow,
    steps: list[tuple[str, int]],
    now: int,
) -> None:
    """Count what a rollout's counters change by, and the bytes that were fetched, into the hour."""
    before = 0 if old is None else min(old.bytes, BYTES_MAX)
    fetched = min(new.bytes, BYTES_MAX) - before
    told = [*steps, ("bytes", fetched)] if fetched else steps
    if told:
        hot.add_hour(conn, new.tenant, new.rollout_id, now // HOUR_S, told)


def _count_day(conn: Connection, new: UpdateRow, product: str, now: int) -> None:
    steps: list[tuple[str, int]] = []
    if new.state in ENDED:
        steps.append((f"end:{new.state}", 1))
        if new.reason and new.state in _WITH_REASON:
            steps.append((f"reason:{new.reason}", 1))
            if family(new.reason) == "download" and new.state == "failed":
                steps.append(("download.failed", 1))
    elif new.state == "permitted":
        steps.append(("permit", 1))
    if steps:
        hot.add_daily(conn, new.tenant, now // DAY_S, product, steps)


def end(
    conn: Connection, update: UpdateRow, state: str, reason: str, *, product: str, now: int
) -> UpdateRow:
    """End an update from this side: `cancelled`, `superseded`, `failed` or `lost`."""
    new = update._replace(state=state, reason=reason, state_at=now, ended_at=now, deadline_at=None)
    book(conn, update, new, product=product, now=now)
    return new
