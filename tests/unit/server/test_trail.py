"""One device or two: nothing that happens to a single device makes it a clone, and two devices cannot hide."""

from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.server.trail import HINT_S, Trail, Visit, follow, hinted_by_events

NOW = 1_800_000_000


@dataclass(frozen=True)
class Machine:
    """What of a device's state sessions depend on: its disk, and its memory."""

    disk: str = ""
    boot: str = "b0"


class World:
    """A server that follows a trail, and machines that open sessions with it."""

    def __init__(self) -> None:
        self.trail = Trail()
        self.count = 0
        self.now = NOW
        self.clone = False

    def session(self, machine: Machine, *, lost: bool = False, kept: bool = True) -> Machine:
        """Open a session; `lost`: the answer never comes; not `kept`: the power fails before it is written."""
        self.count += 1
        self.now += 60
        ref = f"s{self.count}"
        self.trail = follow(self.trail, Visit(ref, machine.disk), machine.boot, self.now)
        self.clone = self.clone or self.trail.is_clone(self.now)
        return machine if lost or not kept else replace(machine, disk=ref)


LIVES = st.lists(
    st.sampled_from(["session", "lost", "cut", "reboot", "wipe"]), min_size=1, max_size=40
)


@settings(max_examples=300)
@given(before=LIVES, between=LIVES, after=LIVES, memory=st.booleans(), restores=st.booleans())
def test_one_device_is_never_a_clone_also_when_it_is_restored_once(
    before: list[str], between: list[str], after: list[str], memory: bool, restores: bool
) -> None:
    world, boots = World(), 0

    def live(machine: Machine, steps: list[str]) -> Machine:
        nonlocal boots
        for step in steps:
            if step == "reboot":
                boots += 1
                machine = replace(machine, boot=f"b{boots}")
            elif step == "wipe":
                machine = replace(machine, disk="")
            else:
                machine = world.session(machine, lost=step == "lost", kept=step != "cut")
        return machine

    kept = live(Machine(), before)
    later = live(kept, between)
    if restores:
        boots += 1
        # a snapshot of the whole memory brings the boot id back, one of the disk is booted anew
        later = kept if memory else replace(kept, boot=f"b{boots}")
    live(later, after)
    assert not world.clone


@settings(max_examples=200)
@given(
    turns=st.lists(st.booleans(), min_size=40, max_size=40),
    same_boot=st.booleans(),
    first=st.integers(0, 5),
)
def test_two_devices_with_one_key_are_found_within_a_few_changes_of_turn(
    turns: list[bool], same_boot: bool, first: int
) -> None:
    world = World()
    one = Machine()
    for _ in range(first):
        one = world.session(one)
    two = one if same_boot else replace(one, boot="other")
    changes, last = 0, None
    for turn in [*turns, True, False, True, False, True, False]:
        changes += last is not None and turn != last
        last = turn
        if turn:
            one = world.session(one)
        else:
            two = world.session(two)
        if changes >= 4:
            break
    assert world.clone


def test_who_stops_saying_what_it_had_is_not_believed_more() -> None:
    """A thief with the key alone cannot know the session of the device, and silence does not help."""
    world = World()
    device = world.session(Machine())
    for _ in range(2):
        world.count += 1
        world.trail = follow(world.trail, Visit(f"t{world.count}", None), "", world.now)
        device = world.session(device)
        device = world.session(device)
    assert world.clone


def test_hints_grow_old() -> None:
    trail = Trail(hints=((NOW, "boot"), (NOW + HINT_S - 1, "boot")))
    assert trail.is_clone(NOW + HINT_S - 1)
    assert not trail.is_clone(NOW + HINT_S)


def test_many_contradictions_between_two_sessions_are_one_hint() -> None:
    trail = Trail()
    for _ in range(5):
        trail = hinted_by_events(trail, NOW)
    assert not trail.is_clone(NOW)
    trail = follow(trail, Visit("s1", None), "b", NOW)
    assert hinted_by_events(trail, NOW).is_clone(NOW)
