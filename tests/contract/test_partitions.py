"""The event log in pieces, on PostgreSQL: nothing is lost between them, nothing counts twice across them, and what is old goes as a whole."""

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, func, select
from tests import postgres
from tests.postgres import Server

from tidegate.core.errors import BusyError
from tidegate.server.store import hot, partitions, tables
from tidegate.server.store import postgres as back_end
from tidegate.server.store.hot import EventRow
from tidegate.server.store.migrations import upgrade
from tidegate.server.store.partitions import WIDTH_MIN, Piece
from tidegate.server.store.postgres import (
    Place,
    PostgresStore,
    looking_at,
    open_store,
    upgrade_schema,
)
from tidegate.server.store.scope import DEFAULT


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.database() as made:
        yield made


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    made = open_store(url)
    yield made
    made.close()


def _event(row: int, seq: int, at: int = 5) -> EventRow:
    return EventRow("default", row, seq, at, at, "heartbeat", None, 0, None, "{}", None)


def put(store: PostgresStore, *events: EventRow) -> None:
    store.write(lambda conn: hot.put_events(conn, events)).result(10)


def jump(store: PostgresStore, position: int) -> None:
    """Have the next event get this position."""
    store.write(
        lambda conn: conn.exec_driver_sql(f"SELECT setval('event_position_seq', {position - 1})")
    ).result(10)


def where(conn: Connection) -> dict[str, int]:
    """Return how many events each piece holds, empty ones left out."""
    asked = "SELECT tableoid::regclass::text, count(*) FROM event GROUP BY 1"
    return {name: int(count) for name, count in conn.exec_driver_sql(asked)}


def test_a_new_log_has_pieces_ahead_and_one_for_the_rest(store: PostgresStore) -> None:
    found = store.read(partitions.pieces)
    assert [piece.low for piece in found] == [0, WIDTH_MIN, 2 * WIDTH_MIN]
    assert [piece.high for piece in found] == [WIDTH_MIN, 2 * WIDTH_MIN, 3 * WIDTH_MIN]
    assert not store.read(lambda conn: partitions.missing(conn, 0, WIDTH_MIN))


def test_an_event_that_no_piece_covers_is_kept_and_no_later_piece_claims_it(
    store: PostgresStore,
) -> None:
    jump(store, 3 * WIDTH_MIN + 70)
    put(store, _event(1, 1), _event(1, 2))
    assert store.read(where) == {"event_rest": 2}
    newest = store.read(hot.newest_position)
    made = store.write(
        lambda conn: partitions.grow(conn, hot.newest_position(conn), WIDTH_MIN)
    ).result(10)
    assert made == partitions.AHEAD
    assert store.read(partitions.pieces)[3].low == newest + 1
    put(store, _event(1, 3))
    assert store.read(where) == {"event_rest": 2, f"event_{newest + 1}": 1}
    assert [line.split()[0] for line in store.read(hot.event_log)] == [
        str(newest - 1), str(newest), str(newest + 1),
    ]  # fmt: skip


def test_whoever_reads_the_log_for_long_keeps_nobody_from_writing(
    store: PostgresStore, url: str
) -> None:
    """Pieces are made later then; two are ahead, and there is one for the rest."""

    def grow(conn: Connection) -> int:
        return partitions.grow(conn, 2 * WIDTH_MIN, WIDTH_MIN)

    with looking_at(url) as reader:
        assert reader.execute(select(func.count()).select_from(tables.event)).scalar() == 0
        with pytest.raises(BusyError) as caught:
            store.write(grow).result(10)
        assert caught.value.code == "server.busy"
        put(store, _event(1, 1))
    assert store.read(where) == {"event_0": 1}
    assert store.write(grow).result(10) == 2


def test_a_piece_goes_as_a_whole_and_what_has_to_stay_moves(store: PostgresStore) -> None:
    put(store, *(_event(1, seq) for seq in range(1, 11)))
    jump(store, WIDTH_MIN)
    put(store, _event(1, 11))
    first = store.read(partitions.pieces)[0]
    log = store.read(hot.event_log)
    assert store.write(lambda conn: partitions.retire(conn, first, [3, 7])).result(10)
    assert store.read(where) == {"event_rest": 2, f"event_{WIDTH_MIN}": 1}
    assert store.read(hot.event_log) == [log[2], log[6], log[10]]
    assert not store.write(lambda conn: partitions.retire(conn, first, [])).result(10)
    put(store, _event(1, 12))
    assert store.read(where)[f"event_{WIDTH_MIN}"] == 2


def test_a_piece_that_is_being_read_goes_later(store: PostgresStore, url: str) -> None:
    put(store, _event(1, 1))
    first = store.read(partitions.pieces)[0]
    with looking_at(url) as reader:
        assert reader.execute(select(func.count()).select_from(tables.event)).scalar() == 1
        with pytest.raises(BusyError) as caught:
            store.write(lambda conn: partitions.retire(conn, first, [])).result(10)
        assert caught.value.code == "server.busy"
        put(store, _event(1, 2))
    assert store.read(where) == {"event_0": 2}
    assert store.write(lambda conn: partitions.retire(conn, first, [])).result(10)


def test_a_log_that_comes_as_a_whole_is_cut_into_few_pieces(store: PostgresStore) -> None:
    newest = 50 * WIDTH_MIN + 3
    store.write(lambda conn: partitions.reach(conn, newest)).result(10)
    found = store.read(partitions.pieces)
    assert 3 < len(found) <= 20
    assert found[-1].high > newest
    assert all(one.high == two.low for one, two in itertools.pairwise(found))


def test_on_sqlite_there_are_no_pieces(tmp_path: Any) -> None:
    from tidegate.server.store.sqlite import open_store as open_sqlite

    store = open_sqlite(tmp_path)
    assert store.read(partitions.pieces) == []
    assert not store.read(lambda conn: partitions.missing(conn, 1 << 40, 1))
    assert store.write(lambda conn: partitions.grow(conn, 1 << 40, 1)).result(10) == 0
    store.close()


# --- a log that was one table -----------------------------------------------------------------------------------------


@pytest.fixture
def older() -> Iterator[str]:
    """A database from before, with events."""
    with postgres.database(Server.database) as url:
        with back_end._first(Place(url, DEFAULT)) as conn:
            upgrade(conn, to="0021")
            with conn.begin():
                hot.put_events(conn, [_event(row, seq) for row in (1, 2) for seq in range(1, 51)])
        yield url


def test_what_was_there_becomes_the_first_piece_and_it_goes_on_behind_it(older: str) -> None:
    with looking_at(older) as conn:
        log = hot.event_log(conn)
    upgrade_schema(older)
    store = open_store(older)
    first, second, third = store.read(partitions.pieces)
    assert first == Piece("event_0", 0, 100 + partitions.JUMP)
    assert store.read(hot.event_log) == log
    put(store, _event(1, 51))
    assert store.read(where) == {"event_0": 100, second.name: 1}
    assert store.read(hot.newest_position) == second.low == first.high
    assert third.high > second.high
    store.close()


def test_servers_of_before_go_on_writing_while_it_is_done_and_afterwards(older: str) -> None:
    """Their statements are prepared, name `event`, and are not asked whether it is another table now."""
    stopped, wrote, failed = threading.Event(), [0], []

    def old_server() -> None:
        with psycopg.connect(older, autocommit=True) as wire:
            wire.prepare_threshold = 1
            while not stopped.is_set():
                seq = 1000 + wrote[0]
                try:
                    with wire.transaction():
                        wire.execute(f"SELECT pg_advisory_xact_lock({back_end.LOCK})")
                        wire.execute(
                            "INSERT INTO event (tenant, device_row, seq, received_at, at, kind, body) "
                            "SELECT * FROM unnest(%s::text[], %s::bigint[], %s::bigint[], %s::bigint[], "
                            "%s::bigint[], %s::text[], %s::text[]) ON CONFLICT DO NOTHING",
                            (["default"], [9], [seq], [5], [5], ["heartbeat"], ["{}"]),
                        )
                except psycopg.Error as error:
                    failed.append(error)
                    return
                wrote[0] += 1

    writer = threading.Thread(target=old_server)
    writer.start()
    while wrote[0] < 20 and not failed:
        stopped.wait(0.01)
    upgrade_schema(older)
    then = wrote[0]
    while wrote[0] < then + 20 and not failed:
        stopped.wait(0.01)
    stopped.set()
    writer.join(20)
    assert not failed
    with looking_at(older) as conn:
        e = tables.event.c
        seqs = list(
            conn.execute(select(e.seq).where(e.device_row == 9).order_by(e.position)).scalars()
        )
        assert seqs == [1000 + number for number in range(wrote[0])]
        assert len(where(conn)) == 2


def test_looking_through_may_be_repeated(older: str) -> None:
    with back_end._first(Place(older, DEFAULT)) as conn:
        partitions.prepare(conn)
        partitions.prepare(conn)
    upgrade_schema(older)
    with back_end._first(Place(older, DEFAULT)) as conn:
        partitions.prepare(conn)
    with looking_at(older) as conn:
        assert where(conn) == {"event_0": 100}


def test_without_having_looked_through_it_is_done_as_well(older: str) -> None:
    with back_end._first(Place(older, DEFAULT)) as conn:
        upgrade(conn)
    store = open_store(older)
    assert store.read(partitions.pieces)[0] == Piece("event_0", 0, 101)
    put(store, _event(1, 51))
    assert store.read(where) == {"event_0": 100, "event_101": 1}
    store.close()


def test_each_tenant_has_pieces_of_its_own(older: str) -> None:
    upgrade_schema(older, "acme")
    acme = open_store(older, tenant="acme")
    put(acme, _event(1, 1))
    assert acme.read(where) == {"event_0": 1}
    assert acme.write(lambda conn: partitions.grow(conn, 2 * WIDTH_MIN, WIDTH_MIN)).result(10) == 2
    first = acme.read(partitions.pieces)[0]
    assert acme.write(lambda conn: partitions.retire(conn, first, [])).result(10)
    acme.close()
    upgrade_schema(older)
    with looking_at(older) as conn:
        assert where(conn) == {"event_0": 100}
