"""Real agents of two tenants at one server: what is done to one tenant is not done to the other."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.test_agents_and_server import POLICY, World
from tests.unit.server.house import House, Tenant

from tidegate.server import telemetry
from tidegate.sim.report import device_truth

pytestmark = pytest.mark.e2e
SIZE = 6


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "data")
    yield made
    made.close()


def _counters(world: World) -> list[int]:
    return sorted(device_truth(one).counter for one in world.fleet.devices)


class Fleets:
    """The boards of two tenants on one clock."""

    def __init__(self, house: House, folder: Path) -> None:
        self.house = house
        self.acme, self.rival = house.add("acme"), house.add("rival")
        first = World(self.acme, folder / "acme", SIZE)
        self.worlds = first, World(self.rival, folder / "rival", SIZE, first.time)

    def run(self, hours: float) -> None:
        time = self.worlds[0].time
        for _ in range(int(hours * 60)):
            until = time.at() + 60
            for world in self.worlds:
                world.scheduler.run_until(until)
            for tenant in (self.acme, self.rival):
                cell = self.house.cells.of_name(tenant.name)
                if cell is not None and cell.app is not None:
                    now = int(tenant.now)
                    tenant.write(lambda conn, now=now: telemetry.sweep_lost(conn, now))


def test_a_halt_or_a_suspension_of_one_tenant_leaves_the_boards_of_the_other(
    house: House, tmp_path: Path
) -> None:
    fleets = Fleets(house, tmp_path)
    acme, rival = fleets.acme, fleets.rival
    fleets.run(0.5)
    first, second = (one.rig.rollout(one.release(2), policy=POLICY) for one in fleets.worlds)
    halted = acme.call("POST", "rollouts/r-gw1-1.2.0/halt", {"reason": "smoke"})
    assert halted.status == 200, halted.body
    fleets.run(2)
    assert [_counters(one) for one in fleets.worlds] == [[1] * SIZE, [2] * SIZE]
    assert acme.tallies(first).get("exposed", 0) == 0
    found = rival.tallies(second)
    assert (found["exposed"], found["confirmed"]) == (SIZE, SIZE)

    assert house.manage("POST", "rival/suspend").status == 200
    house.settle()
    acme.rollout(fleets.worlds[0].release(3), policy=POLICY)
    fleets.run(2)
    assert [_counters(one) for one in fleets.worlds] == [[3] * SIZE, [2] * SIZE]

    assert house.manage("POST", "rival/resume").status == 200
    house.settle()
    rival.rollout(fleets.worlds[1].release(3), policy=POLICY)
    fleets.run(3)
    assert [_counters(one) for one in fleets.worlds] == [[3] * SIZE] * 2


def test_boards_of_one_tenant_cannot_be_had_by_another(house: House, tmp_path: Path) -> None:
    fleets = Fleets(house, tmp_path)
    fleets.run(0.5)
    names = {tenant.name: _devices(tenant) for tenant in (fleets.acme, fleets.rival)}
    assert names["acme"] == names["rival"], "the same boards by name, and each its own"
    for board in fleets.worlds[0].fleet.devices:
        # a board that is sent to the wrong host, say by a record of names that was changed
        board.link.wire = fleets.worlds[1].fleet.devices[0].link.wire
    before = _devices(fleets.rival)
    fleets.worlds[1].rig.rollout(fleets.worlds[1].release(2), policy=POLICY)
    fleets.run(2)
    assert [_counters(one) for one in fleets.worlds] == [[1] * SIZE, [2] * SIZE]
    assert _devices(fleets.rival) == before


def _devices(tenant: Tenant) -> list[str]:
    from tidegate.server.store import device_queries

    found = tenant.read(lambda conn: device_queries.matching(conn, ""))
    return sorted(str(row.id) for row in found)
