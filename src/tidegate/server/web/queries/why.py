"""Why a device is (not) updating: its facts from the database, judged by `rollout.explain`, and nothing decided here."""

from typing import Any, NamedTuple

from tidegate.core.errors import ConfigError
from tidegate.core.hardware import Hardware
from tidegate.core.release import ReleaseTarget, Running, refusal
from tidegate.core.schedule import load_zone, next_open, parse_windows
from tidegate.rollout import cohort, keeping
from tidegate.rollout.explain import DeviceFacts
from tidegate.server import snapshot
from tidegate.server.groups import Book, components_of
from tidegate.server.outcomes import OPEN
from tidegate.server.snapshot import Live
from tidegate.server.store import Connection, hot
from tidegate.server.store.hot import UpdateRow
from tidegate.server.web.queries import sums
from tidegate.server.why import Bounds, with_bounds

Row = dict[str, Any]


class Standing(NamedTuple):
    """A device's facts, the rollout they speak of, its update there, and the artifact that would be installed."""

    facts: DeviceFacts
    live: Live | None
    update: UpdateRow | None
    target: ReleaseTarget | None


def standing(conn: Connection, device: Row, now: int, bounds: Bounds) -> Standing:
    """Return where a device stands on its way to an update."""
    lives = snapshot.load_live(conn, str(device["product"]))
    updates = {one.rollout_id: one for one in hot.updates_of(conn, int(device["row"]))}
    live = _concerned(lives, updates, device)
    known: dict[str, Any] = {
        "device": str(device["id"]),
        "device_state": str(device["state"]),
        "last_seen": int(device["last_seen"]),
        "runs": str(device["running_version"]) or "the factory image",
        "held_by": (str(device["held_by"]) or "its operator") if device["held"] else "",
        "inhibitors": tuple(str(one) for one in device["inhibitors"]),
        "waiting": str(device["waiting"]),
        "variant": str(device["variant"]),
    }
    if live is None:
        newest = any(one.row.counter == device["running_counter"] for one in lives)
        return Standing(DeviceFacts(**known, up_to_date=newest), None, None, None)
    update = updates.get(live.row.id)
    target, refused = _target(conn, live, device)
    ring = _ring(conn, live, device, now)
    known |= _delivery(live, device, now) | ring
    facts = DeviceFacts(
        **known,
        rollout=live.row.name,
        release=target.version if target else f"counter {live.row.counter}",
        rollout_state=live.row.state,
        rollout_because=_because(conn, live),
        refusal=refused if refused.startswith("compat.") else "",
        refused="" if refused.startswith("compat.") else refused,
        mandate=live.bar(str(device["id"]), now),
        update_state=update.state if update else "",
        update_reason=(update.reason or "") if update else "",
        room=live.row.room,
    )
    facts = with_bounds(conn, int(device["row"]), facts, live, bounds, now)
    return Standing(facts, live, update, target)


def _concerned(lives: list[Live], updates: dict[int, UpdateRow], device: Row) -> Live | None:
    """Return the rollout that a device has under way, or the first that may have something for it."""
    for live in lives:
        update = updates.get(live.row.id)
        if update is not None and update.state in OPEN:
            return live
    running = int(device["running_counter"])
    for live in lives:
        if str(device["channel"]) not in live.channels and live.row.kind == "install":
            continue
        if live.row.kind == "fallback":
            if running == live.row.parent_counter and live.admits:
                return live
        elif live.row.counter > running and live.row.release_state == "live":
            return live
    return None


def _target(conn: Connection, live: Live, device: Row) -> tuple[ReleaseTarget | None, str]:
    """Return the artifact for a device, and the reason for which it would be refused (empty = none)."""
    hardware = Hardware(str(device["model"]), int(device["rev"]), str(device["serial"]))
    running = Running(
        release_counter=int(device["running_counter"]),
        sha256=device["running_sha256"],
        version=str(device["running_version"]),
    )
    first: tuple[ReleaseTarget | None, str] = (None, "compat.hardware")
    for _, _, _, target in snapshot.targets_of(conn, live.row.release_id):
        found = refusal(
            target,
            hardware=hardware,
            channel=str(device["channel"]),
            running=running,
            floor=int(device["security_floor"]),
            agent=str(device["agent"]),
            components=components_of(device),
            fallback=live.row.kind == "fallback",
        )
        if found == "compat.hardware":
            continue
        again = live.delivery.retry_refused
        if found is None and not again and target.digest in device["refuses"]:
            return target, "it failed here before"
        return target, found or ""
    return first


def _ring(conn: Connection, live: Live, device: Row, now: int) -> dict[str, Any]:
    attrs = Book(conn).attributes(device, now)
    index = cohort.ring_of(live.rollout.policy, attrs)
    kept_out = keeping.kept_out(live.rollout.isolated, str(device["variant"]), attrs)
    known = {
        "place": cohort.place(live.rollout.release_sha256, str(device["id"])),
        "isolated": bool(kept_out),
        "kept_out": kept_out,
    }
    if index is None:
        return known
    return known | {
        "ring": live.rollout.policy.rings[index].name,
        "ring_state": live.rollout.rings[index].state,
        "share_bp": cohort.share_of(live.rollout, index),
    }


def _delivery(live: Live, device: Row, now: int) -> dict[str, Any]:
    """Return the activation window and when it opens next."""
    texts = live.delivery.activate_window
    if not texts or live.delivery.activate != "window":
        return {}
    own = str(device["attributes"].get("zone", "UTC"))
    name = own if live.delivery.zone == "device" else live.delivery.zone
    try:
        windows, zone = parse_windows(texts), load_zone(name)
    except ConfigError:
        return {"window": ", ".join(texts), "zone": name}
    opens = next_open(windows, zone, now)
    return {"window": ", ".join(texts), "zone": name, "opens_at": opens or 0}


def _because(conn: Connection, live: Live) -> str:
    from tidegate.server.store import web_queries as rows

    row = rows.rollout(conn, live.row.name)
    return sums.because_line(row) if row else ""
