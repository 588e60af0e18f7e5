"""What every store promises, run over each back end."""

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, insert, select

from tidegate.core.errors import BusyError, ConfigError, TidegateError
from tidegate.server.store import Change, changes, tables
from tidegate.server.store.sqlite import DATABASE_NAME, SqliteStore, open_store, raw_connection


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = open_store(tmp_path / "data")
    yield made
    made.close()


def _add(name: str) -> Callable[[Connection], int]:
    def work(conn: Connection) -> int:
        conn.execute(insert(tables.lease).values(name=name, holder="me", expires_at=1))
        return len(name)

    return work


def _count(conn: Connection) -> int:
    return conn.execute(select(func.count()).select_from(tables.lease)).scalar_one()


def test_what_was_written_is_read(store: SqliteStore) -> None:
    assert store.write(_add("abc")).result(5) == 3
    assert store.read(_count) == 1


def test_work_that_fails_undoes_itself_alone(store: SqliteStore) -> None:
    gate = threading.Event()

    def blocks(conn: Connection) -> None:
        gate.wait(5)

    def fails(conn: Connection) -> None:
        _add("lost")(conn)
        changes.bump(conn, "gate", "lost", 1)
        raise ValueError("no")

    seen: list[Change] = []
    store.subscribe(seen.extend)
    first = store.write(blocks)
    jobs: list[Future[Any]] = [
        store.write(_add("one")),
        store.write(fails),
        store.write(_add("two")),
    ]
    gate.set()
    wait([first, *jobs])
    with pytest.raises(ValueError, match="no"):
        jobs[1].result()
    assert store.read(_count) == 2
    assert seen == []


def test_waiting_work_shares_one_commit(store: SqliteStore) -> None:
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
    jobs = [store.write(lambda conn: changes.bump(conn, "device", "d1", 5)) for _ in range(50)]
    gate.set()
    wait(jobs)
    store.write(note).result(5)
    assert commits == [1]
    assert seen == [(Change("device", "d1"),)]


def test_subscribers_hear_before_the_caller_does(store: SqliteStore) -> None:
    heard: list[bool] = []
    store.subscribe(lambda _: heard.append(True))
    store.write(lambda conn: changes.bump(conn, "rollout", "r", 9)).result(5)
    assert heard == [True]


def test_a_reader_cannot_write(store: SqliteStore) -> None:
    with pytest.raises(TidegateError) as caught:
        store.read(_add("no"))
    assert caught.value.code == "data.read_only"
    assert store.read(_count) == 0


def test_a_second_store_on_one_directory_is_refused(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(BusyError) as caught:
        open_store(tmp_path / "data")
    assert caught.value.code == "data.locked"


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    raw = sqlite3.connect(tmp_path / DATABASE_NAME)
    raw.execute("UPDATE alembic_version SET version_num = '9001'")
    raw.commit()
    raw.close()
    with pytest.raises(ConfigError) as caught:
        open_store(tmp_path)
    assert caught.value.code == "data.newer_schema"
    raw = sqlite3.connect(tmp_path / DATABASE_NAME)
    assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == ("9001",)


def test_a_file_that_is_no_database_is_named_damaged(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(b"this is not a database file at all" * 100)
    with pytest.raises(ConfigError) as caught:
        open_store(tmp_path)
    assert caught.value.code == "data.damaged"


def test_a_full_disk_has_a_code_and_loses_nothing_acknowledged(store: SqliteStore) -> None:
    store.write(_add("kept")).result(5)
    store.write(lambda conn: raw_connection(conn).execute("PRAGMA max_page_count = 10")).result(5)

    def much(conn: Connection) -> None:
        for number in range(100):
            _add(f"{number}{'x' * 4000}")(conn)

    with pytest.raises(TidegateError) as caught:
        store.write(much).result(5)
    assert caught.value.code == "data.full"
    store.write(lambda conn: raw_connection(conn).execute("PRAGMA max_page_count = 99999")).result(
        5
    )
    store.write(_add("later")).result(5)
    assert store.read(_count) == 2


def test_a_directory_that_cannot_be_made_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(Path("/proc/nowhere/data"))
    assert caught.value.code == "data.read_only"


def test_the_migrations_make_exactly_the_tables(store: SqliteStore) -> None:
    def differences(conn: Connection) -> list[object]:
        return list(compare_metadata(MigrationContext.configure(conn), tables.metadata))

    assert store.read(differences) == []


def test_after_close_work_is_refused(store: SqliteStore) -> None:
    store.close()
    with pytest.raises(BusyError):
        store.write(_count)


_KILLED = """
import sys
from pathlib import Path
from sqlalchemy import insert
from tidegate.server.store import tables
from tidegate.server.store.sqlite import open_store
store = open_store(Path(sys.argv[1]))
number = 0
while True:
    number += 1
    def work(conn):
        conn.execute(insert(tables.lease).values(name=str(number), holder="me", expires_at=1))
    store.write(work).result()
    print(number, flush=True)
"""


def test_everything_acknowledged_is_there_after_kill_9(tmp_path: Path) -> None:
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", _KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True, env=env
    )
    assert process.stdout is not None
    last = 0
    for line in process.stdout:
        last = int(line)
        if last == 40:
            process.kill()
    process.wait()
    store = open_store(tmp_path)
    try:
        assert store.read(_count) >= last >= 40
    finally:
        store.close()


def test_what_is_urgent_goes_before_what_waits_already(store: SqliteStore) -> None:
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
