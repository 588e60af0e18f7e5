"""What has to be done to a database that went back in time, before a server may give anybody leave by it.

It does not know what was done after the backup: halts, isolations, recalls, revocations. So

- every rollout that could let anybody go is **held**: paused, or a draft again where it would have started by itself. A halt after the backup was somebody's
  word (or the gate's) that nobody goes on; only somebody's word takes that back. One who resumes has been told that halts since then are not known.
- the **gate epoch** rises by more than it can have risen since: no hint, hold or permit of before is taken for one of now.
- **deadlines and silence** move by the time that is missing: nobody could be heard by a server that was not there, and a thousand devices that are called
  lost at the first look would be evidence of nothing.
- everybody's **session** ends: who was locked out after the backup would be in again.

Metadata needs nothing: versions of the online roles and of assignments follow the clock (`metadata`, `updates`), so devices that saw later ones believe it.
What devices had acknowledged after the backup is gone with the server that held it; their next event is taken, with the gap (`telemetry.accept`).
"""

from typing import Final

import msgspec

from tidegate.server import acts, audit, planning
from tidegate.server.store import Connection, admin_log, restored_rows
from tidegate.server.store import admin_rollouts as rows

ACTOR: Final = "restore"
_SAID: Final = "brought back from a backup that is {} s old"
#: The epoch rises by this and by one a second since the backup: each halt raises it by one, and takes longer than a second.
_EPOCHS: Final = 1_000


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What was held: rollouts that are paused now, and those that are drafts again; by how many seconds deadlines moved."""

    paused: tuple[str, ...]
    drafts: tuple[str, ...]
    missing_s: int
    gate_epoch: int


def hold_after_setback(conn: Connection, now: int) -> Held:
    """Hold everything in a database that went back beneath a running server: a standby took over that had not got everything, or a backup was put in its place.

    Args:
        conn: of the writer, before anybody else is answered.
        now: unix seconds.
    """
    said = "the database went back in time, by about {} s (a standby that lagged behind took over, or a backup was put in its place)"
    return hold(conn, now, said=said)


def hold(conn: Connection, now: int, made_at: int | None = None, *, said: str = _SAID) -> Held:
    """Hold everything in a database that went back in time, in one transaction.

    Args:
        conn: of a unit of work on the writer, of a server that serves nobody.
        now: unix seconds.
        made_at: the moment that the database shows; None = that of the newest trace in it.
        said: what happened, with {} where the seconds go that are missing.
    """
    then = restored_rows.newest_trace(conn) if made_at is None else made_at
    missing_s = max(0, now - then)
    text = (
        f"{said.format(missing_s)}: what was halted, isolated or recalled since then is not known"
    )
    paused = _set(conn, ("active", "completed"), "paused", text, now)
    drafts = _set(conn, ("scheduled",), "draft", text, now)
    restored_rows.shift_time(conn, missing_s)
    restored_rows.end_sessions(conn)
    epoch = admin_log.raise_epoch(conn, now, by=_EPOCHS + missing_s)
    detail = {"missing_s": missing_s, "paused": len(paused), "drafts": len(drafts)}
    audit.record(conn, now, ACTOR, "server.restored", "", detail)
    return Held(paused=paused, drafts=drafts, missing_s=missing_s, gate_epoch=epoch)


def _set(
    conn: Connection, states: tuple[str, ...], state: str, text: str, now: int
) -> tuple[str, ...]:
    names = []
    for row in rows.rollouts(conn, states=states, limit=1_000_000):
        values = {"state": state, "because": planning.plain((acts.waits(text),))}
        acts.change(conn, row, values, ACTOR, "hold", text, now)
        names.append(str(row["name"]))
    return tuple(names)
