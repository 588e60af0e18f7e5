"""A database that goes back in time beneath running servers: whoever notices holds everything, before anybody is let go, and people resume it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests import postgres
from tests.unit.server.rig import Rig
from tests.unit.server.test_shared import within

from tidegate.core.errors import BusyError
from tidegate.core.protocol import AssignmentBody, PermitAnswer, PermitRequest
from tidegate.server import audit
from tidegate.server.store import admin_log, changes


class Place:
    """A server on a database of its own, a rollout that is halted, and a device with an image in its slot."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.rig = Rig(folder, url=url)
        self.rig.publish_trust()
        self.id = self.rig.rollout(self.rig.release(1))
        self.device = self.rig.device("d1")
        self.order: AssignmentBody = self.device.assignment()
        self.device.tell("staged", self.order, bytes=1)

    def do(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as conn:
            found = conn.execute(statement.encode(), values)
            return found.fetchall() if found.description else []

    def moment(self) -> tuple[int, int]:
        """Return what is remembered of now: the newest change, and the beat."""
        asked = "SELECT (SELECT max(seq) FROM change), (SELECT max(beat) FROM peer)"
        ((seq, beat),) = self.do(asked)
        return seq, beat

    def go_back(self, moment: tuple[int, int], *, beats: bool = True) -> None:
        """Make it the database of that moment, in which the rollout was active, as a standby would be that had not got the rest."""
        self.do("DELETE FROM change WHERE seq > %s", moment[0])
        if beats:
            self.do("UPDATE peer SET beat = %s", moment[1])
        self.do("UPDATE rollout SET state = 'active'")
        self.cut()

    def cut(self) -> None:
        """End every connection of the server."""
        self.do(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'tidegate' AND datname = current_database()"
        )

    @property
    def state(self) -> str:
        ((state,),) = self.do("SELECT state FROM rollout")
        return str(state)

    @property
    def holds(self) -> int:
        """Return how often everything was held."""
        ((count,),) = self.do("SELECT count(*) FROM audit WHERE action = 'server.restored'")
        return int(count)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with postgres.database() as url:
        made = Place(tmp_path / "data", url)
        yield made
        made.rig.close()


def test_a_halt_that_was_lost_with_the_database_lets_nobody_go(place: Place) -> None:
    rig, device = place.rig, place.device
    before = place.moment()
    epoch = rig.read(admin_log.gate_epoch)
    rig.set_rollout(place.id, state="halted")
    rig.app.store.settle()
    place.go_back(before)
    # Who asks first has the writer go to the database: that holds before it answers.
    answers = [device.ask("POST", "/d/v1/permit", _asked(place)) for _ in range(10)]
    assert {one.status for one in answers} <= {200, 503}
    granted = [one for one in answers if one.status == 200 and one.as_(PermitAnswer).envelope]
    assert granted == []
    assert within(20, lambda: place.holds == 1)
    assert place.state == "paused"
    assert within(20, lambda: rig.app.store.fresh)
    assert device.permit(place.order).envelope is None
    assert device.assignment().action == "hold"
    assert rig.read(admin_log.gate_epoch) > epoch + 1_000
    assert place.holds == 1
    assert rig.read(audit.verify).ok


def test_it_is_held_though_nobody_asks_and_people_resume_it(place: Place) -> None:
    before = place.moment()
    place.rig.set_rollout(place.id, state="halted")
    place.rig.app.store.settle()
    place.go_back(before)
    assert within(20, lambda: place.state == "paused")
    assert within(20, lambda: place.rig.app.store.fresh)
    (because,) = place.do("SELECT because FROM rollout")[0]
    assert "went back in time" in str(because)
    place.rig.set_rollout(place.id, state="active")
    assert within(20, lambda: place.device.poll().work)
    assert place.device.permit(place.order).envelope is not None
    assert place.holds == 1


@pytest.mark.parametrize("beats", [True, False])
def test_any_loss_is_noticed_by_the_change_or_by_the_beat(place: Place, beats: bool) -> None:
    before = place.moment()
    if not beats:
        place.rig.write(lambda conn: changes.notify(conn, "gate", "7"))
    assert within(20, lambda: place.moment()[1] > before[1] + 1)
    place.go_back(before, beats=beats)
    assert within(20, lambda: place.holds == 1)
    assert place.state == "paused"


def test_a_change_with_a_lost_number_is_not_taken_for_the_lost_one(place: Place) -> None:
    place.rig.set_rollout(place.id, state="halted")
    seq = place.moment()[0]
    place.do("UPDATE change SET kind = 'group', key = 'x' WHERE seq = %s", seq)
    place.do("UPDATE rollout SET state = 'active'")
    place.cut()
    assert within(20, lambda: place.holds == 1)
    assert place.state == "paused"


def test_connections_that_break_over_a_database_that_has_everything_hold_nothing(
    place: Place,
) -> None:
    for _ in range(3):
        place.rig.write(lambda conn: changes.notify(conn, "gate", "7"))
        place.cut()
        assert within(20, lambda: _writes(place.rig))
    place.do("DELETE FROM peer")  # cleared away, as after an hour
    place.cut()
    assert within(20, lambda: _writes(place.rig))
    assert within(20, lambda: place.rig.app.store.fresh)
    assert (place.state, place.holds) == ("active", 0)


def _asked(place: Place) -> PermitRequest:
    order = place.order
    assert order.target is not None
    return PermitRequest(
        nonce=place.rig.random.randbytes(16).hex(),
        update=order.update or "",
        attempt=order.attempt,
        slot_sha256=order.target.sha256,
        release_counter=order.target.release_counter,
    )


def _writes(rig: Rig) -> bool:
    try:
        rig.write(lambda _: None)
    except BusyError:
        return False
    return True
