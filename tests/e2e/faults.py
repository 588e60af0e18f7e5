"""Faults under load: several replicas on one PostgreSQL, a crowd of devices, and everything that happens to servers, at random moments.

`python -m tests.e2e.faults --minutes 8` is `make fault-load`. A replica is killed, the database is killed, or a part of it, its disk is full once, the
network between a replica and the database is cut; meanwhile a rollout is halted and resumed. Afterwards it is counted: every event that was acknowledged is
there, once, as it was sent; every counter is what the rows say; no permit and no offer stands behind a halt; no device is lost; the log of acts is whole.
"""

import argparse
import asyncio
import contextlib
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
from tests.e2e import ledger
from tests.e2e.breaking import Breaker, Cable, Database, Replica, disk
from tests.e2e.crowd import Device, Watch
from tests.e2e.halts import _POSTGRES_ORDER, TOKEN_S, Operator, _row
from tests.e2e.ledger import Lost
from tests.unit.server.rig import Rig

from tidegate.core import codec
from tidegate.core.protocol import EventBody, EventItem, EventsAnswer, EventsRequest, Metrics
from tidegate.server import keyring
from tidegate.server.store import Connection, device_queries

#: A server that forgets nothing which it acknowledged, unlike the one that tests share.
KEEPS: Final = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
CONFIG: Final = """
[database]
url = "{url}"
[plan]
tick = "1s"
[log]
level = "warning"
"""


class Report(Lost, kw_only=True):
    """What was done, and what was counted."""

    devices: int
    replicas: int
    faults: dict[str, int]
    halts: int
    refused: dict[str, int]
    seconds: float


# --- the crowd ---------------------------------------------------------------------------------------------------------


class Teller(Device):
    """A device that also tells: numbered events, each sent until it is acknowledged."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.acked: dict[int, str] = {}

    async def _once(self) -> None:
        if self._chance.random() < 0.5:
            await self._tell()
        await super()._once()

    async def _tell(self) -> None:
        """Tell of a few things at once, and go on until it is known that they are kept."""
        bodies = []
        for _ in range(self._chance.randint(1, 4)):
            self._seq += 1
            bodies.append(
                EventBody(
                    device_id=self.name,
                    seq=self._seq,
                    at=int(time.time()),
                    kind="heartbeat",
                    boot_id="b",
                    detail=f"{self._chance.random():.9f}",
                    metrics=Metrics(errors=1, device_s=1),
                )
            )
        request = codec.encode(EventsRequest(events=tuple(EventItem(body=one) for one in bodies)))
        while not self.watch.stopping:
            status, found = await self._line.ask("POST", "/d/v1/events", request)
            if status == 200:
                answer = msgspec.json.decode(found, type=EventsAnswer)
                if answer.acked_seq >= bodies[-1].seq and not answer.refused:
                    self.acked |= {one.seq: one.detail for one in bodies}
                return
            self._good(status)
            await asyncio.sleep(0.2)


# --- the story ---------------------------------------------------------------------------------------------------------


def prepare(folder: Path, url: str, count: int) -> list[tuple[str, str]]:
    """Make a data directory and a database with a release and `count` devices that hold a key; return their names and tokens."""
    rig = Rig(folder, now=int(time.time()), url=url)
    rig.publish_trust()
    rig.release(1)
    now, services = int(rig.now), rig.app.services
    names = [f"dev-{number:05}" for number in range(count)]

    def put(conn: Connection) -> list[str]:
        device_queries.add_many(conn, [_row(name, now) | {"key_gen": 0} for name in names])
        keyring.turn(conn, services.tokens, now, TOKEN_S, services.randomness)
        rows = device_queries.rows_by_id(conn)
        return [services.tokens.issue(row, 0, now, TOKEN_S) for row in rows]

    tokens = rig.write(put)
    rig.app.services.store.write(lambda conn: _add_viewer(conn, now)).result()
    rig.close()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(_POSTGRES_ORDER)
    return list(zip(names, tokens, strict=True))


def _add_viewer(conn: Connection, now: int) -> None:
    # Some account has to be there, or the first start makes one that could approve: then every resume would take two.
    from tidegate.server.store import admin_accounts

    admin_accounts.add_account(
        conn, {"name": "vic", "password_hash": "", "role": "viewer", "created_at": now}
    )


class Patient(Operator):
    """An operator who asks until he hears that it is done."""

    def until_done(self, verb: str, chance: random.Random, watch: Watch) -> bool:
        """Carry out a verb at any replica that answers; False: the story is over."""
        until = time.monotonic() + 180
        while time.monotonic() < until:
            with contextlib.suppress(OSError, HTTPException):
                if self.act(chance.randrange(len(self._running)), verb) == 200:
                    return True
            if watch.stopping:
                return False
            time.sleep(0.5)
        raise AssertionError(f"nobody could {verb} for three minutes")


async def _halts(operator: Patient, watch: Watch, pause_s: float, seed: int) -> int:
    chance, count = random.Random(seed + 1), 0
    while not watch.stopping:
        await asyncio.sleep(pause_s * (0.5 + chance.random()))
        if not await asyncio.to_thread(operator.until_done, "halt", chance, watch):
            break
        watch.quiet_since = time.monotonic()
        count += 1
        await asyncio.sleep(0.5 * pause_s * (0.5 + chance.random()))
        watch.quiet_since = None
        if not await asyncio.to_thread(operator.until_done, "resume", chance, watch):
            break
    return count


async def _story(
    folder: Path,
    place: Path,
    database: Database,
    url: str,
    known: list[tuple[str, str]],
    watch: Watch,
    *,
    replicas: int,
    seconds: float,
    fault_s: float,
    halt_s: float,
    pause_s: float,
    seed: int,
) -> tuple[list[Teller], Counter[str], int]:
    cables = [Cable(database.port) for _ in range(replicas)]
    running: list[Replica] = []
    try:
        for number, cable in enumerate(cables):
            await cable.open()
            config = folder / f"replica{number}.toml"
            through = url.replace(f":{database.port}/", f":{cable.port}/")
            config.write_text(CONFIG.format(url=through))
            log = folder / f"replica{number}.log"
            # in a thread: its way to the database leads through this loop
            made = await asyncio.to_thread(Replica, folder / "data", config, log)
            running.append(made)
        token = (folder / "data" / "bootstrap.token").read_text().strip()
        operator = Patient(list(running), token)
        await asyncio.to_thread(operator.create)
        ports = [one.port for one in running]
        devices = [Teller(*one, ports, watch, pause_s=pause_s) for one in known]
        crowd = [asyncio.create_task(one.live()) for one in devices]
        breaker = Breaker(database, place, running, cables, seed)
        breaking = asyncio.create_task(breaker.go_on(watch, fault_s))
        halting = asyncio.create_task(_halts(operator, watch, halt_s, seed))
        done, _ = await asyncio.wait(
            {breaking, halting}, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION
        )
        for one in done:
            one.result()
        watch.quiet_since = None
        watch.stopping = True
        await asyncio.gather(breaking, *crowd)
        return devices, breaker.done, await halting
    finally:
        for cable in cables:
            cable.close()
        for replica in running:
            await asyncio.to_thread(replica.kill)


def run(
    folder: Path,
    *,
    devices: int,
    seconds: float,
    replicas: int = 3,
    fault_s: float = 8.0,
    halt_s: float = 4.0,
    pause_s: float = 1.0,
    seed: int = 1,
) -> Report:
    """Tell the whole story once.

    Args:
        folder: an empty one.
        devices: how many of them.
        seconds: how long it goes on.
        replicas: server processes.
        fault_s, halt_s: from one fault, and one resume, to the next on average.
        pause_s: between two questions of a device.
        seed: of what happens when.
    """
    with disk() as place:
        before, tempfile.tempdir = tempfile.tempdir, str(place)
        try:
            database = Database(**KEEPS)
        finally:
            tempfile.tempdir = before
        try:
            url = database.migrated()
            known = prepare(folder / "data", url, devices)
            watch = Watch(frozen=True)  # nobody promises that everybody is answered here
            began = time.monotonic()
            tellers, done, halts = asyncio.run(
                _story(
                    folder, place, database, url, known, watch, replicas=replicas, seconds=seconds,
                    fault_s=fault_s, halt_s=halt_s, pause_s=pause_s, seed=seed,
                )
            )  # fmt: skip
            return Report(
                devices=devices,
                replicas=replicas,
                faults=dict(sorted(done.items())),
                halts=halts,
                refused={str(one): found for one, found in sorted(watch.codes.items())},
                seconds=round(time.monotonic() - began, 1),
                **ledger.count(folder / "data", tellers, watch, url),
            )
        finally:
            database.close()


def main() -> int:
    """Run the long form and print what was counted; exit code 1 where something was lost."""
    parser = argparse.ArgumentParser(description="Break replicas and their database under load.")
    parser.add_argument("--devices", type=int, default=300)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tidegate-faults-"))
    try:
        report = run(
            folder, devices=given.devices, seconds=60 * given.minutes, replicas=given.replicas,
            seed=given.seed,
        )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    sys.stdout.write(json.dumps(msgspec.to_builtins(report), indent=2) + "\n")
    enough = report.permits and report.asked_in_quiet and len(report.faults) == 6
    return 0 if report.kept and enough else 1


if __name__ == "__main__":
    sys.exit(main())
