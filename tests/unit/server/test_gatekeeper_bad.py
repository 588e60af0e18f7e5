"""What must not mislead the evidence gate of a server: repeats, strangers, liars, clocks, replicas, edits, a fleet that is switched off."""

from random import Random
from typing import Any

from tests.unit.server.light import BOSS, NAME, LightFleet
from tests.unit.server.rig import Rig

from tidegate.server import planning
from tidegate.server.audiences import Audiences
from tidegate.server.gatekeeper.keeper import Keeper
from tidegate.server.store import Connection, admin_rollouts, gate_rows
from tidegate.server.tick import keeper_of

POLICY: dict[str, Any] = {
    "guards": [{"type": "evidence", "preset": "emergency", "replaces": "failure_rate"}],
    "ring": [{"name": "all"}],
    "flow": {"in_flight": "none", "first": 0},
}


def _begun(rig: Rig, count: int = 12, **policy: Any) -> LightFleet:
    fleet = LightFleet(rig, count)
    fleet.start({**POLICY, **policy})
    fleet.look()
    return fleet


def _told(fleet: LightFleet, *rows: tuple[int, int, str]) -> None:
    """Note happenings as they are: (time, device row, what)."""
    rollout_id = fleet.id
    fleet.rig.write(lambda conn: gate_rows.put_happenings(conn, "default", rollout_id, list(rows)))


def _kept(fleet: LightFleet) -> Any:
    return keeper_of(fleet.rig.app.services)._kept[fleet.id]


def test_what_is_told_twice_out_of_order_or_by_a_stranger_counts_once_or_not_at_all(
    rig: Rig,
) -> None:
    fleet = _begun(rig)
    (first, *_) = fleet.ask()
    now = fleet.now
    _told(
        fleet,
        (now, first, "failed"),
        (now, first, "failed"),
        (now - 30 * 86_400, first, "confirmed"),
        (now, first, "permit"),
        (now, 999, "failed"),
        (now, 12, "confirmed"),
        (now, 5, "nonsense of a newer version"[:12]),
    )
    fleet.look(900)
    book = _kept(fleet).book
    assert book.rows[0][1] == 1, "one device failed, once"
    assert _kept(fleet).roster.ignored["twice"] >= 3
    assert fleet.row["state"] == "active"
    assert fleet.replayed().same


def test_one_device_that_lies_all_day_neither_trips_nor_masks_the_gate(rig: Rig) -> None:
    fleet = _begun(rig)
    liar, *_ = out = fleet.ask()
    now = fleet.now
    _told(fleet, *[(now, liar, what) for what in ("failed", "crashed", "refund", "confirmed") * 50])
    fleet.look(900)
    assert fleet.row["state"] == "active"
    fleet.end(out[1:], "reverted", "boot.no_return")
    fleet.look(60)
    assert fleet.row["state"] == "halted"


def test_a_failure_that_is_told_weeks_late_still_counts(rig: Rig) -> None:
    fleet = _begun(rig, 20)
    late, *others = fleet.ask()
    fleet.end(others)
    for _ in range(8):
        fleet.heard(one for one in fleet.rows if one != late)
        fleet.look(900)
    silent = _kept(fleet).book.rows[0]
    assert silent[2] == 1
    fleet.rig.now += 21 * 86_400
    fleet.end([late], "reverted", "health.boot")
    fleet.look(60)
    streams = _kept(fleet).decision.streams
    fleet.look(900)
    assert streams["failure"] > -0.5
    assert fleet.replayed().same


def test_a_fleet_that_is_switched_off_is_an_outage_and_no_harm(rig: Rig) -> None:
    fleet = _begun(rig, 40)
    fleet.ask()
    fleet.heard()
    for _ in range(24):
        fleet.look(900)
    assert fleet.row["state"] == "active", fleet.row["because"]
    fleet.heard()
    fleet.look(900)
    assert fleet.row["state"] == "active"


def test_a_clock_that_steps_either_way_fails_nothing(rig: Rig) -> None:
    fleet = _begun(rig)
    out = fleet.ask()
    fleet.look(30 * 86_400)
    assert _kept(fleet).book.rows[0][2] == 0, "nobody ticked: nobody is silent for that"
    fleet.rig.now -= 29 * 86_400
    fleet.end(out)
    fleet.look(60)
    fleet.look(900)
    assert fleet.row["state"] != "halted"
    assert fleet.replayed().same


def test_two_replicas_that_plan_at_once_grant_nothing_twice_and_keep_one_book(rig: Rig) -> None:
    fleet = _begun(rig)
    services, rollout_id = rig.app.services, fleet.id
    one, other = keeper_of(services), Keeper(services.fleet)
    count = Audiences(services.fleet).count
    rooms = fleet.rooms()
    fleet.end(fleet.ask()[:2])
    rig.now += 900
    now = fleet.now
    for keeper in (one, other):
        keeper.prepare(services.store, rollout_id, now)

    def plan(conn: Connection, keeper: Keeper) -> None:
        planning.reconcile(conn, rollout_id, count, now, keeper.weigh)

    rig.write(lambda conn: plan(conn, one))
    after = fleet.rooms()
    rig.write(lambda conn: plan(conn, other))
    assert fleet.rooms() == after
    assert rollout_id not in other._kept, "it was overtaken, and forgot"
    assert sum(after.values()) <= sum(rooms.values())
    fleet.look(900)
    assert fleet.replayed().same


def test_limits_that_are_edited_while_it_runs_hold_from_then_on_and_the_book_stays(
    rig: Rig,
) -> None:
    fleet = _begun(rig, 20)
    out = fleet.ask()
    fleet.end(out[:2], "reverted", "boot.no_return")
    fleet.look(60)
    assert fleet.row["state"] == "active"
    before = _kept(fleet).book.rows[0][:5]
    strict = [{"type": "evidence", "preset": "emergency", "odds": 3}]
    fleet.operations.edit(NAME, {**POLICY, "guards": strict}, BOSS, "be careful", fleet.now)
    fleet.look(60)
    assert _kept(fleet).book.rows[0][:5] == before
    assert fleet.row["state"] == "halted", "two failures of four are more than 3 : 1"
    assert fleet.replayed().same


def test_soak_gates_that_devices_have_passed_stay_when_the_preset_is_edited(rig: Rig) -> None:
    fleet = _begun(rig, 12)
    fleet.end(fleet.ask())
    for _ in range(6):
        fleet.heard()
        fleet.look(900)
    careful = [{"type": "evidence", "preset": "careful", "odds": 500}]
    fleet.operations.edit(NAME, {**POLICY, "guards": careful}, BOSS, "slower", fleet.now)
    fleet.look(60)
    fleet.look(900)
    kept = _kept(fleet)
    assert kept.harm.odds == 500
    assert fleet.row["state"] == "active"
    assert fleet.replayed().same


def test_whoever_takes_over_at_any_step_knows_the_same_and_decides_the_same(rig: Rig) -> None:
    fleet = _begun(rig, 24)
    services, random = rig.app.services, Random(5)
    for _ in range(16):
        fleet.heard(one for one in fleet.rows if random.random() < 0.9)
        out = fleet.ask(random.sample(list(fleet.rows), 8))
        fleet.rig.now += 300
        fleet.end([one for one in out if random.random() < 0.7])
        fleet.end(
            [one for one in out if not _ended(fleet, one) and random.random() < 0.1],
            "reverted",
            "health.boot",
        )
        fleet.look(60)
        here = _kept(fleet)
        there = Keeper(services.fleet)
        there.prepare(services.store, fleet.id, fleet.now)
        again = there._kept[fleet.id]
        rollout_id, position = fleet.id, again.position
        news = rig.read(lambda conn, r=rollout_id, p=position: gate_rows.happenings(conn, r, p))
        again.feed(news, there._introduce)
        assert again.book.digest() == here.book.digest()
        assert again.decision == here.decision
        if random.random() < 0.5:
            keeper_of(services)._kept[fleet.id] = again
        fleet.look(540)
        if fleet.row["state"] != "active":
            break
    assert fleet.replayed().same


def _ended(fleet: LightFleet, row: int) -> bool:
    rollout_id = fleet.id
    found = fleet.rig.read(
        lambda conn: admin_rollouts.updates_in(conn, rollout_id, {"confirmed", "reverted"})
    )
    return any(one["device_row"] == row for one in found)
