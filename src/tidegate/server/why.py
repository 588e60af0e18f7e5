"""Why a device is, or is not, updating: its facts beside those of the rollout that would serve it. The sentences are `rollout.explain`'s."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from tidegate.core import schedule
from tidegate.core.protocol import DeliveryPolicy
from tidegate.rollout import cohort, explain, keeping
from tidegate.server import acts, caps, egress, inquiry, reach, snapshot, updates
from tidegate.server.config import Settings
from tidegate.server.egress import UNBOUNDED, Budget
from tidegate.server.facts import Why
from tidegate.server.groups import Book
from tidegate.server.store import Connection, device_queries, hot
from tidegate.server.store import admin_devices as device_rows

Row = dict[str, Any]
_ENDED: Final = frozenset(
    {"confirmed", "declined", "failed", "reverted", "lost", "cancelled", "superseded"}
)


class Bounds(NamedTuple):
    """What the server bounds for all rollouts: see `server.caps`, `server.egress`."""

    caps: Mapping[str, int] = MappingProxyType({})
    budget: Budget = UNBOUNDED


NO_BOUNDS: Final = Bounds()


def bounds_of(settings: Settings) -> Bounds:
    """Return the bounds that the settings give."""
    return Bounds(settings.caps, Budget(settings.egress_rate, settings.egress_site_rate))


def tell(conn: Connection, device_id: str, now: int, bounds: Bounds = NO_BOUNDS) -> Why:
    """Say why a device is, or is not, updating.

    Raises:
        RequestError: `request.not_found`.
    """
    row = inquiry.device_row(conn, device_id)
    facts = facts_of(conn, row, now, bounds)
    return Why(
        device=device_id,
        rollout=facts.rollout,
        release=facts.release,
        verdict=explain.verdict(facts, now),
        checks=explain.why(facts, now),
    )


def facts_of(
    conn: Connection, row: Row, now: int, bounds: Bounds = NO_BOUNDS
) -> explain.DeviceFacts:
    """Return what is known about a device and the rollout that would serve it."""
    attrs = Book(conn).attributes(row, now)
    updates = {int(one["rollout_id"]): one for one in device_rows.updates_of(conn, int(row["row"]))}
    live = snapshot.load_live(conn, str(row["product"]))
    chosen = _chosen(conn, row, live, updates)
    runs = f"{row['product']}-{row['running_version']}" if row["running_version"] else ""
    common = explain.DeviceFacts(
        device=row["id"],
        device_state=row["state"],
        last_seen=row["last_seen"],
        runs=runs,
        variant=row["variant"],
        held_by=row["held_by"] if row["held"] else "",
        inhibitors=tuple(row["inhibitors"]),
        waiting=row["waiting"],
    )
    if chosen is None:
        return common
    update = updates.get(chosen.row.id)
    found = _with_rollout(conn, row, common, chosen, attrs, update, now)
    return with_bounds(conn, int(row["row"]), found, chosen, bounds, now)


def _chosen(
    conn: Connection, row: Row, live: Iterable[snapshot.Live], updates: dict[int, Row]
) -> snapshot.Live | None:
    """Return the rollout that matters to a device: one with an update under way, else the first that could serve it, else the newest newer one."""
    fallback: snapshot.Live | None = None
    mine = list(live)
    for one in mine:
        update = updates.get(one.row.id)
        if update is not None and update["state"] not in _ENDED:
            return one
    for one in mine:
        if one.row.kind == "fallback" or one.row.counter <= row["running_counter"]:
            continue
        fallback = fallback or one
        suits = reach.unsuited(reach.targets(conn, one.row.release_id), row) is None
        if suits and one.admits and one.row.id not in updates:
            return one
    newest = next((one for one in mine if one.row.kind == "install"), None)
    return fallback or newest


def _with_rollout(
    conn: Connection,
    row: Row,
    common: explain.DeviceFacts,
    chosen: snapshot.Live,
    attrs: Row,
    update: Row | None,
    now: int,
) -> explain.DeviceFacts:
    model = chosen.rollout
    index = cohort.ring_of(model.policy, attrs)
    kept_out = keeping.kept_out(model.isolated, str(row["variant"]), attrs)
    full = acts.row_of(conn, model.name)
    wanted = reach.targets(conn, chosen.row.release_id)
    refused = {one.digest for one in wanted} & set(row["refuses"])
    if chosen.delivery.retry_refused:
        refused = set()
    ended = next((u for u in [update] if u is not None and u["reason"]), None)
    because = full["because"]
    window, zone, opens_at = _window(chosen.delivery, now)
    up_to_date = row["running_counter"] >= chosen.row.counter and chosen.row.kind == "install"
    return msgspec.structs.replace(
        common,
        rollout=model.name,
        release=full["release"],
        up_to_date=up_to_date,
        rollout_state=model.state,
        rollout_because=because[0]["text"] if because else "",
        refusal="" if chosen.row.kind == "fallback" else reach.unsuited(wanted, row) or "",
        mandate=chosen.bar(row["id"], now),
        refused=(ended["reason"] if ended else "it went back from it") if refused else "",
        ring=model.policy.rings[index].name if index is not None else "",
        ring_state=model.rings[index].state if index is not None else "",
        share_bp=cohort.share_of(model, index) if index is not None else 0,
        place=cohort.place(model.release_sha256, row["id"]),
        isolated=bool(kept_out),
        kept_out=kept_out,
        update_state=update["state"] if update else "",
        update_reason=(update["reason"] or "") if update else "",
        window=window,
        zone=zone,
        opens_at=opens_at,
        room=chosen.row.room,
    )


def with_bounds(
    conn: Connection,
    row: int,
    facts: explain.DeviceFacts,
    chosen: snapshot.Live,
    bounds: Bounds,
    now: int,
) -> explain.DeviceFacts:
    """Add to a device's facts what caps, the budget of bytes and the retry policy of the rollout that concerns it say; web and API ask here.

    Args:
        conn: any connection; reads only.
        row: of the device.
        facts: of the device and `chosen`.
        chosen: the rollout.
        bounds: of the server.
        now: unix seconds.
    """
    device = device_queries.by_row(conn, row)
    if device is None:
        return facts
    capped = caps.least(bounds.caps, chosen.rollout.policy.at_once_per)
    full = caps.full(conn, device, capped, way_back=chosen.row.kind == "fallback")
    wait = egress.wait(conn, bounds.budget, tenant=device.tenant, site=device.site, now=now)
    update = next(
        (one for one in hot.updates_of(conn, device.row) if one.rollout_id == chosen.row.id), None
    )
    ruling = updates.again(conn, chosen, update, now) if update is not None else None
    return msgspec.structs.replace(
        facts,
        again=ruling.text if ruling else "",
        capped=str(full) if full else "",
        egress=str(wait) if wait else "",
    )


def _window(delivery: DeliveryPolicy, now: int) -> tuple[str, str, int]:
    """Return the activation window in words, its zone, and when it opens next; a zone that only the device knows says nothing about when."""
    if not delivery.activate_window:
        return "", "", 0
    text = ", ".join(delivery.activate_window)
    if delivery.zone == "device":
        return text, "device-local", 0
    windows = schedule.parse_windows(delivery.activate_window)
    opens = schedule.next_open(windows, schedule.load_zone(delivery.zone), now)
    return text, delivery.zone, opens or 0
