"""A data directory with many enrolled devices, and session tokens for any of them. The rows are written in bulk; nobody enrolled."""

import contextlib
import hashlib
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tidegate.server import keyring
from tidegate.server.app import create_app
from tidegate.server.config import Settings
from tidegate.server.store import Connection, device_queries

PRODUCT: Final = "gw1"
#: What a fleet of this product has in common, and what tells its devices apart.
REVISIONS: Final = (3, 4, 5, 6, 7)
_REGIONS: Final = 7
_DEVICES_A_SITE: Final = 50
_AT_ONCE: Final = 5_000


class Stock:
    """What was put there.

    Attributes:
        rows: the devices' row numbers, in the order of their names.
    """

    def __init__(self, rows: "array[int]", tokens: Any, now: int, life_s: int) -> None:
        """Take what `fill` made."""
        self.rows = rows
        self._tokens, self._now, self._life_s = tokens, now, life_s

    def token(self, number: int) -> str:
        """Return a session token of the device with this number."""
        return str(self._tokens.issue(self.rows[number], 0, self._now, self._life_s))


def device(number: int, now: int, reported: int = 0) -> dict[str, Any]:
    """Return the row of a device that was accepted and runs one and the same release as all the others.

    `reported`: how many events it sent before. A row grows when it is first written to, which a fleet that has run for a while has behind it.
    """
    name = f"dev-{number:07}"
    digest = hashlib.sha256(name.encode()).hexdigest()
    revision = REVISIONS[number % len(REVISIONS)]
    return {
        "id": name,
        "public_key": digest,
        "keytype": "ed25519",
        "key_sha256": digest,
        "key_gen": 0,
        "state": "accepted",
        "product": PRODUCT,
        "model": PRODUCT,
        "rev": revision,
        "variant": f"{PRODUCT}-r{revision}",
        "serial": name,
        "channel": "stable",
        "region": f"region-{number % _REGIONS}",
        "site": f"site-{number // _DEVICES_A_SITE}",
        "attributes": {"line": number % 12},
        "running_counter": 1,
        "running_version": "1.0.0",
        "running_sha256": digest,
        "slots": {},
        "refuses": [],
        "inhibitors": [],
        "last_seen": now,
        "enrolled_at": now,
        "acked_seq": reported,
        "boot_id": "boot-1" if reported else "",
        "measured_until": now if reported else 0,
    }


def fill(
    folder: Path, count: int, now: int, life_s: int, *, url: str = "", reported: int = 0
) -> Stock:
    """Put `count` accepted devices into a data directory that no server has open, or into the PostgreSQL database that goes with it.

    Args:
        folder: made where it is missing.
        count: of devices.
        now: unix seconds.
        life_s: of the tokens, in seconds.
        url: of the database; empty = a file in the folder.
        reported: how many events each device sent before.

    Raises:
        ConfigError, BusyError: `data.*`.
    """
    app = create_app(Settings(data_dir=folder, database_url=url))
    with contextlib.closing(app):
        services = app.services

        def put(conn: Connection) -> None:
            for some in _slices(count, now, reported):
                device_queries.add_many(conn, some)
            keyring.turn(conn, services.tokens, now, life_s, services.randomness)

        services.store.write(put).result()
        rows = array("Q", services.store.read(device_queries.rows_by_id))
        return Stock(rows, services.tokens, now, life_s)


def _slices(count: int, now: int, reported: int) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, count, _AT_ONCE):
        yield [
            device(number, now, reported) for number in range(start, min(count, start + _AT_ONCE))
        ]
