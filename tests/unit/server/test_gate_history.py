"""What the book of one rollout teaches the next of the same product: habits of contact, and how often devices crash or go dark anyway."""

import hashlib
from typing import Any

import pytest
from tests.unit.server.light import BOSS, PRODUCT, LightFleet
from tests.unit.server.rig import Rig
from tests.unit.server.test_gatekeeper import POLICY

from tidegate.core.protocol import Restart
from tidegate.core.release import HealthContract
from tidegate.rollout.evidence.facts import Kind, Late
from tidegate.rollout.evidence.settings import HOUR_S
from tidegate.server import restarts
from tidegate.server.gatekeeper.history import Before, hazards
from tidegate.server.gatekeeper.kept import Kept, facts_of
from tidegate.server.store import Connection, gate_rows, hot, tables
from tidegate.server.store.raw import raw_connection
from tidegate.server.tick import keeper_of

#: Nobody asks for a permit: all of them are only watched.
PATIENT: dict[str, Any] = {**POLICY, "ring": [{"name": "all", "audience": "rest"}]}


def kept(fleet: LightFleet) -> Kept:
    return keeper_of(fleet.rig.app.services)._kept[fleet.id]


def keep_records(fleet: LightFleet, share: float = 1.0) -> None:
    def work(conn: Connection) -> None:
        for row in list(fleet.rows)[: int(len(fleet.rows) * share)]:
            ends, _ = restarts.after(restarts.Ends(), Restart(count=0), fleet.now, fleet.now)
            hot.put_ends(conn, row, ends)

    fleet.rig.write(work)


def crash(fleet: LightFleet, *rows: int) -> None:
    def work(conn: Connection) -> None:
        watching = hot.watching(conn, "default", PRODUCT)
        for row in rows:
            device = hot.device(conn, row)
            assert device is not None
            restarts.told_to(conn, device, 0, watching, fleet.now)

    fleet.rig.write(work)


def days(fleet: LightFleet, hours: int, *, slow: range, every_h: int) -> None:
    """Let time pass: `slow` devices are heard once in so many hours, the others always. Nobody is updated."""
    for quarter in range(hours * 4):
        fleet.look(900)
        there = set(fleet.rows) - set(slow)
        if quarter % (every_h * 4) == 0:
            there |= set(slow)
        fleet.heard(sorted(there))


def next_release(fleet: LightFleet) -> None:
    fleet.operations.act(fleet.name, "halt", BOSS, "enough", fleet.now)
    fleet.look(1)
    fleet.release += 1
    fleet.rig.release(fleet.release)


def late(fleet: LightFleet, kind: Kind) -> int:
    rollout_id = fleet.id
    pages = fleet.rig.read(lambda conn: list(gate_rows.facts(conn, rollout_id)))
    facts = [fact for page in pages for fact in facts_of(page[2])]
    return sum(one.count for one in facts if isinstance(one, Late) and one.kind == kind)


def test_a_second_rollout_knows_who_is_away_for_hours_as_a_matter_of_course(rig: Rig) -> None:
    """They call themselves always connected, and come every ten hours: news once, and no harm of the next release."""
    fleet = LightFleet(rig, 60)
    slow = range(1, 21)
    fleet.start(PATIENT)
    fleet.look()
    days(fleet, 41, slow=slow, every_h=10)
    assert late(fleet, "dark") == len(slow), "of the first rollout nobody knew"

    next_release(fleet)
    fleet.heard()
    fleet.start(PATIENT)
    fleet.look(60)
    days(fleet, 21, slow=slow, every_h=10)
    assert late(fleet, "dark") == 0


def test_what_befell_devices_anyway_is_what_the_next_book_begins_with(rig: Rig) -> None:
    fleet = LightFleet(rig, 60)
    keep_records(fleet)
    fleet.look(60)
    fleet.start(PATIENT)
    fleet.look()
    days(fleet, 6, slow=range(0), every_h=1)
    crash(fleet, 3, 4, 5)
    crash(fleet, 3)
    days(fleet, 6, slow=range(0), every_h=1)
    first = kept(fleet).roster.watch.desk.hazards()
    events, hours = first["crash"]
    assert events == 3
    assert 600 < hours <= 60 * 13

    next_release(fleet)
    fleet.heard()
    fleet.start(PATIENT)
    fleet.look(60)
    assert kept(fleet).roster.watch.desk.hazards()["crash"][0] == 3
    days(fleet, 2, slow=range(0), every_h=1)
    crash(fleet, 9)
    fleet.look(900)
    events, more = kept(fleet).roster.watch.desk.hazards()["crash"]
    assert events == 4
    assert more > hours

    # And on to the third, from a server that began anew.
    next_release(fleet)
    rig.restart()
    fleet.operations = type(fleet.operations)(rig.app.services)
    fleet.heard()
    fleet.start(PATIENT)
    fleet.look(60)
    assert kept(fleet).roster.watch.desk.hazards()["crash"] == (4, more)
    assert fleet.replayed().same


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_crashes_of_a_fleet_that_could_not_tell_of_them_are_not_known_to_be_rare(
    rig: Rig, share: float
) -> None:
    fleet = LightFleet(rig, 20)
    keep_records(fleet, share)
    fleet.look(60)
    fleet.start(PATIENT)
    fleet.look()
    days(fleet, 6, slow=range(0), every_h=1)
    next_release(fleet)
    fleet.heard()
    fleet.start(PATIENT)
    fleet.look(60)
    known = kept(fleet).roster.watch.desk.hazards()
    assert known["crash"] == (0, 0)
    assert known["dark"][1] > 0


def test_a_book_that_cannot_be_read_teaches_nothing_and_keeps_nobody_waiting(rig: Rig) -> None:
    fleet = LightFleet(rig, 10)
    fleet.start(PATIENT)
    fleet.look()
    days(fleet, 3, slow=range(0), every_h=1)
    next_release(fleet)
    rig.write(
        lambda conn: raw_connection(conn).execute(
            "UPDATE gate_state SET snapshot = ?", (b"\x01\xff\xee",)
        )
    )
    fleet.heard()
    fleet.start(PATIENT)
    fleet.look(60)
    assert kept(fleet).roster.watch.desk.hazards() == {"crash": (0, 0), "dark": (0, 0)}
    assert fleet.ask() != []


def _back(fleet: LightFleet, **evidence: str) -> int:
    """Have a fleet go to release 1, then to release 2, and order it back; return the row of the way back."""
    policy = {**POLICY, "guards": [{**POLICY["guards"][0], **evidence}]}
    fleet.start(policy)
    fleet.look()
    fleet.live(24)
    fleet.release = 2
    fleet.rig.release(2, fallback_to=(1,))
    fleet.start(policy)
    fleet.look()
    fleet.live(24)
    fleet.operations.act(fleet.name, "halt", BOSS, "bad", fleet.now)
    resident = {"A": {"state": "confirmed", "sha256": hashlib.sha256(b"gw1 1").hexdigest()}}
    fleet.rig.write(lambda conn: conn.execute(tables.device.update().values(slots=resident)))
    done = fleet.operations.fall_back(fleet.name, "", "exposed", BOSS, "back", fleet.now)
    fleet.back, fleet.leaves, fleet.release = done.name, 2, 1
    fleet.look()
    return fleet.id


def test_who_is_called_back_is_waited_for_as_long_as_it_took_on_the_way_there(rig: Rig) -> None:
    """Red before: an hour and a quarter a round, whatever was known of the restart."""
    fleet = LightFleet(rig, 80)
    _back(fleet)
    assert kept(fleet).harm.report_s == 900, "ten minutes were taken, and half as much again"
    hours = fleet.live(24)
    assert fleet.row["state"] == "completed"
    assert hours <= 4, hours


def test_what_a_person_set_for_an_answer_holds_for_the_way_back(rig: Rig) -> None:
    fleet = LightFleet(rig, 80)
    _back(fleet, answer="2h")
    assert kept(fleet).harm.report_s == 7_200


def test_without_a_history_a_way_back_is_waited_for_as_the_health_contract_says(rig: Rig) -> None:
    fleet = LightFleet(rig, 12)
    _back(fleet)
    contract_s = HealthContract().timeout_s
    assert kept(fleet).harm.report_s == -(-(contract_s + 1_800) // 900) * 900


def test_old_knowledge_weighs_no_more_than_thirty_days_of_this_fleet(rig: Rig) -> None:
    assert hazards(None, 10) is None
    fleet = LightFleet(rig, 10)
    keep_records(fleet)
    fleet.look(60)
    fleet.start(PATIENT)
    fleet.look()
    desk = kept(fleet).roster.watch.desk
    desk._hazards._control_s = 90 * 24 * 10 * HOUR_S
    desk._hazards._events = {"crash": 7, "dark": 0}
    before = Before(kept(fleet).roster, told=True)
    assert hazards(before, 10) == {"crash": (3, 7200), "dark": (0, 7200)}
    assert hazards(before, 1_000) == {"crash": (7, 21_600), "dark": (0, 21_600)}
    assert hazards(before._replace(told=False), 10) == {"dark": (0, 7200)}
