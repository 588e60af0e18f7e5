"""The server feeds the evidence gate: what devices do is weighed, durable, and turned into permits."""

import zlib
from typing import Any, TypeVar

import msgspec
import pytest
from tests.unit.server.light import LightFleet
from tests.unit.server.rig import Device, Rig
from tests.unit.server.test_rollouts_admin import OLGA

from tidegate.cli import _evidence_text
from tidegate.client import structs
from tidegate.core.protocol import AssignmentBody, Metrics, PermitAnswer
from tidegate.core.release import HealthContract
from tidegate.rollout.evidence.decide import Decision
from tidegate.server import inquiry
from tidegate.server.gatekeeper.keeper import Keeper
from tidegate.server.gatekeeper.kept import Kept, decision_of
from tidegate.server.gatekeeper.replay import Replayed, replay
from tidegate.server.operations import Operations
from tidegate.server.store import admin_rollouts, gate_rows
from tidegate.server.store.raw import raw_connection
from tidegate.server.tick import LEASE_S, keeper_of, tick

NAME = "gw1-1.1.0"
POLICY: dict[str, Any] = {
    "guards": [{"type": "evidence", "preset": "emergency", "replaces": "failure_rate"}],
    "ring": [{"name": "all"}],
    "deadlines": {"return": "1h", "confirm": "2h"},
    "flow": {"in_flight": "none", "first": 0},
}


class Fleet:
    """Devices of one rollout, and the planner's looks at them."""

    def __init__(self, rig: Rig, count: int, rev_of: Any = lambda _: 1, **says: Any) -> None:
        self.rig = rig
        rig.publish_trust()
        rig.release(1, **says)
        rig.claim(count=1_000)
        self.devices = [rig.device(f"d{one}", rev=rev_of(one)) for one in range(count)]
        self.operations = Operations(rig.app.services)
        self.bodies: dict[str, AssignmentBody] = {}
        self.out: set[str] = set()

    @property
    def now(self) -> int:
        return int(self.rig.now)

    def start(self, **more: Any) -> int:
        self.operations.create({**POLICY, "release": NAME, **more}, OLGA, "because", self.now)
        self.look()
        return int(self.row["id"])

    @property
    def row(self) -> dict[str, Any]:
        found = self.rig.read(lambda conn: admin_rollouts.rollout(conn, NAME))
        assert found is not None
        return dict(found)

    @property
    def id(self) -> int:
        return int(self.row["id"])

    @property
    def kept(self) -> Kept:
        return keeper_of(self.rig.app.services)._kept[self.id]

    @property
    def decision(self) -> Decision:
        rollout_id = self.id
        return decision_of(self.rig.read(lambda conn: gate_rows.decision(conn, rollout_id)))

    def rooms(self, kind: str = gate_rows.PART) -> dict[str, int]:
        rollout_id = self.id
        found = self.rig.read(lambda conn: gate_rows.rooms(conn, rollout_id, kind))
        return {one.name: one.room for one in found}

    def happenings(self) -> list[str]:
        rollout_id = self.id
        found = self.rig.read(lambda conn: gate_rows.happenings(conn, rollout_id, 0))
        return [one.what for one in found]

    def look(self, later_s: float = 0) -> None:
        self.rig.now += later_s
        self.rig.app.services.flush_seen()
        assert tick(self.rig.app.services, self.now).leader

    def poll(self, *devices: Device) -> None:
        for one in devices or self.devices:
            one.poll()

    def stage(self, device: Device) -> AssignmentBody:
        body = device.assignment()
        assert body.target is not None, body
        device.tell("downloading", body)
        device.tell("staged", body, bytes=4096)
        self.bodies[device.id] = body
        return body

    def ask(self, device: Device) -> PermitAnswer:
        return device.permit(self.bodies.get(device.id) or self.stage(device))

    def granted(self, rev: int = 0) -> list[Device]:
        """Have every device that has not got one ask for a permit; return those that got it."""
        waiting = [one for one in self.devices if one.id not in self.out and rev in {0, one.rev}]
        found = [one for one in waiting if self.ask(one).envelope is not None]
        self.out |= {one.id for one in found}
        return found

    def confirm(self, *devices: Device) -> None:
        for one in devices:
            one.tell("rebooting", self.bodies[one.id])
            one.tell("verifying", self.bodies[one.id])
            one.confirm(self.bodies[one.id])

    def fail(self, *devices: Device, reason: str = "boot.no_return") -> None:
        for one in devices:
            one.tell("reverted", self.bodies[one.id], reason=reason)


def test_no_permit_before_the_gate_is_open_and_then_as_many_as_were_decided(rig: Rig) -> None:
    fleet = Fleet(rig, 8)
    fleet.operations.create({**POLICY, "release": NAME}, OLGA, "because", fleet.now)
    refused = fleet.ask(fleet.devices[0])
    assert refused.envelope is None
    assert "leaves room" in refused.because
    fleet.look()
    assert fleet.rooms()["variant=gw1-r1"] == 4
    assert len(fleet.granted()) == 4
    assert fleet.rooms()["variant=gw1-r1"] == 0
    assert fleet.happenings().count("permit") == 4
    fleet.look(10)
    assert not fleet.granted(), "a look is no new leave: all that were decided are out"


def test_a_device_that_its_health_contract_lets_look_at_itself_is_not_silent(rig: Rig) -> None:
    fleet = Fleet(rig, 8, health=HealthContract(warmup_s=6_000, timeout_s=7_200))
    fleet.start()
    assert fleet.kept.harm.report_s == 7_200 + 1_800
    first = fleet.granted()
    assert first
    for _ in range(8):
        fleet.look(900)
    assert fleet.decision.streams["silence"] == 0, "two hours: nobody can have answered yet"
    fleet.confirm(*first)
    for _ in range(4):
        fleet.look(900)
    assert fleet.decision.verdict == "go"
    assert fleet.decision.streams["silence"] < 0, "those who answered in time are weighed as such"
    assert fleet.granted(), "and the rest may follow"


def test_a_device_that_comes_once_a_day_may_answer_on_the_next(rig: Rig) -> None:
    fleet = Fleet(rig, 0)
    away = {"site": "north", "connectivity": "intermittent"}
    fleet.devices = [rig.device(f"d{one}", attributes=away) for one in range(8)]
    fleet.start()
    assert fleet.granted()
    for _ in range(100):
        fleet.look(900)
    assert fleet.decision.streams["silence"] == 0, "25 hours: nobody was to be heard yet"
    for _ in range(12):
        fleet.look(900)
    assert fleet.decision.streams["silence"] > 0, "but they are missed on the day after"


def test_a_good_release_reaches_everybody_and_completes(rig: Rig) -> None:
    fleet = Fleet(rig, 8)
    fleet.start()
    hours = 0.0
    while fleet.row["state"] == "active" and hours < 48:
        fleet.confirm(*fleet.granted())
        fleet.look(900)
        hours += 0.25
    assert all(one.counter == 1 for one in fleet.devices)
    assert fleet.row["state"] == "completed"
    assert fleet.decision.verdict == "go"
    assert fleet.decision.odds < 2
    assert hours < 4, "first answers count after an hour and a quarter, then the rest goes"


def test_a_release_that_bricks_is_halted_by_odds_after_its_first_devices(rig: Rig) -> None:
    fleet = Fleet(rig, 12)
    fleet.start()
    first = fleet.granted()
    fleet.fail(*first)
    fleet.look(30)
    row = fleet.row
    assert row["state"] == "halted"
    assert row["because"][0]["gate"] == "evidence"
    assert "halts at 1,000 : 1" in row["because"][0]["text"]
    assert len(first) == 4
    assert not fleet.granted()


def test_silence_is_judged_without_anybody_saying_so(rig: Rig) -> None:
    fleet = Fleet(rig, 12)
    fleet.start()
    fleet.granted()
    for _ in range(6):
        fleet.poll(*fleet.devices[4:])
        fleet.look(900)
    assert fleet.row["state"] == "halted"
    assert "silence" in fleet.row["because"][0]["text"]


def test_a_bad_variant_is_isolated_and_the_rest_goes_on(rig: Rig) -> None:
    fleet = Fleet(rig, 40, rev_of=lambda one: 2 if one % 4 == 0 else 1)
    fleet.start()
    for quarter in range(36):
        fleet.confirm(*fleet.granted(rev=1))
        fleet.poll()
        fleet.look(900)
        if quarter > 14:
            fleet.fail(*fleet.granted(rev=2))
            fleet.look(60)
        if fleet.row["isolated"] or fleet.row["state"] != "active":
            break
    assert fleet.row["isolated"] == ["gw1-r2"]
    assert fleet.row["state"] in {"active", "completed"}
    fleet.look(900)
    assert fleet.decision.verdict == "go"


def _replayed(fleet: Fleet) -> Replayed:
    rollout_id = fleet.id
    found: Replayed = fleet.rig.read(lambda conn: replay(conn, NAME, rollout_id))
    return found


def test_a_server_that_died_goes_on_with_the_same_book(rig: Rig) -> None:
    fleet = Fleet(rig, 10)
    fleet.start()
    first = fleet.granted()
    fleet.confirm(*first[:3])
    fleet.look(900)
    fleet.fail(*first[3:])
    fleet.look(60)
    before, position = fleet.kept.book.digest(), fleet.kept.position
    rooms = fleet.rooms()
    rig.restart()
    again = Keeper(rig.app.services.fleet)
    again.prepare(rig.app.store, fleet.id, fleet.now)
    restored = again._kept[fleet.id]
    assert restored.position < position, "what happened since the last step is told anew"
    rollout_id = fleet.id
    news = rig.read(lambda conn: gate_rows.happenings(conn, rollout_id, restored.position))
    restored.feed(news, again._introduce)
    assert restored.book.digest() == before
    # where there may be others, they wait until the lease of one that died is over
    fleet.look(LEASE_S + 1)
    assert fleet.rooms() == rooms
    assert _replayed(fleet).same


@pytest.mark.parametrize(("poll_s", "again_s"), [(300, 900), (3_600, 7_200)])
def test_an_answer_is_waited_for_two_polls_longer_than_it_takes(
    rig: Rig, poll_s: int, again_s: int
) -> None:
    fleet = Fleet(rig, 10)
    fleet.operations.create({**POLICY, "release": NAME}, OLGA, "because", fleet.now)
    keeper = Keeper(rig.app.services.fleet, poll_s=poll_s)
    keeper.prepare(rig.app.store, fleet.id, fleet.now)
    assert keeper._kept[fleet.id].harm.again_s == again_s


def test_the_log_alone_leads_to_the_same_book(rig: Rig) -> None:
    fleet = Fleet(rig, 10)
    fleet.start()
    for _ in range(8):
        fleet.confirm(*fleet.granted())
        fleet.poll()
        fleet.look(900)
    found = _replayed(fleet)
    assert found.same
    assert found.facts > 10
    assert found.pages >= 8


def test_a_fact_that_was_changed_is_found(rig: Rig) -> None:
    fleet = Fleet(rig, 8)
    fleet.start()
    fleet.fail(*fleet.granted()[:1])
    fleet.look(900)
    rollout_id = fleet.id

    def forge(conn: Any) -> None:
        for number, _, body, _, _ in list(gate_rows.facts(conn, rollout_id)):
            lines = zlib.decompress(body).replace(b'"fail"', b'"permit"')
            raw_connection(conn).execute(
                "UPDATE gate_fact SET body = ? WHERE rollout_id = ? AND seq = ?",
                (zlib.compress(lines), rollout_id, number),
            )

    assert _replayed(fleet).same
    rig.write(forge)
    assert not _replayed(fleet).same


def test_a_variant_that_a_person_isolates_leaves_the_book_and_comes_back_at_even_odds(
    rig: Rig,
) -> None:
    fleet = Fleet(rig, 24, rev_of=lambda one: 2 if one % 3 == 0 else 1)
    fleet.start()
    fleet.fail(fleet.granted(rev=2)[0])
    fleet.look(60)
    assert fleet.decision.log_e > 0
    fleet.operations.act(NAME, "isolate", OLGA, "smoke", fleet.now, detail={"variant": "gw1-r2"})
    fleet.look(1)
    assert [fleet.kept.book.scheme.strata[one].name for one in fleet.kept.book.isolated] == [
        "variant=gw1-r2"
    ]
    assert "gw1-r2" not in fleet.decision.permits
    assert fleet.decision.log_e <= 0
    assert _replayed(fleet).same
    fleet.operations.act(NAME, "readmit", OLGA, "fixed", fleet.now, detail={"variant": "gw1-r2"})
    fleet.look(1)
    assert fleet.kept.book.isolated == ()
    assert fleet.rooms()["variant=gw1-r2"] > 0
    fleet.look(900)
    assert _replayed(fleet).same


def test_devices_that_a_finer_query_keeps_out_count_no_more(rig: Rig) -> None:
    fleet = Fleet(rig, 12)
    fleet.start()
    first = fleet.granted()
    fleet.operations.act(
        NAME, "isolate", OLGA, "that desk", fleet.now, detail={"where": f"id = {first[0].id}"}
    )
    fleet.look(1)
    assert "exclude" in fleet.happenings()
    fleet.fail(first[0])
    fleet.look(60)
    assert fleet.decision.streams["failure"] <= 0, "its failure is nobody's evidence"
    fleet.fail(first[1])
    fleet.look(60)
    assert fleet.decision.streams["failure"] > 0


def test_who_resumes_after_a_halt_by_odds_begins_at_even_odds(rig: Rig) -> None:
    fleet = Fleet(rig, 12)
    fleet.start()
    fleet.fail(*fleet.granted())
    fleet.look(60)
    assert fleet.row["state"] == "halted"
    done = fleet.operations.act(NAME, "resume", OLGA, "a bad batch of cables", fleet.now)
    assert "begin anew" in done.text
    fleet.look(1)
    assert fleet.row["state"] == "active"
    assert fleet.decision.odds <= 1
    assert fleet.rooms()["variant=gw1-r1"] == 4


def test_devices_that_join_later_get_their_permits_too(rig: Rig) -> None:
    fleet = LightFleet(rig, 3)
    fleet.start(POLICY)
    fleet.look()
    fleet.live(24)
    assert fleet.row["state"] == "completed"
    for _ in range(6):
        fleet.look(900)
    fleet.add(5)
    fleet.heard()
    fleet.look(900)
    assert sorted(fleet.ask()) == [4, 5, 6, 7], "as many as go first of a variant"
    fleet.end([4, 5, 6, 7])
    assert fleet.ask() == []
    for _ in range(6):
        fleet.heard()
        fleet.look(900)
    assert fleet.ask() == [8]


def test_what_devices_measure_reaches_the_book_and_what_it_knows_is_dropped(rig: Rig) -> None:
    fleet = Fleet(rig, 3)
    fleet.start()
    rig.now += 600
    for one in fleet.devices:
        one.tell("heartbeat", metrics=Metrics(errors=2, device_s=600))
    assert fleet.happenings()[1:] == ["measured"] * 3
    before = fleet.decision
    fleet.look(60)
    assert fleet.decision == before, "an hour's errors decide nothing by themselves"

    fleet.look(900)
    assert fleet.happenings() == []
    fleet.operations.act(NAME, "halt", OLGA, "enough", fleet.now)
    fleet.look(1)
    fleet.devices[0].tell("heartbeat", metrics=Metrics(errors=2, device_s=300))
    assert fleet.happenings() == [], "nobody looks at a halted rollout's metrics"


def test_no_variant_gets_more_than_was_decided_for_it_whoever_asks_first(rig: Rig) -> None:
    fleet = LightFleet(rig, 40, lambda one: {"rev": 1 + one % 2})
    fleet.start(POLICY)
    fleet.look()
    assert fleet.rooms() == {"variant=gw1-r1": 4, "variant=gw1-r2": 4, "variant=other": 0}
    assert fleet.row["room"] == 8
    assert len(fleet.ask([one for one in fleet.rows if one % 2])) == 4
    assert fleet.row["room"] == 4
    assert len(fleet.ask()) == 4


def test_a_part_with_odds_against_it_is_held_and_a_site_goes_one_by_one(rig: Rig) -> None:
    def says(number: int) -> dict[str, Any]:
        return {"region": ("eu", "us")[number % 2], "site": f"s{number % 10}"}

    fleet = LightFleet(rig, 40, says)
    fleet.start(POLICY)
    fleet.look()
    europe = fleet.ask([one for one in fleet.rows if (one - 1) % 10 in {0, 2}])
    america = fleet.ask([one for one in fleet.rows if (one - 1) % 10 == 1])
    assert (len(europe), len(america)) == (2, 1), (
        "one at each of three sites, whatever room there is"
    )
    assert fleet.rooms(gate_rows.SITE) == {"s0": 0, "s1": 0, "s2": 0}
    fleet.end(europe, "reverted", "boot.no_return")
    fleet.end(america)
    fleet.look(60)
    assert fleet.row["state"] == "active"
    assert fleet.rooms()["region=eu"] <= 1
    assert "region=us" not in fleet.rooms()
    assert fleet.rooms(gate_rows.SITE) == {"s0": 0, "s1": 1, "s2": 0}, (
        "the well one lets another go"
    )
    assert fleet.replayed().same


def test_a_site_that_rests_because_of_doubt_says_so(rig: Rig) -> None:
    fleet = LightFleet(rig, 40, lambda number: {"site": f"s{number % 10}"})
    fleet.start(POLICY)
    fleet.look()
    fleet.end(fleet.ask()[:2], "reverted", "boot.no_return")
    fleet.look(900)
    rollout_id = fleet.id
    found = rig.read(lambda conn: gate_rows.rooms(conn, rollout_id, gate_rows.SITE))
    assert any("there is doubt about the release" in one.because for one in found)


def test_harm_that_comes_after_completion_halts_and_names_the_way_back(rig: Rig) -> None:
    fleet = LightFleet(rig, 40)
    fleet.start(POLICY)
    fleet.look()
    fleet.live(24)
    assert fleet.row["state"] == "completed"
    bad = list(fleet.rows)
    while fleet.row["state"] == "completed" and len(bad) > 28:
        fleet.end([bad.pop()], "reverted", "boot.watchdog")
        for _ in range(4):
            fleet.heard()
            fleet.look(900)
    row = fleet.row
    assert row["state"] == "halted", "one late failure an hour counts of each region"
    assert "crash" in row["because"][0]["text"]
    assert fleet.replayed().same


K = TypeVar("K")


def _told(found: msgspec.Struct, kind: type[K]) -> K:
    """Return what the server knows, as its client reads it."""
    return msgspec.json.decode(msgspec.json.encode(found), type=kind)


def test_people_are_told_the_odds_who_may_go_and_what_could_be_seen(rig: Rig) -> None:
    fleet = LightFleet(rig, 40, lambda one: {"rev": 1 + one % 2})
    fleet.start(POLICY)
    fleet.look()
    fleet.end(fleet.ask()[:1], "reverted", "boot.no_return")
    fleet.look(60)
    count = fleet.operations.audiences.count
    found = rig.read(lambda conn: inquiry.evidence(conn, NAME, count, fleet.now)).gate
    assert found is not None
    assert (found.verdict, found.halts_at, found.devices) == ("go", 1000, 40)
    assert found.baseline.assumed
    assert set(found.permits) == {"gw1-r1", "gw1-r2"}
    assert found.least_visible_ppm is not None
    lines = _evidence_text.shown(NAME, _told(found, structs.GateFacts))
    assert lines[0].startswith(f"{NAME}   1 : 1 against the release; halts at 1,000 : 1")
    assert any("assumed: this product has no history" in one for one in lines)
    told = _told(fleet.replayed(), structs.Replayed)
    assert "lead to what is kept" in _evidence_text.replayed(NAME, told)[0]
    wrong = _evidence_text.replayed(NAME, msgspec.structs.replace(told, differs_at=2))
    assert "does NOT lead to what is kept from page 2 on" in wrong[0]
