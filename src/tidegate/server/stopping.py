"""Stopping a rollout, or part of its devices: one person's act, in effect when the transaction that acknowledges it is durable."""

from typing import Any, Final

from tidegate.core.errors import RequestError
from tidegate.rollout import engine, keeping
from tidegate.server import acts, incidents, outcomes, planning
from tidegate.server.auth import Actor
from tidegate.server.store import Connection, admin_log, hot
from tidegate.server.store import admin_rollouts as rows

Row = dict[str, Any]
#: Most devices past the point of no return that an answer names; `server.listing` has them all.
PAST_MAX: Final = 10_000


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
    return acts.outcome(after, "halt", text, stopped=stopped(conn, after, name, actor.name, now))


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
    conn: Connection, row: Row, wanted: Row, actor: Actor, reason: str, now: int
) -> acts.Outcome:
    """Keep a hardware variant, or whatever a query finds, out; the rest goes on.

    Args:
        conn: the writer's connection.
        row: of the rollout.
        wanted: `variant` or `where`; untrusted.
        actor: who acts.
        reason: why; may be empty.
        now: unix seconds.

    Raises:
        RequestError: `request.invalid`, `request.conflict`.
    """
    entry = entry_of(wanted)
    if entry in row["isolated"]:
        return acts.outcome(row, "isolate", f"{entry} is isolated already", already=True)
    if row["state"] in {"cancelled", "superseded"}:
        raise RequestError(
            "request.conflict", f"cannot isolate in a rollout that is {row['state']}"
        )
    text = acts.with_reason(f"{entry} isolated by {actor.name}", reason)
    because = planning.plain((acts.waits(text, gate="operator", variant=entry),))
    values: Row = {"isolated": sorted({*row["isolated"], entry})}
    after = acts.change(conn, row, values, actor.name, "isolate", text, now)
    why = reason.strip() or f"by {actor.name}"
    name = planning.isolated(conn, after, entry, actor.name, why, because, now)
    met = stopped(conn, after, name, actor.name, now, entry)
    return acts.outcome(after, "isolate", text, stopped=met)


def entry_of(wanted: Row) -> str:
    """Return what of `Rollout.isolated` is meant by a `variant` or a query `where` (untrusted).

    Raises:
        RequestError: `request.invalid`: neither, both, or no query.
    """
    variant, where = str(wanted.get("variant", "")), str(wanted.get("where", ""))
    if bool(variant) == bool(where):
        raise RequestError("request.invalid", "name either a variant or a query (where)")
    if where or variant.startswith(keeping.MARK):
        return keeping.entry_of(where or variant.removeprefix(keeping.MARK))
    if len(variant) > keeping.ENTRY_MAX:
        raise RequestError("request.invalid", f'"{variant[:80]}" is no variant')
    return variant


def stopped(
    conn: Connection, row: Row, incident: str, by: str, now: int, variant: str = ""
) -> acts.Stopped:
    """Say what a halt met, or an isolation: of those that are counted under `variant`, a variant's name or the text of a query (`server.apart`)."""
    rollout_id = int(row["id"])
    past = rows.updates_in(conn, rollout_id, outcomes.AFTER, variant=variant, limit=PAST_MAX)
    return acts.Stopped(
        at=now,
        by=by,
        incident=incident,
        inert=rows.count_updates(conn, rollout_id, outcomes.BEFORE, variant=variant),
        past=tuple(acts.PastReturn(device=one["device"], state=one["state"]) for one in past),
        past_count=rows.count_updates(conn, rollout_id, outcomes.AFTER, variant=variant),
        # from the counters: a halt does not wait for a million rows to be counted
        confirmed=sum(
            value
            for _, name, what, value in hot.tallies(conn, rollout_id)
            if what == "confirmed" and variant in {"", name}
        ),
    )
