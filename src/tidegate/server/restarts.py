"""Restarts that nobody asked for, as devices tell of them: kept with the device, counted, and said to the gates of the product's rollouts.

A panic and a watchdog's reset are a crash whoever has it. A run that just ended may be a crash of which nothing is left, and may be a plug that is pulled
every evening: it counts only of a device whose habit that is not, which takes a few days to know. What a device says moves the evidence once
(`Roster.crashed`), whatever it says later; so a device that lies is worth one device.
"""

from typing import Final, NamedTuple

from tidegate.core.protocol import Restart
from tidegate.server import outcomes
from tidegate.server.store import Connection, gate_rows, hot
from tidegate.server.store.hot import DeviceRow, UpdateRow

#: What is told apart; another word, of a newer agent or of a liar, is `unknown`.
CAUSES: Final = frozenset({"panic", "watchdog", "unknown"})
#: A device has to have kept a record for so long, and its last unexplained end has to be so long ago, before one is worth something.
KNOWN_S: Final = 3 * outcomes.DAY_S
RARE_S: Final = 7 * outcomes.DAY_S


class Ends(NamedTuple):
    """What is kept of a device's unexpected ends. `restarts_from`: since when it keeps a record; `cut_at`: the last end without a known cause. 0 = never."""

    restarts_from: int = 0
    restarts: int = 0
    restarted_at: int = 0
    cut_at: int = 0
    restarted_boot: str = ""
    restart_cause: str = ""


def after(known: Ends, told: Restart, enrolled_at: int, now: int) -> tuple[Ends, bool]:
    """Return what is kept once a device has said this, and whether it is a crash for the gate. Saying the same boot again changes nothing.

    Args:
        known: what is kept of the device.
        told: by the device; untrusted.
        enrolled_at: when it joined, unix seconds.
        now: unix seconds.
    """
    since = known.restarts_from or (enrolled_at if told.always else now)
    known = known._replace(restarts_from=since)
    if not told.count or (told.boot_id and told.boot_id == known.restarted_boot):
        return known, False
    cause = told.cause if told.cause in CAUSES else "unknown"
    named = cause != "unknown"
    rare = now - since >= KNOWN_S and (not known.cut_at or now - known.cut_at >= RARE_S)
    ends = known._replace(
        restarts=min(known.restarts + told.count, 1 << 53),
        restarted_at=now,
        cut_at=known.cut_at if named else now,
        restarted_boot=told.boot_id,
        restart_cause=cause,
    )
    return ends, named or rare


def told_to(
    conn: Connection, device: DeviceRow, since: int, watching: list[tuple[int, int]], now: int
) -> None:
    """Tell the gates of rollouts that a device crashed: those that it has the release from, and those in which it is compared with.

    While an update is being tried, its own outcome says what happened. A device that began to keep a record with the update says nothing against it: of its
    like among the others nothing is heard.

    Args:
        conn: of a unit of work on the writer.
        device: accepted.
        since: when it began to keep a record.
        watching: (rollout, release counter) whose evidence is taken.
        now: unix seconds.
    """
    mine = {one.rollout_id: one for one in hot.updates_of(conn, device.row)}
    for rollout_id, _ in watching:
        if _counts(mine.get(rollout_id), since):
            gate_rows.tell(conn, device.tenant, rollout_id, device.row, ("crashed",), now)


def _counts(update: UpdateRow | None, since: int) -> bool:
    if update is None or update.permitted_at is None:
        return True
    return update.state == "confirmed" and since <= update.permitted_at
