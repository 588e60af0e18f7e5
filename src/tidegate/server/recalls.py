"""Recalling a release: it is never offered again, and every rollout of it ends, in one transaction. One person's act, which nothing takes back.

A device that has no leave yet ends its update at its next contact; one that went back from the release refuses it by its own memory, also in a later
rollout; and the server makes none of it any more. Bringing back those that run it is ordered apart (`server.fallbacks`), and proposed here.
"""

from typing import Any, Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.server import acts, audit, fallbacks, followups, stopping
from tidegate.server.auth import Actor
from tidegate.server.store import Connection, admin_devices, admin_log, changes, release_queries
from tidegate.server.store import admin_rollouts as rows

Row = dict[str, Any]
#: States in which a rollout has not begun: it is cancelled, where others are halted.
_NOT_BEGUN: Final = frozenset({"draft", "awaiting_approval", "scheduled"})


class Recalled(msgspec.Struct, frozen=True, kw_only=True):
    """What a recall ended, and what to do about the `running` devices that run the release: `way_back` is the command that shows it, or empty."""

    name: str
    text: str
    halted: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()
    running: int = 0
    way_back: str = ""


def recall(conn: Connection, name: str, reason: str, actor: Actor, now: int) -> Recalled:
    """Never offer a release again, and end what brings it. Safe to repeat: what came meanwhile is ended too.

    Args:
        conn: the writer's connection; in effect when its transaction is durable.
        name: of the release; untrusted.
        reason: why; wanted.
        actor: who recalls it; permission is the caller's business.
        now: unix seconds.

    Raises:
        RequestError: `request.not_found`, `request.confirmation_needed` without a reason.
    """
    if not reason.strip():
        raise RequestError("request.confirmation_needed", "a recall needs a reason")
    release = acts.release_of(conn, name)
    first = release["state"] != "recalled"
    if first:
        release_queries.recall(conn, int(release["id"]), reason, now)
        audit.record(conn, now, actor.name, "release.recall", name, {"reason": reason})
        admin_log.raise_epoch(conn, now)
        changes.bump(conn, "release", name, now)
    halted, cancelled = _end_rollouts(conn, release, actor, f"{name} was recalled: {reason}", now)
    if first:  # also into the incidents of what was halted just now
        followups.recalled(conn, int(release["id"]), name, reason, actor.name, now)
    running = admin_devices.running_count(conn, str(release["product"]), int(release["counter"]))
    way_back = _way_back(conn, release, now) if running else ""
    text = f"{name} is recalled and never offered again"
    text += f"; halted: {', '.join(halted)}" if halted else ""
    text += f"; cancelled: {', '.join(cancelled)}" if cancelled else ""
    text += f"; {running:,} devices run it" if running else ""
    return Recalled(
        name=name,
        text=text,
        halted=halted,
        cancelled=cancelled,
        running=running,
        way_back=way_back,
    )


def _end_rollouts(
    conn: Connection, release: Row, actor: Actor, reason: str, now: int
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Halt what has begun, ways back to the release as well, and cancel what has not; return their names."""
    halted: list[str] = []
    cancelled: list[str] = []
    for row in rows.using_release(conn, int(release["id"])):
        if row["state"] in _NOT_BEGUN:
            stopping.cancel(conn, row, actor, reason, now)
            cancelled.append(str(row["name"]))
        elif not rows.children(conn, int(row["id"])):  # those were brought back already
            stopping.halt(conn, row, actor, reason, now)
            halted.append(str(row["name"]))
    return tuple(halted), tuple(cancelled)


def _way_back(conn: Connection, release: Row, now: int) -> str:
    """Return the command that shows who could be ordered back, where the release itself allows it and a rollout of it is halted."""
    for row in rows.rollouts(conn, states=("halted",), limit=50):
        if row["release_id"] == release["id"] and fallbacks.proposed(conn, row, now):
            return f"tidegate rollout fallback {row['name']} --dry-run"
    return ""
