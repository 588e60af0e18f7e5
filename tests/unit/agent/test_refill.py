"""A loader that counts the confirmed slot as well: it keeps its slot over any number of healthy starts, and loses it to a few that were none."""

from random import Random

import pytest
from tests.crash.lab import Device, Order, make_device

from tidegate.agent.boot.refill import AGAIN_S, WELL_AFTER_S, Refill
from tidegate.agent.state import Reverting, State
from tidegate.core.errors import DeviceError
from tidegate.sim.board import SimBootloader
from tidegate.sim.disk import Power

FULL = 3


class CountingLoader(SimBootloader):
    """The simulator's boot loader, which also counts the primary down and goes to the other slot when its tries are spent."""

    left = FULL
    fails = False
    commits = 0

    def counted_down(self) -> bool:
        """Say whether the running slot was counted."""
        if self.fails:
            raise DeviceError("activate.bootloader", "the environment is damaged")
        return self.kept.trial is None and self.running == self.kept.primary and self.left < FULL

    def commit(self, slot: str) -> None:
        """Fill the tries up."""
        super().commit(slot)
        self.left = FULL
        self.commits += 1

    def choose(self) -> str:
        """Spend a try of whatever is booted."""
        chosen = super().choose()
        if chosen != self.kept.primary or self.kept.trial is not None:
            return chosen
        if self.left == 0:
            return "B" if chosen == "A" else "A"
        self.left -= 1
        return chosen


@pytest.fixture
def device() -> Device:
    """A device with the second image in slot B, whose loader counts everything."""
    made = make_device(1, 2)
    made.board.loader = made.board.bootloader = CountingLoader(made.board.power, Random(1))
    made.board.load(made.plane.releases[1].image, "B")
    return made


def _loader_of(device: Device) -> CountingLoader:
    loader = device.board.loader
    assert isinstance(loader, CountingLoader)
    return loader


def _start(device: Device, lives_s: float) -> str:
    device.runner = None
    for _ in device.run(lives_s):
        pass
    return device.board.loader.running


def test_a_confirmed_slot_keeps_its_tries_over_many_healthy_starts(device: Device) -> None:
    assert [_start(device, 2 * WELL_AFTER_S) for _ in range(12)] == ["A"] * 12
    assert _loader_of(device).commits == 12


def test_a_confirmed_slot_that_does_not_stay_up_is_left(device: Device) -> None:
    assert [_start(device, WELL_AFTER_S / 4) for _ in range(FULL + 1)] == ["A"] * FULL + ["B"]
    assert _loader_of(device).commits == 0


def test_an_update_goes_its_way_under_a_loader_that_counts_everything(device: Device) -> None:
    device.plane.publish()
    device.plane.order = Order("install", device.plane.releases[1], "u-1")
    device.settle()
    assert [kind for kind, _ in device.plane.outcomes()] == ["confirmed"]
    assert [_start(device, 2 * WELL_AFTER_S) for _ in range(6)] == ["B"] * 6


def test_nothing_is_written_where_nothing_was_counted() -> None:
    loader = _loader()
    loader.left = FULL
    refill = Refill(loader)
    assert refill.give(State(), 0.0) == ""
    assert refill.wait_s(State(), 0.0) == float("inf")
    assert refill.give(State(), 1e6) == ""
    assert loader.commits == 0
    assert Refill(SimBootloader(Power(Random(1)), Random(1))).wait_s(State(), 1e6) == float("inf")


def test_never_while_a_slot_is_on_trial() -> None:
    loader = _loader()
    refill = Refill(loader)
    going_back = State(phase=Reverting(slot="B", reason="boot.no_return"))
    assert refill.wait_s(going_back, 1e6) == float("inf")
    assert refill.give(going_back, 1e6) == ""
    loader.arm_trial("B", 3)
    assert refill.give(State(), 1e6) == ""
    assert (loader.left, loader.kept.trial) == (1, "B")


def test_a_record_that_cannot_be_read_is_told_and_tried_again_later() -> None:
    loader = _loader()
    refill = Refill(loader)
    loader.fails = True
    assert "damaged" in refill.give(State(), WELL_AFTER_S)
    assert refill.wait_s(State(), WELL_AFTER_S) == AGAIN_S
    loader.fails = False
    assert refill.give(State(), WELL_AFTER_S) == ""
    assert loader.left == 1, "not before its time"
    assert refill.give(State(), WELL_AFTER_S + AGAIN_S) == ""
    assert loader.left == FULL
    assert refill.wait_s(State(), 1e6) == float("inf")


def _loader() -> CountingLoader:
    loader = CountingLoader(Power(Random(1)), Random(1))
    loader.left = 1
    return loader
