"""Halts under load: a crowd of devices, several server processes on one database, and a rollout that is halted and resumed at random moments.

`python -m tests.e2e.halts --devices 5000 --halts 100` is `make halt-load`. What is counted is the database's own order: triggers write every permit, offer and
change of a rollout's state into one numbered table, inside the transactions that make them, so no clock is involved. The devices count as well: an answer
with leave to a question that was sent after the halt had been acknowledged.
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import psycopg
from sqlalchemy import insert
from tests.e2e.crowd import Device, Watch, device_key
from tests.e2e.served import Served
from tests.unit.server.rig import Rig

from tidegate.server import keyring
from tidegate.server.store import Connection, shared, shared_files, tables
from tidegate.server.store.sqlite import DATABASE_NAME

NAME: Final = "gw1-1.1.0"
TOKEN_S: Final = 86_400
#: How long an operator waits for an answer: far more than one should, for machines that have other work.
_PATIENCE_S: Final = 120
#: A halt is acknowledged when every living process has seen it, or its lease has run out (`shared.LEASE_S`); a second for the writing.
HALT_S: Final = shared.LEASE_S + 1
#: With a process that was stopped in the middle of a write: told once that nothing can be written, halted anew when it goes on; two seconds for what waited.
FROZEN_S: Final = shared_files.TURN_S + shared_files.AGAIN_S + shared.LEASE_S + 2
_ORDER: Final = """
CREATE TABLE commit_order (seq INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT NOT NULL);
CREATE TRIGGER order_permit AFTER INSERT ON permit WHEN NEW.state = 'granted'
  BEGIN INSERT INTO commit_order (what) VALUES ('permit'); END;
CREATE TRIGGER order_offer AFTER INSERT ON "update"
  BEGIN INSERT INTO commit_order (what) VALUES ('offer'); END;
CREATE TRIGGER order_again AFTER UPDATE OF state ON "update"
  WHEN NEW.state = 'offered' AND OLD.state <> 'offered'
  BEGIN INSERT INTO commit_order (what) VALUES ('offer'); END;
CREATE TRIGGER order_state AFTER UPDATE OF state ON rollout WHEN NEW.state <> OLD.state
  BEGIN INSERT INTO commit_order (what) VALUES (NEW.state); END;
"""
_POSTGRES_ORDER: Final = """
CREATE TABLE commit_order (seq BIGSERIAL PRIMARY KEY, what TEXT NOT NULL);
CREATE FUNCTION note_order() RETURNS trigger LANGUAGE plpgsql AS $$
  BEGIN INSERT INTO commit_order (what) VALUES (coalesce(TG_ARGV[0], NEW.state)); RETURN NULL; END $$;
CREATE TRIGGER order_permit AFTER INSERT ON permit FOR EACH ROW
  WHEN (NEW.state = 'granted') EXECUTE FUNCTION note_order('permit');
CREATE TRIGGER order_offer AFTER INSERT ON "update" FOR EACH ROW EXECUTE FUNCTION note_order('offer');
CREATE TRIGGER order_again AFTER UPDATE OF state ON "update" FOR EACH ROW
  WHEN (NEW.state = 'offered' AND OLD.state <> 'offered') EXECUTE FUNCTION note_order('offer');
CREATE TRIGGER order_state AFTER UPDATE OF state ON rollout FOR EACH ROW
  WHEN (NEW.state <> OLD.state) EXECUTE FUNCTION note_order();
"""
_CONFIG: Final = """
[data]
shared = true
[plan]
tick = "1s"
[log]
level = "warning"
"""


class Report(msgspec.Struct, kw_only=True):
    """What was counted. The promise is that `permits_after_halt` and `offers_after_halt`, and what the devices saw of them, are 0."""

    devices: int
    servers: int
    halts: int
    permits: int
    offers: int
    #: By the database's order: behind a halt and before the next resume.
    permits_after_halt: int
    offers_after_halt: int
    #: By the devices: asked after the halt was acknowledged and before it was resumed.
    asked_in_quiet: int
    granted_in_quiet: int
    offered_in_quiet: int
    #: Halts before which nobody had been let go since the resume: they prove nothing.
    idle_halts: int
    requests_per_s: int
    #: Answers other than 200, by status (0 = the connection broke). `broken`: those that came while every process went on.
    refused: dict[str, int]
    broken: int
    halt_ms_median: float
    #: While every process went on, and while one was stopped (SIGSTOP).
    halt_ms_most: float
    halt_frozen_ms_most: float
    seconds: float

    @property
    def kept(self) -> bool:
        """Say whether no permit and no offer went past a halt, each was heard in time, and nobody was sent away but for what a stopped process holds."""
        past = (
            self.permits_after_halt
            or self.offers_after_halt
            or self.granted_in_quiet
            or self.offered_in_quiet
        )
        in_time = (
            self.halt_ms_most <= 1_000 * HALT_S and self.halt_frozen_ms_most <= 1_000 * FROZEN_S
        )
        return not past and in_time and not self.broken and set(self.refused) <= {"503"}


def prepare(folder: Path, count: int, url: str = "") -> list[tuple[str, str]]:
    """Make a data directory (and, at `url`, a database) with a release and `count` devices that hold a key; return their names and tokens."""
    rig = Rig(folder, now=int(time.time()), url=url)
    rig.publish_trust()
    rig.release(1)
    now, services = int(rig.now), rig.app.services
    names = [f"dev-{number:05}" for number in range(count)]

    def fill(conn: Connection) -> list[str]:
        rows = [_row(name, now) for name in names]
        for start in range(0, count, 2_000):
            conn.execute(insert(tables.device), rows[start : start + 2_000])
        # Some account has to be there, or the first start makes one that could approve: then every resume would take two.
        viewer = {"name": "vic", "password_hash": "", "role": "viewer", "created_at": now}
        conn.execute(insert(tables.account), viewer)
        keyring.turn(conn, services.tokens, now, TOKEN_S, services.randomness)
        found = conn.execute(tables.device.select().order_by(tables.device.c.row))
        return [services.tokens.issue(one.row, one.key_gen, now, TOKEN_S) for one in found]

    tokens = rig.write(fill)
    rig.close()
    if url:
        with psycopg.connect(url) as conn:
            conn.execute(_POSTGRES_ORDER)
    else:
        with contextlib.closing(sqlite3.connect(folder / DATABASE_NAME)) as raw:
            raw.executescript(_ORDER)
    return list(zip(names, tokens, strict=True))


def _row(name: str, now: int) -> dict[str, Any]:
    public = device_key(name).public
    return {
        "id": name,
        "public_key": public.public,
        "keytype": public.keytype,
        "key_sha256": public.identity,
        "state": "accepted",
        "product": "gw1",
        "model": "gw1",
        "rev": 1,
        "variant": "gw1-r1",
        "channel": "stable",
        "attributes": {},
        "slots": {},
        "refuses": [],
        "inhibitors": [],
        "enrolled_at": now,
    }


@contextlib.contextmanager
def serving(data: Path, count: int, url: str = "") -> Iterator[list[Served]]:
    """Run `count` server processes on one data directory, or on one database."""
    config = data.with_name("tidegate.toml")
    config.write_text(_CONFIG + (f'[database]\nurl = "{url}"\n' if url else ""))
    running: list[Served] = []
    try:
        for number in range(count):
            log = data.with_name(f"server{number}")
            running.append(Replica(data, "--config", str(config), log=log))
        yield running
    finally:
        for one in running:
            with contextlib.suppress(ProcessLookupError):
                one.process.send_signal(signal.SIGCONT)
            one.kill()


class Replica(Served):
    """One of several servers on one directory, each with a log of its own."""

    def __init__(self, data: Path, *options: str, log: Path) -> None:
        """Start it."""
        self._log = log.with_suffix(".log")
        super().__init__(data, *options)

    def start(self) -> None:
        """Start it, also again."""
        self.log = self._log
        self.log.write_text("")
        super().start()


class Halt(NamedTuple):
    """How long one took, in seconds. `frozen`: a process was stopped meanwhile."""

    took_s: float
    frozen: bool


class Operator:
    """Who halts and resumes, at any of the servers."""

    def __init__(self, running: list[Served], token: str) -> None:
        """Act on these."""
        self._running = running
        self._token = token

    def act(self, server: int, verb: str) -> int:
        """Carry out a verb; return the status."""
        return self._post(server, f"/api/v1/rollouts/{NAME}/{verb}", {"reason": "load"})

    def create(self) -> None:
        """Open the rollout to everybody."""
        policy = {
            "release": NAME,
            "preset": "lab",
            "deadlines": {"return": "7d", "confirm": "7d"},
            "ring": [{"name": "all", "soak": "7d"}],
            "reason": "load",
        }
        status = self._post(0, "/api/v1/rollouts", policy)
        assert status == 201, status

    def _post(self, server: int, path: str, value: object) -> int:
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/json"}
        port = self._running[server].port
        with contextlib.closing(HTTPConnection("127.0.0.1", port, timeout=_PATIENCE_S)) as asked:
            asked.request("POST", path, json.dumps(value).encode(), headers)
            answer = asked.getresponse()
            answer.read()
            return answer.status


async def _story(
    devices: list[Device],
    watch: Watch,
    operator: Operator,
    running: list[Served],
    *,
    halts: int,
    open_s: float,
    quiet_s: float,
    freeze_every: int,
    seed: int,
) -> tuple[list[Halt], int]:
    chance = random.Random(seed)
    crowd = [asyncio.create_task(one.live()) for one in devices]
    took: list[Halt] = []
    idle = 0
    for number in range(halts):
        before = watch.grants
        await asyncio.sleep(open_s * (0.5 + chance.random()))
        for _ in range(600):  # on a machine that has other work, too
            if watch.grants > before:
                break
            await asyncio.sleep(0.1)
        idle += watch.grants == before
        frozen = running[-1] if freeze_every and number % freeze_every == freeze_every - 1 else None
        if frozen is not None:
            watch.frozen = True
            frozen.process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        places = len(running) - (frozen is not None)
        status = await asyncio.to_thread(operator.act, chance.randrange(places), "halt")
        if frozen is not None and status == 503:
            # It stopped in the middle of a write. Nothing is acknowledged as long as that lasts.
            frozen.process.send_signal(signal.SIGCONT)
            status = await asyncio.to_thread(operator.act, 0, "halt")
        assert status == 200, status
        watch.quiet_since = time.monotonic()
        took.append(Halt(watch.quiet_since - began, frozen=frozen is not None))
        if (
            frozen is not None
        ):  # it wakes up with what it had in memory, and with the questions that wait for it
            frozen.process.send_signal(signal.SIGCONT)
            watch.thaw()
        await asyncio.sleep(quiet_s * (0.5 + chance.random()))
        watch.quiet_since = None
        status = await asyncio.to_thread(operator.act, chance.randrange(len(running)), "resume")
        assert status == 200, status
    watch.stopping = True
    await asyncio.gather(*crowd)
    return took, idle


def _order(data: Path, url: str) -> list[tuple[str]]:
    asked = "SELECT what FROM commit_order ORDER BY seq"
    if url:
        with psycopg.connect(url) as conn:
            return conn.execute(asked).fetchall()
    with contextlib.closing(
        sqlite3.connect(f"file:{data / DATABASE_NAME}?mode=ro", uri=True)
    ) as raw:
        return raw.execute(asked).fetchall()


def count_order(data: Path, url: str = "") -> dict[str, int]:
    """Count permits and offers, and those that the database wrote behind a halt and before the next resume."""
    counts = dict.fromkeys(("permit", "offer", "permit_late", "offer_late"), 0)
    halted = False
    for (what,) in _order(data, url):
        if what in ("permit", "offer"):
            counts[what] += 1
            counts[f"{what}_late"] += halted
        else:
            halted = what == "halted"
    return counts


def run(
    folder: Path,
    *,
    devices: int,
    halts: int,
    servers: int = 3,
    pause_s: float = 1.0,
    open_s: float = 0.5,
    quiet_s: float = 0.3,
    freeze_every: int = 0,
    seed: int = 1,
    url: str = "",
) -> Report:
    """Tell the whole story once.

    Args:
        folder: an empty one.
        devices: how many of them.
        halts: how often the rollout is halted and resumed.
        servers: processes on one database.
        pause_s: between two questions of a device.
        open_s, quiet_s: how long the rollout is open, and halted, on average.
        freeze_every: every so many halts one process is stopped in its tracks before the halt and let go after it; 0 = never.
        seed: of the moments.
        url: of a database on a PostgreSQL server, its schema current; empty = SQLite.
    """
    data = folder / "data"
    known = prepare(data, devices, url)
    watch = Watch()
    with serving(data, servers, url) as running:
        ports = [one.port for one in running]
        operator = Operator(running, (data / "bootstrap.token").read_text().strip())
        operator.create()
        crowd = [Device(*one, ports, watch, pause_s=pause_s) for one in known]
        began = time.monotonic()
        took, idle = asyncio.run(
            _story(
                crowd,
                watch,
                operator,
                running,
                halts=halts,
                open_s=open_s,
                quiet_s=quiet_s,
                freeze_every=freeze_every,
                seed=seed,
            )
        )
        seconds = time.monotonic() - began
    counts = count_order(data, url)
    asked = watch.polls + watch.offers + 2 * watch.grants + watch.refusals
    return Report(
        devices=devices,
        servers=servers,
        halts=halts,
        permits=counts["permit"],
        offers=counts["offer"],
        permits_after_halt=counts["permit_late"],
        offers_after_halt=counts["offer_late"],
        asked_in_quiet=watch.asked_in_quiet,
        granted_in_quiet=watch.granted_in_quiet,
        offered_in_quiet=watch.offered_in_quiet,
        idle_halts=idle,
        requests_per_s=round(asked / seconds),
        refused={str(status): count for status, count in sorted(watch.codes.items())},
        broken=watch.broken,
        halt_ms_median=round(statistics.median(one.took_s for one in took) * 1_000, 1),
        halt_ms_most=_most_ms(one for one in took if not one.frozen),
        halt_frozen_ms_most=_most_ms(one for one in took if one.frozen),
        seconds=round(seconds, 1),
    )


def _most_ms(took: Iterable[Halt]) -> float:
    return round(max((one.took_s for one in took), default=0.0) * 1_000, 1)


def main() -> int:
    """Run the long form and print what was counted; exit code 1 where the promise was not kept."""
    parser = argparse.ArgumentParser(
        description="Halt a rollout under load, and count who goes past it."
    )
    parser.add_argument("--devices", type=int, default=5_000)
    parser.add_argument("--halts", type=int, default=100)
    parser.add_argument("--servers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tidegate-halts-") as folder:
        report = run(
            Path(folder),
            devices=given.devices,
            halts=given.halts,
            servers=given.servers,
            seed=given.seed,
            pause_s=4.0,
            open_s=2.0,
            quiet_s=1.5,
            freeze_every=20,
        )
    sys.stdout.write(json.dumps(msgspec.to_builtins(report), indent=2) + "\n")
    enough = report.permits and report.asked_in_quiet and not report.idle_halts
    return 0 if report.kept and enough else 1


if __name__ == "__main__":
    sys.exit(main())
