"""The power goes away at every durable operation of an update: singly at each one, then in pairs, before it, in the middle of it, and just after.

Wherever it goes, the device ends on a whole, signed image, the outcome is told exactly once, and no counter ever goes back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

import pytest
from tests.crash.lab import Device, Order, make_device

from tidegate.agent.state import (
    Idle,
    State,
)
from tidegate.sim.faults import Behaviour, Cut, CutMode

pytestmark = pytest.mark.crash

MODES: tuple[CutMode, ...] = ("before", "torn", "after")
#: Pairs of cuts tried for each story; all of them would be some thousands.
PAIRS = 120


@dataclass(frozen=True)
class Story:
    """One update: how the device comes to it, what it is told, and how that must end."""

    prepare: Callable[[int], Device]
    kind: str
    runs: int
    permits: int = 1


def _fresh(behaviour: Behaviour | None) -> Callable[[int], Device]:
    def prepare(seed: int) -> Device:
        device = make_device(1, 2, seed=seed, behaviours={2: behaviour} if behaviour else {})
        device.plane.floor = 1
        device.plane.publish()
        device.plane.order = Order("install", device.plane.releases[1], "u-1")
        return device

    return prepare


def _confirmed(seed: int) -> Device:
    device = _fresh(None)(seed)
    run_story(device)
    device.plane.events = {
        seq: event for seq, event in device.plane.events.items() if event.kind == "heartbeat"
    }
    device.plane.order = Order("fallback", device.plane.releases[0], "u-2")
    return device


STORIES = {
    "a good release": Story(_fresh(None), "confirmed", 2),
    "a release whose service fails": Story(_fresh(Behaviour(service=False)), "reverted", 1),
    "a release that never boots": Story(_fresh(Behaviour(boots=False)), "reverted", 1),
    "an order back": Story(_confirmed, "confirmed", 1, permits=2),
}


def _counters(state: State) -> tuple[int, int, int, int]:
    return state.floor, state.order.epoch, state.order.seq, state.next_seq


def run_story(device: Device) -> list[str]:
    """Run to the end of the story; return what was wrong on the way."""
    wrong: list[str] = []
    before = (0, 0, 0, 0)
    for runner in device.run(40_000):
        now = _counters(runner.state)
        if any(new < old for new, old in zip(now, before, strict=True)):
            wrong.append(f"counters went from {before} to {now}")
        before = now
        if device.plane.outcomes():
            device.plane.order = None
        idle = isinstance(runner.state.phase, Idle) and not runner.state.outbox
        if device.plane.order is None and idle:
            break
    return wrong


def _faults(device: Device, story: Story, wrong: list[str]) -> list[str]:
    if device.plane.outcomes() and [kind for kind, _ in device.plane.outcomes()] != [story.kind]:
        wrong.append(f"outcomes {device.plane.outcomes()}")
    if not device.plane.outcomes():
        wrong.append("the outcome was lost")
    if device.board.image is None or device.runs != story.runs:
        wrong.append(f"runs {device.board.image}")
    returned = device.plane.kinds().count("permit_returned")
    if len(device.plane.permits) - returned > story.permits:
        wrong.append("leave was given, not used and not returned")
    if any(one.reason == "agent.state_damaged" for one in device.plane.events.values()):
        wrong.append("a cut was taken for damage")
    if device.board.history.torn_boots:
        wrong.append("a torn image was booted")
    return wrong


def _operations(story: Story) -> int:
    device = story.prepare(1)
    first = device.board.power.operations
    assert _faults(device, story, run_story(device)) == []
    return device.board.power.operations - first


def _cut(story: Story, *cuts: Cut) -> list[str]:
    device = story.prepare(1)
    device.board.power.arm(*cuts)
    wrong = _faults(device, story, run_story(device))
    if not device.board.power.cut_at:
        wrong.append("the power never went away")
    return [f"{cuts}: {one}" for one in wrong]


@pytest.mark.parametrize("name", STORIES)
def test_every_single_cut_ends_well(name: str) -> None:
    story = STORIES[name]
    count = _operations(story)
    wrong = [
        one
        for operation in range(1, count + 1)
        for mode in MODES
        for one in _cut(story, Cut(operation, mode))
    ]
    assert wrong == []
    assert count > 15


@pytest.mark.parametrize("name", STORIES)
def test_pairs_of_cuts_end_well(name: str) -> None:
    story = STORIES[name]
    count = _operations(story)
    random = Random(name)
    wrong = []
    for _ in range(PAIRS):
        first = Cut(random.randint(1, count), random.choice(MODES))
        second = Cut(random.randint(1, count), random.choice(MODES))
        wrong += _cut(story, first, second)
    assert wrong == []
