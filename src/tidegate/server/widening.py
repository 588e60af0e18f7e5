"""Widening a rollout: starting, resuming, advancing, readmitting, editing. Its reach is stated first; beyond a limit a second person has to approve it.

The state of an approval is `server.approvals`; what is approved is carried out here, in the transaction of the approval.
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.core.protocol import DeliveryPolicy
from tidegate.rollout import edits, engine
from tidegate.rollout.model import Approval, Policy
from tidegate.server import (
    acts,
    approvals,
    fallbacks,
    fixed,
    incidents,
    planning,
    scopes,
    stopping,
    telemetry,
)
from tidegate.server.approvals import Rules
from tidegate.server.auth import Actor
from tidegate.server.drafts import Draft
from tidegate.server.gatekeeper import opening
from tidegate.server.store import Connection
from tidegate.server.store import admin_rollouts as rows

Row = dict[str, Any]


def start(
    conn: Connection, row: Row, actor: Actor, reason: str, rules: Rules, devices: int, now: int
) -> acts.Outcome:
    """Start a rollout, or ask for the second person that it takes.

    Raises:
        RequestError: `request.conflict`: not possible in this state.
    """
    if row["state"] in {"scheduled", "awaiting_approval", "active"} and row["start_at"] <= now:
        if row["state"] != "scheduled":
            return acts.outcome(row, "start", f"already {row['state']}", already=True)
    elif row["state"] not in {"draft", "scheduled"}:
        engine.transition(row["state"], "start")
    place = scopes.place_of_rollout(conn, row)
    if approvals.needed(conn, actor, place, devices, rules):
        waiting = acts.waits("waits for the approval of one more person", gate="approval")
        values: Row = {"state": "awaiting_approval", "because": planning.plain((waiting,))}
        after = acts.change(conn, row, values, actor.name, "ask", reason, now)
        return _asked(
            conn, after, "start", {"devices": devices}, actor, reason, rules, devices, now
        )
    begun = begin(conn, row, actor.name, reason, now)
    return msgspec.structs.replace(begun, reach=devices)


def begin(conn: Connection, row: Row, by: str, reason: str, now: int) -> acts.Outcome:
    """Start a rollout now, or put it down for its time."""
    if row["start_at"] > now:
        waiting = acts.waits(f"starts at {row['start_at']}", gate="start", opens_at=row["start_at"])
        values: Row = {"state": "scheduled", "because": planning.plain((waiting,))}
        after = acts.change(conn, row, values, by, "schedule", reason, now)
        return acts.outcome(after, "start", "scheduled")
    values = {"state": "active", "started_at": now, "because": []}
    after = acts.change(conn, row, values, by, "start", reason, now)
    mine = msgspec.convert(after["policy"], type=Policy).priority
    for older in rows.older_for_same(conn, after):
        if msgspec.convert(older["policy"], type=Policy).priority > mine:
            continue  # it goes first: whoever made it said so
        supersede(conn, older, str(row["name"]), now)
    return acts.outcome(after, "start", "started")


def begin_due(conn: Connection, row: Row, now: int) -> acts.Outcome:
    """Start a scheduled rollout whose time has come."""
    return begin(conn, row, planning.PLANNER, "its time has come", now)


def supersede(conn: Connection, row: Row, newer: str, now: int) -> None:
    """End a rollout whose audience a newer release takes over."""
    text = f"superseded by {newer}"
    because = planning.plain((acts.waits(text, gate="state"),))
    values: Row = {
        "state": engine.transition(row["state"], "supersede"),
        "because": because,
        "room": 0,
        "ended_at": now,
    }
    after = acts.change(conn, row, values, planning.PLANNER, "supersede", text, now)
    planning.cancel_untouched(conn, after, "superseded", "operator.cancelled", now)


def widen(
    conn: Connection,
    row: Row,
    verb: str,
    detail: Row,
    actor: Actor,
    reason: str,
    rules: Rules,
    devices: int,
    now: int,
) -> acts.Outcome:
    """Resume, advance, readmit or let activate, or ask for the second person that it takes.

    Raises:
        RequestError: `request.conflict`: not possible now.
    """
    if verb == "activate" and row["released_at"] is not None:
        return acts.outcome(row, verb, "activation was let go already", already=True)
    _check_widening(row, verb, detail)
    special = "resume_after_halt" if verb == "resume" and row["state"] == "halted" else ""
    place = scopes.place_of_rollout(conn, row)
    if approvals.needed(conn, actor, place, devices, rules, special):
        asked = {**detail, "devices": devices}
        if verb == "advance":  # what is shown is this step, and not whichever is open by then
            asked["ring"], asked["step"] = present_ring(row, str(detail.get("ring", "")))
        return _asked(conn, row, verb, asked, actor, reason, rules, devices, now)
    done = _carry_out(conn, row, verb, detail, actor.name, reason, now)
    return msgspec.structs.replace(done, reach=devices)


def _check_widening(row: Row, verb: str, detail: Row) -> None:
    if verb == "resume":
        engine.transition(row["state"], "resume")
        if row["release_state"] != "live":
            raise RequestError("request.conflict", f"{row['release']} was recalled")
    elif verb == "readmit":
        entry = stopping.entry_of(detail)
        if entry not in row["isolated"]:
            near = did_you_mean(entry, row["isolated"])
            raise RequestError("request.conflict", f'"{entry}" is not isolated{near}')
    elif verb == "advance":
        if row["state"] != "active":
            raise RequestError(
                "request.conflict", f"cannot advance a rollout that is {row['state']}"
            )
        ring, step = present_ring(row, str(detail.get("ring", "")))
        if detail.get("step", step) != step:
            text = f"ring {ring} is at another step than the one that was shown; ask again"
            raise RequestError("request.conflict", text)
    elif verb == "activate":
        if not row["policy"].get("prefetch"):
            raise RequestError("request.conflict", f"{row['name']} does not fetch ahead")
        if row["state"] != "active":
            detail_of = f"cannot let a rollout that is {row['state']} activate"
            raise RequestError("request.conflict", detail_of)


def _carry_out(
    conn: Connection, row: Row, verb: str, detail: Row, by: str, reason: str, now: int
) -> acts.Outcome:
    _check_widening(row, verb, detail)
    model = planning.model_of(row)
    match verb:
        case "resume":
            rings = engine.reopened(model.rings, now) if row["state"] == "halted" else model.rings
            values: Row = {"state": "active", "rings": planning.plain(rings), "ended_at": None}
            text = acts.with_reason("resumed", reason)
            if row["state"] == "halted" and opening.begin_anew(conn, int(row["id"])):
                text += "; the odds begin anew"
        case "readmit":
            entry = stopping.entry_of(detail)
            values = {"isolated": [one for one in row["isolated"] if one != entry]}
            text = acts.with_reason(f"{entry} readmitted", reason)
            if opening.begin_anew(conn, int(row["id"]), entry):
                text += "; the odds begin anew"
        case "activate":
            # What was fetched ahead has proved nothing: rings soak from now on.
            rings = tuple(
                msgspec.structs.replace(one, opened_at=now)
                if one.state in {"open", "soaking"}
                else one
                for one in model.rings
            )
            values = {"released_at": now, "rings": planning.plain(rings)}
            text = acts.with_reason("activation let go", reason)
        case "advance":
            rings = engine.passed_by_hand(model, telemetry.evidence(conn, int(row["id"])), now)
            values = {"rings": planning.plain(rings)}
            text = acts.with_reason(
                f"ring {present_ring(row, str(detail.get('ring', '')))[0]} passed by hand", reason
            )
        case _:
            raise RequestError("request.invalid", f'no verb "{verb[:40]}"')
    after = acts.change(conn, row, values, by, verb, text, now)
    incidents.happened(conn, int(row["id"]), text, by, now)
    return acts.outcome(after, verb, text)


def present_ring(row: Row, wanted: str) -> tuple[str, int]:
    """Return the name of the ring that is open, and its step; it must be the one that was named, when one was.

    Raises:
        RequestError: `request.not_found`: no such ring; `request.conflict`: it is not open, or none is.
    """
    names = [str(ring["name"]) for ring in row["policy"]["rings"]]
    if wanted and wanted not in names:
        raise RequestError(
            "request.not_found", f'no ring "{wanted[:64]}"{did_you_mean(wanted, names)}'
        )
    for name, ring in zip(names, row["rings"], strict=True):
        if ring["state"] in {"open", "soaking"}:
            if wanted not in {"", name}:
                raise RequestError("request.conflict", f"ring {name} is open, not {wanted}")
            return name, int(ring["step"])
    raise RequestError("request.conflict", "no ring is open")


def approve(conn: Connection, row: Row, actor: Actor, reason: str, now: int) -> acts.Outcome:
    """Approve what waits: the newest open request, or the step of a ring that waits at its gate `approval`."""
    asked = rows.requests(conn, state="open", rollout_id=int(row["id"]))
    if asked:
        return decide(conn, int(asked[0]["id"]), actor, reason, now, approve=True)
    model = planning.model_of(row)
    for spec, progress in zip(model.policy.rings, model.rings, strict=True):
        if progress.state not in {"open", "soaking"}:
            continue
        if not any(gate.gate == "approval" for gate in spec.gates):
            break
        place = scopes.place_of_rollout(conn, row)
        actor.require("rollout.approve", place)
        if actor.kind == "token":
            raise RequestError("request.forbidden", "a person approves, not a token")
        made_by = approvals.names_of(conn, str(row["created_by"]))
        if made_by & actor.people and approvals.others(conn, actor, place):
            raise RequestError("request.forbidden", "the second person must be somebody else")
        mine = Approval(ring=spec.name, step=progress.step, by=actor.name, at=now)
        if any(
            (one.ring, one.step) == (mine.ring, mine.step) and one.by in actor.people
            for one in model.approvals
        ):
            return acts.outcome(
                row, "approve", f"ring {spec.name} is approved by you already", already=True
            )
        values: Row = {"approvals": planning.plain((*model.approvals, mine))}
        text = acts.with_reason(f"ring {spec.name} approved by {actor.name}", reason)
        return acts.outcome(
            acts.change(conn, row, values, actor.name, "approve", text, now), "approve", text
        )
    raise RequestError("request.conflict", f"nothing of {row['name']} waits for approval")


def _asked(
    conn: Connection,
    row: Row,
    action: str,
    detail: Row,
    actor: Actor,
    reason: str,
    rules: Rules,
    devices: int,
    now: int,
) -> acts.Outcome:
    request_id = approvals.ask(
        conn, row, action=action, detail=detail, reason=reason, actor=actor, rules=rules, now=now
    )
    people = ", ".join(approvals.others(conn, actor, scopes.place_of_rollout(conn, row)))
    text = f"one more person has to approve it within {rules.expires_s // 3600} h; asked: {people}"
    return acts.outcome(row, action, text, request=request_id, reach=devices)


def decide(
    conn: Connection, request_id: int, actor: Actor, reason: str, now: int, *, approve: bool
) -> acts.Outcome:
    """Approve or decline a request, and carry out what was approved in the same transaction.

    Raises:
        RequestError: as `approvals.settle`, and as the act itself.
    """
    request = approvals.row_of(conn, request_id)
    row = acts.row_of(conn, str(request["rollout"]))
    approvals.settle(conn, request, row, actor, reason, now, approve=approve)
    action = str(request["action"])
    if not approve:
        if row["state"] == "awaiting_approval":
            row = acts.change(conn, row, {"state": "draft"}, actor.name, "decline", reason, now)
        return acts.outcome(row, "decline", acts.with_reason(f"{action} declined", reason))
    by = f"{request['asked_by']}, {actor.name}"
    text = acts.with_reason(str(request["reason"]), f"approved by {actor.name}")
    if action == "start":
        return begin(conn, row, by, text, now)
    if action == "fallback":
        way = msgspec.convert(request["detail"], type=fallbacks.WayBack)
        return fallbacks.carry_out(conn, row, way, by, text, now)
    if action == "edit":
        detail = request["detail"]
        return _edited(conn, row, detail["policy"], by, text, now, detail.get("wider", ()))
    return _carry_out(conn, row, action, request["detail"], by, text, now)


def edit(
    conn: Connection,
    name: str,
    draft: Draft,
    actor: Actor,
    reason: str,
    rules: Rules,
    devices: int,
    now: int,
    *,
    generation: int | None = None,
) -> acts.Outcome:
    """Replace a rollout's policy. Its release stays. Open requests become void, but for an edit that changes nothing.

    Of one that has begun rings keep their names, their order and what is open of them (`rollout.edits`). What only narrows is one person's act, however many
    devices it is for. One that waits for its time, and is now for more devices than one person may start it for, is a draft again.

    Raises:
        RequestError: `request.not_found`, `request.forbidden`, `request.conflict`.
    """
    row = acts.row_of(conn, name)
    actor.require("rollout.widen", scopes.place_of_rollout(conn, row))
    meant = scopes.place_of_audience(str(row["product"]), draft.audience)
    actor.require("rollout.widen", meant)
    if generation is not None and generation != row["generation"]:
        raise acts.ChangedError("request.conflict", f"{name} is at generation {row['generation']}")
    if row["kind"] != "install" or row["state"] in {
        "completed",
        "cancelled",
        "superseded",
        "falling_back",
    }:
        raise RequestError("request.conflict", f"cannot edit a rollout that is {row['state']}")
    if draft.release != row["release"]:
        raise RequestError(
            "request.conflict", f"{name} brings {row['release']}; make another rollout"
        )
    model = planning.model_of(row)
    delivery = msgspec.convert(row["delivery"], type=DeliveryPolicy)
    stands = (model.policy, delivery, row["audience"], row["start_at"])
    if stands == (draft.policy, draft.delivery, draft.audience, draft.start_at):
        return acts.outcome(row, "edit", "it is like that already", already=True)
    rows.settle_requests_of(conn, int(row["id"]), "lapsed", actor.name, now)
    values = {"policy": msgspec.to_builtins(draft.policy), "audience": draft.audience}
    values |= {"delivery": msgspec.to_builtins(draft.delivery), "start_at": draft.start_at}
    begun = row["started_at"] is not None
    if begun and not reason.strip():
        raise RequestError(
            "request.confirmation_needed", "editing a rollout that has begun needs a reason"
        )
    if not begun:
        # It would start by itself, as something else than what was put down for its time.
        again = row["state"] == "scheduled" and approvals.needed(conn, actor, meant, devices, rules)
        return _edited(conn, row, values, actor.name, reason, now, draft=again)
    edits.refitted(model.policy, draft.policy, model.rings)
    wider = edits.wider((model.policy, delivery), (draft.policy, draft.delivery))
    special = "disable_gate" if _gates(row["policy"]) - _gates(values["policy"]) else ""
    if wider and approvals.needed(conn, actor, meant, devices, rules, special):
        detail = {"policy": values, "devices": devices, "wider": list(wider)}
        asked = _asked(conn, row, "edit", detail, actor, reason, rules, devices, now)
        return msgspec.structs.replace(asked, text=f"{asked.text}. Wider: {'; '.join(wider)}")
    return _edited(conn, row, values, actor.name, reason, now, wider)


def _gates(policy: Row) -> frozenset[tuple[str, str]]:
    """Return the gates of a stored policy, each with its ring; guards are of none."""
    rings = {
        (str(ring["name"]), str(one["gate"]))
        for ring in policy["rings"]
        for one in ring.get("gates", ())
    }
    return frozenset(rings | {("", str(one["gate"])) for one in policy.get("guards", ())})


def _edited(
    conn: Connection,
    row: Row,
    values: Row,
    by: str,
    reason: str,
    now: int,
    wider: Sequence[str] = (),
    *,
    draft: bool = False,
) -> acts.Outcome:
    policy = msgspec.convert(values["policy"], type=Policy)
    model = planning.model_of(row)
    change = dict(values)
    if row["started_at"] is None:
        change["rings"] = planning.plain(engine.first_rings(policy))
        if draft or row["state"] == "awaiting_approval":
            change["state"] = "draft"
    else:
        change["rings"] = planning.plain(edits.refitted(model.policy, policy, model.rings))
        change["approvals"] = planning.plain(edits.kept(model.policy, policy, model.approvals))
    fixed.require_same(row["fixed"], model.policy, policy)
    done = f"policy edited, wider: {'; '.join(wider)}" if wider else "policy edited"
    if draft:
        done += "; it is a draft again, since to start it takes one more person now"
    text = acts.with_reason(done, reason)
    after = acts.change(conn, row, change, by, "edit", text, now)
    return acts.outcome(after, "edit", text)
