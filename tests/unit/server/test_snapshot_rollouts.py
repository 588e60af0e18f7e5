"""A snapshot rollout means whom it meant when it was made: newcomers are out, leavers stay counted as gone, and what members become changes nothing."""

from typing import Any

import pytest
from sqlalchemy import func, select
from tests.unit.server.rig import Device, Rig
from tests.unit.server.test_identity import set_state
from tests.unit.server.test_rollouts_admin import OLGA, ONE_RING, Desk

from tidegate.core.errors import TidegateError
from tidegate.server import fixed, inquiry, why
from tidegate.server.facts import Why
from tidegate.server.store import Connection, admin_devices, changes, tables

NAME = "gw1-1.1.0"
BY_SITE: dict[str, Any] = {
    **ONE_RING,
    "ring": [{"name": "north", "audience": "site = north", "soak": "1h"}, {"name": "rest"}],
}


@pytest.fixture
def desk(rig: Rig) -> Desk:
    rig.publish_trust()
    rig.release(1)
    return Desk(rig)


def move(rig: Rig, site: str, device_id: str) -> None:
    """Give a device another site, as an operator's list would."""

    def work(conn: Connection) -> None:
        row = tables.device.c
        conn.execute(tables.device.update().where(row.id == device_id).values(site=site))
        found = admin_devices.device(conn, device_id)
        assert found is not None
        changes.notify(conn, "device", str(found["row"]))

    rig.write(work)


def action(device: Device) -> str:
    """Return what a device is told, by its poll and by its question, which must not differ."""
    work, told = device.poll().work, device.assignment().action
    assert work is (told != "none")
    return told


def told(desk: Desk, device_id: str) -> Why:
    found: Why = desk.rig.read(lambda conn: why.tell(conn, device_id, desk.now))
    return found


def test_a_newcomer_is_left_out_and_told_that_it_joined_later(desk: Desk) -> None:
    before = desk.rig.device("before")
    desk.create(dynamic=False)
    after = desk.rig.device("after")
    assert action(before) == "install"
    assert action(after) == "none"
    said = told(desk, "after")
    stopped = next(one for one in said.checks if not one.ok)
    assert (stopped.code, "it joined after the snapshot of " in stopped.text) == (
        "ring.snapshot",
        True,
    )
    assert "whom gw1-1.1.0 means" in said.verdict


def test_a_dynamic_rollout_takes_newcomers(desk: Desk) -> None:
    desk.create()
    assert action(desk.rig.device("after")) == "install"
    assert desk.row()["fixed"] is None


def test_who_was_outside_stays_outside_and_who_was_meant_stays_meant(desk: Desk) -> None:
    for name, site in (("in", "north"), ("out", "south")):
        desk.rig.device(name)
        move(desk.rig, site, name)
    desk.create(dynamic=False, audience="site = north")
    move(desk.rig, "south", "in")
    move(desk.rig, "north", "out")
    devices = {name: desk.rig.device(name, join=False) for name in ("in", "out")}
    for device in devices.values():
        device.log_in()
    assert action(devices["in"]) == "install"
    assert action(devices["out"]) == "none"
    assert "it was not in the snapshot of" in told(desk, "out").verdict


def test_a_members_ring_is_fixed_too(desk: Desk) -> None:
    desk.rig.device("d1")
    move(desk.rig, "north", "d1")
    desk.create(**{**BY_SITE, "dynamic": False})
    move(desk.rig, "south", "d1")
    device = desk.rig.device("d1", join=False)
    device.log_in()
    assert device.assignment().ring == "north"


def test_who_leaves_stays_counted_as_gone(desk: Desk) -> None:
    for number in range(3):
        desk.rig.device(f"d{number}")
    desk.create(dynamic=False)
    set_state(desk.rig, "decommissioned", "d1")

    def facts() -> fixed.FixedFacts | None:
        found = desk.rig.read(lambda conn: inquiry.rollout(conn, NAME, desk.now)).snapshot
        assert found is None or isinstance(found, fixed.FixedFacts)
        return found

    assert facts() == fixed.FixedFacts(fixed_at=desk.now, devices=3, gone=1)
    count = desk.operations.audiences.count
    known = desk.rig.read(lambda conn: inquiry.evidence(conn, NAME, count, desk.now))
    assert sum(one.audience for one in known.tallies) == 2  # nobody waits for who is gone


def test_it_means_the_same_after_a_restart_and_without_what_was_remembered(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = desk.rig.device("before")
    desk.create(dynamic=False)
    after = desk.rig.device("after")
    monkeypatch.setattr(fixed, "_known", {})
    desk.rig.restart()
    for device, expected in ((before, "install"), (after, "none")):
        device.log_in()
        assert action(device) == expected


def test_a_member_that_was_away_is_served_after_completion_and_a_newcomer_is_not(
    desk: Desk,
) -> None:
    there, away = desk.rig.device("there"), desk.rig.device("away")
    desk.create(dynamic=False)
    there.run(there.assignment())
    desk.rig.set_rollout(1, state="completed")
    assert action(desk.rig.device("new")) == "none"
    assert action(away) == "install"


def test_whom_it_means_cannot_be_edited_and_the_rest_of_its_policy_can(desk: Desk) -> None:
    desk.rig.device("d1")
    desk.create(dynamic=False)

    def edit(**changed: Any) -> None:
        policy = {**ONE_RING, "dynamic": False, "release": NAME, **changed}
        desk.operations.edit(NAME, policy, OLGA, "because", desk.now)

    for changed in (
        {"audience": "site = north"},
        {"ring": [{"name": "all", "audience": "site = north"}]},
        {"dynamic": True},
    ):
        with pytest.raises(TidegateError, match="fixed when it was made") as caught:
            edit(**changed)
        assert caught.value.code == "request.conflict"
    edit(ring=[{"name": "all", "soak": "9h"}])
    assert desk.row()["policy"]["rings"][0]["gates"]


def test_a_dynamic_rollout_does_not_become_a_snapshot(desk: Desk) -> None:
    desk.rig.device()
    desk.create()
    policy = {**ONE_RING, "dynamic": False, "release": NAME}
    with pytest.raises(TidegateError, match="make another one"):
        desk.operations.edit(NAME, policy, OLGA, "because", desk.now)


def test_making_it_again_changes_nothing_and_two_of_one_audience_share_a_row(desk: Desk) -> None:
    for number in range(4):
        desk.rig.device(f"d{number}")
    desk.create(dynamic=False)
    assert desk.create(dynamic=False).already
    desk.rig.release(2)
    desk.create("gw1-1.2.0", dynamic=False)
    kept = select(func.count()).select_from(tables.audience_tables.fixed_audience)
    assert desk.rig.read(lambda conn: conn.execute(kept).scalar_one()) == 1


def test_a_damaged_audience_admits_nobody(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.rig.device("d1")
    desk.create(dynamic=False)
    kept = tables.audience_tables.fixed_audience
    desk.rig.write(lambda conn: conn.execute(kept.update().values(rings=b"not zlib")))
    monkeypatch.setattr(fixed, "_known", {})
    digest = desk.row()["fixed"]
    with pytest.raises(TidegateError, match="is not readable"):
        desk.rig.read(lambda conn: fixed.load(conn, digest))


def test_a_conflict_with_a_snapshot_counts_only_whom_it_means(desk: Desk) -> None:
    desk.rig.device("before")
    desk.create(dynamic=False, audience="site = north")
    desk.rig.device("after")
    desk.rig.release(2)
    data = {**ONE_RING, "release": "gw1-1.2.0"}
    found = desk.operations.preview(data, OLGA, desk.now)
    assert found.offered == 2
    assert [(one.rollout, one.devices) for one in found.conflicts] == [(NAME, 1)]
