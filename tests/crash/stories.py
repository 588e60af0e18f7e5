"""Stories of one device: how it comes to an update, what it is told, and how that must end whenever the power goes away."""

from collections.abc import Callable
from dataclasses import dataclass

from tests.attack.field import grant, in_the_field, signed
from tests.crash.lab import Device, Order, make_device

from tidegate.agent.state import Idle, State
from tidegate.sim.faults import Behaviour


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


def _interrupted(seed: int) -> Device:
    device = _fresh(None)(seed)
    # The container has some 860 bytes: the first answers end within its head, and within its bytes.
    device.plane.short_bodies, device.plane.short_at = 3, 300
    return device


def _granted(seed: int) -> Device:
    field = in_the_field()
    field.grant = signed(grant(field))
    field.order("fallback", 1, "u-back")
    return field.device


STORIES = {
    "a good release": Story(_fresh(None), "confirmed", 2),
    "a release whose service fails": Story(_fresh(Behaviour(service=False)), "reverted", 1),
    "a release that never boots": Story(_fresh(Behaviour(boots=False)), "reverted", 1),
    "an order back": Story(_confirmed, "confirmed", 1, permits=2),
    "a download that is interrupted": Story(_interrupted, "confirmed", 2),
    "a way back by a grant": Story(_granted, "confirmed", 1, permits=3),
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


def faults(device: Device, story: Story, wrong: list[str]) -> list[str]:
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
