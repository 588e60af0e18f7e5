"""Moving a server from SQLite to PostgreSQL: all of it or nothing, and a fleet that carries on in the middle of a rollout."""

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select
from tests import postgres
from tests.unit.server.rig import Device, Rig

from tidegate.core.errors import BusyError, ConfigError, TidegateError
from tidegate.server.store import Connection, copying, hot, tables
from tidegate.server.store.copying import Sum, copy
from tidegate.server.store.postgres import looking_at
from tidegate.server.store.sqlite import DATABASE_NAME


@pytest.fixture
def url() -> Iterator[str]:
    with postgres.database(postgres.Server.database) as made:
        yield made


@pytest.fixture
def halfway(tmp_path: Path) -> tuple[Rig, list[Device]]:
    """A server on SQLite in the middle of a rollout: one device confirmed, one has leave, one has staged, one is new."""
    rig = Rig(tmp_path / "data", url="")
    rig.publish_trust()
    rig.rollout(rig.release(1))
    devices = [rig.device(f"d{number}") for number in range(4)]
    bodies = [one.assignment() for one in devices[:3]]
    for one, body in zip(devices, bodies, strict=False):
        one.tell("staged", body, bytes=1)
    assert not devices[0].permit(bodies[0]).because
    devices[0].tell("confirmed", bodies[0])
    assert not devices[1].permit(bodies[1]).because
    rig.app.tick()
    return rig, devices


def _elsewhere(rig: Rig, devices: list[Device], url: str) -> tuple[Rig, list[Device]]:
    moved = Rig(rig.folder, now=rig.now, offline=rig.offline, url=url)
    kept = [Device(moved, one.id, token=one.token, seq=one.seq) for one in devices]
    return moved, kept


def _rows(conn: Connection) -> dict[str, int]:
    return {
        one.name: int(conn.execute(select(func.count()).select_from(one)).scalar_one())
        for one in tables.metadata.sorted_tables
    }


def test_a_fleet_carries_on_in_the_middle_of_a_rollout(
    halfway: tuple[Rig, list[Device]], url: str
) -> None:
    rig, devices = halfway
    rollout = rig.read(lambda conn: conn.execute(select(tables.rollout.c.id)).scalar())
    before = rig.read(lambda conn: (hot.event_log(conn), sorted(hot.tallies(conn, rollout))))
    rig.close()
    found = {one.table: one.rows for one in copy(rig.folder, url)}
    assert found["device"] == 4
    assert found["permit"] == 2
    assert found["event"] == len(before[0]) > 0
    moved, (first, second, third, fourth) = _elsewhere(rig, devices, url)
    try:
        assert moved.read(hot.event_log) == before[0]
        assert sorted(moved.read(lambda conn: hot.tallies(conn, rollout))) == before[1]
        assert not first.poll().work or first.assignment().action != "install"
        body = second.assignment()
        second.tell("confirmed", body)
        third.tell("staged", third.assignment(), bytes=1)
        assert not third.permit(third.assignment()).because
        assert fourth.poll().work
        fourth.tell("staged", fourth.assignment(), bytes=1)
        fifth = moved.device("d5")  # rows, events and changes are numbered on
        assert fifth.poll().work
        log = moved.read(hot.event_log)
        assert log[: len(before[0])] == before[0]
        assert len(log) > len(before[0])
        states = dict(
            moved.read(
                lambda conn: conn.execute(
                    select(tables.update.c.device_row, tables.update.c.state)
                ).all()
            )
        )
        assert (states[1], states[2]) == ("confirmed", "confirmed")
        moved.app.tick()
    finally:
        moved.close()


def test_every_table_is_copied_with_what_is_in_it(
    halfway: tuple[Rig, list[Device]], url: str
) -> None:
    rig, _ = halfway

    def odd(conn: Connection) -> None:
        conn.execute(
            insert(tables.audit).values(
                at=1,
                actor="ä",
                action="\U0001f6a2",
                object="'\"\\\t\n",
                detail={"é": None},
                hash="h",
            )
        )
        conn.execute(
            insert(tables.idempotency).values(
                key="k", request_sha256="s", status=200, body=bytes(range(256)), at=2**40
            )
        )

    rig.write(odd)
    rig.close()
    told: list[str] = []
    found = copy(rig.folder, url, lambda one: told.append(one.table))
    assert (
        told == [one.table for one in found] == [one.name for one in tables.metadata.sorted_tables]
    )
    with looking_at(url) as conn:
        assert _rows(conn) == {one.table: one.rows for one in found}
        assert conn.execute(select(tables.idempotency.c.body)).scalar() == bytes(range(256))
    raw = sqlite3.connect(rig.folder / DATABASE_NAME)
    assert raw.execute("SELECT count(*) FROM device").fetchone() == (4,)


def test_a_target_that_is_in_use_is_refused(halfway: tuple[Rig, list[Device]], url: str) -> None:
    rig, _ = halfway
    rig.close()
    copy(rig.folder, url)
    with pytest.raises(TidegateError) as caught:
        copy(rig.folder, url)
    assert caught.value.code == "request.conflict"


def test_a_server_that_still_runs_is_refused(halfway: tuple[Rig, list[Device]], url: str) -> None:
    rig, _ = halfway
    with pytest.raises(BusyError) as caught:
        copy(rig.folder, url)
    assert caught.value.code == "data.locked"
    rig.close()


def test_a_folder_without_a_database_and_an_old_one_are_named(tmp_path: Path, url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        copy(tmp_path, url)
    assert caught.value.code == "config.missing"
    Rig(tmp_path / "data", url="").close()
    with sqlite3.connect(tmp_path / "data" / DATABASE_NAME) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '0003'")
    raw.close()
    with pytest.raises(ConfigError) as caught:
        copy(tmp_path / "data", url)
    assert caught.value.code == "data.older_schema"


@pytest.mark.parametrize(
    ("value", "table"), [("x" * 65, "claim"), ("a\0b", "claim")], ids=["too long", "NUL"]
)
def test_a_value_that_does_not_fit_is_named_with_its_table_and_nothing_is_kept(
    halfway: tuple[Rig, list[Device]], url: str, value: str, table: str
) -> None:
    rig, _ = halfway
    rig.close()
    with sqlite3.connect(rig.folder / DATABASE_NAME) as raw:
        raw.execute(
            "INSERT INTO claim (name, token_sha256, product, max_count, expires_at, created_at, created_by)"
            " VALUES (?, 's', 'p', 1, 1, 1, 'me')",
            (value,),
        )
    raw.close()
    with pytest.raises(TidegateError) as caught:
        copy(rig.folder, url)
    assert caught.value.code == "request.invalid"
    assert table in caught.value.detail
    with looking_at(url) as conn:
        assert set(_rows(conn).values()) == {0}


@pytest.mark.parametrize(
    "harm",
    [
        lambda rows: rows[1:],
        lambda rows: [*rows, rows[0]],
        lambda rows: [(*rows[0][:-1], "other"), *rows[1:]],
    ],
    ids=["lost", "doubled", "changed"],
)
def test_what_does_not_come_back_as_it_was_sent_is_not_kept(
    halfway: tuple[Rig, list[Device]],
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[list[Any]], list[Any]],
) -> None:
    rig, _ = halfway
    rig.close()
    real = copying._streamed

    def lies(target: Connection, asked: str) -> Iterator[Any]:
        rows = list(real(target, asked))
        yield from harm(rows) if '"event"' in asked else rows

    monkeypatch.setattr(copying, "_streamed", lies)
    with pytest.raises(ConfigError) as caught:
        copy(rig.folder, url)
    assert caught.value.code == "data.damaged"
    assert "event" in caught.value.detail
    with looking_at(url) as conn:
        assert set(_rows(conn).values()) == {0}


def test_a_digest_is_of_the_rows_and_not_of_their_order() -> None:
    rows = [(1, "a", None, b"\x00", 1.5), (2, "b", "", b"", 0.1)]
    one, two, other = Sum(), Sum(), Sum()
    for row in rows:
        one.add(row)
    for row in reversed(rows):
        two.add(row)
    for row in (rows[0], rows[0]):
        other.add(row)
    assert (one.digest, one.rows) == (two.digest, two.rows)
    assert one.digest != other.digest


def test_a_long_log_is_spread_over_pieces(halfway: tuple[Rig, list[Device]], url: str) -> None:
    rig, _ = halfway
    far = 40_000_000
    row = {"position": far, "device_row": 1, "seq": 900, "received_at": 1, "at": 1}
    rig.write(
        lambda conn: conn.execute(insert(tables.event).values(**row, kind="heartbeat", body="{}"))
    )
    rig.close()
    copy(rig.folder, url)
    with looking_at(url) as conn:
        asked = "SELECT DISTINCT tableoid::regclass::text FROM event"
        found = {str(one) for one in conn.exec_driver_sql(asked).scalars()}
        assert "event_rest" not in found
        assert len(found) == 2
