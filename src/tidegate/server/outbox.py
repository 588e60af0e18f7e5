"""What is owed to the world, and when it is delivered.

A row is written in the transaction that caused it, fanned out to one row a channel, tried with growing pauses, and given up, visibly, after about a day.
A row is settled after its delivery, so a crash between the two delivers it again, under the same id. No call is made inside a transaction.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal

import msgspec

from tidegate.core.errors import ConfigError, RequestError
from tidegate.core.nearest import did_you_mean
from tidegate.server import audit
from tidegate.server.auth import Actor
from tidegate.server.channels import channels_of
from tidegate.server.config import Settings
from tidegate.server.messages import TEST, Channel, Message, UndeliveredError
from tidegate.server.services import Services
from tidegate.server.store import Connection, Store, admin_log
from tidegate.server.store.ordering import NEWEST, Order

Row = dict[str, Any]
#: Tries before a delivery is dead, and pause before the n-th repetition in seconds; the last one is used from then on.
TRIES_MAX: Final = 20
PAUSES_S: Final = (10, 30, 60, 300, 900, 1800, 3600, admin_log.PAUSE_MAX_S)
KINDS: Final = ("webhook", "mail")
LEASE: Final = "notifier"
LEASE_S: Final = 30
#: Deliveries in one go, so that the lease outlives them as a rule; two replicas that deliver the same are told apart by the id.
_BATCH: Final = 10
_log = logging.getLogger("tidegate.notify")

State = Literal["waiting", "retrying", "delivered", "dead"]


class NoticeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A message to one channel. `error` is of the last try; `next_at` when it is tried again, 0 = not any more."""

    number: int
    id: str
    channel: str
    kind: str
    event: str
    about: str
    state: State
    tries: int
    created_at: int
    next_at: int
    done_at: int | None
    error: str | None


class ChannelFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A channel of the settings, without its secrets."""

    name: str
    kind: str
    place: str
    events: tuple[str, ...]


def deliver_due(services: Services, now: int) -> int:
    """Deliver what is due, where no other replica does; return how many arrived. Safe to repeat."""
    store, holder = services.store, services.holder
    if store.read(lambda conn: admin_log.leased(conn, LEASE, holder, now, LEASE_S)):
        return 0
    try:
        channels = channels_of(services.settings)
    except ConfigError as error:
        _log.error("notifications wait: %s", error)  # what is owed stays owed
        return 0
    if not store.read(lambda conn: admin_log.owed(conn, now)):
        return 0
    if not store.write(
        lambda conn: admin_log.take_lease(conn, LEASE, holder, now, LEASE_S)
    ).result():
        return 0
    return deliver(store, channels, now)


def deliver(store: Store, channels: Sequence[Channel], now: int) -> int:
    """Fan out new events and deliver what is due; return how many arrived."""
    if store.read(lambda conn: admin_log.due_outbox(conn, ("event",), now)):
        store.write(lambda conn: _fan_out(conn, channels, now)).result()
    by_name = {one.name: one for one in channels}
    done = 0
    for row in store.read(lambda conn: admin_log.due_outbox(conn, KINDS, now, _BATCH)):
        values = _try(row, by_name.get(_channel(row)), now)
        done += values["error"] is None
        store.write(_settled(int(row["id"]), values)).result()
    return done


def _settled(row_id: int, values: Row) -> Callable[[Connection], None]:
    def work(conn: Connection) -> None:
        admin_log.settle_outbox(conn, row_id, values)

    return work


def _fan_out(conn: Connection, channels: Sequence[Channel], now: int) -> None:
    for row in admin_log.due_outbox(conn, ("event",), now):
        body = row["payload"]
        event, only = str(body.get("event", "")), body.get("only")
        message = f"msg_{row['created_at']}_{row['id']}"
        for one in channels:
            if only == one.name or (only is None and (not one.events or event in one.events)):
                payload = {"channel": one.name, "id": message, "body": body}
                admin_log.add_outbox(conn, one.kind, payload, now)
        admin_log.settle_outbox(conn, int(row["id"]), {"done_at": now})


def _try(row: Row, channel: Channel | None, now: int) -> Row:
    """Deliver once; return what is written down about it."""
    if channel is None:
        return {"done_at": now, "error": "this channel is not configured any more"}
    tries = int(row["tries"]) + 1
    try:
        channel.deliver(_message(row), now)
    except UndeliveredError as problem:
        _log.warning("%s %s: %s (try %d)", channel.kind, channel.name, problem, tries)
        values: Row = {"tries": tries, "error": str(problem)}
        if problem.final or tries >= TRIES_MAX:
            return {**values, "done_at": now}
        return {**values, "next_at": now + PAUSES_S[min(tries, len(PAUSES_S)) - 1]}
    return {"done_at": now, "tries": tries, "error": None}


def _message(row: Row) -> Message:
    body = dict(row["payload"]["body"])
    event, at = str(body.pop("event", "")), int(body.pop("at", row["created_at"]))
    body.pop("only", None)
    return Message(id=_id(row), event=event, at=at, data=body)


def _channel(row: Row) -> str:
    # What an older server owed has other names for these two.
    return str(row["payload"].get("channel") or row["payload"].get("webhook") or "")


def _id(row: Row) -> str:
    return str(row["payload"].get("id") or row["payload"].get("delivery") or f"msg_{row['id']}")


# --- what people see and do of it ---


def listed(
    conn: Connection, *, state: str = "", order: Order = NEWEST, limit: int = 50
) -> tuple[list[NoticeFacts], Order | None]:
    """Return messages in an order (by `id`), and that of the next page.

    Raises:
        RequestError: `request.invalid`: the state.
    """
    if state not in {"", "waiting", "retrying", "delivered", "dead"}:
        raise RequestError("request.invalid", "state: waiting, retrying, delivered or dead")
    found, more = order.cut(
        admin_log.outbox(conn, KINDS, state=state, order=order, limit=limit + 1), limit
    )
    return [facts_of(row) for row in found], more


def channels(services: Services) -> list[ChannelFacts]:
    """Return the channels of the settings.

    Raises:
        ConfigError: as `channels_of`.
    """
    return [
        ChannelFacts(name=one.name, kind=one.kind, place=one.place, events=one.events)
        for one in channels_of(services.settings)
    ]


def newest_to(conn: Connection, channel: str) -> NoticeFacts | None:
    """Return the newest message to a channel, None where there is none."""
    row = admin_log.newest_to(conn, KINDS, channel)
    return None if row is None else facts_of(row)


def replay(conn: Connection, number: int, actor: Actor, now: int) -> NoticeFacts:
    """Deliver a message once more, under the same id, whatever became of it.

    Raises:
        RequestError: `request.not_found`.
    """
    row = admin_log.outbox_row(conn, number, KINDS)
    if row is None:
        raise RequestError("request.not_found", f"no message {number}")
    values: Row = {"done_at": None, "next_at": now, "tries": 0, "error": None}
    admin_log.settle_outbox(conn, number, values)
    audit.record(conn, now, actor.name, "notify.replay", _id(row), {"channel": _channel(row)})
    return facts_of({**row, **values})


def test(conn: Connection, settings: Settings, channel: str, actor: Actor, now: int) -> None:
    """Owe a channel a message that says nothing but that it is one.

    Raises:
        RequestError: `request.not_found`: no such channel.
    """
    known = [one.name for one in channels_of(settings)]
    if channel not in known:
        near = did_you_mean(channel, known)
        raise RequestError(
            "request.not_found", f'no channel "{channel[:40]}" in the settings{near}'
        )
    payload = {"event": TEST, "only": channel, "at": now, "by": actor.name}
    admin_log.add_outbox(conn, "event", payload, now)
    audit.record(conn, now, actor.name, TEST, channel)


def facts_of(row: Row) -> NoticeFacts:
    """Return a message to one channel as people see it."""
    body = row["payload"]["body"]
    done = row["done_at"] is not None
    state: State = "waiting"
    if done:
        state = "delivered" if row["error"] is None else "dead"
    elif row["tries"]:
        state = "retrying"
    return NoticeFacts(
        number=int(row["id"]),
        id=_id(row),
        channel=_channel(row),
        kind=str(row["kind"]),
        event=str(body.get("event", "")),
        about=str(body.get("incident") or body.get("rollout") or ""),
        state=state,
        tries=int(row["tries"]),
        created_at=int(row["created_at"]),
        next_at=0 if done else int(row["next_at"]),
        done_at=row["done_at"],
        error=row["error"],
    )
