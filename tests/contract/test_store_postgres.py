"""What only the store on PostgreSQL promises: one transaction writes at a time over all processes, and a server that goes away is a named error."""

import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection, insert, select
from tests import postgres
from tests.contract.test_store import added, count

from tidegate.core.errors import BusyError, ConfigError, RequestError, TidegateError
from tidegate.server.store import changes, hot, raw, tables
from tidegate.server.store import postgres as back_end
from tidegate.server.store.hot import EventRow
from tidegate.server.store.postgres import PostgresStore, open_store, wire_of
from tidegate.server.store.raw import dollars, raw_connection


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.database() as made:
        yield made


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    made = open_store(url)
    yield made
    made.close()


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    """A server that the test may stop."""
    made = postgres.Server()
    yield made
    made.close()


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.02)
    return holds()


def _event(row: int, seq: int) -> EventRow:
    return EventRow("default", row, seq, 5, 5, "heartbeat", None, 0, None, "{}", None)


# --- one writes at a time ---------------------------------------------------------------------------------------------


def test_two_processes_that_read_and_then_write_never_lose_one_of_both(url: str) -> None:
    stores = [open_store(url, durable=False) for _ in range(3)]

    def grow(conn: Connection) -> None:
        table = tables.lease
        now = conn.execute(select(table.c.expires_at).where(table.c.name == "n")).scalar_one()
        conn.execute(table.update().where(table.c.name == "n").values(expires_at=now + 1))

    stores[0].write(added("n")).result(10)
    jobs = [store.write(grow) for _ in range(40) for store in stores]
    for job in jobs:
        job.result(60)
    value = stores[1].read(lambda conn: conn.execute(select(tables.lease.c.expires_at)).scalar())
    for store in stores:
        store.close()
    assert value == 1 + 120


def test_whoever_reads_the_log_up_to_a_position_misses_nothing_that_comes_below_it(
    url: str,
) -> None:
    stores = [open_store(url, durable=False) for _ in range(2)]
    stop = threading.Event()

    def busy(number: int) -> None:
        seq = 0
        while not stop.is_set():
            seq += 1

            def work(conn: Connection, seq: int = seq) -> None:
                hot.put_events(conn, [_event(number, seq)])
                time.sleep(0.002 * number)  # so that they would overlap
                if seq % 5 == 0:
                    raise ValueError

            job = stores[number].write(work)
            job.exception(30)

    threads = [threading.Thread(target=busy, args=(number,)) for number in (0, 1)]
    for one in threads:
        one.start()
    seen: list[int] = []
    reader = open_store(url)

    def behind(conn: Connection) -> list[int]:
        found = raw_connection(conn).execute(
            "SELECT position FROM event WHERE position > ? ORDER BY position",
            (seen[-1] if seen else 0,),
        )
        return [one[0] for one in found]

    while len(seen) < 150:
        seen += reader.read(behind)
    stop.set()
    for one in threads:
        one.join()
    seen += reader.read(behind)
    everything = reader.read(
        lambda conn: raw_connection(conn).execute("SELECT position FROM event ORDER BY position")
    )
    assert [one[0] for one in everything] == seen
    for store in (*stores, reader):
        store.close()


def test_who_waits_for_a_turn_that_does_not_end_is_told_that_others_hold_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(back_end, "TURN_MS", 300)
    store = open_store(url)
    with psycopg.connect(url) as other:
        other.execute(f"SELECT pg_advisory_xact_lock({back_end.LOCK})")
        with pytest.raises(BusyError) as caught:
            store.write(added("waits")).result(10)
    assert caught.value.code == "server.busy"
    store.write(added("later")).result(10)
    assert store.read(count) == 1
    store.close()


def test_a_process_that_stands_still_in_its_turn_loses_it(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(back_end, "SILENT_MS", 300)
    frozen = open_store(url)
    monkeypatch.setattr(back_end, "SILENT_MS", 20_000)
    store = open_store(url)
    gate, inside = threading.Event(), threading.Event()

    def stands(conn: Connection) -> None:
        added("frozen")(conn)
        inside.set()
        gate.wait(20)
        added("goes on after all")(conn)

    job = frozen.write(stands)
    assert inside.wait(10)
    store.write(added("goes on")).result(10)
    gate.set()
    with pytest.raises(BusyError) as caught:
        job.result(10)
    assert caught.value.code == "data.unreachable"
    frozen.write(added("again")).result(10)
    assert store.read(count) == 2
    frozen.close()
    store.close()


# --- a server that goes away ------------------------------------------------------------------------------------------


def test_a_server_that_is_started_again_is_found_again(server: postgres.Server) -> None:
    store = open_store(server.migrated())
    store.write(added("kept")).result(10)
    server.stop()
    with pytest.raises(BusyError) as caught:
        store.write(added("lost")).result(30)
    assert caught.value.code == "data.unreachable"
    with pytest.raises(BusyError) as caught:
        store.read(count)
    assert caught.value.code == "data.unreachable"
    server.start()
    store.write(added("later")).result(30)
    assert store.read(count) == 2
    store.close()


def test_a_server_that_crashes_between_two_statements_loses_what_was_not_acknowledged(
    server: postgres.Server,
) -> None:
    store = open_store(server.migrated())

    def crash(conn: Connection) -> None:
        added("lost")(conn)
        server.stop(signal.SIGQUIT)
        added("never")(conn)

    with pytest.raises(BusyError) as caught:
        store.write(crash).result(30)
    assert caught.value.code == "data.unreachable"
    server.start()
    assert store.read(count) == 0
    store.close()


def test_a_commit_of_which_nothing_was_heard_is_told_as_that(
    store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[object] = []
    store.subscribe(heard.append)

    def cut(conn: Connection) -> None:
        added("perhaps")(conn)
        changes.notify(conn, "gate", "1")
        pid = wire_of(conn).info.backend_pid
        with postgres.server().connect() as other:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))
            assert _within(10, lambda: not _lives(other, pid))

    # The connection ends behind the last statement: nobody asks again before the commit.
    monkeypatch.setattr(store, "_note", cut)
    with pytest.raises(BusyError) as caught:
        store.write(lambda _: None).result(10)
    monkeypatch.undo()
    assert caught.value.code == "data.outcome_unknown"
    assert heard == []
    store.write(added("later")).result(10)
    assert store.read(count) == 1


def _lives(other: psycopg.Connection[object], pid: int) -> bool:
    found = other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,))
    return found.fetchone() is not None


# --- what cannot be stored, and what cannot be reached ----------------------------------------------------------------


@pytest.mark.parametrize("name", ["x" * 65, "a\0b"])
def test_a_value_that_does_not_fit_is_refused_and_hurts_nobody_else(
    store: PostgresStore, name: str
) -> None:
    gate = threading.Event()
    store.write(lambda _: gate.wait(5))
    refused = store.write(added(name))
    later = store.write(added("fits"))
    gate.set()
    with pytest.raises(RequestError) as caught:
        refused.result(10)
    assert caught.value.code == "request.invalid"
    later.result(10)
    assert store.read(count) == 1


def test_a_name_too_long_for_an_index_is_refused_and_hurts_nobody_else(
    store: PostgresStore,
) -> None:
    # random: what repeats itself is packed, and fits
    row = {
        "name": secrets.token_hex(2_000),
        "format": "osv",
        "rank": 0,
        "body": {},
        "imported_at": 0,
        "imported_by": "a",
    }
    refused = store.write(lambda conn: conn.execute(insert(tables.supply_tables.advisory), row))
    later = store.write(added("fits"))
    with pytest.raises(RequestError) as caught:
        refused.result(10)
    assert caught.value.code == "request.too_large"
    later.result(10)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda url: url.rpartition("/")[0] + "/nosuch", "data.denied"),
        (lambda url: url.replace("postgres@", "nobody:s3cret@"), "data.denied"),
        (lambda url: url.rpartition(":")[0] + ":1/x?password=s3cret", "data.unreachable"),
        (lambda _: "postgresql://u:s3cret@[bad/x", "config.invalid"),
        (lambda url: url + "?nonsense=s3cret", "config.invalid"),
    ],
)
def test_a_database_that_cannot_be_opened_is_named_without_its_password(
    url: str, change: Callable[[str], str], code: str
) -> None:
    with pytest.raises(TidegateError) as caught:
        open_store(change(url))
    assert caught.value.code == code
    assert "s3cret" not in f"{caught.value} {caught.value.detail}"


def test_a_database_in_another_encoding_is_refused() -> None:
    with postgres.server().connect() as conn:
        conn.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'")
    with pytest.raises(ConfigError) as caught:
        open_store(postgres.server().url("latin"))
    assert caught.value.code == "config.invalid"


def test_a_server_that_only_reads_is_named(url: str) -> None:
    name = url.rpartition("/")[2]
    with postgres.server().connect() as conn:
        conn.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    with pytest.raises(ConfigError) as caught:
        open_store(url)
    assert caught.value.code == "data.read_only"


# --- statements written by hand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("a = ? AND b = ?", "a = $1 AND b = $2"),
        ("a = ?1 OR ?2 = ?1", "a = $1 OR $2 = $1"),
        (
            """a = '?' AND "b?" = ? AND c = 'it''s ?'""",
            """a = '?' AND "b?" = $1 AND c = 'it''s ?'""",
        ),
    ],
)
def test_marks_are_put_into_the_drivers_form(ours: str, theirs: str) -> None:
    assert dollars(ours) == theirs


def test_statements_that_are_remembered_do_not_grow_without_bound() -> None:
    for many in range(1, 2 * raw.KNOWN_MAX):
        dollars("SELECT 1 WHERE 1 IN (" + ", ".join("?" * many) + ")")
    assert dollars.cache_info().currsize <= raw.KNOWN_MAX


def test_columns_are_sent_and_stored_as_they_are(store: PostgresStore) -> None:
    texts = [
        "",
        "a'b\"c\\d{e,f}",
        "NULL",
        "\u00fc\u4e2d\U0001f512",
        "line\nline\t\x01",
        "x" * 70_000,
    ]
    rows = [
        EventRow(
            "default", 1, seq, 0, at, "heartbeat", text[:64] if seq % 2 else None, -seq, None, text, None
        )
        for seq, (text, at) in enumerate(zip(texts, (0, -1, 2**63 - 1, -(2**63), 1, 2), strict=True))
    ]  # fmt: skip
    store.write(lambda conn: hot.put_events(conn, rows)).result()
    found = store.read(
        lambda conn: conn.execute(
            select(*(tables.event.c[name] for name in EventRow._fields)).order_by(
                tables.event.c.seq
            )
        ).all()
    )
    assert [EventRow(*one) for one in found] == rows
    store.write(lambda conn: hot.put_events(conn, [])).result()
    store.write(lambda conn: hot.put_seen(conn, [])).result()


@pytest.mark.parametrize("change", [{"at": 2**63}, {"body": "a\0b"}, {"attempt": 2**31}])
def test_a_value_that_fits_no_column_hurts_only_the_one_who_sent_it(
    store: PostgresStore, change: dict[str, Any]
) -> None:
    bad = _event(1, 1)._replace(**change)
    refused = store.write(lambda conn: hot.put_events(conn, [bad]))
    taken = store.write(lambda conn: hot.put_events(conn, [_event(1, 2)]))
    with pytest.raises(RequestError) as told:
        refused.result()
    assert told.value.code == "request.invalid"
    taken.result()
    assert len(store.read(hot.event_log)) == 1


def test_json_is_text_and_sums_are_whole_numbers(store: PostgresStore) -> None:
    def work(conn: Connection) -> tuple[object, ...]:
        conn.execute(
            insert(tables.audit).values(
                at=1, actor="a", action="b", object="c", detail={"x": [1]}, hash="h"
            )
        )
        raw = raw_connection(conn)
        found = raw.execute("SELECT detail, (SELECT sum(seq) FROM audit) FROM audit").fetchone()
        return (*found, conn.execute(select(tables.audit.c.detail)).scalar_one())

    text, total, value = store.write(work).result(10)
    assert text == '{"x": [1]}'
    assert (total, type(total)) == (1, int)
    assert value == {"x": [1]}


def test_a_database_that_a_test_used_is_lent_again_as_if_it_were_new() -> None:
    shared = postgres.server()
    url = shared.migrated()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("INSERT INTO change (tenant, at, kind, key) VALUES ('default', 1, 'a', 'b')")
        conn.execute("INSERT INTO gate (tenant, epoch) VALUES ('default', 7)")
    shared.drop(url)
    again = shared.migrated()
    assert again == url
    with psycopg.connect(again, autocommit=True) as conn:
        assert conn.execute("SELECT count(*) FROM change, gate").fetchone() == (0,)
        conn.execute("INSERT INTO change (tenant, at, kind, key) VALUES ('default', 1, 'a', 'b')")
        assert conn.execute("SELECT seq FROM change").fetchone() == (1,)
        conn.execute("CREATE INDEX one_more ON gate (epoch)")
    shared.drop(again)
    other = shared.migrated()
    assert other != url
    shared.drop(other)
