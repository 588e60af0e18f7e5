"""What stops: un-started updates end at the next contact, a query keeps devices and their outcomes out, a lost answer is no leave after a halt."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.unit.server.rig import Device, Rig

from tidegate.core.errors import RequestError
from tidegate.core.protocol import SlotState
from tidegate.rollout import engine
from tidegate.server import caps, inquiry, listing, planning, recalls, rollouts, why
from tidegate.server.acts import Outcome
from tidegate.server.auth import Actor
from tidegate.server.operations import Operations
from tidegate.server.store import Connection, admin_rollouts, hot

OLGA = Actor(name="olga", role="operator")
NAME = "gw1-1.1.0"


class Desk(Rig):
    """A server with a release, and one operator."""

    def begin(self, **more: Any) -> None:
        self.publish_trust()
        self.release(1)
        policy = {
            "preset": "lab",
            "guards": [{"type": "failure_rate", "max": "20%", "sample": 4}],
            "ring": [{"name": "all"}],
        }
        data = {**policy, "release": NAME, **more}
        self.operations.create(data, OLGA, "because", int(self.now))

    @property
    def operations(self) -> Operations:
        return Operations(self.app.services)

    def act(self, verb: str, **detail: Any) -> Outcome:
        return self.operations.act(NAME, verb, OLGA, "why", int(self.now), detail=detail)

    def row(self) -> dict[str, Any]:
        found = self.read(lambda conn: admin_rollouts.rollout(conn, NAME))
        assert found is not None
        return dict(found)

    def at(self, site: str, *names: str) -> list[Device]:
        """Return devices that stand at a site."""
        made = []
        for name in names:
            device = Device(self, name)
            token = f"claim-{name}"
            self.claim(token)
            assert device.enrol(token, attributes={"site": site}).status == 200
            device.log_in()
            made.append(device)
        return made

    def by_variant(self) -> dict[str, dict[str, int]]:
        """Return the counters that are not 0 by the name they stand under."""
        found: dict[str, dict[str, int]] = {}
        rollout = self.row()["id"]
        for _, variant, name, value in self.read(lambda conn: hot.tallies(conn, rollout)):
            if value and not name.endswith("_at"):
                found.setdefault(variant, {})[name] = value
        return found

    def state(self, device: Device) -> tuple[str, str | None]:
        row = self.row()["id"]
        updates = self.read(
            lambda conn: hot.updates_in(conn, row, ("offered", "staged", "permitted", "cancelled"))
        )
        ids = {one.id: one for one in updates}
        found = ids[f"u-{row}-{self.app.services.fleet.ids.index(device.id)}"]
        return found.state, found.reason


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    made = Desk(tmp_path / "data")
    yield made
    made.close()


def test_an_update_that_had_not_begun_ends_at_the_next_contact_after_a_halt(desk: Desk) -> None:
    [device] = desk.at("north", "d1")
    desk.begin()
    body = device.assignment()
    device.tell("staged", body, bytes=1)
    met = desk.act("halt").stopped
    assert met is not None
    assert (met.inert, met.past_count) == (1, 0)
    assert desk.state(device) == ("staged", None)  # a halt writes nothing for each device
    assert device.poll().work
    held = device.assignment()
    assert (held.action, held.reason, held.update) == ("hold", "operator.halted", body.update)
    assert desk.state(device) == ("cancelled", "operator.halted")
    # The answer may have been lost: the device hears it again, and is not called for it.
    assert device.assignment().action == "hold"
    assert not device.poll().work


def test_what_a_halt_ended_goes_on_as_the_same_attempt_when_it_is_resumed(desk: Desk) -> None:
    [device] = desk.at("north", "d1")
    desk.begin()
    body = device.assignment()
    device.tell("staged", body, bytes=1)
    desk.act("halt")
    device.assignment()
    assert body.target is not None
    device.other = SlotState(state="staged", release_counter=1, sha256=body.target.sha256)
    desk.act("resume")
    assert device.poll().work
    again = device.assignment()
    assert (again.action, again.update, again.attempt) == ("install", body.update, body.attempt)
    device.run(again)
    assert desk.by_variant()["gw1-r1"] == {"offered": 1, "exposed": 1, "confirmed": 1}


def test_a_permit_whose_answer_was_lost_is_not_given_again_after_a_halt(desk: Desk) -> None:
    [device] = desk.at("north", "d1")
    desk.begin()
    body = device.assignment()
    nonce = "a" * 32
    assert device.permit(body, nonce=nonce).envelope is not None
    met = desk.act("halt").stopped
    assert met is not None
    assert [one.device for one in met.past] == ["d1"]
    again = device.permit(body, nonce=nonce)
    assert again.envelope is None
    assert "halted" in again.because
    # It stays counted as let go: the first answer may have arrived after all.
    assert desk.state(device)[0] == "permitted"
    desk.act("resume")
    assert device.permit(body, nonce=nonce).envelope is not None


def test_a_query_keeps_devices_out_and_the_rest_goes_on(desk: Desk) -> None:
    north = desk.at("north", "n1", "n2", "n3")
    south = desk.at("south", "s1", "s2")
    desk.begin()
    bodies = {one.id: one.assignment() for one in (*north[:2], south[0])}
    assert north[1].permit(bodies["n2"]).envelope is not None
    done = desk.act("isolate", where="site=='north'")
    assert desk.row()["isolated"] == ["where site = north"]
    assert done.stopped is not None
    assert (done.stopped.inert, done.stopped.past_count) == (1, 1)
    assert [one.device for one in done.stopped.past] == ["n2"]
    refused = north[0].permit(bodies["n1"])
    assert refused.envelope is None
    assert refused.because == "where site = north is isolated"
    assert north[0].assignment().action == "hold"
    assert not north[2].poll().work
    assert north[2].assignment().action == "none"
    assert south[0].permit(bodies["s1"]).envelope is not None
    assert south[1].assignment().action == "install"
    lines = desk.read(lambda conn: why.tell(conn, "n3", int(desk.now))).checks
    assert any("devices where site = north are isolated" in one.text for one in lines)


@pytest.mark.parametrize(
    ("detail", "kept_out", "doubt"),
    [
        ({"variant": "gw1-r1"}, 3, ""),
        ({"variant": "gw1-r11"}, 0, 'is gw1-r11 at present; did you mean "gw1-r1"?'),
        ({"where": "site = north"}, 2, ""),
        ({"where": "site = nroth"}, 0, "is site = nroth at present"),
        ({"where": "group:nobody"}, 0, "is group:nobody at present"),
    ],
)
def test_an_isolation_says_how_many_it_keeps_out_so_that_a_slip_shows(
    desk: Desk, detail: dict[str, str], kept_out: int, doubt: str
) -> None:
    desk.at("north", "n1", "n2")
    desk.at("south", "s1")
    desk.begin()
    met = desk.act("isolate", **detail).stopped
    assert met is not None
    assert met.kept_out == kept_out
    assert bool(met.doubt) is bool(doubt)
    assert met.doubt.endswith(doubt)


def test_an_isolation_counts_before_anybody_has_been_counted_apart(desk: Desk) -> None:
    [device] = desk.at("north", "d1")
    desk.begin()
    body = device.assignment()

    def isolate(conn: Connection) -> Outcome:
        rules, detail = desk.operations.rules, {"where": "site = north"}
        return rollouts.act(
            conn, NAME, "isolate", OLGA, "", int(desk.now), rules=rules, detail=detail
        )

    desk.write(isolate)
    assert "where site = north" not in desk.by_variant()
    assert device.permit(body).because == "where site = north is isolated"
    assert device.assignment().action == "hold"


def test_who_is_let_in_again_by_a_query_stays_out_by_its_variant(desk: Desk) -> None:
    """Between the act and the counting that follows it, or for good where the process died there, an update is counted under the query."""
    [device] = desk.at("north", "d1")
    desk.begin()
    body = device.assignment()
    device.tell("staged", body, bytes=1)
    desk.act("isolate", where="site = north")
    desk.act("isolate", variant="gw1-r1")

    def readmit(conn: Connection) -> Outcome:
        rules, detail = desk.operations.rules, {"where": "site = north"}
        return rollouts.act(
            conn, NAME, "readmit", OLGA, "why", int(desk.now), rules=rules, detail=detail
        )

    desk.write(readmit)
    assert "where site = north" in desk.by_variant()
    answer = device.permit(body)
    assert (answer.envelope, answer.because) == (None, "gw1-r1 is isolated")
    assert device.assignment().action == "hold"
    desk.app.tick(int(desk.now))
    assert "where site = north" not in desk.by_variant(), (
        "whoever plans next counts them where they belong"
    )


def test_outcomes_of_those_that_a_query_keeps_out_leave_the_evidence_and_come_back(
    desk: Desk,
) -> None:
    north = desk.at("north", "n1", "n2", "n3", "n4")
    south = desk.at("south", "s1", "s2", "s3", "s4")
    desk.begin()
    for device in south:
        device.run(device.assignment())
    bodies = [device.assignment() for device in north]
    for device, body in zip(north, bodies, strict=True):
        assert device.permit(body).envelope is not None
    before = desk.by_variant()
    desk.act("isolate", where="site = north")
    assert desk.by_variant() == {
        "gw1-r1": {"offered": 4, "exposed": 4, "confirmed": 4},
        "where site = north": {"offered": 4, "exposed": 4},
    }
    desk.act("readmit", where="site = north")
    assert desk.by_variant() == before
    desk.act("isolate", where="site = north")
    for device, body in zip(north, bodies, strict=True):
        device.tell("failed", body, reason="boot.watchdog")
    desk.app.tick(int(desk.now))
    assert desk.row()["state"] in {"active", "completed"}
    assert desk.by_variant()["where site = north"]["failed_after"] == 4


@pytest.mark.parametrize(
    ("detail", "said"),
    [
        ({}, "either a variant or a query"),
        ({"variant": "gw1-r1", "where": "site = north"}, "either a variant or a query"),
        ({"where": "rest"}, "halt the rollout"),
        ({"where": "site ="}, "query"),
        ({"where": " or ".join(f"site = place-{n}" for n in range(9))}, "a query of"),
        ({"variant": "x" * 81}, "is no variant"),
        ({"where": "state = confirmed"}, '"state" changes with every update'),
        ({"where": "seen > 30d"}, '"seen" changes with every update or contact'),
    ],
)
def test_bad_isolations_are_refused_and_change_nothing(
    desk: Desk, detail: dict[str, str], said: str
) -> None:
    desk.begin()
    with pytest.raises(RequestError, match=said):
        desk.act("isolate", **detail)
    assert desk.row()["isolated"] == []


def test_leave_that_comes_back_after_a_halt_is_given_to_nobody(desk: Desk) -> None:
    [device] = desk.at("north", "d1")
    desk.begin()
    body = device.assignment()
    assert device.permit(body).envelope is not None
    desk.act("halt")
    device.tell("permit_returned", body, nonce=None)
    assert desk.state(device)[0] == "staged"
    assert device.permit(body).envelope is None
    assert device.assignment().reason == "operator.halted"


def test_a_recall_ends_every_rollout_of_a_release_and_says_how_to_go_back(desk: Desk) -> None:
    [device] = desk.at("north", "d1")
    desk.publish_trust()
    desk.release(1)
    first = {"preset": "lab", "ring": [{"name": "all"}]}
    create, now = desk.operations.create, int(desk.now)
    create({**first, "release": NAME}, OLGA, "", now)
    device.run(device.assignment())
    desk.release(2, fallback_to=(1,))
    begun = {**first, "release": "gw1-1.2.0"}
    create({**begun, "name": "running"}, OLGA, "", now)
    create({**begun, "name": "planned", "start": "2030-01-01T00:00:00Z"}, OLGA, "", now)
    create({**begun, "name": "idea", "draft": True}, OLGA, "", now)
    device.run(device.assignment())
    done = desk.write(lambda conn: recalls.recall(conn, "gw1-1.2.0", "bricks", OLGA, now))
    assert done.halted == ("running",)
    assert sorted(done.cancelled) == ["idea", "planned"]
    assert done.running == 1
    assert done.way_back == "tidegate rollout fallback running --dry-run"
    way = desk.operations.way_back("running", "", "exposed", now)
    assert (way.to, way.resident) == (NAME, 1)
    with pytest.raises(RequestError, match="was recalled"):
        create({**begun, "name": "again"}, OLGA, "", now)
    with pytest.raises(RequestError, match="was recalled"):
        desk.operations.act("running", "resume", OLGA, "why", now)
    again = desk.write(lambda conn: recalls.recall(conn, "gw1-1.2.0", "bricks", OLGA, now))
    assert (again.halted, again.cancelled) == ((), ())


def test_a_way_back_to_a_release_ends_when_that_release_is_recalled(desk: Desk) -> None:
    [device] = desk.at("north", "d1")
    desk.begin()
    device.run(device.assignment())
    desk.release(2, fallback_to=(1,))
    now = int(desk.now)
    policy = {"preset": "lab", "ring": [{"name": "all"}], "release": "gw1-1.2.0"}
    desk.operations.create(policy, OLGA, "", now)
    device.run(device.assignment())
    desk.operations.act("gw1-1.2.0", "halt", OLGA, "why", now)
    child = desk.operations.fall_back("gw1-1.2.0", "", "exposed", OLGA, "why", now).name
    assert device.assignment().action == "fallback"
    done = desk.write(lambda conn: recalls.recall(conn, NAME, "worse", OLGA, now))
    assert child in done.halted
    assert device.assignment().action == "none"
    with pytest.raises(RequestError, match="was recalled"):
        desk.operations.way_back("gw1-1.2.0", "", "exposed", now)


def test_harm_after_completion_halts_and_the_devices_can_be_brought_back(desk: Desk) -> None:
    devices = desk.at("north", *(f"d{number}" for number in range(8)))
    desk.begin()
    for device in devices:
        device.run(device.assignment())
    desk.release(2, fallback_to=(1,))
    policy = {
        "preset": "lab",
        "guards": [{"type": "failure_rate", "max": "20%", "sample": 4}],
        "ring": [{"name": "all", "soak": "1s"}],
        "release": "gw1-1.2.0",
    }
    desk.operations.create(policy, OLGA, "", int(desk.now))
    bodies = [device.assignment() for device in devices]
    for device, body in zip(devices, bodies, strict=True):
        device.run(body)
    for _ in range(3):
        desk.now += 3_600
        desk.app.tick(int(desk.now))

    def rollout() -> dict[str, Any]:
        found = desk.read(lambda conn: admin_rollouts.rollout(conn, "gw1-1.2.0"))
        return dict(found or {})

    assert rollout()["state"] == "completed"
    desk.now += 3 * 86_400
    for device in devices:
        device.log_in()
    for device, body in zip(devices[:4], bodies[:4], strict=True):
        device.tell("reverted", body, reason="boot.watchdog", running_counter=1)
        device.counter, device.sha256 = 1, device.other.sha256 if device.other else None
    desk.app.tick(int(desk.now))
    row = rollout()
    assert row["state"] == "halted"
    assert row["halted_by"] == "planner"
    facts = desk.read(lambda conn: inquiry.rollout(conn, "gw1-1.2.0", int(desk.now)))
    assert facts.way_back == NAME
    way = desk.operations.way_back("gw1-1.2.0", "", "exposed", int(desk.now))
    assert (way.already, way.resident) == (4, 4)
    desk.operations.fall_back("gw1-1.2.0", "", "exposed", OLGA, "why", int(desk.now))
    orders = [device.assignment().action for device in devices]
    assert orders == ["none"] * 4 + ["fallback"] * 4
    late, more = desk.read(
        lambda conn: listing.stragglers(conn, "gw1-1.2.0", int(desk.now), limit=3)
    )
    assert [(one.device, one.state) for one in late] == [
        ("d4", "offered"),
        ("d5", "offered"),
        ("d6", "offered"),
    ]
    assert all(one.why and one.last_seen for one in late)
    rest, end = desk.read(
        lambda conn: listing.stragglers(conn, "gw1-1.2.0", int(desk.now), after=more)
    )
    assert ([one.device for one in rest], end) == (["d7"], 0)
    desk.write(lambda conn: caps.keep_count(conn, "default", {"model": 1}))
    assert devices[4].permit(devices[4].assignment()).envelope is not None
    devices[5].tell("staged", devices[5].assignment())
    bounds = why.Bounds({"model": 1})
    capped, _ = desk.read(
        lambda conn: listing.stragglers(conn, "gw1-1.2.0", int(desk.now), bounds, limit=2)
    )
    assert "no more than 1 at once, and there are 1 on their way (d4)" in capped[1].why
    devices[7].run(devices[7].assignment())
    assert not desk.read(
        lambda conn: listing.stragglers(conn, "gw1-1.2.0", int(desk.now), after=more)
    )[0]


def test_devices_of_a_rollout_are_listed_by_where_they_stand(desk: Desk) -> None:
    made = desk.at("north", "d1", "d2", "d3")
    desk.begin()
    bodies = [device.assignment() for device in made]
    assert made[1].permit(bodies[1]).envelope is not None
    made[2].run(bodies[2])

    def listed(state: str, after: int = 0, limit: int = 9) -> tuple[list[str], int]:
        found, more = desk.read(
            lambda conn: listing.updates(conn, NAME, state, after=after, limit=limit)
        )
        return [one.device for one in found], more

    assert listed("past") == (["d2"], 0)
    assert listed("waiting") == (["d1"], 0)
    assert listed("confirmed,offered") == (["d1", "d3"], 0)
    names, more = listed("", limit=2)
    assert names == ["d1", "d2"]
    assert listed("", after=more) == (["d3"], 0)
    with pytest.raises(RequestError, match="no state"):
        listed("pas")


def test_a_plan_that_was_made_before_an_edit_is_dropped(desk: Desk) -> None:
    desk.at("north", "d1")
    desk.begin()
    row, now = desk.row(), int(desk.now)
    model = planning.model_of(row)
    count = desk.operations.audiences.count
    evidence = desk.read(lambda conn: planning.evidence_of(conn, row, model, count, now))
    stale = engine.plan(model, evidence, now)
    policy = {"preset": "lab", "ring": [{"name": "all", "soak": "9h"}], "release": NAME}
    desk.operations.edit(NAME, policy, OLGA, "longer", now)
    edited = desk.row()
    changed = msgspec.structs.replace(stale, changed=True, state="completed")
    assert not desk.write(lambda conn: planning.apply_plan(conn, row, changed, now))
    same = msgspec.structs.replace(stale, changed=False, room=7)
    assert not desk.write(lambda conn: planning.apply_plan(conn, row, same, now))
    assert desk.row() == edited


def test_a_clock_that_steps_back_changes_nothing_about_a_halt(desk: Desk) -> None:
    [device] = desk.at("north", "d1")
    desk.begin()
    body = device.assignment()
    desk.act("halt")
    desk.now -= 200  # within what a session allows
    desk.app.tick(int(desk.now))
    assert desk.row()["state"] == "halted"
    assert device.permit(body).envelope is None
    assert device.assignment().action == "hold"
    desk.act("resume")
    again = device.assignment()
    assert again.action == "install"
    assert device.permit(again).envelope is not None
