"""What can happen to servers, made to happen: a network that is cut, a database that is killed or whose disk is full, a replica that dies.

Each is the real thing on this machine: processes are killed by their id, a disk is a small one of its own, a network is a forwarder on the loopback interface.
"""

import asyncio
import contextlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psycopg
from tests.e2e.crowd import Watch
from tests.e2e.served import Served
from tests.postgres import Server

_DISK_BYTES: Final = 600 << 20


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

    def __init__(self, data: Path, config: Path, log: Path, *, code: Path | None = None) -> None:
        self._log = log
        super().__init__(data, "--config", str(config), code=code)

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
