"""The server's clock steps: what the gate waits for goes on as before, and no device's clock is believed."""

import pytest
from tests.unit.server.light import LightFleet
from tests.unit.server.rig import Rig
from tests.unit.server.test_gatekeeper import Fleet
from tests.unit.server.test_gatekeeper_bad import _begun, _kept

from tidegate.server.store import Connection, hot, tables

DAY_S = 86_400


@pytest.mark.parametrize("ahead_s", [2 * 3_600, 30 * DAY_S])
def test_a_clock_that_was_ahead_for_a_while_masks_no_silence(rig: Rig, ahead_s: int) -> None:
    """Red before: the gate took no step until the right clock had reached what the wrong one had said."""
    fleet = _begun(rig, 40)
    fleet.look(ahead_s)
    fleet.look(60)
    rig.now -= ahead_s
    fleet.look(60)
    for _ in range(20):
        fleet.heard()
        fleet.away |= set(fleet.ask())
        fleet.look(900)
    assert fleet.row["state"] == "halted", fleet.row["because"]
    assert len(fleet.away) <= 8
    assert fleet.replayed().same


def test_a_clock_that_was_ahead_for_a_while_holds_no_good_release_up(rig: Rig) -> None:
    fleet = _begun(rig, 40)
    fleet.look(20 * DAY_S)
    rig.now -= 20 * DAY_S
    hours = fleet.live(24)
    assert fleet.row["state"] == "completed", fleet.row["because"]
    assert hours <= 12, hours


def test_a_clock_that_steps_back_and_forth_again_and_again_fails_nobody_who_is_well(
    rig: Rig,
) -> None:
    fleet = _begun(rig, 40)
    for step_s in (
        3 * DAY_S,
        -2 * DAY_S,
        5 * DAY_S,
        -6 * DAY_S,
        3_600,
        -7_200,
        90 * DAY_S,
        -90 * DAY_S,
    ):
        rig.now += step_s
        fleet.live(1)
        if fleet.row["state"] != "active":
            break
    assert fleet.row["state"] != "halted", fleet.row["because"]
    fleet.live(48)
    assert fleet.row["state"] == "completed"
    assert _kept(fleet).book.rows[0][1:3] == [0, 0], "nobody failed, and nobody was silent"
    assert fleet.replayed().same


def test_a_clock_that_was_wrong_for_an_instant_between_two_steps_ages_nobody(rig: Rig) -> None:
    """Red before: whoever was told of in that instant let all answers be due at once, and all who had not answered were silent."""
    fleet = _begun(rig, 40)
    first, *others = fleet.ask()
    fleet.look(60)
    rig.now += 30 * DAY_S
    fleet.end([first])
    rig.now -= 30 * DAY_S
    fleet.look(900)
    fleet.heard()
    fleet.end(others)
    for _ in range(6):
        fleet.heard()
        fleet.look(900)
    assert _kept(fleet).book.rows[0][1:4] == [0, 0, 1 + len(others)]
    assert _kept(fleet).roster.watch.desk.now < fleet.now + 3_600
    assert fleet.replayed().same


def test_contacts_count_again_as_soon_as_the_clock_is_right(rig: Rig) -> None:
    fleet = LightFleet(rig, 3)
    rig.now += 9 * DAY_S
    fleet.heard()
    rig.now -= 9 * DAY_S
    fleet.heard()

    def seen(conn: Connection) -> set[int]:
        return {int(one["last_seen"]) for one in conn.execute(tables.device.select()).mappings()}

    assert rig.read(seen) == {fleet.now}
    rig.write(lambda conn: hot.put_seen(conn, [(fleet.now - 60, 1)]))
    assert rig.read(seen) == {fleet.now}, "an older contact that is told later is none"


def test_a_device_whose_clock_is_fifty_days_ahead_moves_nothing(rig: Rig) -> None:
    fleet = Fleet(rig, 6)
    fleet.start()
    fleet.poll()
    liar, *others = fleet.granted()
    rig.now += 300
    rig.now += 50 * DAY_S
    ahead = int(rig.now)
    rig.now -= 50 * DAY_S
    liar.tell("rebooting", fleet.bodies[liar.id], at=ahead)
    liar.tell("verifying", fleet.bodies[liar.id], at=ahead)
    liar.tell("heartbeat", at=ahead)
    fleet.look(60)
    assert fleet.kept.roster.watch.desk.now <= fleet.now
    fleet.confirm(*others)
    fleet.look(900)
    assert fleet.kept.roster.watch.desk.now <= fleet.now
    assert fleet.row["state"] == "active"


@pytest.mark.parametrize("count", [1, 3, 20])
def test_a_good_release_reaches_the_whole_of_a_handful(rig: Rig, count: int) -> None:
    fleet = LightFleet(rig, count)
    fleet.start(
        {"guards": [{"type": "evidence", "preset": "emergency"}], "ring": [{"name": "all"}]}
    )
    fleet.look()
    fleet.live(48)
    assert fleet.row["state"] == "completed"
    assert len(fleet.confirmed()) == count
