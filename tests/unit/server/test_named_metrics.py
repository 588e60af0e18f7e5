"""Metrics of devices' own: told by heartbeats, noted where a rollout names them, weighed by their names."""

import json
from typing import Any

import msgspec
import pytest
from tests.unit.server.light import LightFleet
from tests.unit.server.rig import Device, Rig
from tests.unit.server.test_gatekeeper import POLICY, Fleet
from tests.unit.server.test_rollouts_admin import OLGA

from tidegate.cli import _evidence_text
from tidegate.client import structs
from tidegate.core.errors import RequestError
from tidegate.core.protocol import Metrics
from tidegate.rollout.evidence.facts import Score
from tidegate.server.gatekeeper.facts import gate_facts
from tidegate.server.gatekeeper.kept import facts_of
from tidegate.server.store import Connection, gate_rows
from tidegate.server.web.queries import evidence as page

DAY_S = 86_400


def named(guards: str, **more: Any) -> dict[str, Any]:
    guard = {"type": "evidence", "preset": "emergency", "metrics": guards, **more}
    return {**POLICY, "guards": [guard]}


def beat(device: Device, seconds: int = 600, **metrics: float) -> None:
    device.tell("heartbeat", metrics=Metrics(errors=0, device_s=seconds, named=metrics))


def noted(fleet: Fleet) -> list[tuple[str, float | None, int]]:
    rollout_id = fleet.id
    found = fleet.rig.read(lambda conn: gate_rows.happenings(conn, rollout_id, 0))
    return [(one.name, one.amount, one.seconds) for one in found if one.what == "measured"]


def test_what_a_rollout_names_is_noted_and_nothing_else(rig: Rig) -> None:
    fleet = Fleet(rig, 2)
    fleet.start(**named("errors,-battery"))
    rig.now += 600
    beat(fleet.devices[0], battery=1_200.0, volts=5.0)
    assert noted(fleet) == [("", None, 600), ("battery", 1_200.0, 600)]
    fleet.look(900)
    assert fleet.kept.roster.ignored == {}
    fleet.devices[1].tell("heartbeat", metrics=Metrics(errors=0, device_s=60))
    assert noted(fleet) == [("", None, 60)]


def test_more_time_than_has_passed_takes_the_amount_along(rig: Rig) -> None:
    fleet = Fleet(rig, 1)
    fleet.start(**named("battery"))
    rig.now += DAY_S
    beat(fleet.devices[0], seconds=4 * DAY_S, battery=4.0 * DAY_S)
    (name, amount, seconds) = noted(fleet)[-1]
    assert name == "battery"
    assert seconds < 3 * DAY_S
    assert amount == pytest.approx(seconds)


def test_what_is_no_number_is_refused_and_nothing_of_it_counts(rig: Rig) -> None:
    fleet = Fleet(rig, 1)
    fleet.start(**named("battery"))
    device = fleet.devices[0]
    event = {"device_id": device.id, "seq": 50, "at": 1, "kind": "heartbeat"}
    too_many = {f"m{one}": 1.0 for one in range(17)}
    for own in ({"battery": None}, {"battery": "1"}, {"Battery": 1.0}, {"a b": 1.0}, too_many):
        body = {**event, "metrics": {"errors": 0, "device_s": 9, "named": own}}
        answer = device.ask(
            "POST", "/d/v1/events", json.dumps({"events": [{"body": body}]}).encode()
        )
        assert (answer.status, answer.code) == (400, "request.invalid")
    infinite = json.dumps({"events": [{"body": {**event, "metrics": {"named": {"battery": 7}}}}]})
    answer = device.ask("POST", "/d/v1/events", infinite.replace("7", "1e999").encode())
    assert (answer.status, answer.code) == (400, "request.invalid")
    assert noted(fleet) == []


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ("a,-a", "twice"),
        ("Battery", "no name"),
        ("x;drop", "no name"),
        ("a b c d e f g h i", "at most 8"),
    ],
)
def test_a_policy_that_names_nonsense_is_one_clear_line(rig: Rig, metrics: str, said: str) -> None:
    fleet = Fleet(rig, 1)
    with pytest.raises(RequestError, match=said):
        fleet.start(**named(metrics))
    with pytest.raises(RequestError, match="metric"):
        fleet.operations.create(
            {**named("a", metric="11%"), "release": "gw1-1.1.0"}, OLGA, "why", fleet.now
        )


def scores(fleet: LightFleet) -> dict[int, list[int]]:
    rollout_id = fleet.id
    pages = fleet.rig.read(lambda conn: list(gate_rows.facts(conn, rollout_id)))
    found: dict[int, list[int]] = {}
    for fact in (fact for stored in pages for fact in facts_of(stored[2])):
        if isinstance(fact, Score):
            found.setdefault(fact.metric, []).extend([fact.sixteenths] * fact.count)
    return found


def test_the_meter_names_the_metric_that_spoke(rig: Rig) -> None:
    """Batteries that empty faster halt a release whose devices all confirm; half of the fleet has none to tell of, one metric never moves, one nobody tells."""
    fleet = LightFleet(rig, 330)
    fleet.start(named("errors,-battery,steady,missing"))
    fleet.look()
    drained: set[int] = set()

    def measure(conn: Connection) -> None:
        rollout_id = fleet.id
        for row in fleet.rows:
            own = [(rollout_id, "steady", 3_600.0, 3_600)]
            if row % 8:
                level = 100.0 + row % 7 + (fleet.now // 3_600 * row) % 5 - 40 * (row in drained)
                own.append((rollout_id, "battery", level * 3_600, 3_600))
            gate_rows.tell_named(conn, "default", row, own, fleet.now)

    for _ in range(70):
        if fleet.row["state"] == "halted":
            break
        for quarter in range(4):
            fleet.heard()
            out = fleet.ask(range(1, 41))
            fleet.end(out)
            drained |= set(out)
            if not quarter:
                rig.write(measure)
            fleet.look(900)
    row = fleet.row
    assert row["state"] == "halted"
    assert "(metric -battery 12 h)" in row["because"][0]["text"]
    assert set(scores(fleet)) == {1}, "the others never spoke"
    rollout_id = fleet.id
    told = rig.read(lambda conn: gate_facts(conn, rollout_id))
    as_read = msgspec.json.decode(msgspec.json.encode(told), type=structs.GateFacts)
    shown = "\n".join(_evidence_text.shown(fleet.name, as_read))
    assert "battery" in shown
    assert page.stream("metric -battery 12 h") == "Battery, 12 h"
    assert fleet.replayed().same
