"""One device or two, with real agents on simulated boards: days of bad luck make no clone, and a copied board is found."""

import copy
import itertools
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from tests.e2e.test_agents_and_server import MODES, POLICY, World
from tests.unit.server.rig import Rig

from tidegate.server import identity
from tidegate.server.store import admin_devices, device_queries
from tidegate.sim.device import SimDevice
from tidegate.sim.faults import Behaviour, Cut, LinkFaults
from tidegate.sim.link import AsgiWire

pytestmark = pytest.mark.e2e


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    rig = Rig(tmp_path / "data")
    yield World(rig, tmp_path / "lab", 8)
    rig.close()


def rows(world: World) -> list[Any]:
    names = [one.plan.device_id for one in world.fleet.devices]
    return [
        world.rig.read(lambda conn, name=name: device_queries.by_id(conn, name)) for name in names
    ]


def clone_events(world: World) -> int:
    return sum(
        event["reason"] == "security.clone"
        for row in rows(world)
        for event in world.rig.read(lambda conn, row=row: admin_devices.events_of(conn, row.row))
    )


def test_days_of_cuts_reboots_lost_answers_and_restarts_make_no_clone(world: World) -> None:
    """Two updates, one of which reverts, with the power failing at durable operations, a link that loses answers, and a server that restarts."""
    rig, chance = world.rig, Random(7)
    for device in world.fleet.devices[:4]:
        device.link.faults = LinkFaults(loss_ratio=0.15, cut_ratio=0.05)
    world.run(0.5)
    rig.rollout(world.release(2), policy=POLICY)
    cuts = itertools.count(1)
    for round_ in range(8):
        for device in world.fleet.devices:
            if chance.random() < 0.6:
                device.board.power.arm(Cut(next(cuts) % 9 + 1, MODES[round_ % 3]))
            elif chance.random() < 0.5:
                device.restart()
        world.run(1)
        if round_ == 3:
            bad_variant = world.fleet.devices[0].plan.variant
            world.truth.behaviours[(3, bad_variant)] = Behaviour(service=False)
            rig.rollout(world.release(3), policy=POLICY)
        if round_ % 3 == 2:
            rig.restart()
            for device in world.fleet.devices:
                device.link.wire = AsgiWire(rig.app, rig.loop)
    world.run(26)  # and every session ends once and is renewed
    assert {row.state for row in rows(world)} == {"accepted"}
    assert all(identity.trail_of(row).hints == () for row in rows(world))
    assert clone_events(world) == 0
    assert min(len(identity.trail_of(row).visits) for row in rows(world)) >= 3


def test_a_copied_board_is_found_within_the_hour_and_the_right_one_comes_back(world: World) -> None:
    rig = world.rig
    world.run(1)
    right = world.fleet.devices[0]
    copied = copied_board(world, right)
    world.scheduler.add(world.time.at() + 1, copied.wake)
    world.run(1)
    states = {row.id: row.state for row in rows(world)}
    assert states.pop(right.plan.device_id) == "quarantined"
    assert set(states.values()) == {"accepted"}
    assert clone_events(world) == 1
    # both go on reporting, and neither gets anything
    before = rows(world)[0].acked_seq
    rig.rollout(world.release(2), policy=POLICY)
    world.run(2)
    assert rows(world)[0].acked_seq > before
    updated = {row.id for row in rows(world) if row.running_counter == 2}
    assert updated == set(states)
    # a person gives the right one a new key
    from tidegate.agent.trust import enrol

    ports: Any = right.runner.ports if right.runner is not None else None
    made = enrol.rekey(ports, right.settings)
    assert made.state == "pending"

    def approve(conn: Any) -> None:
        found = admin_devices.device(conn, right.plan.device_id)
        assert found is not None
        identity.promise_key(conn, found, made.fingerprint[:16], "ada", int(rig.now))

    rig.write(approve)
    assert enrol.rekey(ports, right.settings).state == "done"
    world.run(3)
    assert rows(world)[0].state == "accepted"
    assert rows(world)[0].running_counter == 2
    assert right.board.behaviour() is not None
    assert copied.runner is not None
    assert "sig." in copied.runner.problem


def copied_board(world: World, right: SimDevice) -> SimDevice:
    """Return a second board with all that is on the first one's disk: what a copied image, or a thief of a board, has."""
    made = copy.copy(right)
    twin = SimDevice(
        right.plan,
        world.factory,
        timeline=world.time,
        wire=AsgiWire(world.rig.app, world.rig.loop),
        catalogue=world.catalogue,
        truth=world.truth,
    )
    twin.board.storage.files.update(made.board.storage.files)
    twin.clock._random = Random("another board")
    return twin


def test_a_machine_that_is_restored_from_a_copy_of_its_disk_is_no_clone(world: World) -> None:
    world.run(1)
    device = world.fleet.devices[0]
    for _ in range(3):  # as often as it likes
        kept = dict(device.board.storage.files)
        world.run(3)
        device.restart()
        world.run(3)
        device.board.storage.files.clear()
        device.board.storage.files.update(kept)
        device.restart()
        world.run(1)
    row = rows(world)[0]
    assert row.state == "accepted"
    assert identity.trail_of(row).hints == ()
