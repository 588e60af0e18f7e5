"""Several server processes on one PostgreSQL database: what only rows have, and a database that goes away and comes back."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from tests import postgres
from tests.unit.server.rig import Device, Rig
from tests.unit.server.test_shared import Pair, within

from tidegate.core.errors import BusyError
from tidegate.server.readiness import Readiness
from tidegate.server.store import Change, Connection, changes, shared, shared_rows
from tidegate.server.store.postgres import PostgresStore, open_store
from tidegate.server.store.raw import raw_connection
from tidegate.server.store.shared_rows import RowGround


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    """A server that the test may stop."""
    made = postgres.Server()
    yield made
    made.close()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    with postgres.database() as url:
        made = Pair(tmp_path / "data", url)
        yield made
        made.close()


@pytest.fixture
def stores() -> Iterator[tuple[PostgresStore, PostgresStore]]:
    with postgres.database() as url:
        made = open_store(url), open_store(url)
        for one in made:
            one.follow()
        yield made
        for one in made:
            one.close()


def _ground(store: PostgresStore) -> RowGround:
    ground = store._shared._ground
    assert isinstance(ground, RowGround)
    return ground


def _peers(conn: Connection) -> list[str]:
    found = raw_connection(conn).execute("SELECT name FROM peer ORDER BY name")
    return [str(one[0]) for one in found]


def test_a_dead_process_holds_up_one_lease_and_no_more(
    stores: tuple[PostgresStore, PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "LEASE_S", 1.5)
    one, _ = stores
    dead = RowGround(_ground(one)._connect)
    dead.join()
    for at_least, at_most in ((1.0, 3.0), (0.0, 0.9)):
        began = time.monotonic()
        one.write(lambda conn: changes.notify(conn, "gate", "1")).result(10)
        one.settle()
        assert at_least < time.monotonic() - began < at_most


def test_a_process_that_leaves_holds_nobody_up(
    stores: tuple[PostgresStore, PostgresStore],
) -> None:
    one, two = stores
    assert len(one.read(_peers)) == 2
    two.close()
    assert len(one.read(_peers)) == 1


def test_a_hint_makes_the_others_look_at_once(
    stores: tuple[PostgresStore, PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = stores
    heard: dict[str, float] = {}
    two.subscribe(lambda changed: heard.update({x.kind: time.monotonic() for x in changed}))
    monkeypatch.setattr(shared_rows, "LOOK_S", 30.0)
    _ground(two).wake()
    time.sleep(0.5)  # both have gone to sleep for long
    began = time.monotonic()
    one.write(lambda conn: changes.notify(conn, "running", "1")).result(10)
    one.write(lambda conn: changes.notify(conn, "rollout", "r")).result(10)
    assert within(10, lambda: "rollout" in heard)
    assert heard["rollout"] - began < 5
    assert "running" in heard


def test_what_devices_send_gives_no_hint(stores: tuple[PostgresStore, PostgresStore]) -> None:
    one, _ = stores
    with psycopg.connect(_url(one), autocommit=True) as other:
        other.execute(f"LISTEN {shared_rows.CHANNEL}")
        for kind in ("running", "outcome", "device", "gate"):
            one.write(lambda conn, kind=kind: changes.notify(conn, kind, "1")).result(10)  # type: ignore[misc]
        found = list(other.notifies(timeout=2, stop_after=1))
        more = list(other.notifies(timeout=0.3))
    assert (len(found), more) == (1, [])


def _url(store: PostgresStore) -> str:
    with _ground(store)._connect() as wire:
        return postgres.server().url(wire.info.dbname)


def test_a_row_that_was_cleared_away_is_written_again(
    stores: tuple[PostgresStore, PostgresStore],
) -> None:
    one, two = stores
    before = one.read(_peers)
    one.write(lambda conn: raw_connection(conn).execute("DELETE FROM peer")).result(10)
    assert within(10, lambda: one.read(_peers) == before)
    assert two.fresh


def test_where_nobody_knows_whether_it_was_done_everything_is_read_anew(
    stores: tuple[PostgresStore, PostgresStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, _ = stores
    heard: list[Change] = []
    one.subscribe(heard.extend)
    note = one._note

    def cut(conn: Connection) -> None:
        note(conn)
        wire = one._own[1]  # type: ignore[index]
        with postgres.server().connect() as other:
            other.execute("SELECT pg_terminate_backend(%s)", (wire.info.backend_pid,))
            time.sleep(0.2)

    monkeypatch.setattr(one, "_note", cut)
    with pytest.raises(BusyError) as caught:
        one.write(lambda conn: changes.notify(conn, "gate", "1")).result(10)
    monkeypatch.undo()
    assert caught.value.code == "data.outcome_unknown"
    assert within(10, lambda: shared.RESYNC in heard)
    # Its number was given to somebody else meanwhile, whose change is heard.
    heard.clear()
    stores[1].write(lambda conn: changes.notify(conn, "rollout", "theirs")).result(10)
    assert within(10, lambda: Change("rollout", "theirs") in heard)


def test_who_is_cut_off_from_the_database_lets_nobody_begin_until_it_is_back(
    tmp_path: Path, server: postgres.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "LEASE_S", 2.0)
    rig = Rig(tmp_path / "data", url=server.migrated())
    rig.publish_trust()
    rig.rollout(rig.release(1))
    device = rig.device("d1")
    assert device.poll().work
    server.stop()
    assert within(10, lambda: not rig.app.store.fresh)
    assert not device.poll().work
    refused = device.ask("POST", "/d/v1/assignment", {})
    assert (refused.status, refused.code) == (503, "server.busy")
    with pytest.raises(BusyError) as caught:
        rig.write(lambda conn: changes.notify(conn, "gate", "1"))
    assert caught.value.code == "data.unreachable"
    server.start()
    assert within(30, lambda: rig.app.store.fresh)
    assert device.poll().work
    device.tell("staged", device.assignment(), bytes=1)
    rig.close()


def test_after_a_halt_the_other_grants_nothing_though_its_follower_is_stuck(pair: Pair) -> None:
    pair.one.publish_trust()
    pair.one.rollout(pair.one.release(1))
    here, there = pair.device()
    body = here.assignment()
    here.tell("staged", body, bytes=1)
    store = pair.two.app.store
    assert isinstance(store, PostgresStore)
    with store._telling:
        act = threading.Thread(target=pair.act, args=("halt",))
        act.start()
        act.join(20)
        assert not act.is_alive()
    assert within(10, lambda: store.fresh)
    assert "halted" in Device(pair.two, "d1", token=here.token, seq=there.seq).permit(body).because


def test_how_far_the_clock_is_from_the_databases_is_measured_and_told(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = pair.two.app.services
    readiness = Readiness(services, ticking=False)
    assert "clock" not in {one.name for one in readiness.look(int(pair.two.now)).checks}
    plain = time.time
    monkeypatch.setattr("tidegate.server.store.shared_rows.time.time", lambda: plain() + 3_600)
    assert within(10, lambda: abs(services.store.ahead_s - 3_600) <= 2)
    assert services.tokens.agreed(7_200) == pytest.approx(3_600, abs=2)
    later = Readiness(services, ticking=False).look(int(pair.two.now))
    found = next(one for one in later.checks if one.name == "clock")
    assert found.level == "warning"
    assert "ahead of the database's" in found.text
    assert later.ready
