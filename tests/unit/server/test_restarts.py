"""What devices say of restarts that nobody asked for: kept, counted once, shown, and weighed for both sides of the comparison."""

import json
from typing import Any

from tests.unit.server.rig import START, Device, Rig
from tests.unit.server.test_gatekeeper import Fleet

from tidegate.core.protocol import Metrics, Restart
from tidegate.rollout.evidence.crowd import CRASHED, OVER, WELL
from tidegate.rollout.evidence.facts import Fact, Late
from tidegate.server import facts, inquiry
from tidegate.server.gatekeeper.kept import facts_of
from tidegate.server.restarts import KNOWN_S, RARE_S, Ends, after
from tidegate.server.store import device_queries, gate_rows

DAY = 86_400


def row(rig: Rig, device: Device) -> Any:
    return rig.read(lambda conn: device_queries.by_id(conn, device.id))


def test_a_named_cause_counts_at_once_and_a_plug_only_where_it_is_no_habit() -> None:
    now, ends = START, Ends()
    ends, crash = after(ends, Restart(boot_id="b1", cause="panic"), START, now)
    assert (crash, ends.restarts, ends.restarts_from) == (True, 1, START)
    # It keeps a record since today only: whether it is unplugged every evening nobody knows.
    ends, crash = after(ends, Restart(boot_id="b2"), START, now + DAY)
    assert not crash
    ends, crash = after(ends, Restart(boot_id="b3"), START, now + 2 * DAY)
    assert not crash
    late = now + 2 * DAY + RARE_S
    ends, crash = after(ends, Restart(boot_id="b4"), START, late)
    assert crash
    # A machine that is switched off every night never gets there.
    for night in range(1, 30):
        ends, crash = after(ends, Restart(boot_id=f"n{night}"), START, late + night * DAY)
        assert not crash
    assert ends.restarts == 33
    assert after(ends, Restart(boot_id="w", cause="watchdog"), START, late + 30 * DAY)[1]


def test_who_kept_a_record_from_the_start_is_known_since_it_joined() -> None:
    ends, crash = after(Ends(), Restart(boot_id="b1", always=True), START, START + KNOWN_S)
    assert crash
    ends, crash = after(Ends(), Restart(boot_id="b1"), START, START + KNOWN_S)
    assert (crash, ends.restarts_from) == (False, START + KNOWN_S)
    assert after(Ends(), Restart(count=0), START, START)[0] == Ends(restarts_from=START)


def test_an_unknown_word_is_no_known_cause() -> None:
    ends, crash = after(Ends(), Restart(boot_id="b1", cause="<script>"), START, START)
    assert (ends.restart_cause, crash) == ("unknown", False)


def test_updated_devices_and_the_others_count_alike_and_each_of_them_once(rig: Rig) -> None:
    fleet = Fleet(rig, 6)
    for one in fleet.devices:
        one.tell("heartbeat", restart=Restart(count=0))
    fleet.start()
    first = fleet.granted()
    assert first
    fleet.confirm(*first)
    for _ in range(12):
        fleet.poll()
        fleet.look(900)
    updated = first[0]
    other = next(one for one in fleet.devices if one not in first)
    updated.tell("heartbeat", restart=Restart(boot_id="b1", cause="panic"))
    other.tell("heartbeat", restart=Restart(boot_id="b1", cause="watchdog"))
    assert fleet.happenings().count("crashed") == 2

    # The same boot under another number, and whatever else it says: nothing moves any more.
    updated.tell("heartbeat", restart=Restart(boot_id="b1", cause="panic"))
    assert fleet.happenings().count("crashed") == 2
    for number in range(20):
        updated.tell("heartbeat", restart=Restart(boot_id=f"c{number}", cause="panic", count=99))
        other.tell("heartbeat", restart=Restart(boot_id=f"c{number}", cause="panic"))
    fleet.look(900)
    crowd = fleet.kept.roster.crowd
    numbers = [crowd.numbers[str(row(rig, one).row)] for one in (updated, other)]
    assert crowd.state[numbers[0]] == OVER
    assert crowd.flags[numbers[1]] & CRASHED
    assert sum(1 for one in crowd.state if one == WELL) == len(first) - 1
    late = [one for one in log_of(fleet) if isinstance(one, Late)]
    assert sorted((one.updated, one.count, one.kind) for one in late) == [
        (False, 1, "crash"),
        (True, 1, "crash"),
    ]


def log_of(fleet: Fleet) -> list[Fact]:
    rollout_id = fleet.id
    pages = fleet.rig.read(lambda conn: list(gate_rows.facts(conn, rollout_id)))
    return [fact for page in pages for fact in facts_of(page[2])]


def test_a_crash_while_an_update_is_tried_is_left_to_its_outcome(rig: Rig) -> None:
    fleet = Fleet(rig, 3)
    fleet.start()
    first = fleet.granted()[0]
    first.tell("heartbeat", restart=Restart(boot_id="b1", cause="watchdog"))
    assert "crashed" not in fleet.happenings()
    fleet.fail(first)
    first.tell("heartbeat", restart=Restart(boot_id="b2", cause="watchdog"))
    assert "crashed" not in fleet.happenings(), "it failed already, and runs what it ran before"


def test_a_device_that_nobody_met_is_not_met_by_a_crash(rig: Rig) -> None:
    fleet = Fleet(rig, 2)
    fleet.start()
    late = rig.device("late", rev=1)
    late.tell("heartbeat", restart=Restart(boot_id="b1", cause="panic"))
    assert fleet.happenings().count("crashed") == 1
    known = set(fleet.kept.roster.devices)
    fleet.look(1)
    assert set(fleet.kept.roster.devices) == known


def test_it_is_shown_with_the_device_and_counted(rig: Rig) -> None:
    fleet = Fleet(rig, 1)
    device = fleet.devices[0]
    device.tell("heartbeat", restart=Restart(count=0))
    found = rig.read(lambda conn: inquiry.device(conn, device.id, fleet.now))
    assert (found.restarts, found.restarted_at, found.restart_cause) == (0, 0, "")
    device.tell("heartbeat", restart=Restart(boot_id="b1", cause="panic", count=3))
    found = rig.read(lambda conn: inquiry.device(conn, device.id, fleet.now))
    assert isinstance(found, facts.DeviceRecord)
    assert (found.restarts, found.restarted_at, found.restart_cause) == (3, fleet.now, "panic")
    text = rig.scrape()
    assert 'tidegate_device_restarts_total{cause="panic"} 3.0' in text
    assert 'tidegate_device_restarts_total{cause="watchdog"} 0.0' in text


def test_an_older_device_that_tells_nothing_is_what_it_was(rig: Rig) -> None:
    fleet = Fleet(rig, 1)
    device = fleet.devices[0]
    device.tell("heartbeat", metrics=Metrics(errors=1, device_s=60))
    assert row(rig, device).restarts_from == 0


def test_a_restart_that_is_no_such_thing_is_refused_and_the_rest_counts(rig: Rig) -> None:
    fleet = Fleet(rig, 1)
    device = fleet.devices[0]
    event = {"device_id": device.id, "seq": 9, "at": 1, "kind": "heartbeat"}
    for restart in ({"count": -1}, {"cause": "x" * 17}, {"boot_id": "x" * 65}, 7):
        body = json.dumps({"events": [{"body": {**event, "restart": restart}}]}).encode()
        answer = device.ask("POST", "/d/v1/events", body)
        assert (answer.status, answer.code) == (400, "request.invalid")
    assert row(rig, device).restarts == 0


def test_who_began_to_look_with_the_update_says_nothing_against_it(rig: Rig) -> None:
    """The release brings the agent that tells: of the others' crashes nobody hears."""
    fleet = Fleet(rig, 6)
    for one in fleet.devices[:3]:
        one.tell("heartbeat", restart=Restart(count=0))
    rig.now += 60
    fleet.start()
    fleet.confirm(*fleet.granted())
    fleet.look(7200)
    told = [one for one in fleet.devices if one.id in fleet.out]
    for one in told:
        one.tell("heartbeat", restart=Restart(count=0))
        one.tell("heartbeat", restart=Restart(boot_id="b", cause="panic"))
    rows = {row(rig, one).row for one in told if one in fleet.devices[:3]}
    rollout_id = fleet.id
    news = rig.read(lambda conn: gate_rows.happenings(conn, rollout_id, 0))
    assert rows
    assert len(rows) < len(told)
    assert {one.device_row for one in news if one.what == "crashed"} == rows
