"""Faults under load: several replicas on one PostgreSQL, a crowd of devices, and everything that happens to servers, at random moments.

`python -m tests.e2e.faults --minutes 8` is `make fault-load`. A replica is killed, the database is killed, or a part of it, its disk is full once, the
network between a replica and the database is cut; meanwhile a rollout is halted and resumed. Afterwards it is counted: every event that was acknowledged is
there, once, as it was sent; every counter is what the rows say; no permit and no offer stands behind a halt; no device is lost; the log of acts is whole.
"""

import argparse
import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final

import msgspec
import psycopg
from tests.e2e.crowd import Device, Watch
from tests.e2e.halts import TOKEN_S, Operator, _row
from tests.e2e.served import Served
from tests.postgres import Server
from tests.unit.server.rig import Rig

from tidegate.core import codec
from tidegate.core.protocol import EventBody, EventItem, EventsAnswer, EventsRequest, Metrics
from tidegate.server import audit, keyring, outcomes
from tidegate.server.store import Connection, device_queries, hot
from tidegate.server.store.postgres import open_store

#: A server that forgets nothing which it acknowledged, unlike the one that tests share.
_KEEPS: Final = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
_DISK_BYTES: Final = 600 << 20
_ORDER: Final = """
CREATE TABLE commit_order (seq BIGINT PRIMARY KEY, what TEXT NOT NULL);
CREATE FUNCTION put_order() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  -- one transaction writes at a time, so this is the order of commits
  INSERT INTO commit_order SELECT coalesce(max(seq), 0) + 1, TG_ARGV[0] FROM commit_order;
  RETURN NULL;
END $$;
CREATE FUNCTION put_state() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO commit_order SELECT coalesce(max(seq), 0) + 1, NEW.state FROM commit_order;
  RETURN NULL;
END $$;
CREATE TRIGGER order_permit AFTER INSERT ON permit FOR EACH ROW
  WHEN (NEW.state = 'granted') EXECUTE FUNCTION put_order('permit');
CREATE TRIGGER order_offer AFTER INSERT ON "update" FOR EACH ROW EXECUTE FUNCTION put_order('offer');
CREATE TRIGGER order_again AFTER UPDATE OF state ON "update" FOR EACH ROW
  WHEN (NEW.state = 'offered' AND OLD.state <> 'offered') EXECUTE FUNCTION put_order('offer');
CREATE TRIGGER order_state AFTER UPDATE OF state ON rollout FOR EACH ROW
  WHEN (NEW.state <> OLD.state) EXECUTE FUNCTION put_state();
"""
_CONFIG: Final = """
[database]
url = "{url}"
[plan]
tick = "1s"
[log]
level = "warning"
"""


class Report(msgspec.Struct, kw_only=True):
    """What was done, and what was counted. What must be 0: everything from `missing` on."""

    devices: int
    replicas: int
    faults: dict[str, int]
    halts: int
    events: int
    permits: int
    offers: int
    asked_in_quiet: int
    refused: dict[str, int]
    seconds: float
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
        names = self.__struct_fields__
        return not any(getattr(self, name) for name in names[names.index("missing") :])


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


# --- what can be broken ------------------------------------------------------------------------------------------------


class Cable:
    """The network between one replica and the database: a forwarder that can be cut. What is in it when it is cut is lost, or comes much later."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._whole = asyncio.Event()
        self._whole.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def open(self) -> None:
        """Begin to forward."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self, seconds: float, *, lose: bool) -> None:
        """Let nothing through for so long; `lose`: connections from before are dead afterwards."""
        self._whole.clear()
        await asyncio.sleep(seconds)
        if lose:
            self.drop()
        self._whole.set()

    def drop(self) -> None:
        """End every connection at once."""
        for writer in list(self._writers):
            writer.transport.abort()

    def close(self) -> None:
        """Stop."""
        self._server.close()
        self.drop()
        for task in self._tasks:
            task.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        try:
            await self._whole.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
            self._writers.add(back)
            await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(65_536):
                await self._whole.wait()
                to.write(piece)
                await to.drain()
        self._writers.discard(to)
        to.transport.abort()


class Database(Server):
    """A PostgreSQL server of this test's own, on a disk of its own."""

    def kill(self) -> None:
        """End it as `kill -9` does: the one that minds the others first."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(30)
        self._process = None

    def again(self) -> None:
        """Start it; those that the dead one left behind have to go first."""
        until = time.monotonic() + 60
        while True:
            try:
                self.start()
            except AssertionError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.3)
            else:
                return

    def kill_one(self, chance: random.Random) -> None:
        """Kill one of the processes that serve replicas: the server takes all of them down, and recovers."""
        with contextlib.suppress(psycopg.Error), self.connect() as conn:
            found = conn.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'tidegate'"
            ).fetchall()
            if found:
                os.kill(chance.choice(found)[0], signal.SIGKILL)


@contextlib.contextmanager
def disk() -> Iterator[Path]:
    """Lend a small disk of its own, where PostgreSQL's user gets at it."""
    folder = Path(tempfile.mkdtemp(prefix="tidegate-disk-"))
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES},mode=0755", "tmpfs", str(folder)],
        check=True,
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False)
        folder.rmdir()


def fill(folder: Path) -> Path:
    """Fill a disk to its last byte; return what fills it."""
    path = folder / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        piece = bytes(1 << 16)
        while True:
            file.write(piece)
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(b"x")
    return path


class Replica(Served):
    """One of several, which whoever minds it starts again until it runs."""

    def __init__(self, data: Path, config: Path, log: Path) -> None:
        self._log = log
        super().__init__(data, "--config", str(config))

    def start(self) -> None:
        """Start it, also again."""
        self.log = self._log
        self.log.write_text("")
        super().start()

    def again(self) -> None:
        """Start it, however often that takes: the database may be away."""
        until = time.monotonic() + 120
        while True:
            try:
                self.start()
            except AssertionError:
                self.kill()
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)
            else:
                return


class Breaker:
    """Does one thing after the other to them."""

    def __init__(
        self,
        database: Database,
        place: Path,
        replicas: list[Replica],
        cables: list[Cable],
        seed: int,
    ) -> None:
        self._database, self._place = database, place
        self._replicas, self._cables = replicas, cables
        self._chance = random.Random(seed)
        self.done: Counter[str] = Counter()
        self._kinds = {
            "replica killed": self._kill_replica,
            "network cut": self._cut,
            "connections lost": self._lose,
            "database killed": self._kill_database,
            "backend killed": self._kill_backend,
            "disk full": self._fill,
        }

    async def go_on(self, watch: Watch, pause_s: float) -> None:
        """Break something, wait, and so on, each kind at least once; the disk fills once."""
        owed = list(self._kinds)
        self._chance.shuffle(owed)
        usual = [one for one in self._kinds if one != "disk full"]
        while not watch.stopping:
            await asyncio.sleep(pause_s * (0.5 + self._chance.random()))
            if watch.stopping:
                return
            kind = owed.pop() if owed else self._chance.choice(usual)
            await self._kinds[kind]()
            self.done[kind] += 1

    async def _kill_replica(self) -> None:
        one = self._chance.choice(self._replicas)
        await asyncio.to_thread(one.kill)
        await asyncio.sleep(self._chance.random())
        await asyncio.to_thread(one.again)

    async def _cut(self) -> None:
        cable = self._chance.choice(self._cables)
        await cable.cut(2 + 12 * self._chance.random(), lose=self._chance.random() < 0.5)

    async def _lose(self) -> None:
        self._chance.choice(self._cables).drop()

    async def _kill_database(self) -> None:
        await asyncio.to_thread(self._database.kill)
        await asyncio.sleep(2 * self._chance.random())
        await asyncio.to_thread(self._database.again)

    async def _kill_backend(self) -> None:
        await asyncio.to_thread(self._database.kill_one, self._chance)

    async def _fill(self) -> None:
        path = await asyncio.to_thread(fill, self._place)
        await asyncio.sleep(6)
        path.unlink()
        await asyncio.to_thread(self._revive)

    def _revive(self) -> None:
        """A server that could not write its log may have ended by itself."""
        assert self._database._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._database._process.wait(5)
            self._database.again()


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
        conn.execute(_ORDER.encode())
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
            config.write_text(_CONFIG.format(url=through))
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


# --- what is counted ---------------------------------------------------------------------------------------------------


def _order(conn: "psycopg.Connection[Any]") -> Counter[str]:
    counts: Counter[str] = Counter()
    halted = False
    for (what,) in conn.execute("SELECT what FROM commit_order ORDER BY seq"):
        if what in ("permit", "offer"):
            counts[what] += 1
            counts[f"{what}_late"] += halted
        else:
            halted = what == "halted"
    return counts


def _events(conn: "psycopg.Connection[Any]", devices: list[Teller]) -> tuple[int, int, int, int]:
    """Return how many events there are, are missing, are others, are there twice."""
    there: dict[tuple[str, int], str] = {}
    count = 0
    for name, seq, body in conn.execute(
        "SELECT device.id, event.seq, event.body FROM event JOIN device ON device.row = event.device_row"
    ):
        count += 1
        text = body if isinstance(body, str) else json.dumps(body)
        there[name, seq] = json.loads(text).get("detail", "")
    missing = changed = 0
    for one in devices:
        for seq, detail in one.acked.items():
            found = there.get((one.name, seq))
            missing += found is None
            changed += found is not None and found != detail
    return count, missing, changed, count - len(there)


def _wrong_counters(conn: "psycopg.Connection[Any]") -> int:
    """Return how many counters are not what the rows of the updates say."""
    names = ", ".join(hot.UpdateRow._fields)
    wanted: Counter[tuple[int, str, str, str]] = Counter()
    for row in conn.execute(f'SELECT {names} FROM "update"'.encode()):
        update = hot.UpdateRow(*row)
        for name, value in outcomes.contributions(update).items():
            wanted[update.rollout_id, update.ring, update.variant, name] += value
    found: Counter[tuple[int, str, str, str]] = Counter()
    for rollout, ring, variant, name, value in conn.execute(
        "SELECT rollout_id, ring, variant, name, value FROM tally"
    ):
        if not name.endswith("_at"):
            found[rollout, ring, variant, name] += value
    return sum(wanted[key] != found[key] for key in wanted.keys() | found.keys())


def _lost_devices(conn: "psycopg.Connection[Any]", count: int) -> int:
    there = conn.execute("SELECT count(*) FROM device WHERE state = 'accepted'").fetchone()
    assert there is not None
    return abs(count - int(there[0]))


def _log_broken(url: str) -> int:
    """Read the log of acts from its beginning, and see whether everything hangs together."""
    with contextlib.closing(open_store(url)) as store:
        verdict = store.read(audit.verify)
    return int(not verdict.ok)


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
            database = Database(**_KEEPS)
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
            with psycopg.connect(url, autocommit=True) as conn:
                order = _order(conn)
                count, missing, changed, twice = _events(conn, tellers)
                return Report(
                    devices=devices,
                    replicas=replicas,
                    faults=dict(sorted(done.items())),
                    halts=halts,
                    events=count,
                    permits=order["permit"],
                    offers=order["offer"],
                    asked_in_quiet=watch.asked_in_quiet,
                    refused={str(one): found for one, found in sorted(watch.codes.items())},
                    seconds=round(time.monotonic() - began, 1),
                    missing=missing,
                    changed=changed,
                    twice=twice,
                    wrong_counters=_wrong_counters(conn),
                    lost_devices=_lost_devices(conn, devices),
                    permits_after_halt=order["permit_late"],
                    offers_after_halt=order["offer_late"],
                    granted_in_quiet=watch.granted_in_quiet,
                    offered_in_quiet=watch.offered_in_quiet,
                    log_broken=_log_broken(url),
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
