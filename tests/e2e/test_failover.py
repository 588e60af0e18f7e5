"""The database server dies and a standby takes over, under a crowd of devices: nothing acknowledged is lost, or it is noticed that it was."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from tests.e2e import ledger
from tests.e2e.breaking import Database, Replica
from tests.e2e.crowd import Watch
from tests.e2e.faults import CONFIG, KEEPS, Patient, Teller, prepare
from tests.e2e.standby import Standby

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(400)]

DEVICES = 20


class Pair:
    """A primary, a standby, two replicas that know both, and a crowd."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.primary = Database(**KEEPS)
        self.standby: Standby | None = None
        self.running: list[Replica] = []
        self.watch = Watch(frozen=True)  # nobody promises that everybody is answered here
        self.chance = random.Random(1)

    def set_up(self) -> None:
        url = self.primary.migrated()
        known = prepare(self.folder / "data", url, DEVICES)
        self.standby = Standby(self.primary, **KEEPS)
        self.name = url.rpartition("/")[2]
        hosts = f"127.0.0.1:{self.primary.port},127.0.0.1:{self.standby.port}"
        self.url = f"postgresql://postgres@{hosts}/{self.name}?target_session_attrs=read-write"
        config = self.folder / "tidegate.toml"
        config.write_text(CONFIG.format(url=self.url))
        for number in range(2):
            log = self.folder / f"replica{number}.log"
            self.running.append(Replica(self.folder / "data", config, log))
        token = (self.folder / "data" / "bootstrap.token").read_text().strip()
        self.operator = Patient(list(self.running), token)
        self.operator.create()
        ports = [one.port for one in self.running]
        self.devices = [Teller(*one, ports, self.watch, pause_s=0.3) for one in known]

    def close(self) -> None:
        for replica in self.running:
            replica.kill()
        for server in (self.standby, self.primary):
            if server is not None:
                server.close()

    async def act(self, verb: str) -> None:
        done = self.operator.until_done
        self.watch.quiet_since = None
        assert await asyncio.to_thread(done, verb, self.chance, self.watch)
        self.watch.quiet_since = time.monotonic() if verb == "halt" else None

    async def fail_over(self) -> None:
        """Kill the primary, as a power cut does, and have the standby take over."""
        assert self.standby is not None
        await asyncio.to_thread(self.primary.kill)
        await asyncio.to_thread(self.standby.take_over)

    async def more_grants(self) -> None:
        """Wait until somebody is let go."""
        before = self.watch.grants
        await until(lambda: self.watch.grants > before)

    async def answered(self) -> None:
        """Wait until devices tell again."""
        before = sum(len(one.acked) for one in self.devices)
        await until(lambda: sum(len(one.acked) for one in self.devices) > before + DEVICES)

    async def asked(self) -> None:
        """Wait until everybody asked anew whether there is something to do."""
        before = self.watch.polls
        await until(lambda: self.watch.polls > before + 2 * DEVICES)

    def holds(self) -> int:
        """Return how often everything was held because the database went back."""
        assert self.standby is not None
        with psycopg.connect(self.standby.url(self.name)) as conn:
            asked = "SELECT count(*) FROM audit WHERE action = 'server.restored'"
            (count,) = conn.execute(asked).fetchone() or (0,)
        return int(count)


async def until(true: Callable[[], bool]) -> None:
    for _ in range(900):
        if true():
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it did not come true")


@contextlib.asynccontextmanager
async def crowd(pair: Pair) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(one.live()) for one in pair.devices]
    try:
        yield
    finally:
        pair.watch.quiet_since = None
        pair.watch.stopping = True
        await asyncio.gather(*tasks)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    try:
        made.set_up()
        yield made
    finally:
        made.close()


def test_a_standby_that_has_everything_takes_over_and_nothing_is_lost(pair: Pair) -> None:
    with pair.primary.connect() as conn:
        conn.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        conn.execute("SELECT pg_reload_conf()")

    async def story() -> None:
        async with crowd(pair):
            await pair.more_grants()
            await pair.act("halt")
            await pair.fail_over()
            await pair.answered()
            await pair.asked()
            await pair.act("resume")
            await pair.more_grants()

    asyncio.run(story())
    for one in pair.running:
        one.kill()
    assert pair.standby is not None
    found = ledger.count(
        pair.folder / "data", pair.devices, pair.watch, pair.standby.url(pair.name)
    )
    lost = ledger.Lost(**found)
    assert lost.kept, lost
    assert lost.asked_in_quiet > 10, lost
    assert lost.events > 100, lost
    assert pair.holds() == 0, "what lost nothing is not held"


def test_a_halt_that_the_standby_never_got_lets_nobody_go_after_it_took_over(pair: Pair) -> None:
    async def story() -> None:
        standby = pair.standby
        assert standby is not None
        async with crowd(pair):
            await pair.more_grants()
            await asyncio.to_thread(standby.wait_for_all)
            await asyncio.to_thread(standby.deaf)
            await pair.answered()  # acknowledged, and soon lost
            await pair.act("halt")
            await asyncio.sleep(1)
            await pair.fail_over()
            await pair.answered()
            await until(lambda: pair.holds() > 0)
            await pair.asked()
            assert pair.watch.granted_in_quiet == 0
            # It says why, and a person's word is what lets them go on.
            await pair.act("resume")
            await pair.more_grants()

    asyncio.run(story())
    watch = pair.watch
    assert (watch.granted_in_quiet, watch.offered_in_quiet) == (0, 0)
    said = "".join((pair.folder / f"replica{one}.log").read_text() for one in (0, 1))
    assert "went back in time" in said


def test_a_database_that_only_reads_lets_nobody_begin_and_says_so(pair: Pair) -> None:
    one = pair.running[0]
    with pair.primary.connect() as conn:
        conn.execute(f"ALTER DATABASE {pair.name} SET default_transaction_read_only = on".encode())
        _cut(conn, pair.name)

    async def told(status: int) -> None:
        await until(lambda: one.ask("GET", "/readyz")[0] == status)

    async def story() -> None:
        await told(503)
        refused, body = one.ask("GET", "/readyz")
        found = {check["name"]: check["level"] for check in json.loads(body)["checks"]}
        assert (refused, found["database"]) == (503, "failed")
        assert one.ask("GET", "/healthz")[0] == 200, "it lives, and need not be started again"
        async with crowd(pair):
            await asyncio.sleep(3)
            watch = pair.watch
            assert watch.grants == watch.offers == 0
            assert set(watch.codes) <= {0, 503}, watch.codes
            with pair.primary.connect() as conn:
                reset = f"ALTER DATABASE {pair.name} RESET default_transaction_read_only"
                conn.execute(reset.encode())
                _cut(conn, pair.name)
            await pair.more_grants()
        await told(200)

    asyncio.run(story())
    assert pair.primary is not None


def _cut(conn: "psycopg.Connection[object]", name: str) -> None:
    conn.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'tidegate' AND datname = %s",
        (name,),
    )
