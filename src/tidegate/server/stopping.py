"""Stopping a rollout, or a variant in it: one person's act, in effect when the transaction that acknowledges it is durable."""

from typing import Any

from tidegate.core.errors import RequestError
from tidegate.rollout import engine
from tidegate.server import acts, incidents, outcomes, planning
from tidegate.server.auth import Actor
from tidegate.server.store import Connection, admin_log
from tidegate.server.store import admin_rollouts as rows

Row = dict[str, Any]


def halt(conn: Connection, row: Row, actor: Actor, reason: str, now: int) -> acts.Outcome:
    """Stop a rollout. It is effective when this transaction is durable: no permit is given in a later one."""
    if row["state"] == "halted":
        return acts.outcome(row, "halt", f"already halted, by {row['halted_by']}", already=True)
    state = engine.transition(row["state"], "halt")
    because = (acts.waits(acts.with_reason(f"halted by {actor.name}", reason), gate="operator"),)
    rings = [
        {**ring, "state": "failed"} if ring["state"] in {"open", "soaking"} else ring
        for ring in row["rings"]
    ]
    values: Row = {
        "state": state,
        "rings": rings,
        "because": planning.plain(because),
        "room": 0,
        "halted_at": now,
        "halted_by": actor.name,
        "halt_reason": reason,
    }
    after = acts.change(conn, row, values, actor.name, "halt", reason, now)
    text = reason or f"halted by {actor.name}"
    name = planning.stopped(conn, after, actor.name, text, planning.plain(because), now)
    if row["state"] == "falling_back":
        for child in rows.children(conn, int(row["id"])):
            if child["state"] in {"active", "paused", "scheduled"}:
                halt(conn, child, actor, f"{row['name']} was halted", now)
    return acts.outcome(after, "halt", text, stopped=_stopped(conn, after, name, actor.name, now))


def pause(conn: Connection, row: Row, actor: Actor, reason: str, now: int) -> acts.Outcome:
    """Let nothing open and give no permit until it is resumed. Pausing again changes nothing."""
    state = engine.transition(row["state"], "pause")
    if state == row["state"]:
        return acts.outcome(row, "pause", "already paused", already=True)
    because = planning.plain(
        (acts.waits(acts.with_reason(f"paused by {actor.name}", reason), gate="operator"),)
    )
    values: Row = {"state": state, "because": because, "room": 0}
    after = acts.change(conn, row, values, actor.name, "pause", reason, now)
    admin_log.raise_epoch(conn, now)
    return acts.outcome(after, "pause", "paused: nothing opens and no permit is given")


def cancel(conn: Connection, row: Row, actor: Actor, reason: str, now: int) -> acts.Outcome:
    """End a rollout for good; devices that had not activated it stop."""
    state = engine.transition(row["state"], "cancel")
    if state == row["state"]:
        return acts.outcome(row, "cancel", "already cancelled", already=True)
    rows.settle_requests_of(conn, int(row["id"]), "lapsed", actor.name, now)
    because = planning.plain(
        (acts.waits(acts.with_reason(f"cancelled by {actor.name}", reason), gate="operator"),)
    )
    values: Row = {"state": state, "because": because, "room": 0, "ended_at": now}
    after = acts.change(conn, row, values, actor.name, "cancel", reason, now)
    count = planning.cancel_untouched(conn, after, "cancelled", "operator.cancelled", now)
    admin_log.raise_epoch(conn, now)
    incidents.happened(conn, int(row["id"]), acts.with_reason("cancelled", reason), actor.name, now)
    return acts.outcome(
        after, "cancel", f"cancelled; {count:,} devices that had not activated it stop"
    )


def isolate(
    conn: Connection, row: Row, variant: str, actor: Actor, reason: str, now: int
) -> acts.Outcome:
    """Keep a hardware variant out; the rest goes on.

    Raises:
        RequestError: `request.invalid`, `request.conflict`.
    """
    if not variant or len(variant) > 80:
        raise RequestError("request.invalid", "name the variant to isolate")
    if variant in row["isolated"]:
        return acts.outcome(row, "isolate", f"{variant} is isolated already", already=True)
    if row["state"] in {"cancelled", "superseded"}:
        raise RequestError(
            "request.conflict", f"cannot isolate in a rollout that is {row['state']}"
        )
    text = acts.with_reason(f"{variant} isolated by {actor.name}", reason)
    because = planning.plain((acts.waits(text, gate="operator", variant=variant),))
    values: Row = {"isolated": sorted({*row["isolated"], variant})}
    after = acts.change(conn, row, values, actor.name, "isolate", text, now)
    why = reason.strip() or f"by {actor.name}"
    name = planning.isolated(conn, after, variant, actor.name, why, because, now)
    found = _stopped(conn, after, name, actor.name, now, variant)
    return acts.outcome(after, "isolate", text, stopped=found)


def _stopped(
    conn: Connection, row: Row, incident: str, by: str, now: int, variant: str = ""
) -> acts.Stopped:
    rollout_id = int(row["id"])
    past = rows.updates_in(conn, rollout_id, outcomes.AFTER, variant=variant)
    return acts.Stopped(
        at=now,
        by=by,
        incident=incident,
        inert=rows.count_updates(conn, rollout_id, outcomes.BEFORE, variant=variant),
        past=tuple(acts.PastReturn(device=one["device"], state=one["state"]) for one in past),
        confirmed=rows.count_updates(conn, rollout_id, {"confirmed"}, variant=variant),
    )
