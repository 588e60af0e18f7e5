"""The power goes away at every durable operation of an update of several components, singly and in pairs.

Wherever it goes, the device ends wholly new or wholly old, never with one release in its slot and another one's component beside it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random

import msgspec
import pytest
from tests.crash.lab import Device, Order, make_device
from tests.crash.releases import (
    Release,
    contain,
    install_of,
    make_image,
    make_joint,
    make_release,
    payload_of,
)

from tidegate.agent.state import Confirming, Idle, State
from tidegate.core.metadata import SignedTarget
from tidegate.sim.faults import Behaviour, Cut, CutMode

pytestmark = pytest.mark.crash

MODES: tuple[CutMode, ...] = ("before", "torn", "after")
PAIRS = 60
APP = {counter: make_image(100 + counter, 7) for counter in (1, 2)}
MCU = {counter: make_image(200 + counter, 6) for counter in (1, 2)}


def app_release(counter: int) -> Release:
    """Make a release of the component `app` alone."""
    image = APP[counter]
    container = contain(image)
    made = make_release(
        counter,
        component="app",
        install=install_of(image),
        payloads=(payload_of(container),),
        fallback_to=(),
    )
    target = msgspec.structs.replace(made.target.release)
    payload = target.full
    signed = SignedTarget(f"gw1/1.{counter}/app", payload.length, payload.sha256, target)
    return replace(made, container=container, target=signed)


def together(behaviour: Behaviour | None) -> Callable[[int], Device]:
    """Make a device that is to get an image and two components at once."""

    def prepare(seed: int) -> Device:
        release = make_joint(2, {"app": APP[2], "mcu": MCU[2]})
        device = make_device(
            1,
            release,
            seed=seed,
            behaviours={2: behaviour} if behaviour else {},
            beside={"app": APP[1], "mcu": MCU[1]},
        )
        device.plane.floor = 1
        device.plane.publish()
        device.plane.order = Order("install", device.plane.releases[1], "u-1")
        return device

    return prepare


def alone(behaviour: Behaviour | None) -> Callable[[int], Device]:
    """Make a device that is to get one component, and no image."""

    def prepare(seed: int) -> Device:
        device = make_device(
            1,
            app_release(2),
            seed=seed,
            behaviours={1: behaviour} if behaviour else {},
            beside={"app": APP[1], "mcu": MCU[1]},
        )
        device.plane.order = Order("install", device.plane.releases[1], "u-1")
        return device

    return prepare


@dataclass(frozen=True)
class Story:
    """One update, how it must end, and what must stand where then: counters of slot, app and mcu."""

    prepare: Callable[[int], Device]
    kind: str
    stands: tuple[int, int, int]


STORIES = {
    "three at once": Story(together(None), "confirmed", (2, 2, 2)),
    "three at once, the service fails": Story(
        together(Behaviour(service=False)), "reverted", (1, 1, 1)
    ),
    "three at once, it never boots": Story(together(Behaviour(boots=False)), "reverted", (1, 1, 1)),
    "a component alone": Story(alone(None), "confirmed", (1, 2, 1)),
    "a component alone, the service fails": Story(
        alone(Behaviour(service=False)), "reverted", (1, 1, 1)
    ),
}


def stands(device: Device) -> tuple[int, int, int]:
    """Return what really stands there, by its bytes; 0 for what is neither."""

    def which(name: str, images: dict[int, bytes]) -> int:
        place = device.board.components[name]
        return next((c for c, body in images.items() if place.content(len(body)) == body), 0)

    return device.runs, which("app", APP), which("mcu", MCU)


def run(device: Device) -> list[str]:
    """Run to the end of the story; return what was wrong on the way."""
    wrong: list[str] = []
    for runner in device.run(60_000):
        state = runner.state
        if device.plane.outcomes():
            device.plane.order = None
        told = isinstance(state.phase, Idle) and not state.outbox and not state.leftovers
        if told and device.plane.order is None and not runner.busy:
            break
        wrong += mixed(device, state)
    return wrong


def mixed(device: Device, state: State) -> list[str]:
    """Say what is mixed although it is for good: outside a trial all of it is old, or all of it is new."""
    final = isinstance(state.phase, Confirming) and state.phase.loader
    if not isinstance(state.phase, Idle) and not final:
        return []
    found = stands(device)
    return [] if found in {(1, 1, 1), (2, 2, 2), (1, 2, 1)} else [f"{found} is mixed"]


def faults(device: Device, story: Story, wrong: list[str]) -> list[str]:
    """Judge the end."""
    if [kind for kind, _ in device.plane.outcomes()] != [story.kind]:
        wrong.append(f"outcomes {device.plane.outcomes()}")
    if stands(device) != story.stands:
        wrong.append(f"stands {stands(device)}")
    if device.board.history.torn_boots:
        wrong.append("a torn image was booted")
    returned = device.plane.kinds().count("permit_returned")
    if len(device.plane.permits) - returned > 1:
        wrong.append("leave was given, not used and not returned")
    leftovers = [one for one in device.board.storage.files if one.startswith("component.")]
    if leftovers:
        wrong.append(f"left behind: {leftovers}")
    return wrong


def cut(story: Story, *cuts: Cut) -> list[str]:
    """Run a story with the power going away."""
    device = story.prepare(1)
    device.board.power.arm(*cuts)
    wrong = faults(device, story, run(device))
    if not device.board.power.cut_at:
        wrong.append("the power never went away")
    return [f"{cuts} {device.board.power.cut_at}: {one}" for one in wrong]


def operations(story: Story) -> int:
    """Count the durable operations of a story without a cut, which must end well."""
    device = story.prepare(1)
    first = device.board.power.operations
    assert faults(device, story, run(device)) == []
    return device.board.power.operations - first


@pytest.mark.parametrize("name", STORIES)
def test_every_single_cut_leaves_all_old_or_all_new(name: str) -> None:
    story = STORIES[name]
    count = operations(story)
    wrong = [
        one
        for operation in range(1, count + 1)
        for mode in MODES
        for one in cut(story, Cut(operation, mode))
    ]
    assert wrong == []
    assert count > 15


@pytest.mark.parametrize("name", STORIES)
def test_pairs_of_cuts_leave_all_old_or_all_new(name: str) -> None:
    story = STORIES[name]
    count = operations(story)
    random = Random(name)
    wrong = []
    for _ in range(PAIRS):
        first = Cut(random.randint(1, count), random.choice(MODES))
        second = Cut(random.randint(1, count), random.choice(MODES))
        wrong += cut(story, first, second)
    assert wrong == []
