"""Evidence → plan → what is written: one decision about one rollout, inside one transaction.

The plan itself is `rollout.engine.plan`, a pure function. Here it is carried out exactly, by
compare-and-set on the generation that it was made for: whoever lost
the race drops theirs. A halt or isolation raises the gate epoch and opens an incident in the same transaction, so it is effective when it is durable.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from tidegate.rollout import admission, engine
from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.gates.evidence import HELD
from tidegate.rollout.model import Approval, Evidence, Finding, Plan, Policy, RingProgress, Rollout
from tidegate.server import audit, incidents, outcomes, telemetry
from tidegate.server.gatekeeper import keeper
from tidegate.server.store import Connection, admin_log, changes, gate_rows, hot
from tidegate.server.store import admin_devices as device_rows
from tidegate.server.store import admin_rollouts as rows

Row = dict[str, Any]
#: Counts a rollout's audience (connection, rollout, product, now) by (ring, variant): `audiences.Audiences.count`.
Audience = Callable[[Connection, Rollout, str, int], Mapping[tuple[str, str], int]]
#: Says what the evidence against a rollout amounts to (its row, and as the planner sees it): `gatekeeper.keeper.Keeper.weigh`, or `remembered`.
Weigh = Callable[[Connection, Row, Rollout, int], Decision | None]
PLANNER: Final = "planner"
_BATCH: Final = 1_000
#: By so much the clocks of two server processes may differ.
_AHEAD_S: Final = 60
#: States in which there is something to plan.
PLANNED: Final = frozenset({"active", "paused", "completed"})


def model_of(row: Row) -> Rollout:
    """Return a rollout as the planner sees it."""
    return Rollout(
        name=row["name"],
        release_sha256=row["release_sha256"],
        state=row["state"],
        generation=row["generation"],
        policy=msgspec.convert(row["policy"], type=Policy),
        rings=msgspec.convert(row["rings"], type=tuple[RingProgress, ...]),
        isolated=tuple(row["isolated"]),
        approvals=msgspec.convert(row["approvals"], type=tuple[Approval, ...]),
        started_at=row["started_at"] or 0,
        fixed=row["fixed"] or "",
    )


def evidence_of(
    conn: Connection, row: Row, model: Rollout, audience: Audience, now: int
) -> Evidence:
    """Return all that is known about a rollout.

    The audience of a fallback are the devices that run what they are called back from. Those that went back have left it, and are counted in again, so
    that the rollout is not complete while others are still to go.
    """
    counts = dict(audience(conn, model, str(row["product"]), now))
    found = telemetry.evidence(conn, int(row["id"]), counts)
    if row["kind"] != "fallback":
        return found
    tallies = {
        key: msgspec.structs.replace(tally, audience=tally.audience + tally.confirmed)
        for key, tally in found.tallies.items()
    }
    return msgspec.structs.replace(found, tallies=tallies)


def reconcile(
    conn: Connection,
    rollout_id: int,
    audience: Audience,
    now: int,
    weigh: Weigh = keeper.remembered,
) -> Plan | None:
    """Decide what happens next to a rollout and carry it out; safe to repeat.

    Args:
        conn: the writer's connection.
        rollout_id: of the rollout.
        audience: counts who belongs to which ring.
        now: unix seconds.
        weigh: says what the evidence amounts to; without one, what was said last.

    Returns:
        The plan, or None where there is nothing to plan: no such rollout, one that has not begun or rests (what it rests for stays its reason), or one that
        was brought back: its evidence has been acted upon, and must not halt it for ever.
    """
    row = rows.rollout_by_id(conn, rollout_id)
    if row is None or row["state"] not in PLANNED:
        return None
    if row["state"] == "completed" and rows.children(conn, rollout_id):
        return None
    row = _opened_by_now(conn, row, now)
    model = model_of(row)
    found = evidence_of(conn, row, model, audience, now)
    bounds = None
    if keeper.guard_of(model.policy) is not None:
        found = msgspec.structs.replace(found, weighed=weigh(conn, row, model, now))
        if found.weighed is None:
            bounds = (*admission.of_policy(model.policy), admission.Unweighed())
    plan = engine.plan(model, found, now, bounds)
    apply_plan(conn, row, plan, now)
    if row["parent_id"] is not None:
        _finish_parent(conn, int(row["parent_id"]), now)
    return plan


def _opened_by_now(conn: Connection, row: Row, now: int) -> Row:
    """Return a rollout none of whose rings opened later than now: what was opened by a clock that was ahead is as if it opened now that the clock is right.

    Else its soak would last until that time really comes. Its last permit needs no such care: a soak ends at most twice its time after the opening.
    """
    late = [one for one in row["rings"] if one["opened_at"] > now + _AHEAD_S]
    if not late:
        return row
    rings = [{**one, "opened_at": now} if one in late else one for one in row["rings"]]
    rows.note_plan(conn, int(row["id"]), int(row["generation"]), {"rings": rings})
    return {**row, "rings": rings}


def apply_plan(conn: Connection, row: Row, plan: Plan, now: int) -> bool:
    """Write a plan onto the generation that it was made for; False when somebody else was first.

    Args:
        conn: the writer's connection.
        row: the rollout as it was planned for.
        plan: from `engine.plan`.
        now: unix seconds.
    """
    because = plain(plan.because)
    if row["state"] == "paused" and row["because"] and row["because"][0]["gate"] == "operator":
        because = [row["because"][0], *because[1:]]  # who paused it, and why, says more
    if not plan.changed:
        same = bool(because == row["because"] and plan.room == row["room"])
        values: Row = {"because": because, "room": plan.room}
        if same or not rows.note_plan(conn, int(row["id"]), plan.parent_generation, values):
            return same
        if because != row["because"]:
            changes.notify(conn, "because", str(row["name"]))
        _tell_held(conn, row, plan, because, now)
        return True
    values = {
        "state": plan.state,
        "rings": plain(plan.rings),
        "isolated": sorted({*row["isolated"], *plan.isolate}),
        "because": because,
        "room": plan.room,
    }
    if plan.verdict == "halt":
        values |= {"halted_at": now, "halted_by": PLANNER, "halt_reason": said(plan.because)}
    if plan.state == "completed":
        values["ended_at"] = now
    if not rows.change_rollout(conn, int(row["id"]), plan.parent_generation, values):
        return False
    log(
        conn,
        row,
        plan.parent_generation + 1,
        PLANNER,
        plan.verdict,
        said(plan.because),
        because,
        now,
    )
    changes.bump(conn, "rollout", str(row["name"]), now)
    _tell_held(conn, row, plan, because, now)
    if plan.verdict == "halt":
        stopped(conn, row, PLANNER, said(plan.because), because, now)
    for variant in plan.isolate:
        isolated(conn, row, variant, PLANNER, said(plan.because), because, now)
    return True


def stopped(conn: Connection, row: Row, by: str, reason: str, because: list[Any], now: int) -> str:
    """Do what belongs to every halt, whoever ordered it: gate epoch, incident, audit, a word to the world. Return the incident's name."""
    admin_log.raise_epoch(conn, now)
    name = incidents.open_one(
        conn, kind="halt", rollout=row, summary=reason, because=because, by=by, now=now
    )
    audit.record(
        conn, now, by, "rollout.halt", str(row["name"]), {"reason": reason, "incident": name}
    )
    payload = {
        "event": "rollout.halted",
        "rollout": row["name"],
        "release": row["release"],
        "incident": name,
        "reason": reason,
        "by": by,
        "at": now,
    }
    admin_log.add_outbox(conn, "event", payload, now)
    return name


def isolated(
    conn: Connection, row: Row, variant: str, by: str, reason: str, because: list[Any], now: int
) -> str:
    """Do what belongs to every isolation of a variant. Return the incident's name."""
    admin_log.raise_epoch(conn, now)
    summary = f"{variant} isolated in {row['name']}: {reason}"
    name = incidents.open_one(
        conn,
        kind="isolation",
        rollout=row,
        summary=summary,
        because=because,
        by=by,
        now=now,
        subject=variant,
    )
    detail = {"variant": variant, "reason": reason, "incident": name}
    audit.record(conn, now, by, "rollout.isolate", str(row["name"]), detail)
    payload = {
        "event": "rollout.isolated",
        "rollout": row["name"],
        "variant": variant,
        "incident": name,
        "reason": reason,
        "by": by,
        "at": now,
    }
    admin_log.add_outbox(conn, "event", payload, now)
    return name


def _tell_held(conn: Connection, row: Row, plan: Plan, because: list[Any], now: int) -> None:
    """Open an incident where a person has to decide, and owe the world a word: once for what stands, closed or not; and note when it stands no more.

    A gate that people had begin anew is another question, even where the same numbers come of it.
    """
    rollout_id = int(row["id"])
    told = incidents.newest(conn, rollout_id, "held")
    if plan.held is None:
        if told is not None and row["because"] and row["because"][0]["gate"] == HELD:
            text = f"no person has to decide any more: {said(plan.because)}"
            incidents.write_event(conn, str(told["name"]), text, PLANNER, now)
        return
    gate = gate_rows.told(conn, rollout_id)
    since = gate.opened_at if gate is not None else 0
    if told is not None and told["opened_at"] >= since:
        was = incidents.findings_of(told)[0]
        if (was.observed, was.sample, was.limit) == (
            plan.held.bad,
            plan.held.out,
            plan.held.ground,
        ):
            return
    reason = said(plan.because)
    name = incidents.open_one(
        conn, kind="held", rollout=row, summary=reason, because=because, by=PLANNER, now=now
    )
    payload = {
        "event": "rollout.held",
        "rollout": row["name"],
        "release": row["release"],
        "incident": name,
        "reason": reason,
        "bad": plan.held.bad,
        "out": plan.held.out,
        "by": PLANNER,
        "at": now,
    }
    admin_log.add_outbox(conn, "event", payload, now)


def cancel_untouched(conn: Connection, row: Row, state: str, reason: str, now: int) -> int:
    """End every update of a rollout that has no permit; return how many."""
    count = 0
    while found := rows.updates_in(conn, int(row["id"]), outcomes.BEFORE, limit=_BATCH):
        for one in found:
            old = hot.update_by_id(conn, str(one["id"]))
            assert old is not None  # noqa: S101 - it was read in this transaction
            outcomes.end(conn, old, state, reason, product=str(row["product"]), now=now)
            changes.notify(conn, "running", str(old.device_row))
        count += len(found)
    return count


def log(
    conn: Connection,
    row: Row,
    generation: int,
    actor: str,
    action: str,
    text: str,
    because: list[Any],
    now: int,
) -> None:
    """Write a line into a rollout's story."""
    line = {
        "rollout_id": row["id"],
        "generation": generation,
        "at": now,
        "actor": actor,
        "action": action,
        "text": text[:2000],
        "because": because,
    }
    admin_log.add_plan_log(conn, line)


def said(because: tuple[Finding, ...]) -> str:
    """Return the sentence that decided: the first finding's."""
    return because[0].text if because else ""


def plain(value: Any) -> list[Any]:
    """Return structs as plain values, for a JSON column."""
    found: list[Any] = msgspec.to_builtins(value)
    return list(found)


def _finish_parent(conn: Connection, parent_id: int, now: int) -> None:
    """End a rollout that was being brought back, once every way back that was ordered has ended."""
    parent = rows.rollout_by_id(conn, parent_id)
    if parent is None or parent["state"] != "falling_back":
        return
    children = rows.children(conn, parent_id)
    states = {str(one["state"]) for one in children}
    if not states or states & {"draft", "awaiting_approval", "scheduled", "active", "paused"}:
        return
    left = device_rows.running_count(conn, str(parent["product"]), int(parent["release_counter"]))
    done = "completed" in states
    text = (
        f"fallen back; {left:,} devices still run {parent['release']}"
        if done
        else "the way back was stopped"
    )
    finding = Finding(gate="completion", passed=done, text=text, observed=left)
    values: Row = {
        "state": "completed" if done else "halted",
        "because": plain((finding,)),
        "ended_at": now if done else None,
        "room": 0,
    }
    if rows.change_rollout(conn, parent_id, int(parent["generation"]), values):
        action = "complete" if done else "halt"
        log(
            conn,
            parent,
            int(parent["generation"]) + 1,
            PLANNER,
            action,
            text,
            plain((finding,)),
            now,
        )
        incidents.happened(conn, parent_id, text, PLANNER, now)
        changes.bump(conn, "rollout", str(parent["name"]), now)
