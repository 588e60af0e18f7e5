"""A rollout that evidence neither stops nor lets go on is told to somebody: an incident and one word to the world, once for what stands."""

from typing import Any

import pytest
from tests.unit.server.light import BOSS, NAME, LightFleet
from tests.unit.server.rig import Rig

from tidegate.server import incidents, inquiry, why
from tidegate.server.audiences import Audiences
from tidegate.server.incidents import IncidentFacts
from tidegate.server.store import admin_log
from tidegate.server.tick import keeper_of

POLICY: dict[str, Any] = {
    "guards": [{"type": "evidence", "preset": "normal", "replaces": "failure_rate"}],
    "ring": [{"name": "all"}],
    "flow": {"in_flight": "none", "first": 0},
}


def _opened(fleet: LightFleet) -> list[IncidentFacts]:
    found: list[IncidentFacts] = fleet.rig.read(lambda conn: incidents.listed(conn)[0])
    return found


def _told(fleet: LightFleet) -> list[str]:
    found = fleet.rig.read(lambda conn: admin_log.due_outbox(conn, ("event",), fleet.now, 100))
    return [str(one["payload"]["event"]) for one in found]


def _bricked(rig: Rig, count: int) -> LightFleet:
    """Let a fleet live for three hours with a release from which nobody comes back."""
    fleet = LightFleet(rig, count)
    fleet.start(POLICY)
    fleet.look()
    fleet.live(3, lambda _: "")
    return fleet


@pytest.mark.parametrize("count", [1, 3, 20])
def test_a_handful_of_which_nobody_comes_back_stays_active_and_one_incident_says_so(
    rig: Rig, count: int
) -> None:
    fleet = _bricked(rig, count)
    assert fleet.row["state"] == "active", "nothing was stopped, and nothing is complete"
    lost = 2 if count == 20 else 1
    assert fleet.row["because"][0]["gate"] == "held"
    (only,) = _opened(fleet)
    assert (only.kind, only.severity, only.rollout) == ("held", "major", NAME)
    assert f"{lost} of {lost} devices" in only.summary
    assert _told(fleet).count("rollout.held") == 1
    assert _told(fleet).count("incident.opened") == 1
    assert len(fleet.away) == lost, "no further device was spent"


def test_why_and_the_facts_of_the_gate_say_what_a_person_may_do(rig: Rig) -> None:
    fleet = _bricked(rig, 20)
    lines = rig.read(lambda conn: why.tell_rollout(conn, NAME, "", fleet.now))
    text = "\n".join(lines)
    assert "held: 2 of 2 devices" in text
    assert f"tidegate rollout halt {NAME}" in text
    audience = Audiences(rig.app.services.fleet).count
    gate = rig.read(lambda conn: inquiry.evidence(conn, NAME, audience, fleet.now).gate)
    assert gate is not None
    assert gate.held is not None
    assert (gate.held.bad, gate.held.out, gate.held.ground) == (2, 2, "handful")


def test_it_is_not_told_again_when_its_incident_is_closed_or_another_process_takes_over(
    rig: Rig,
) -> None:
    fleet = _bricked(rig, 20)
    (only,) = _opened(fleet)
    rig.write(lambda c: incidents.note(c, only.name, "action", "looked at them", BOSS, fleet.now))
    rig.write(lambda c: incidents.move(c, only.name, "close", BOSS, "we know", fleet.now))
    keeper_of(rig.app.services).forget(fleet.id)
    fleet.live(2, lambda _: "")
    assert len(_opened(fleet)) == 1
    assert _told(fleet).count("rollout.held") == 1


def test_a_device_that_comes_back_ends_it_and_the_incident_says_so(rig: Rig) -> None:
    fleet = _bricked(rig, 20)
    back = sorted(fleet.away)
    fleet.away.clear()
    fleet.end(back)
    fleet.live(24)
    assert fleet.row["because"][0]["gate"] != "held"
    (only,) = _opened(fleet)
    said = [one.text for one in rig.read(lambda conn: incidents.notes(conn, only.name))]
    assert any("no person has to decide any more" in one for one in said), said
    fleet.live(24 * 4)
    assert fleet.row["state"] == "completed"


def test_after_a_halt_and_a_resume_the_next_few_try_and_are_told_of_anew(rig: Rig) -> None:
    fleet = _bricked(rig, 20)
    fleet.operations.act(NAME, "halt", BOSS, "look", fleet.now)
    fleet.operations.act(NAME, "resume", BOSS, "two more", fleet.now)
    before = len(fleet.away)
    fleet.live(4, lambda _: "")
    assert len(fleet.away) == before + 2
    kinds = [one.kind for one in _opened(fleet)]
    assert kinds.count("held") == 2
    assert _told(fleet).count("rollout.held") == 2
