"""What a crowd was told, held against what the database says when it is over: nothing acknowledged is missing, and nobody went past a halt.

Counted in the database's own rows, by statements that both back ends take, when no server runs any more.
"""

import contextlib
import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import psycopg
from tests.e2e.crowd import Watch
from tests.e2e.halts import count_order

from tidegate.server import audit, outcomes
from tidegate.server.store import hot, opening
from tidegate.server.store.sqlite import DATABASE_NAME

Ask = Callable[[str], list[tuple[Any, ...]]]


class Told(Protocol):
    """A device, and what it knows to be kept: the details of its events by their number."""

    @property
    def name(self) -> str: ...
    @property
    def acked(self) -> Mapping[int, str]: ...


class Lost(msgspec.Struct, kw_only=True):
    """What was counted. What must be 0: everything from `missing` on."""

    events: int
    permits: int
    offers: int
    asked_in_quiet: int
    #: Events that were acknowledged and are not there, or are otherwise than they were sent.
    missing: int
    changed: int
    #: Events that are there twice.
    twice: int
    #: Counters of rollouts that are not what the updates' rows say.
    wrong_counters: int
    #: Devices that are not there any more, or not accepted, or not counted among those that run a release.
    lost_devices: int
    permits_after_halt: int
    offers_after_halt: int
    granted_in_quiet: int
    offered_in_quiet: int
    #: 1: the log of what people did does not hold together.
    log_broken: int

    @property
    def kept(self) -> bool:
        """Say whether nothing was lost, and nobody went past a halt."""
        names = Lost.__struct_fields__
        return not any(getattr(self, name) for name in names[names.index("missing") :])


def count(data: Path, devices: Sequence[Told], watch: Watch, url: str = "") -> dict[str, int]:
    """Return the fields of `Lost` for a database that no server uses any more.

    Args:
        data: the data directory.
        devices: all of them.
        watch: what they have seen.
        url: of a database on a PostgreSQL server; empty = it is in the data directory.
    """
    order = count_order(data, url)
    with _asking(data, url) as ask:
        found = {
            **_events(ask, devices),
            "wrong_counters": _wrong_counters(ask),
            "lost_devices": _lost_devices(ask, len(devices)),
        }
    return found | {
        "permits": order["permit"],
        "offers": order["offer"],
        "permits_after_halt": order["permit_late"],
        "offers_after_halt": order["offer_late"],
        "asked_in_quiet": watch.asked_in_quiet,
        "granted_in_quiet": watch.granted_in_quiet,
        "offered_in_quiet": watch.offered_in_quiet,
        "log_broken": _log_broken(data, url),
    }


@contextlib.contextmanager
def _asking(data: Path, url: str) -> Iterator[Ask]:
    if url:
        with psycopg.connect(url, autocommit=True) as there:
            yield lambda asked: there.execute(asked.encode()).fetchall()
        return
    place = f"file:{data / DATABASE_NAME}?mode=ro"
    with contextlib.closing(sqlite3.connect(place, uri=True)) as here:
        yield lambda asked: here.execute(asked).fetchall()


def _events(ask: Ask, devices: Sequence[Told]) -> dict[str, int]:
    """Return how many events there are, are missing, are others, are there twice."""
    there: dict[tuple[str, int], str] = {}
    asked = "SELECT device.id, event.seq, event.body FROM event JOIN device ON device.row = event.device_row"
    rows = ask(asked)
    for name, seq, body in rows:
        known = json.loads(body) if isinstance(body, str) else body
        there[name, seq] = known.get("detail", "")
    missing = changed = 0
    for one in devices:
        for seq, detail in one.acked.items():
            found = there.get((one.name, seq))
            missing += found is None
            changed += found is not None and found != detail
    twice = len(rows) - len(there)
    return {"events": len(rows), "missing": missing, "changed": changed, "twice": twice}


def _wrong_counters(ask: Ask) -> int:
    """Return how many counters are not what the rows of the updates say."""
    names = ", ".join(hot.UpdateRow._fields)
    wanted: Counter[tuple[int, str, str, str]] = Counter()
    for row in ask(f'SELECT {names} FROM "update"'):
        update = hot.UpdateRow(*row)
        for name, value in outcomes.contributions(update).items():
            wanted[update.rollout_id, update.ring, update.variant, name] += value
    found: Counter[tuple[int, str, str, str]] = Counter()
    for rollout, ring, variant, name, value in ask(
        "SELECT rollout_id, ring, variant, name, value FROM tally"
    ):
        if not name.endswith("_at"):
            found[rollout, ring, variant, name] += value
    return sum(wanted[key] != found[key] for key in wanted.keys() | found.keys())


def _lost_devices(ask: Ask, count: int) -> int:
    ((there,),) = ask("SELECT count(*) FROM device WHERE state = 'accepted'")
    return abs(count - int(there))


def _log_broken(data: Path, url: str) -> int:
    """Read the log of acts from its beginning, and see whether everything hangs together."""
    with opening.looking(data, url) as conn:
        verdict = audit.verify(conn)
    return int(not verdict.ok)
