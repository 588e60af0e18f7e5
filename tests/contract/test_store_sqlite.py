"""What only the store on SQLite promises: its directory, its file, its disk."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.contract.test_store import added, count

from tidegate.core.errors import BusyError, ConfigError, TidegateError
from tidegate.server.store import Connection
from tidegate.server.store.sqlite import DATABASE_NAME, SqliteStore, open_store, raw_connection


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = open_store(tmp_path / "data")
    yield made
    made.close()


def test_a_second_store_on_one_directory_is_refused(store: SqliteStore, tmp_path: Path) -> None:
    with pytest.raises(BusyError) as caught:
        open_store(tmp_path / "data")
    assert caught.value.code == "data.locked"


def test_a_file_that_is_no_database_is_named_damaged(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(b"this is not a database file at all" * 100)
    with pytest.raises(ConfigError) as caught:
        open_store(tmp_path)
    assert caught.value.code == "data.damaged"


def test_a_full_disk_has_a_code_and_loses_nothing_acknowledged(store: SqliteStore) -> None:
    store.write(added("kept")).result(5)
    store.write(lambda conn: raw_connection(conn).execute("PRAGMA max_page_count = 10")).result(5)

    def much(conn: Connection) -> None:
        for number in range(100):
            added(f"{number}{'x' * 4000}")(conn)

    with pytest.raises(TidegateError) as caught:
        store.write(much).result(5)
    assert caught.value.code == "data.full"
    store.write(lambda conn: raw_connection(conn).execute("PRAGMA max_page_count = 99999")).result(
        5
    )
    store.write(added("later")).result(5)
    assert store.read(count) == 2


def test_a_directory_that_cannot_be_made_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        open_store(Path("/proc/nowhere/data"))
    assert caught.value.code == "data.read_only"
