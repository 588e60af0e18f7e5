"""What guards a device against being led back, and the power: cut at every durable write, a damaged copy, both copies, everything.

Read from the disk after every restart, as the next agent reads it: no counter goes down,
no floor rises before the image is confirmed, and what is lost is told.
"""

from dataclasses import astuple, dataclass
from pathlib import Path

import msgspec
import pytest
from tests.crash.lab import Device, make_device
from tests.crash.releases import DAY, make_release
from tests.unit.agent.test_offline import away, brought
from tests.unit.agent.test_runner import live, tell

from tidegate.agent.journal import COPIES, COUNTERS, Journal, unseal
from tidegate.agent.state import Idle, Refusal, State
from tidegate.agent.timekeeping import TimeStore
from tidegate.agent.trial import can_go_back
from tidegate.agent.verbs import VERBS, Request
from tidegate.core.protocol import GrantUse
from tidegate.core.verify import Seen
from tidegate.sim.faults import Behaviour, Cut, CutMode

pytestmark = pytest.mark.crash

MODES: tuple[CutMode, ...] = ("before", "torn", "after")
BUILT = 1_767_571_200 - 5 * DAY
PAIRS = {
    "root": ("tuf.root.0", "tuf.root.1"),
    "seen": ("tuf.seen.0", "tuf.seen.1"),
    "time": ("tuf.time.0", "tuf.time.1"),
}


@dataclass(frozen=True)
class Guard:
    """Everything that must never go down, as it stands on the disk."""

    floor: int
    epoch: int
    seq: int
    offline: int
    root: int
    timestamp: int
    snapshot: int
    role: int


def _body(device: Device, names: tuple[str, str]) -> bytes | None:
    for name in names:
        opened = unseal(device.board.storage.files.get(name, b""))
        if opened is not None:
            return opened[1]
    return None


def guard(device: Device) -> Guard:
    state = Journal(device.board.storage).read()[0] or State()
    times = TimeStore(device.board.storage).read()[0]
    root = msgspec.json.decode(_body(device, PAIRS["root"]) or b'{"signed":{"version":1}}')
    found = _body(device, PAIRS["seen"])
    seen = Seen() if found is None else msgspec.json.decode(found, type=Seen)
    return Guard(
        floor=state.floor,
        epoch=state.order.epoch,
        seq=state.order.seq,
        offline=times.offline,
        root=root["signed"]["version"],
        timestamp=seen.timestamp,
        snapshot=seen.snapshot,
        role=seen.roles.get("product/gw1", 0),
    )


def prepared(behaviour: Behaviour | None = None) -> Device:
    """Make a device that has believed a first repository, and a second one, three roots on, that orders an update with a higher floor."""
    device = make_device(1, 2, behaviours={2: behaviour} if behaviour else {})
    device.clock.vouched = "none"
    device.plane.releases = (
        device.plane.releases[0],
        make_release(2, built_at=BUILT, health=device.plane.releases[1].target.release.health),
    )
    device.plane.rotate_root(1)
    tell(device, "install", 0, "u-0")
    live(device)
    device.plane.events.clear()
    device.plane.rotate_root(3)
    tell(device, "install", 1, "u-1")
    return device


def story(device: Device) -> list[str]:
    """Run to the end; return what was wrong on the way, by what is on the disk at each restart and by what the machine knows at each step."""
    wrong: list[str] = []
    kept, restarts = guard(device), device.restarts
    floor = kept.floor
    for runner in device.run(40_000):
        state = runner.state
        if device.restarts != restarts:
            restarts = device.restarts
            kept, before = guard(device), kept
            wrong += [
                f"{before} became {kept}"
                for old, new in [(astuple(before), astuple(kept))]
                if any(two < one for one, two in zip(old, new, strict=True))
            ]
        confirmed = any(
            one.state == "confirmed" and one.release_counter == 2 for one in state.slots.values()
        )
        offline = TimeStore(device.board.storage).read()[0].offline
        if not confirmed and (state.floor > floor or offline >= BUILT):
            wrong.append(f"raised before it was confirmed: {state.floor}, {offline}")
        if device.plane.outcomes():
            device.plane.order = None
        if device.plane.order is None and isinstance(state.phase, Idle) and not state.outbox:
            break
    return wrong


@pytest.mark.parametrize("healthy", [True, False], ids=["confirmed", "reverted"])
def test_a_cut_at_every_write_takes_no_counter_back_and_raises_no_floor_early(
    healthy: bool,
) -> None:
    behaviour = None if healthy else Behaviour(service=False)
    device = prepared(behaviour)
    first = device.board.power.operations
    assert story(device) == []
    count = device.board.power.operations - first
    assert count > 30
    end = guard(device)
    assert (end.root, end.floor) == (5, 2 if healthy else 1)
    wrong = []
    for operation in range(1, count + 1):
        # Both stories share most operations: between them, and with the cuts of `test_power_cuts`, each is cut in more than one way.
        mode = MODES[(operation + healthy) % 3]
        device = prepared(behaviour)
        device.board.power.arm(Cut(operation, mode))
        wrong += [f"{operation} {mode}: {one}" for one in story(device)]
        assert device.board.power.cut_at
        after = guard(device)
        if (after.root, after.floor, device.runs) != (5, end.floor, 2 if healthy else 1):
            wrong.append(f"{operation} {mode}: ended at {after}, runs {device.runs}")
    assert wrong == []


def test_once_it_is_confirmed_its_build_time_is_a_floor_that_stays() -> None:
    device = prepared()
    assert story(device) == []
    device.plane.events.clear()
    tell(device, "install", 1, "u-2")
    live(device)
    assert guard(device).offline == BUILT


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("copies", [1, 2])
def test_one_damaged_copy_costs_nothing_and_both_are_told_and_bound_to_a_nonce(
    pair: str, copies: int
) -> None:
    device = prepared()
    before = guard(device)
    for name in PAIRS[pair][:copies]:
        device.board.storage.files[name] = b"\0" * 40
    device.runner = None
    device.clock.vouched = "synced"
    if copies == 1:
        assert guard(device) == before
    device.plane.requests.clear()
    live(device)
    assert device.plane.outcomes() == [("confirmed", None)]
    told = [one for one in device.plane.events.values() if one.kind == "security"]
    assert [one.reason for one in told] == ["agent.state_damaged"] * (copies - 1)
    if copies == 2:
        asked = device.plane.requests
        assert asked.index("/d/v1/time") < asked.index("/d/v1/assignment")
    after = guard(device)
    assert all(new >= old for old, new in zip(astuple(before), astuple(after), strict=True))


def test_with_the_versions_seen_lost_an_older_repository_is_still_not_installed_from() -> None:
    device = prepared()
    old = dict(device.plane.files)
    device.plane.version += 1
    device.plane.releases = (device.plane.releases[0], make_release(3))
    device.plane.publish()
    new = dict(device.plane.files)
    tell(device, "install", 1, "u-1")
    for name in PAIRS["seen"]:
        device.board.storage.files[name] = b"damaged"
    # Somebody on the way serves what was true yesterday; the director's fresh answer names what is true now.
    device.plane.files = old | {name: body for name, body in new.items() if "root" in name}
    device.runner = None
    for _ in device.run(1000):
        if device.plane.outcomes():
            break
    assert device.runs == 1
    assert not [one for one in device.plane.outcomes() if one[0] == "confirmed"]


@pytest.mark.parametrize("lost", [COPIES, (*COPIES, COUNTERS)], ids=["journal", "everything"])
def test_a_lost_journal_is_told_and_its_counters_come_back_where_they_are_kept(
    lost: tuple[str, ...],
) -> None:
    device = prepared()
    assert story(device) == []
    journal = Journal(device.board.storage)
    state, _ = journal.read()
    assert state is not None
    held = msgspec.structs.replace(
        state,
        refused=(Refusal(sha256="ab" * 32, reason="health.service", at=1),),
        fallback_last={"gw1": GrantUse(epoch=1, serial=7, update="u-9")},
        resume_min={"gw1": 2},
        halted=("cd" * 32,),
    )
    journal.write(held)
    for name in lost:
        device.board.storage.files[name] = b"damaged"
    found, damaged = Journal(device.board.storage).read()
    assert damaged
    if COUNTERS not in lost:
        assert found is not None
        kept = ("floor", "order", "refused", "fallback_last", "resume_min", "halted")
        assert [getattr(found, one) for one in kept] == [getattr(held, one) for one in kept]
    device.runner = None
    device.plane.events.clear()
    device.plane.acked = 0
    device.plane.requests.clear()
    tell(device, "install", 1, "u-5")
    for runner in device.run(2000):
        assert runner.state.damaged or not runner.state.boot_id or runner.state.next_seq == 1
        if "/d/v1/assignment" in device.plane.requests:
            break
    asked = device.plane.requests
    assert asked.index("/d/v1/time") < asked.index("/d/v1/assignment")


def test_a_slot_reverts_although_the_signed_floor_rose_in_between() -> None:
    device = prepared(Behaviour(service=False))
    raised = False
    for runner in device.run(40_000):
        if not raised and type(runner.state.phase).__name__ == "Testing":
            # The vendor raises the product's floor while the image is on trial: that binds once it is confirmed, not before.
            device.plane.floor, raised = 200, True
            device.plane.version += 1
            device.plane.publish()
        if device.plane.outcomes():
            device.plane.order = None
        if device.plane.order is None and not runner.state.outbox:
            break
    assert raised
    assert device.plane.outcomes() == [("reverted", "health.service")]
    assert device.runs == 1
    assert guard(device).floor == 1


def test_a_slot_below_the_floor_is_no_way_back_for_a_person() -> None:
    device = prepared()
    assert story(device) == []
    state, _ = Journal(device.board.storage).read()
    assert state is not None
    assert state.floor == 2
    assert not can_go_back(state)


def from_a_stick(device: Device, path: Path) -> str:
    """Have a person say `apply-now --bundle` whenever nothing is under way; return what ends it."""
    asked = -1
    for runner in device.run(40_000):
        phase = runner.state.phase
        if isinstance(phase, Idle) and device.runs == 2:
            return runner.state.slots[runner.state.current].state
        if isinstance(phase, Idle) and runner.state.next_seq and asked != device.restarts:
            asked = device.restarts
            VERBS["apply-now"](runner, Request(verb="apply-now", bundle=str(path)))
    return "never came to an end"


def test_a_cut_at_every_write_of_an_updatefrom_a_stick_ends_well(tmp_path: Path) -> None:
    device = away()
    path = brought(device, tmp_path)
    assert from_a_stick(device, path) == "confirmed"
    count = device.board.power.operations
    wrong = []
    for operation in range(1, count):
        device = away()
        device.board.power.arm(Cut(operation, MODES[operation % 3]))
        ended = from_a_stick(device, path)
        if (ended, device.runs, guard(device).floor) != ("confirmed", 2, 2):
            wrong.append(f"{operation}: {ended}, runs {device.runs}")
        if device.board.history.torn_boots:
            wrong.append(f"{operation}: a torn image was booted")
        assert device.board.power.cut_at
    assert wrong == []
    assert count > 15
