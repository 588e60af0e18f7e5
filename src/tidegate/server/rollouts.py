"""Rollouts as operators act on them: make, start, pause, resume, halt, cancel, advance, isolate, readmit.

Stopping is one person's act (`server.stopping`). Widening states its reach first and may need a
second person (`server.widening`, `server.approvals`). What a verb
may follow is `rollout.states`; what comes next is `server.planning`. Fallback is in `server.fallbacks`.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.core.protocol import DeliveryPolicy
from tidegate.rollout import engine
from tidegate.rollout.cohort import Fixed
from tidegate.rollout.lint import Lint, Scope, lint
from tidegate.rollout.model import Policy, Rollout
from tidegate.server import acts, audit, drafts, fixed, planning, reach, scopes, stopping, widening
from tidegate.server.actors import FLEET, Actor
from tidegate.server.amendments import terms_of
from tidegate.server.approvals import Rules
from tidegate.server.drafts import Draft
from tidegate.server.headcount import Sample
from tidegate.server.planning import Audience
from tidegate.server.reach import Reach
from tidegate.server.store import Connection, changes
from tidegate.server.store import admin_devices as device_rows
from tidegate.server.store import admin_rollouts as rows

Row = dict[str, Any]
#: Verb → the permission it takes.
PERMISSIONS: Final = {
    "start": "rollout.widen",
    "activate": "rollout.widen",
    "approve": "rollout.approve",
    "resume": "rollout.widen",
    "advance": "rollout.widen",
    "readmit": "rollout.widen",
    "pause": "rollout.halt",
    "halt": "rollout.halt",
    "cancel": "rollout.halt",
    "isolate": "rollout.halt",
}
#: Verbs that cannot be undone, or widen: they take a reason.
_WANT_REASON: Final = frozenset({"cancel", "resume", "advance", "readmit"})


def preview(
    conn: Connection, draft: Draft, now: int, rate: int = 0, sample: Sample | None = None
) -> Reach:
    """Say whom a draft would reach, and what speaks against it; writes nothing.

    Args:
        conn: any connection; reads every device of the product, or of the sample.
        draft: checked (`drafts.draft_of`).
        now: unix seconds.
        rate: bytes a second that the server's budget allows; 0 = no bound.
        sample: devices that stand for all; None = all are asked.

    Raises:
        RequestError: `request.not_found` (the release), `request.conflict` (it was recalled, or the name is taken by other content).
    """
    release = _live_release(conn, draft.release)
    _existing(conn, draft)
    again = draft.delivery.retry_refused
    serving = rows.serving(conn, str(release["product"]))
    others = [one for one in serving if one["name"] != draft.name]
    found = reach.measure(
        conn, release, draft.policy, now, retry_refused=again, others=others, sample=sample
    )
    return _linted(conn, draft, int(release["id"]), found, now, rate)


def bound(conn: Connection, draft: Draft, audience: Audience, now: int, rate: int = 0) -> Reach:
    """Say whom a draft reaches at most, without asking every device; raises as `preview`.

    Args:
        conn: any connection.
        draft: checked (`drafts.draft_of`).
        audience: counts by (ring, variant).
        now: unix seconds.
        rate: as of `preview`.
    """
    release = _live_release(conn, draft.release)
    _existing(conn, draft)
    counts = audience(conn, unmade(draft), str(release["product"]), now)
    payload = reach.payload_of(reach.targets(conn, int(release["id"])))
    found = reach.at_most(release, draft.policy, counts, payload)
    return _linted(conn, draft, int(release["id"]), found, now, rate)


def require_to_create(conn: Connection, draft: Draft, actor: Actor) -> None:
    """Insist that an actor may make a rollout of this release for this audience.

    Raises:
        RequestError: `request.not_found` (the release, also where the actor does not see it), `request.forbidden`.
    """
    actor.require("rollout.create")
    if actor.allows("rollout.create", FLEET):
        return
    release = rows.release(conn, draft.release)
    if release is None or not actor.sight.sees_release(str(release["product"])):
        raise RequestError("request.not_found", f'no release "{draft.release[:64]}"')
    place = scopes.place_of_audience(str(release["product"]), draft.audience)
    actor.require("rollout.create", place)


def unmade(draft: Draft) -> Rollout:
    """Return a draft as the planner would see it, to count its audience."""
    return Rollout(
        name=draft.name, release_sha256="", state="draft",
        generation=0, policy=draft.policy, rings=engine.first_rings(draft.policy),
    )  # fmt: skip


def _linted(
    conn: Connection, draft: Draft, release_id: int, found: Reach, now: int, rate: int
) -> Reach:
    starts_at = max(now, draft.start_at)
    targets = reach.targets(conn, release_id)
    scope = Scope(
        offered={ring.name: ring.variants for ring in found.rings},
        starts_at=starts_at,
        deadline=draft.delivery.deadline,
        opens_at=drafts.opens_at(draft.delivery, starts_at),
        security=all(one.kind == "security" for one in targets),
        warm_up_s=max((one.health.warmup_s for one in targets), default=0),
        payload=found.payload,
        rate=rate,
        conflicts=found.conflicts,
        groups=frozenset(str(one["name"]) for one in device_rows.groups(conn)),
    )
    lints = lint(draft.policy, scope)
    warnings = tuple(one.text for one in lints if one.level != "note")
    return msgspec.structs.replace(found, lints=lints, warnings=warnings)


def create(
    conn: Connection,
    draft: Draft,
    found: Reach,
    actor: Actor,
    reason: str,
    rules: Rules,
    now: int,
    *,
    meant: Fixed | None = None,
) -> acts.Outcome:
    """Make a rollout and, unless it is a draft, start it. Making the same one again changes nothing.

    Args:
        conn: the writer's connection.
        draft: checked (`drafts.draft_of`).
        found: whom it reaches (`preview`).
        actor: who makes it.
        reason: why; may be empty.
        rules: when a second person is needed.
        now: unix seconds.
        meant: whom a snapshot rollout means; None = newcomers are taken.

    Raises:
        RequestError: as `preview`; `request.forbidden`.
    """
    require_to_create(conn, draft, actor)
    release = _live_release(conn, draft.release)
    old = _existing(conn, draft)
    if old is not None:
        return acts.outcome(old, "create", "already made", already=True)
    _refuse_errors(found.lints)
    row: Row = {
        "name": draft.name,
        "kind": "install",
        "release_id": release["id"],
        "product": release["product"],
        "audience": draft.audience,
        "state": "draft",
        "policy": msgspec.to_builtins(draft.policy),
        "rings": planning.plain(engine.first_rings(draft.policy)),
        "isolated": [],
        "approvals": [],
        "delivery": msgspec.to_builtins(draft.delivery),
        "because": planning.plain((acts.waits("not started: it is a draft"),)),
        "start_at": draft.start_at,
        "created_at": now,
        "created_by": actor.name,
        "fixed": fixed.save(conn, meant) if meant is not None else None,
    }
    rows.add_rollout(conn, row)
    made = acts.row_of(conn, draft.name)
    text = f"made: {draft.release} to {found.offered:,} of {found.matched:,} matching devices"
    planning.log(conn, made, 1, actor.name, "create", acts.with_reason(text, reason), [], now)
    detail = {"release": draft.release, "devices": found.offered, "reason": reason}
    audit.record(conn, now, actor.name, "rollout.create", draft.name, detail)
    changes.bump(conn, "rollout", draft.name, now)
    if draft.draft:
        return acts.outcome(made, "create", text, reach=found.offered)
    started = widening.start(conn, made, actor, reason, rules, found.offered, now)
    return msgspec.structs.replace(started, verb="create", text=f"{text}; {started.text}")


def prepare(
    conn: Connection,
    name: str,
    verb: str,
    detail: Row,
    now: int,
    sample: Callable[[Connection, Rollout, str], Sample | None] = lambda *_: None,
) -> int:
    """Return how many devices an act would widen a rollout to; 0 for what does not widen. Reads much: run it on a snapshot, before the act.

    Raises:
        RequestError: `request.not_found`.
    """
    if verb not in {"start", "activate", "resume", "advance", "readmit", "edit"}:
        return 0
    row = acts.row_of(conn, name)
    release = acts.release_of(conn, str(row["release"]))
    policy = msgspec.convert(row["policy"], type=Policy)
    again = msgspec.convert(row["delivery"], type=DeliveryPolicy).retry_refused
    meant = fixed.load(conn, row["fixed"]) if row["fixed"] else None
    chosen = sample(conn, planning.model_of(row), str(row["product"]))
    more = 0
    if verb == "readmit":
        entry = stopping.entry_of(detail)
        others = tuple(one for one in row["isolated"] if one != entry)
        more = reach.measure(
            conn, release, policy, now, others, retry_refused=again, meant=meant, sample=chosen
        ).offered
    found = reach.measure(
        conn, release, policy, now, tuple(row["isolated"]), retry_refused=again, meant=meant,
        sample=chosen,
    )  # fmt: skip
    if verb == "readmit":
        return max(0, more - found.offered)
    if verb == "advance":
        return found.of_ring(widening.present_ring(row, str(detail.get("ring", "")))[0])
    return found.offered


def when_edited(
    conn: Connection,
    draft: Draft,
    now: int,
    rate: int = 0,
    sample: Callable[[Connection, Rollout, str], Sample | None] = lambda *_: None,
) -> Reach:
    """Say whom a rollout reaches once it is edited to a draft, and what speaks against it then and did not before. Reads much, as `prepare` does.

    Raises:
        RequestError: `request.not_found`; `request.invalid` for what `create` would refuse as well.
    """
    row = acts.row_of(conn, draft.name)
    release = acts.release_of(conn, str(row["release"]))
    meant = fixed.load(conn, row["fixed"]) if row["fixed"] else None

    def measured(one: Draft) -> Reach:
        found = reach.measure(
            conn, release, one.policy, now, tuple(row["isolated"]), meant=meant,
            retry_refused=one.delivery.retry_refused,
            sample=sample(conn, unmade(one), str(row["product"])),
        )  # fmt: skip
        return _linted(conn, one, int(release["id"]), found, now, rate)

    stands = terms_of(row)
    known = measured(msgspec.structs.replace(draft, policy=stands.policy, delivery=stands.delivery))
    after = measured(draft)
    new = tuple(one for one in after.lints if one not in known.lints)
    _refuse_errors(new)
    # That a ring is for nobody is news where it was for somebody.
    told = (one for one in new if one.level != "note" or one.code == "lint.ring_empty")
    return msgspec.structs.replace(after, warnings=tuple(one.text for one in told))


def _refuse_errors(lints: Iterable[Lint]) -> None:
    for one in lints:
        if one.level == "error":
            raise RequestError("request.invalid", f"{one.text} ({one.code})")


def act(
    conn: Connection,
    name: str,
    verb: str,
    actor: Actor,
    reason: str,
    now: int,
    *,
    rules: Rules,
    detail: Row | None = None,
    devices: int = 0,
    generation: int | None = None,
) -> acts.Outcome:
    """Carry out a verb on a rollout.

    Args:
        conn: the writer's connection; done and effective when its transaction is durable.
        name: of the rollout.
        verb: one of `PERMISSIONS`.
        actor: who acts.
        reason: why; needed by what widens or cannot be undone.
        now: unix seconds.
        rules: when a second person is needed.
        detail: `variant` or `where` (isolate, readmit), `ring` (advance).
        devices: whom it widens to (`prepare`).
        generation: what the caller saw; None = whatever it is.

    Raises:
        RequestError: `request.not_found`, `request.forbidden`, `request.invalid`; `request.conflict`: not possible in this state, or it changed meanwhile.
    """
    permission = PERMISSIONS.get(verb)
    if permission is None:
        near = did_you_mean(verb, PERMISSIONS)
        raise RequestError("request.invalid", f'no verb "{verb[:40]}"{near}')
    actor.require(permission, scopes.place_of_rollout(conn, acts.row_of(conn, name)))
    if verb in _WANT_REASON and not reason.strip():
        raise RequestError("request.confirmation_needed", f"{verb} needs a reason")
    row = acts.row_of(conn, name)
    if generation is not None and generation != row["generation"]:
        raise acts.ChangedError(
            "request.conflict", f"{name} is at generation {row['generation']}, not {generation}"
        )
    handler = _HANDLERS.get(verb)
    if handler is not None:
        return handler(conn, row, actor, reason.strip(), now)
    wanted = detail or {}
    match verb:
        case "isolate":
            return stopping.isolate(conn, row, wanted, actor, reason, now)
        case "approve":
            return widening.approve(conn, row, actor, reason, now)
        case "start":
            return widening.start(conn, row, actor, reason, rules, devices, now)
        case _:
            return widening.widen(conn, row, verb, wanted, actor, reason, rules, devices, now)


def _live_release(conn: Connection, name: str) -> Row:
    release = acts.release_of(conn, name)
    if release["state"] != "live":
        raise RequestError("request.conflict", f"{name} was recalled: {release['recall_reason']}")
    return release


def _existing(conn: Connection, draft: Draft) -> Row | None:
    """Return the rollout of that name when it is the very same; refuse when it has other content."""
    old = rows.rollout(conn, draft.name)
    if old is None:
        return None
    same = (
        old["release"] == draft.release
        and msgspec.convert(old["policy"], type=Policy) == draft.policy
        and msgspec.convert(old["delivery"], type=DeliveryPolicy) == draft.delivery
    )
    if not same:
        raise RequestError(
            "request.conflict",
            f"there is a rollout {draft.name} with other content: give this one another name",
        )
    return old


_HANDLERS: Final[dict[str, Callable[[Connection, Row, Actor, str, int], acts.Outcome]]] = {
    "halt": stopping.halt,
    "pause": stopping.pause,
    "cancel": stopping.cancel,
}
