"""Why a device is, or is not, updating, and why a rollout or a ring is where it is. The sentences are `rollout.explain`'s.

Web, API and command line ask here, and nobody else puts a device's facts together. A new reason for which a device waits is a field of
`explain.DeviceFacts`, filled here, and a check there.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from tidegate.core import schedule
from tidegate.core.errors import ConfigError, RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.core.release import ReleaseTarget
from tidegate.rollout import cohort, explain, holdback, keeping
from tidegate.rollout.model import Finding, Policy
from tidegate.server import (
    acts,
    caps,
    egress,
    inquiry,
    planning,
    reach,
    snapshot,
    telemetry,
    updates,
)
from tidegate.server.config import Settings
from tidegate.server.egress import UNBOUNDED, Budget
from tidegate.server.facts import Why
from tidegate.server.gatekeeper import rooms
from tidegate.server.groups import Book
from tidegate.server.outcomes import OPEN
from tidegate.server.snapshot import Live
from tidegate.server.store import Connection, admin_log, device_queries, gate_rows, hot
from tidegate.server.store.hot import UpdateRow

Row = dict[str, Any]
_FACTORY: Final = "the factory image"


class Bounds(NamedTuple):
    """What the server bounds for all rollouts: see `server.caps`, `server.egress`."""

    caps: Mapping[str, int] = MappingProxyType({})
    budget: Budget = UNBOUNDED


NO_BOUNDS: Final = Bounds()


class Standing(NamedTuple):
    """A device's facts, the rollout that they speak of, its update there, and the artifact that would be installed."""

    facts: explain.DeviceFacts
    live: Live | None = None
    update: UpdateRow | None = None
    target: ReleaseTarget | None = None


def bounds_of(settings: Settings) -> Bounds:
    """Return the bounds that the settings give."""
    return Bounds(settings.caps, Budget(settings.egress_rate, settings.egress_site_rate))


def tell(conn: Connection, device_id: str, now: int, bounds: Bounds = NO_BOUNDS) -> Why:
    """Say why a device is, or is not, updating.

    Raises:
        RequestError: `request.not_found`.
    """
    facts = standing(conn, inquiry.device_row(conn, device_id), now, bounds).facts
    return Why(
        device=device_id,
        rollout=facts.rollout,
        release=facts.release,
        verdict=explain.verdict(facts, now),
        checks=explain.why(facts, now),
    )


def tell_rollout(
    conn: Connection, name: str, ring: str, now: int, bounds: Bounds = NO_BOUNDS
) -> tuple[str, ...]:
    """Say why a rollout, or one of its rings (empty = the rollout), is where it is.

    Raises:
        RequestError: `request.not_found`.
    """
    row = acts.row_of(conn, name)
    model = planning.model_of(row)
    names = [spec.name for spec in model.policy.rings]
    if ring and ring not in names:
        raise RequestError("request.not_found", f'no ring "{ring[:64]}"{did_you_mean(ring, names)}')
    return explain.explain(
        model,
        tuple(msgspec.convert(one, type=Finding) for one in row["because"]),
        now=now,
        ring=ring,
        room=row["room"],
        decided_at=admin_log.planned_at(conn, int(row["id"])),
        position=telemetry.evidence(conn, int(row["id"])).position,
        mandate=inquiry.mandate_of(row) if row["kind"] == "install" else None,
        limits=limits(conn, row, bounds, now),
    )


def limits(conn: Connection, row: Row, bounds: Bounds, now: int) -> tuple[str, ...]:
    """Say what keeps devices of a rollout waiting that no gate speaks of: a hold on what was fetched ahead, no room for a part, caps, bytes."""
    policy = msgspec.convert(row["policy"], type=Policy)
    rollout_id, tenant = int(row["id"]), str(row["tenant"])
    found = []
    if policy.prefetch and row["released_at"] is None:
        found.append(f"activation is held: tidegate rollout activate {row['name']}")
    parts = gate_rows.rooms(conn, rollout_id, gate_rows.PART)
    found += [f"{one.name}: {one.because}" for one in parts if one.room <= 0 and one.because]
    found += caps.reached(conn, tenant, caps.least(bounds.caps, policy.at_once_per))
    found += egress.waits(conn, bounds.budget, tenant=tenant, now=now)
    return tuple(found)


def standing(conn: Connection, row: Row, now: int, bounds: Bounds = NO_BOUNDS) -> Standing:
    """Return where a device stands on its way to an update.

    Args:
        conn: any connection; reads only.
        row: of the device.
        now: unix seconds.
        bounds: of the server.
    """
    known = {one.rollout_id: one for one in hot.updates_of(conn, int(row["row"]))}
    live = _chosen(conn, row, snapshot.load_live(conn, str(row["product"])), known)
    runs = f"{row['product']}-{row['running_version']}" if row["running_version"] else _FACTORY
    facts = explain.DeviceFacts(
        device=row["id"],
        device_state=row["state"],
        last_seen=row["last_seen"],
        runs=runs,
        variant=row["variant"],
        held_by=(row["held_by"] or "an operator") if row["held"] else "",
        inhibitors=tuple(row["inhibitors"]),
        waiting=row["waiting"],
    )
    if live is None:
        return Standing(facts)
    update = known.get(live.row.id)
    targets = reach.targets(conn, live.row.release_id)
    facts = msgspec.structs.replace(
        facts,
        **_of_rollout(conn, live, update),
        **_of_release(live, row, update, targets),
        **_of_ring(conn, live, row, now),
        **_of_window(live, row, now),
        **_of_bounds(conn, live, row, update, bounds, now),
        # What it said before this rollout offered it anything was of another update.
        waiting=row["waiting"] if update is not None and update.state in OPEN else "",
        mandate=live.bar(row["id"], now),
    )
    return Standing(facts, live, update, reach.suited(targets, row))


def _chosen(
    conn: Connection, row: Row, lives: Iterable[Live], known: Mapping[int, UpdateRow]
) -> Live | None:
    """Return the rollout that matters to a device: one with an update under way, else the first that could serve it, else the first that concerns it."""
    mine = list(lives)
    for one in mine:
        update = known.get(one.row.id)
        if update is not None and update.state in OPEN:
            return one
    concerned: Live | None = None
    for one in mine:
        if one.row.kind == "fallback":
            if row["running_counter"] != one.row.parent_counter:
                continue
            suits = True
        elif one.row.counter <= row["running_counter"]:
            continue
        else:
            suits = reach.unsuited(reach.targets(conn, one.row.release_id), row) is None
        concerned = concerned or one
        if suits and one.admits and one.row.id not in known:
            return one
    newest = next((one for one in mine if one.row.kind == "install"), None)
    return concerned or newest


def _of_rollout(conn: Connection, live: Live, update: UpdateRow | None) -> Row:
    full = acts.row_of(conn, live.row.name)
    because = full["because"]
    return {
        "rollout": live.row.name,
        "release": full["release"],
        "rollout_state": live.row.state,
        "rollout_because": because[0]["text"] if because else "",
        "update_state": update.state if update else "",
        "update_reason": (update.reason or "") if update else "",
        "room": live.row.room,
    }


def _of_release(
    live: Live, row: Row, update: UpdateRow | None, targets: list[ReleaseTarget]
) -> Row:
    """Say whether the device has it, must refuse it, or will."""
    way_back = live.row.kind == "fallback"
    refused = {one.digest for one in targets} & set(row["refuses"])
    if way_back or updates.may_repeat(live, update):
        refused = set()
    reason = (update.reason if update else "") or explain.LEFT
    return {
        "up_to_date": not way_back and row["running_counter"] >= live.row.counter,
        "refusal": "" if way_back else reach.unsuited(targets, row) or "",
        "refused": reason if refused else "",
    }


def _of_ring(conn: Connection, live: Live, row: Row, now: int) -> Row:
    """Say which ring it is in, and how far that is open; or why it is in none."""
    model = live.rollout
    attrs = Book(conn).attributes(row, now)
    kept_out = keeping.kept_out(model.isolated, str(row["variant"]), attrs)
    index = snapshot.ring_index(live, int(row["row"]), attrs)
    known: Row = {
        "place": cohort.place(model.release_sha256, row["id"]),
        "isolated": bool(kept_out),
        "kept_out": kept_out,
        "prefetch": model.policy.prefetch,
        "let_go": live.row.released_at is not None,
        "by_owner": live.delivery.activate == "manual",
    }
    if index is not None:
        return known | {
            "ring": model.policy.rings[index].name,
            "ring_state": model.rings[index].state,
            "share_bp": cohort.share_of(model, index),
            "held_back_until": holdback.until(model.policy, index, model.rings[index]) or 0,
        }
    if live.fixed is None:
        return known
    made_at = int(acts.row_of(conn, model.name)["created_at"])
    joined = not live.fixed.knew(int(row["row"]))
    return known | {"fixed_at": made_at, "joined_later": joined}


def _of_window(live: Live, row: Row, now: int) -> Row:
    """Give the activation window in words, its zone, and when it opens next; a zone that only the device knows says nothing about when."""
    delivery = live.delivery
    if not delivery.activate_window:
        return {}
    known: Row = {"window": ", ".join(delivery.activate_window)}
    own = row["attributes"].get("zone", "")
    zone = delivery.zone if delivery.zone != "device" else own
    try:
        windows = schedule.parse_windows(delivery.activate_window)
        opens = schedule.next_open(windows, schedule.load_zone(zone), now) if zone else None
    except ConfigError:
        zone, opens = "", None
    return known | {"zone": zone, "opens_at": opens or 0}


def _of_bounds(
    conn: Connection,
    live: Live,
    row: Row,
    update: UpdateRow | None,
    bounds: Bounds,
    now: int,
) -> Row:
    """Say what caps, the budget of bytes and the rollout's retry policy keep it waiting for."""
    device = device_queries.by_row(conn, int(row["row"]))
    if device is None:
        return {}
    capped = caps.least(bounds.caps, live.rollout.policy.at_once_per)
    full = caps.full(conn, device, capped, way_back=live.row.kind == "fallback")
    wait = egress.wait(conn, bounds.budget, tenant=device.tenant, site=device.site, now=now)
    ruling = updates.again(conn, live, update, now) if update is not None else None
    return {
        "again": ruling.text if ruling else "",
        "unproven": rooms.lacking(conn, live.row.id, device),
        "capped": str(full) if full else "",
        "egress": str(wait) if wait else "",
    }
