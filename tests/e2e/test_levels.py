"""How much a rollout asks of a device, level by level: the real agent under the real server, on a virtual clock."""

import datetime as dt
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.test_agents_and_server import World
from tests.unit.server.rig import Rig
from tests.unit.server.test_rollouts_admin import OLGA

from tidegate.agent.verbs import VERBS, Request
from tidegate.core.errors import TidegateError
from tidegate.server import inquiry, why
from tidegate.server.drafts import draft_of
from tidegate.server.operations import Operations
from tidegate.server.tick import tick
from tidegate.sim.report import device_truth

pytestmark = pytest.mark.e2e
SIZE = 4
NAME = "gw1-1.2.0"


class Levels(World):
    """A fleet of four, and an operator."""

    def __init__(self, rig: Rig, folder: Path) -> None:
        super().__init__(rig, folder, SIZE)
        self.operations = Operations(rig.app.services)
        self.run(0.5)

    def roll_out(self, *, kind: str = "feature", **more: Any) -> None:
        self.release(2, kind)
        asked = {
            "preset": "lab", "guards": [], "ring": [{"name": "all"}], "release": NAME, **more,
        }  # fmt: skip
        self.operations.create(asked, OLGA, "because", int(self.rig.now))

    def run(self, hours: float) -> None:
        for _ in range(int(hours * 12)):
            super().run(1 / 12)
            assert tick(self.rig.app.services, int(self.rig.now)).leader

    def say(self, number: int, verb: str) -> None:
        """Have a person on a device say something."""
        runner = self.fleet.devices[number].runner
        assert runner is not None
        VERBS[verb](runner, Request(verb=verb))

    def told(self, number: int) -> str:
        device_id = self.fleet.devices[number].plan.device_id
        rig = self.rig
        found = rig.read(lambda conn: why.tell(conn, device_id, int(rig.now)))
        return str(found.verdict)

    def counters(self) -> list[int]:
        return [device_truth(one).counter for one in self.fleet.devices]

    def tally(self, name: str) -> int:
        return self.rig.tallies(1).get(name, 0)

    def level(self) -> str:
        return str(self.rig.read(lambda conn: inquiry.rollout(conn, NAME, int(self.rig.now))).level)

    def closed(self) -> dict[str, Any]:
        """Return a window that opens in three days only."""
        day = dt.datetime.fromtimestamp(self.rig.now, dt.UTC) + dt.timedelta(days=3)
        return {"activate": [f"{day:%a} 02:00-05:00"], "zone": "UTC"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Levels]:
    rig = Rig(tmp_path / "data")
    yield Levels(rig, tmp_path / "lab")
    rig.close()


def test_what_is_offered_waits_for_its_owner_who_takes_it_or_does_not(world: Levels) -> None:
    world.roll_out(delivery={"level": "offered"})
    world.run(2)
    assert (world.level(), world.tally("staged")) == ("offered", SIZE)
    assert (world.tally("exposed"), world.counters()) == (0, [1] * SIZE)
    assert "its owner decides when it activates" in world.told(0)
    world.say(0, "apply-now")
    world.say(1, "revert")
    world.run(2)
    assert world.counters() == [2, 1, 1, 1]
    assert (world.tally("confirmed"), world.tally("declined")) == (1, 1)
    assert "user.declined" in world.told(1)


def test_who_declined_is_asked_again_as_often_as_the_retry_policy_says(world: Levels) -> None:
    world.roll_out(delivery={"level": "offered"}, retry={"user.declined": 2, "backoff": "10m"})
    world.run(1)
    world.say(0, "revert")
    world.run(1)
    assert (world.tally("retried"), world.tally("staged")) == (1, SIZE)
    assert "its owner decides when it activates" in world.told(0)
    world.say(0, "apply-now")
    world.run(1)
    assert world.counters() == [2, 1, 1, 1]
    world.say(1, "revert")
    world.run(1)
    world.say(1, "revert")
    world.run(1)
    assert "no further attempt: 2 of 2 made" in world.told(1)
    assert (world.tally("declined"), world.counters()) == (1, [2, 1, 1, 1])


def test_what_is_required_activates_by_itself(world: Levels) -> None:
    world.roll_out(delivery={"level": "required"})
    world.run(2)
    assert (world.level(), world.counters()) == ("required", [2] * SIZE)


@pytest.mark.parametrize(("kind", "after"), [("security", 2), ("feature", 1)])
def test_past_its_date_a_security_release_waits_for_no_window(
    world: Levels, kind: str, after: int
) -> None:
    date = int(world.rig.now) + 2 * 3600
    windows = world.closed()
    dated = {"level": "required-by", "deadline": date}
    world.roll_out(kind=kind, windows=windows, delivery=dated)
    world.run(1.5)
    assert (world.level(), world.counters()) == ("required-by", [1] * SIZE)
    assert "it waits for its window" in world.told(0)
    world.run(1.5)
    assert world.counters() == [after] * SIZE


def test_what_is_fetched_ahead_is_activated_ring_by_ring_once_it_is_let_go(world: Levels) -> None:
    first = world.fleet.devices[0].plan.device_id
    rings = [
        {"name": "first", "audience": f"id = {first}", "soak": "3h"},
        {"name": "rest", "audience": "rest"},
    ]
    world.roll_out(ring=rings, delivery={"level": "prefetch"})
    world.run(2)
    # Everybody has it, whatever ring it is in, and nobody may activate it, not by hand either.
    assert (world.level(), world.tally("staged"), world.tally("exposed")) == ("prefetch", SIZE, 0)
    assert "activation is held until a person lets it go" in world.told(0)
    world.say(0, "apply-now")
    world.run(1)
    assert world.counters() == [1] * SIZE
    done = world.operations.act(NAME, "activate", OLGA, "all have it", int(world.rig.now))
    assert (done.reach, "activation let go" in done.text) == (SIZE, True)
    world.run(1)
    assert world.counters() == [2, 1, 1, 1]
    assert "ring rest, which is waiting" in world.told(1)
    world.run(1.5)  # the soak counts from here on, not from the first download
    assert world.counters() == [2, 1, 1, 1]
    world.run(3)
    assert world.counters() == [2] * SIZE
    assert world.operations.act(NAME, "activate", OLGA, "", int(world.rig.now)).already


@pytest.mark.parametrize(
    "delivery",
    [
        {"level": "offered", "activate": "immediate"},
        {"level": "required", "activate": "manual"},
        {"level": "required", "deadline": "2099-01-01T00:00:00Z"},
        {"level": "required-by"},
        {"level": "prefetch", "activate": "manual"},
        {"level": "requierd"},
    ],
)
def test_what_contradicts_a_level_is_refused(delivery: dict[str, str]) -> None:
    with pytest.raises(TidegateError, match=r"delivery\.level") as caught:
        draft_of(
            {"preset": "lab", "ring": [{"name": "all"}], "release": NAME, "delivery": delivery}
        )
    assert caught.value.code == "request.invalid"
