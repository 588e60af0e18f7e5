"""The inbox: widening beyond a number of devices takes two people. Stopping never comes here.

A request is bound to what was shown by a digest of the rollout's policy, release, state and the
act itself; an edit in between voids it. Where nobody else could
approve, the rule cannot be kept; one person goes on, and the interface says so.
"""

import hashlib
from typing import Any

import msgspec

from tidegate.core.codec import INTEGER_MAX, canonical
from tidegate.core.errors import RequestError
from tidegate.server import audit, scopes
from tidegate.server.actors import Actor, Place
from tidegate.server.people import register
from tidegate.server.store import Connection, admin_accounts, changes, device_queries
from tidegate.server.store import admin_rollouts as rows

Row = dict[str, Any]


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """When a second person is needed.

    `above_devices`, `above_share_bp`: from more devices than that on, or more of the fleet (basis points).
    `always`: acts that need one whatever their reach. `expires_s`: how long a request waits.
    """

    above_devices: int = 10_000
    above_share_bp: int = 10_000
    always: tuple[str, ...] = ("resume_after_halt", "disable_gate")
    expires_s: int = 86_400


class RequestFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A request for approval, as the API gives it."""

    id: int
    rollout: str
    action: str
    detail: dict[str, Any]
    reason: str
    asked_at: int
    asked_by: str
    expires_at: int
    state: str
    decided_at: int | None
    decided_by: str | None


def others(conn: Connection, actor: Actor, place: Place) -> list[str]:
    """Return who could approve what this actor asks for: enabled accounts with the right where the rollout stands, but none of the actor's own.

    The actor's own are also who stands behind a token, and other accounts of the same person.
    """
    return [
        one.name
        for one in register.enabled(conn)
        if one.allows("rollout.approve", place) and not one.people & actor.people
    ]


def is_single(conn: Connection) -> bool:
    """Say whether at most one person could approve anything: the two-person rule cannot be kept."""
    found = register.enabled(conn)
    widening = [one for one in found if one.may & {"rollout.widen", "rollout.approve"}]
    persons = {min(one.people) for one in widening}
    return len(persons) < 2 or not any("rollout.approve" in one.may for one in found)


def needed(
    conn: Connection, actor: Actor, place: Place, devices: int, rules: Rules, act: str = ""
) -> bool:
    """Say whether a second person has to approve.

    Args:
        conn: any connection.
        actor: who asks.
        place: where the rollout stands.
        devices: how many devices the act reaches.
        rules: of this server.
        act: its name in `Rules.always`.
    """
    if act not in rules.always and not _is_wide(conn, devices, rules):
        return False
    return bool(others(conn, actor, place))


def _is_wide(conn: Connection, devices: int, rules: Rules) -> bool:
    if devices > rules.above_devices:
        return True
    return devices * 10_000 > rules.above_share_bp * device_queries.accepted(conn)


def bound_to(rollout: Row, action: str, detail: Row) -> str:
    """Return the digest that binds an approval to what was shown."""
    document = {
        "rollout": rollout["name"],
        "release": rollout["release_sha256"],
        "policy": rollout["policy"],
        "isolated": rollout["isolated"],
        "audience": rollout["audience"],
        "delivery": rollout["delivery"],
        "start_at": rollout["start_at"],
        "action": action,
        "detail": {key: value for key, value in detail.items() if key != "devices"},
    }
    # Policies hold ratios, which canonical JSON of signed documents does not allow: they are written out as text.
    return hashlib.sha256(canonical(_plain(document))).hexdigest()


def ask(
    conn: Connection,
    rollout: Row,
    *,
    action: str,
    detail: Row,
    reason: str,
    actor: Actor,
    rules: Rules,
    now: int,
) -> int:
    """Put a request into the inbox and return its number; an open one for the same act is replaced."""
    rollout_id = int(rollout["id"])
    rows.settle_requests_of(conn, rollout_id, "lapsed", actor.name, now, (action,))
    row = {
        "rollout_id": rollout_id,
        "action": action,
        "detail": detail,
        "plan_sha256": bound_to(rollout, action, detail),
        "reason": reason,
        "asked_at": now,
        "asked_by": actor.owner or actor.name,
        "expires_at": now + rules.expires_s,
        "state": "open",
    }
    request_id = rows.add_request(conn, row)
    audit.record(
        conn,
        now,
        actor.name,
        "approval.ask",
        str(rollout["name"]),
        {"action": action, "request": request_id, "reason": reason},
        plan=str(row["plan_sha256"]),
    )
    changes.bump(conn, "rollout", str(rollout["name"]), now)
    return request_id


def listed(
    conn: Connection, *, state: str = "", rollout_id: int | None = None
) -> list[RequestFacts]:
    """Return requests, newest first."""
    return [_facts(row) for row in rows.requests(conn, state=state, rollout_id=rollout_id)]


def show(conn: Connection, request_id: int) -> RequestFacts:
    """Return a request.

    Raises:
        RequestError: `request.not_found`.
    """
    return _facts(row_of(conn, request_id))


def row_of(conn: Connection, request_id: int) -> Row:
    """Return a request's row.

    Raises:
        RequestError: `request.not_found`.
    """
    found = rows.request(conn, request_id) if 0 < request_id <= INTEGER_MAX else None
    if found is None:
        raise RequestError("request.not_found", f"no request {request_id}")
    return found


def settle(
    conn: Connection,
    request: Row,
    rollout: Row,
    actor: Actor,
    reason: str,
    now: int,
    *,
    approve: bool,
) -> None:
    """Approve or decline an open request; carrying it out is the caller's part of the same transaction.

    Raises:
        RequestError: `request.forbidden`: it is the actor's own, or the actor lacks the right; `request.conflict`: it was decided, ran out, or what was
            shown has changed.
    """
    actor.require("rollout.approve", scopes.place_of_rollout(conn, rollout))
    if actor.kind == "token":
        raise RequestError("request.forbidden", "a person approves, not a token")
    if approve and names_of(conn, str(request["asked_by"])) & actor.people:
        raise RequestError("request.forbidden", "the second person must be somebody else")
    if request["state"] != "open":
        raise RequestError("request.conflict", f"this request is {request['state']} already")
    if request["expires_at"] <= now:
        raise RequestError("request.conflict", "this request has run out; ask again")
    if approve and request["plan_sha256"] != bound_to(
        rollout, request["action"], request["detail"]
    ):
        raise RequestError(
            "request.conflict", "the rollout was changed since this was asked; ask again"
        )
    state = "approved" if approve else "declined"
    if not rows.settle_request(conn, int(request["id"]), state, actor.name, now):
        raise RequestError("request.conflict", "somebody else decided it meanwhile")
    action = "approval.approve" if approve else "approval.decline"
    detail = {
        "action": request["action"],
        "request": request["id"],
        "asked_by": request["asked_by"],
        "reason": reason,
    }
    plan = str(request["plan_sha256"])
    audit.record(conn, now, actor.name, action, str(rollout["name"]), detail, plan=plan)
    changes.bump(conn, "rollout", str(rollout["name"]), now)


def names_of(conn: Connection, name: str) -> frozenset[str]:
    """Return the names of who acted under one: the account, and others of the same person; of a token, those of its owner."""
    token = admin_accounts.live_token_named(conn, name.removeprefix("token:"))
    if name.startswith("token:") and token is not None:
        name = str(token["created_by"])
    account = admin_accounts.account(conn, name)
    found = register.actor_of(conn, account).people if account is not None else frozenset[str]()
    return found | {name}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return repr(value) if isinstance(value, float) else value


def _facts(row: Row) -> RequestFacts:
    return RequestFacts(**{name: row[name] for name in RequestFacts.__struct_fields__})
