"""Signed HTTP calls when something happens: `rollout.halted`, `rollout.isolated`, `rollout.fallback`, `incident.opened`.

An event is first fanned out to one row a webhook, then each is called until it answers 2xx, with growing pauses, for about a day. The body is signed with
HMAC-SHA256 over time and body (`Tidegate-Signature: t=…,v1=…`), and `Tidegate-Delivery` is the same for every try, so that a receiver can tell a repetition.

Only addresses from the server's own settings are called; redirects are not followed. So nothing that a request or a device brought chooses where a call goes.
"""

import hashlib
import hmac
import http.client
import logging
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from tidegate.core.codec import canonical
from tidegate.core.errors import ConfigError
from tidegate.server.store import Connection, Store, admin_log

Row = dict[str, Any]
TIMEOUT_S: Final = 5.0
TRIES_MAX: Final = 20
#: Pause before the n-th repetition, in seconds; the last one is used from then on.
PAUSES_S: Final = (10, 30, 60, 300, 900, 1800, 3600, 7200)
_ANSWER_MAX: Final = 4096
_log = logging.getLogger("tidegate.webhook")


@dataclass(frozen=True, slots=True)
class Hook:
    """Where to call. `events` empty = all; `secret` signs (never logged)."""

    name: str
    url: str
    secret: bytes
    events: tuple[str, ...] = ()

    def wants(self, event: str) -> bool:
        """Say whether this webhook is called for an event."""
        return not self.events or event in self.events


#: Sends one call and returns the HTTP status; raises OSError or HTTPException when there was no answer.
Post = Callable[[str, bytes, dict[str, str]], int]


def check_url(url: str, key: str = "webhook.url") -> None:
    """Check an address from the settings.

    Raises:
        ConfigError: `config.invalid`.
    """
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.username:
        raise ConfigError("config.invalid", f"{key}: an http or https address without a user name")


def sign(secret: bytes, at: int, body: bytes) -> str:
    """Return the value of `Tidegate-Signature`: HMAC-SHA256 over `{at}.` and the body."""
    mac = hmac.new(secret, f"{at}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={at},v1={mac}"


def deliver(store: Store, hooks: tuple[Hook, ...], now: int, post: Post | None = None) -> int:
    """Fan out new events and make the calls that are due; return how many were answered 2xx.

    No call is made inside a transaction: a slow receiver holds up nothing but the next call.
    """
    if store.read(lambda conn: admin_log.due_outbox(conn, "event", now)):
        store.write(lambda conn: _fan_out(conn, hooks, now)).result()
    by_name = {hook.name: hook for hook in hooks}
    done = 0
    for row in store.read(lambda conn: admin_log.due_outbox(conn, "webhook", now)):
        values = _call(row, by_name.get(str(row["payload"]["webhook"])), now, post or _post)
        done += values["error"] is None
        store.write(_settled(int(row["id"]), values)).result()
    return done


def _settled(row_id: int, values: Row) -> Callable[[Connection], None]:
    def work(conn: Connection) -> None:
        admin_log.settle_outbox(conn, row_id, values)

    return work


def _fan_out(conn: Connection, hooks: tuple[Hook, ...], now: int) -> None:
    for row in admin_log.due_outbox(conn, "event", now):
        event = str(row["payload"].get("event", ""))
        for hook in hooks:
            if hook.wants(event):
                delivery = f"{row['id']}-{hook.name}"
                payload = {"webhook": hook.name, "delivery": delivery, "body": row["payload"]}
                admin_log.add_outbox(conn, "webhook", payload, now)
        admin_log.settle_outbox(conn, int(row["id"]), {"done_at": now})


def _call(row: Row, hook: Hook | None, now: int, post: Post) -> Row:
    """Make one call; return what is written down about it."""
    if hook is None:
        return {"done_at": now, "error": "this webhook is not configured any more"}
    body = canonical(row["payload"]["body"])
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "tidegate",
        "Tidegate-Event": str(row["payload"]["body"].get("event", "")),
        "Tidegate-Delivery": str(row["payload"]["delivery"]),
        "Tidegate-Signature": sign(hook.secret, now, body),
    }
    tries = int(row["tries"]) + 1
    try:
        status = post(hook.url, body, headers)
        error = None if 200 <= status < 300 else f"answered {status}"
    except (OSError, http.client.HTTPException) as problem:
        error = f"{type(problem).__name__}: {problem}"[:300]
    if error is None:
        return {"done_at": now, "tries": tries, "error": None}
    _log.warning("webhook %s: %s (try %d)", hook.name, error, tries)
    values: Row = {"tries": tries, "error": error}
    if tries >= TRIES_MAX:
        return {**values, "done_at": now}
    return {**values, "next_at": now + PAUSES_S[min(tries, len(PAUSES_S)) - 1]}


def _post(url: str, body: bytes, headers: dict[str, str]) -> int:
    parts = urlsplit(url)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.hostname or ""
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(
            host, parts.port, timeout=TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=TIMEOUT_S)
    try:
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        answer.read(_ANSWER_MAX)
        return answer.status
    finally:
        connection.close()
