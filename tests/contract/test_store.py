"""What every store promises, run over each back end."""

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, text
from tests import stores

from tidegate.core.errors import BusyError, ConfigError, TidegateError
from tidegate.server.store import Change, Store, changes, tables


@pytest.fixture(params=stores.BACK_ENDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[stores.Place]:
    with stores.place(request.param, tmp_path / "data") as made:
        yield made


@pytest.fixture
def store(place: stores.Place) -> Iterator[Store]:
    made = place.open()
    yield made
    made.close()


def added(name: str) -> Callable[[Connection], int]:
    def work(conn: Connection) -> int:
        conn.execute(insert(tables.lease).values(name=name, holder="me", expires_at=1))
        return len(name)

    return work


def count(conn: Connection) -> int:
    return conn.execute(select(func.count()).select_from(tables.lease)).scalar_one()


def test_what_was_written_is_read(store: Store) -> None:
    assert store.write(added("abc")).result(5) == 3
    assert store.read(count) == 1


def test_work_that_fails_undoes_itself_alone(store: Store) -> None:
    gate = threading.Event()

    def blocks(conn: Connection) -> None:
        gate.wait(5)

    def fails(conn: Connection) -> None:
        added("lost")(conn)
        changes.bump(conn, "gate", "lost", 1)
        raise ValueError("no")

    seen: list[Change] = []
    store.subscribe(seen.extend)
    first = store.write(blocks)
    jobs: list[Future[Any]] = [
        store.write(added("one")),
        store.write(fails),
        store.write(added("two")),
    ]
    gate.set()
    wait([first, *jobs])
    with pytest.raises(ValueError, match="no"):
        jobs[1].result()
    assert store.read(count) == 2
    assert seen == []


def test_waiting_work_shares_one_commit(store: Store) -> None:
    gate = threading.Event()
    commits: list[int] = []

    def note(conn: Connection) -> None:
        changes.after_commit(conn, lambda: commits.append(1))

    started = threading.Event()

    def block(_: Connection) -> None:
        started.set()
        gate.wait(5)

    store.write(block)
    assert started.wait(5)
    seen: list[tuple[Change, ...]] = []
    store.subscribe(seen.append)
    jobs = [store.write(lambda conn: changes.bump(conn, "device", "d1", 5)) for _ in range(20)]
    gate.set()
    wait(jobs)
    store.write(note).result(5)
    assert commits == [1]
    assert seen == [(Change("device", "d1"),)]


def test_subscribers_hear_before_the_caller_does(store: Store) -> None:
    heard: list[bool] = []
    store.subscribe(lambda _: heard.append(True))
    store.write(lambda conn: changes.bump(conn, "rollout", "r", 9)).result(5)
    assert heard == [True]


def test_a_reader_cannot_write(store: Store) -> None:
    with pytest.raises(TidegateError) as caught:
        store.read(added("no"))
    assert caught.value.code == "data.read_only"
    assert store.read(count) == 0


def test_a_newer_schema_is_refused_and_left_alone(place: stores.Place, store: Store) -> None:
    def version(conn: Connection) -> str:
        return str(conn.execute(text("SELECT version_num FROM alembic_version")).scalar())

    newer = text("UPDATE alembic_version SET version_num = '9001'")
    store.write(lambda conn: conn.execute(newer)).result(5)
    if not place.url:
        store.close()
    with pytest.raises(ConfigError) as caught:
        place.open()
    assert caught.value.code == "data.newer_schema"
    if place.url:
        assert store.read(version) == "9001"


def test_the_migrations_make_exactly_the_tables(store: Store) -> None:
    assert store.read(stores.differences) == []


def test_after_close_work_is_refused(store: Store) -> None:
    store.close()
    with pytest.raises(BusyError):
        store.write(count)


_KILLED = """
import sys
from pathlib import Path
from sqlalchemy import insert
from tests.stores import Place
from tidegate.server.store import tables
store = Place(Path(sys.argv[1]), sys.argv[2]).open()
number = 0
while True:
    number += 1
    def work(conn):
        conn.execute(insert(tables.lease).values(name=str(number), holder="me", expires_at=1))
    store.write(work).result()
    print(number, flush=True)
"""


def test_everything_acknowledged_is_there_after_kill_9(place: stores.Place) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path.cwd()), *sys.path])}
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(place.folder), place.url],
        stdout=subprocess.PIPE, text=True, env=env,
    )  # fmt: skip
    assert process.stdout is not None
    last = 0
    for line in process.stdout:
        last = int(line)
        if last == 40:
            process.kill()
    process.wait()
    store = place.open()
    try:
        assert store.read(count) >= last >= 40
    finally:
        store.close()


def test_what_is_urgent_goes_before_what_waits_already(store: Store) -> None:
    gate = threading.Event()
    order: list[str] = []

    def waits(conn: Connection) -> None:
        gate.wait(10)

    store.write(waits)
    usual = [store.write(lambda _: order.append("usual")) for _ in range(3)]
    urgent = store.write(lambda _: order.append("halt"), urgent=True)
    gate.set()
    for one in (*usual, urgent):
        one.result(10)
    assert order == ["halt", "usual", "usual", "usual"]
