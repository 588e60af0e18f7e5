"""Ordering a halted rollout's devices back to the release that they came from.

The authority is offline: the running release itself names, in its signed metadata, the counters
that a device may be ordered back to (`fallback_to`), and the device
checks that again. So one operator may order it. For any other way back the incident
ring must sign a grant (`server.grants`). The way back is a rollout of its own with its own updates; its audience are the devices that run what they are
called back from, so nobody has to be listed.
"""

from typing import Any, Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.protocol import DeliveryPolicy
from tidegate.rollout import cohort, engine
from tidegate.rollout.model import GateSpec, Policy, RingSpec
from tidegate.server import acts, approvals, audit, incidents, planning, reach, scopes
from tidegate.server.approvals import Rules
from tidegate.server.auth import Actor
from tidegate.server.groups import Book
from tidegate.server.store import Connection, admin_log, changes
from tidegate.server.store import admin_devices as device_rows
from tidegate.server.store import admin_rollouts as rows

Row = dict[str, Any]
RING: Final = "way-back"
#: Gates of the rollout's own guards that also watch the way back; where it has none of these, the first watches with its defaults.
_KEPT_GUARDS: Final = ("failure_rate", "evidence")


class WayBack(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a fallback would reach. `resident` have the release confirmed in their other slot; `already` run it; `elsewhere` do not hold it.

    `grant` is the row of the incident ring's grant that allows it; then those elsewhere go back as well, by download. 0 = allowed by the release itself.
    """

    rollout: str
    to: str
    counter: int
    audience: str
    resident: int
    already: int
    elsewhere: int
    refused: int
    variants: dict[str, int]
    warnings: tuple[str, ...] = ()
    grant: int = 0

    @property
    def reach(self) -> int:
        """Return how many devices are ordered back."""
        return self.resident + (self.elsewhere if self.grant else 0)


def preview(conn: Connection, name: str, to: str, scope: str, now: int) -> WayBack:
    """Say whom a fallback would reach; writes nothing.

    Args:
        conn: any connection; reads every device of the product.
        name: of the rollout that was halted.
        to: name of the release to go back to; empty = the newest that the running release allows.
        scope: `exposed`, `variant:NAME` or `query:QUERY`; untrusted.
        now: unix seconds.

    Raises:
        RequestError: `request.not_found`; `request.conflict`: no signed word allows that way back; `request.invalid`: the scope.
    """
    row = acts.row_of(conn, name)
    release = destination(conn, row, to, now)
    audience = audience_of(row, scope)
    wanted = reach.targets(conn, int(release["id"]))
    digests = {one.install.sha256 for one in wanted}
    matches = cohort.parse(audience).matches
    book = Book(conn)
    counts = {"resident": 0, "already": 0, "elsewhere": 0, "refused": 0}
    variants: dict[str, int] = {}
    for device in device_rows.devices(conn, states=("accepted",), product=str(row["product"])):
        if device["running_counter"] == release["counter"]:
            counts["already"] += 1
        if not matches(book.attributes(device, now)):
            continue
        where = standing(device, digests, int(release["security_version"]))
        counts[where] += 1
        if where == "resident":
            variant = str(device["variant"])
            variants[variant] = variants.get(variant, 0) + 1
    warnings = []
    if counts["elsewhere"]:
        warnings.append(
            f"{counts['elsewhere']:,} devices do not hold {release['name']} in their other slot: they stay"
        )
    if counts["refused"]:
        warnings.append(f"{counts['refused']:,} devices have a security floor above it: they stay")
    return WayBack(
        rollout=name,
        to=str(release["name"]),
        counter=int(release["counter"]),
        audience=audience,
        variants=dict(sorted(variants.items())),
        warnings=tuple(warnings),
        **counts,
    )


def order(
    conn: Connection, found: WayBack, actor: Actor, reason: str, rules: Rules, now: int
) -> acts.Outcome:
    """Order the way back that was shown: a child rollout, active at once. Ordering the same again changes nothing.

    Raises:
        RequestError: `request.forbidden`; `request.confirmation_needed`: no reason; `request.conflict`: the rollout is not halted, or nobody can go back.
    """
    actor.require("rollout.fallback")
    if not reason.strip():
        raise RequestError("request.confirmation_needed", "fallback needs a reason")
    row = acts.row_of(conn, found.rollout)
    for child in rows.children(conn, int(row["id"])):
        same = child["audience"] == found.audience and (child["grant_id"] or 0) == found.grant
        if same and child["state"] in {"active", "paused"}:
            return acts.outcome(child, "fallback", "already ordered", already=True)
    if not (found.grant and row["state"] == "falling_back"):
        engine.transition(row["state"], "fallback")
    if not found.reach:
        raise RequestError(
            "request.conflict",
            f"no device that runs {row['release']} holds {found.to} in its other slot",
        )
    if approvals.needed(
        conn, actor, scopes.place_of_rollout(conn, row), found.reach, rules, "fallback"
    ):
        detail = {**msgspec.to_builtins(found), "devices": found.reach}
        request = approvals.ask(
            conn,
            row,
            action="fallback",
            detail=detail,
            reason=reason,
            actor=actor,
            rules=rules,
            now=now,
        )
        text = "one more person has to approve it"
        return acts.outcome(row, "fallback", text, request=request, reach=found.reach)
    return carry_out(conn, row, found, actor.name, reason, now)


def carry_out(
    conn: Connection, row: Row, found: WayBack, by: str, reason: str, now: int
) -> acts.Outcome:
    """Make the child rollout and set the halted one to falling back, in one transaction."""
    release = acts.release_of(conn, found.to)
    policy = _policy(row, found.audience)
    child: Row = {
        "name": _free_name(conn, row),
        "kind": "fallback",
        "parent_id": row["id"],
        "release_id": release["id"],
        "product": row["product"],
        "audience": found.audience,
        "state": "active",
        "policy": msgspec.to_builtins(policy),
        "rings": planning.plain(engine.first_rings(policy)),
        "isolated": [],
        "approvals": [],
        "delivery": msgspec.to_builtins(DeliveryPolicy()),
        "because": [],
        "start_at": 0,
        "created_at": now,
        "created_by": by,
        "started_at": now,
        "grant_id": found.grant or None,
    }
    rows.add_rollout(conn, child)
    made = acts.row_of(conn, str(child["name"]))
    text = f"{found.reach:,} devices are ordered back to {found.to}: {reason.strip()}"
    planning.log(conn, made, 1, by, "create", text, [], now)
    changes.bump(conn, "rollout", str(made["name"]), now)
    planning.cancel_untouched(conn, row, "cancelled", "operator.fallback", now)
    because = planning.plain((acts.waits(text, gate="operator"),))
    # Once it has been brought back, it takes no newcomers.
    policy_of_parent = {**row["policy"], "dynamic": False}
    values: Row = {"state": "falling_back", "because": because, "policy": policy_of_parent}
    acts.change(conn, row, values, by, "fallback", text, now)
    admin_log.raise_epoch(conn, now)
    _tell(conn, row, made, text, by, now)
    return acts.outcome(made, "fallback", text, reach=found.reach)


def _tell(conn: Connection, row: Row, child: Row, text: str, by: str, now: int) -> None:
    """Write it into the open incidents; open one where there is none."""
    if incidents.of_rollout(conn, int(row["id"]), unclosed=True):
        incidents.happened(conn, int(row["id"]), text, by, now)
    else:
        incidents.open_one(
            conn, kind="fallback", rollout=row, summary=text, because=row["because"], by=by, now=now
        )
    audit.record(
        conn, now, by, "rollout.fallback", str(row["name"]), {"child": child["name"], "text": text}
    )
    payload = {
        "event": "rollout.fallback",
        "rollout": row["name"],
        "child": child["name"],
        "text": text,
        "by": by,
        "at": now,
    }
    admin_log.add_outbox(conn, "event", payload, now)


def destination(conn: Connection, row: Row, to: str, now: int) -> Row:
    """Return the release to go back to, which every artifact of the running release must allow by its own signed word.

    Args:
        conn: any connection.
        row: of the rollout whose release devices run.
        to: name of a release; empty = the newest that is allowed.
        now: unix seconds.

    Raises:
        RequestError: `request.conflict`: no signed word allows it, or it was recalled; `request.not_found`.
    """
    allowed: set[int] | None = None
    for target in reach.targets(conn, int(row["release_id"])):
        mine = {one.counter for one in target.fallback_to if one.expires > now}
        allowed = mine if allowed is None else allowed & mine
    if not allowed:
        raise RequestError(
            "request.conflict",
            f"{row['release']} names no release in fallback_to that is still good: no way back was signed",
            hint="the incident ring can grant one (tidegate incident grant draft), or publish the good bytes again (tidegate release re-release)",
        )
    if not to:
        to_row = rows.release_by_counter(conn, str(row["product"]), max(allowed))
        if to_row is None:
            raise RequestError("request.not_found", f"no release with counter {max(allowed)}")
        return _good(to_row)
    release = acts.release_of(conn, to)
    if release["product"] != row["product"] or release["counter"] not in allowed:
        names = ", ".join(str(one) for one in sorted(allowed))
        raise RequestError(
            "request.conflict",
            f"{row['release']} does not allow the way back to {to}; counters: {names}",
        )
    return _good(release)


def proposed(conn: Connection, row: Row, now: int) -> str:
    """Return the name of the release that a halted rollout's devices can be ordered back to without anybody's leave, or an empty text."""
    if row["state"] != "halted" or row["kind"] != "install":
        return ""
    try:
        return str(destination(conn, row, "", now)["name"])
    except RequestError:
        return ""


def _good(release: Row) -> Row:
    """Return a release to go back to, unless it was recalled."""
    if release["state"] != "live":
        raise RequestError("request.conflict", f"{release['name']} was recalled")
    return release


def audience_of(row: Row, scope: str) -> str:
    """Return the query of a scope: always only devices that run what they are called back from.

    Raises:
        RequestError: `request.invalid`.
    """
    running = f"counter = {row['release_counter']}"
    kind, _, rest = scope.partition(":")
    if kind == "exposed" and not rest:
        return str(cohort.parse(running))
    if kind == "variant" and rest:
        quoted = rest.replace("\\", "\\\\").replace('"', '\\"')
        return str(cohort.parse(f'{running} and variant = "{quoted}"'))
    if kind == "query" and rest:
        cohort.parse_lasting(rest)
        return str(cohort.parse(f"{running} and ({rest})"))
    raise RequestError("request.invalid", "cohort: exposed, variant:NAME or query:QUERY")


def standing(device: Row, digests: set[str], security_version: int) -> str:
    """Say how a device stands to a release to go back to: `refused` by its floor, `resident`, or `elsewhere`."""
    if device["security_floor"] > security_version:
        return "refused"
    for slot in device["slots"].values():
        if slot.get("state") == "confirmed" and slot.get("sha256") in digests:
            return "resident"
    return "elsewhere"


#: The least time for which an answer of a device that goes back is waited for.
_ANSWER: Final = "15m"


def _policy(row: Row, audience: str) -> Policy:
    parent = msgspec.convert(row["policy"], type=Policy)
    guards = tuple(_hurried(one) for one in parent.guards if one.gate in _KEPT_GUARDS)
    return Policy(
        rings=(RingSpec(name=RING, audience=audience),),
        guards=guards or (GateSpec(gate=_KEPT_GUARDS[0]),),
        deadlines=parent.deadlines,
        at_once=parent.at_once,
        at_once_per=parent.at_once_per,
        first=parent.first,
    )


def _hurried(guard: GateSpec) -> GateSpec:
    """Return a guard for a way back: what devices run is known to be bad, so nobody soaks for days before the next may leave it.

    An answer is waited for as long as these devices take (`gatekeeper.opening`), without the hour that a release has at least: nothing is downloaded between a
    permit and its answer, and how long a restart takes is known from the way there. Where it is not, the health contract and half an hour still are. What a
    person has set stays.
    """
    if guard.gate != "evidence":
        return guard
    settings = {"answer": _ANSWER, **guard.settings, "preset": "emergency"}
    return msgspec.structs.replace(guard, settings=settings)


def _free_name(conn: Connection, row: Row) -> str:
    count = len(rows.children(conn, int(row["id"])))
    return f"{str(row['name'])[:110]}.back{count + 1}"
