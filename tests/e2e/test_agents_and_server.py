"""The real agent against the real server, in one process on a virtual clock: what the server counts is what is true of the boards."""

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.server.rig import Rig

from tidegate.core.hardware import HardwareRange
from tidegate.core.release import HealthCheck, HealthContract, ReleaseTarget
from tidegate.publisher.bundle import build
from tidegate.publisher.lab import Lab, make_lab
from tidegate.publisher.manifest import ComponentSpec, ReleaseSpec
from tidegate.publisher.sign import sign_bundle
from tidegate.rollout.model import Deadlines, Policy, RingSpec
from tidegate.server import devices, releases, telemetry
from tidegate.server.actors import Actor
from tidegate.server.store import device_queries, hot
from tidegate.sim.board import Catalogue, Image
from tidegate.sim.clock import VirtualTimeline
from tidegate.sim.device import Factory, SimDevice
from tidegate.sim.faults import Behaviour, Cut, CutMode, Truth
from tidegate.sim.link import AsgiWire
from tidegate.sim.population import PopulationSpec, populate
from tidegate.sim.report import device_truth, outcomes
from tidegate.sim.scheduler import Fleet, Scheduler

pytestmark = pytest.mark.e2e

SENDER = Actor(name="t", role="admin")
SOURCE = b"".join(path.read_bytes() for path in sorted(Path(hashlib.__file__).parent.glob("h*.py")))
CONTRACT = HealthContract(
    warmup_s=60,
    timeout_s=600,
    interval_s=10,
    checks=(
        HealthCheck(name="boot", kind="boot", settings={}),
        HealthCheck(name="app", kind="services", settings={}),
    ),
)


class _Time(VirtualTimeline):
    """Moves the server's clock with its own."""

    def __init__(self, rig: Rig) -> None:
        super().__init__(rig.now)
        self._rig = rig

    def wait_until(self, at: float) -> None:
        super().wait_until(at)
        self._rig.now = self.wall()


class World:
    """A server, its trust, its releases, and a fleet of devices that leave the factory with release 1."""

    def __init__(
        self, rig: Rig, folder: Path, size: int, time: VirtualTimeline | None = None
    ) -> None:
        self.rig = rig
        self.time = time or _Time(rig)
        online = {
            role: getattr(rig.app.services.keys, role).public
            for role in ("snapshot", "timestamp", "director", "audit")
        }
        self.lab: Lab = make_lab(folder, online, ["gw1"], now=int(rig.now))
        self.accept(self.lab.trust.read_bytes())
        self.catalogue, self.truth = Catalogue(), Truth()
        first = self.release(1)
        rig.claim("factory", count=1000)
        self.factory = factory = Factory(
            anchor=self.lab.root.read_bytes(),
            image=self.image(1),
            installed=Image(1, "1.1.0", first.install.sha256, first.install.size),
            product="gw1",
            claim="factory",
            slot_size=1 << 20,
        )
        plans = populate(PopulationSpec(size=size, product="gw1", daily=0.0, weekly=0.0), 1)
        wire = AsgiWire(rig.door, rig.loop)
        made = [
            SimDevice(
                plan,
                factory,
                timeline=self.time,
                wire=wire,
                catalogue=self.catalogue,
                truth=self.truth,
            )
            for plan in plans
        ]
        self.scheduler = Scheduler(self.time)
        self.fleet = Fleet(self.scheduler, made)

    def image(self, counter: int) -> bytes:
        return (SOURCE * 4)[:200_000] + f"release {counter}".encode() * 50

    def accept(self, body: bytes) -> None:
        releases.accept_bundle(
            self.rig.app.services, io.BytesIO(body), actor=SENDER, now=int(self.rig.now)
        )

    def release(self, counter: int, kind: str = "feature") -> ReleaseTarget:
        image = self.lab.folder / f"image-{counter}"
        image.write_bytes(self.image(counter))
        repository = self.rig.app.services.repository
        version = repository.versions.get("product/gw1", (0, 0))[0]
        made = build(
            ReleaseSpec(
                product="gw1", version=f"1.{counter}.0", counter=counter, security_version=1,
                kind=kind, channels=("stable",), hardware=(HardwareRange("gw1", 0, 9),),
                components=(ComponentSpec(name="rootfs", format="raw_image", source=image, size=0),),
                health=CONTRACT, notes="", source="", min_agent=None, from_counters=(), requires=(),
                fallback_s=30 * 86_400, expires_s=300 * 86_400,
            ),
            self.lab.folder,
            previous=repository.file(f"{version}.product/gw1.json"),
            now=int(self.rig.now),
            level=1,
        )  # fmt: skip
        sign_bundle(made.bundle, self.lab.signer("product"))
        self.accept(made.bundle.read_bytes())
        target = made.targets[0].release
        self.catalogue.add(
            Image(counter, target.version, target.install.sha256, target.install.size)
        )
        return target

    def run(self, hours: float) -> None:
        for _ in range(int(hours * 12)):
            self.scheduler.run_until(self.time.at() + 300)
            self.rig.write(lambda conn: telemetry.sweep_lost(conn, int(self.rig.now)))


MODES: tuple[CutMode, ...] = ("before", "torn", "after")
POLICY = Policy(rings=(RingSpec(name="fleet"),), deadlines=Deadlines(return_s=3600, confirm_s=7200))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    rig = Rig(tmp_path / "data")
    yield World(rig, tmp_path / "lab", 10)
    rig.close()


def test_a_good_release_reaches_every_board_and_a_bad_one_is_counted_as_it_is(world: World) -> None:
    rig = world.rig
    world.run(0.5)
    good = rig.rollout(world.release(2), policy=POLICY)
    world.run(2)
    truths = [device_truth(one) for one in world.fleet.devices]
    assert {one.counter for one in truths} == {2}
    found = rig.tallies(good)
    assert (found["exposed"], found["confirmed"]) == (10, 10)
    variants = {one.variant for one in truths}
    bad_variant = max(variants)
    world.truth.behaviours[(3, bad_variant)] = Behaviour(service=False)
    bad = rig.rollout(world.release(3), policy=POLICY)
    world.run(3)
    truths = [device_truth(one) for one in world.fleet.devices]
    true = outcomes(truths, 3)
    found = rig.tallies(bad)
    assert true.reverted == sum(one.variant == bad_variant for one in truths)
    assert (found["exposed"], found["confirmed"], found["reverted"]) == (
        true.tried,
        true.confirmed,
        true.reverted,
    )
    assert found["reason:health.service"] == true.reverted
    believed = rig.read(
        lambda conn: {
            one.plan.device_id: row.running_counter
            for one in world.fleet.devices
            if (row := device_queries.by_id(conn, one.plan.device_id)) is not None
        }
    )
    assert believed == {one.device_id: one.counter for one in truths}


def test_power_cuts_and_a_restart_of_the_server_change_no_count(world: World) -> None:
    rig = world.rig
    world.run(0.5)
    rollout = rig.rollout(world.release(2), policy=POLICY)
    for number, device in enumerate(world.fleet.devices):
        device.board.power.arm(Cut(2 + 3 * number, MODES[number % 3]))
    world.run(0.25)
    rig.restart()
    for device in world.fleet.devices:
        device.link.wire = AsgiWire(rig.door, rig.loop)
    world.run(3)
    truths = [device_truth(one) for one in world.fleet.devices]
    assert {one.counter for one in truths} == {2}
    assert sum(bool(one.cuts) for one in truths) >= 5
    found = rig.tallies(rollout)
    assert (found["exposed"], found["confirmed"]) == (10, 10)


def test_an_ordered_way_back_is_gone_by_every_board(world: World) -> None:
    rig = world.rig
    world.run(0.5)
    target = world.release(2)
    bad = rig.rollout(target, policy=POLICY)
    world.run(2)
    assert rig.tallies(bad)["confirmed"] == 10
    rig.set_rollout(bad, state="falling_back")
    first = _target_of(rig, 1)
    back = rig.rollout(first, name="back", kind="fallback", parent=bad, policy=POLICY)
    world.run(2)
    assert {device_truth(one).counter for one in world.fleet.devices} == {1}
    assert rig.tallies(back)["confirmed"] == 10


def test_a_revoked_device_is_left_alone(world: World) -> None:
    rig = world.rig
    world.run(0.5)
    first = world.fleet.devices[0].plan.device_id
    row = rig.read(lambda conn: device_queries.by_id(conn, first)).row
    rig.write(lambda conn: devices.set_state(conn, row, "revoked", int(rig.now)))
    rig.rollout(world.release(2), policy=POLICY)
    world.run(2)
    counters = {one.plan.device_id: device_truth(one).counter for one in world.fleet.devices}
    assert counters.pop(first) == 1
    assert set(counters.values()) == {2}
    assert rig.read(lambda conn: hot.updates_of(conn, row)) == []


def _target_of(rig: Rig, counter: int) -> ReleaseTarget:
    from tidegate.server import snapshot
    from tidegate.server.store import release_queries

    def find(conn: object) -> ReleaseTarget:
        release = release_queries.release_by_counter(conn, "gw1", counter)  # type: ignore[arg-type]
        assert release is not None
        return snapshot.targets_of(conn, release.id)[0][3]  # type: ignore[arg-type]

    found: ReleaseTarget = rig.read(find)
    return found
