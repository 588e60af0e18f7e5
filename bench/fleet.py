"""A data directory with many enrolled devices, and session tokens for some of them."""

import contextlib
import hashlib
import time
from pathlib import Path

from sqlalchemy import insert

from tidegate.server import keyring
from tidegate.server.app import create_app
from tidegate.server.config import Settings
from tidegate.server.store import Connection, tables

PRODUCT = "gw1"
TOKEN_S = 3600


def _device(number: int, now: int) -> dict[str, object]:
    name = f"dev-{number:06}"
    digest = hashlib.sha256(name.encode()).hexdigest()
    return {
        "id": name,
        "public_key": digest,
        "keytype": "ed25519",
        "key_sha256": digest,
        "state": "accepted",
        "product": PRODUCT,
        "model": PRODUCT,
        "rev": number % 5 + 3,
        "variant": f"{PRODUCT}-r{number % 5 + 3}",
        "serial": name,
        "channel": "stable",
        "region": f"region-{number % 7}",
        "site": f"site-{number % 1000}",
        "attributes": {"line": number % 12},
        "running_counter": 117,
        "running_version": "2.4.0",
        "running_sha256": digest,
        "slots": {},
        "refuses": [],
        "inhibitors": [],
        "last_seen": now,
        "enrolled_at": now,
    }


def fill(folder: Path, count: int, *, sessions: int) -> list[str]:
    """Put `count` accepted devices into a data directory; return tokens of the first `sessions` of them."""
    app = create_app(Settings(data_dir=folder))
    now = int(time.time())

    def put(conn: Connection) -> list[tuple[int, int]]:
        for start in range(0, count, 5000):
            rows = [_device(number, now) for number in range(start, min(count, start + 5000))]
            conn.execute(insert(tables.device), rows)
        columns = (tables.device.c.row, tables.device.c.key_gen)
        services = app.services
        keyring.turn(conn, services.tokens, now, TOKEN_S, services.randomness)
        found = conn.execute(tables.device.select().with_only_columns(*columns).limit(sessions))
        return [(row, key_gen) for row, key_gen in found]

    with contextlib.closing(app):
        found = app.services.store.write(put).result()
        tokens = app.services.tokens
        return [tokens.issue(row, key_gen, now, TOKEN_S) for row, key_gen in found]
