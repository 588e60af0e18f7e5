"""Components beside the slots, step by step through the machine."""

import msgspec
import pytest
from tests.crash.releases import contain, install_of, make_image, make_release, payload_of

from tidegate.agent.events import (
    Armed,
    Change,
    Changed,
    Checked,
    Commit,
    Committed,
    Effect,
    Event,
    Failed,
    Looked,
    MarkBad,
    Marked,
    Permitted,
    ProbeResult,
    Reboot,
    Started,
)
from tidegate.agent.machine import step
from tidegate.agent.parts import TRIES_MAX
from tidegate.agent.state import (
    Activating,
    Confirming,
    Idle,
    Place,
    Reverting,
    SlotRecord,
    Staged,
    State,
    Update,
)
from tidegate.agent.state import (
    Testing as OnTrial,
)
from tidegate.core.release import HealthContract, Part, ReleaseTarget

APP = make_image(7)
RELEASE = make_release(2).target.release


def part(name: str, image: bytes = APP) -> Part:
    return Part(
        component=name,
        format="raw_image",
        install=install_of(image),
        payloads=(payload_of(contain(image)),),
    )


JOINT: ReleaseTarget = msgspec.structs.replace(
    RELEASE,
    parts=(part("app"), part("mcu", make_image(8))),
    crit=("parts",),
    health=HealthContract(warmup_s=0),
)
ALONE: ReleaseTarget = msgspec.structs.replace(
    RELEASE, component="app", health=HealthContract(warmup_s=0)
)


def joint() -> Update:
    """An image, and two components beside it."""
    return Update(
        update="u-1",
        release=JOINT,
        slot="B",
        places=(
            Place(component="rootfs", kind="slot"),
            Place(component="app", kind="component"),
            Place(component="mcu", kind="component"),
        ),
    )


def alone() -> Update:
    """One component, and no image."""
    return Update(
        update="u-1",
        release=ALONE,
        slot="",
        places=(Place(component="app", kind="component"),),
    )


def staged(update: Update) -> State:
    return State(
        slots={"A": SlotRecord(state="confirmed", release_counter=1), "B": SlotRecord()},
        phase=Staged(update=update, nonce="n", nonce_mono=0.0, nonce_boot="b1"),
        boot_id="b1",
        current="A",
    )


class Device:
    """A state, and what it last wanted done."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.mono = 1.0

    def feed(self, event: Event) -> tuple[Effect, ...]:
        self.state, effects = step(self.state, event)
        return effects

    def look(self) -> Effect | None:
        found = self.feed(Looked(now=1000, mono=self.mono, nonce="x"))
        return found[0] if found else None

    def permit(self) -> None:
        self.feed(Permitted(now=1000, mono=self.mono, nonce="n", permit="p"))

    def did(self, act: str, part: int = 0, **more: bool) -> None:
        self.feed(Changed(now=1000, act=act, part=part, **more))  # type: ignore[arg-type]

    def fail(self, *, retryable: bool = False) -> None:
        self.mono += 60
        self.feed(
            Failed(
                now=1000,
                mono=self.mono,
                reason="install.installer",
                detail="no",
                retryable=retryable,
            )
        )
        self.mono += 60

    def boot(self, slot: str, mark: str = "trial", boot_id: str = "b2") -> None:
        self.feed(
            Started(
                now=1000,
                mono=self.mono,
                boot_id=boot_id,
                current=slot,
                primary="A",
                marks={"A": "good", "B": mark},  # type: ignore[dict-item]
                tries={"B": 2},
            )
        )

    def healthy(self, *, ok: bool = True) -> None:
        self.mono += 1
        result = ProbeResult(name="core", reason="health.service", ok=ok)
        self.feed(Checked(now=1000, mono=self.mono, results=(result,), errors=0))

    def kinds(self) -> list[str]:
        return [one.kind for one in self.state.outbox]

    def live(self) -> "Device":
        """Go on until the components are live and the slot is armed, and boot it."""
        self.permit()
        for index in (1, 2):
            assert isinstance(effect := self.look(), Change)
            assert (effect.act, effect.part) == ("activate", index)
            self.did("activate", index)
        self.look()
        self.feed(Armed(now=1000))
        self.boot("B")
        for index in (1, 2):
            assert isinstance(effect := self.look(), Change)
            assert (effect.act, effect.part) == ("verify", index)
            self.did("verify", index)
        return self


def test_components_are_made_live_in_order_before_the_boot_flag_is_set() -> None:
    device = Device(staged(joint())).live()
    assert isinstance(device.state.phase, OnTrial)


def test_that_a_component_was_begun_is_known_before_it_is_done() -> None:
    device = Device(staged(joint()))
    device.permit()
    assert isinstance(device.look(), Change)
    phase = device.state.phase
    assert isinstance(phase, Activating)
    assert (phase.begun, phase.part) == (2, 0)


def test_the_boot_loader_is_told_before_the_components() -> None:
    device = Device(staged(joint())).live()
    device.healthy()
    assert isinstance(device.look(), Commit)
    device.feed(Committed(now=1000))
    assert isinstance(device.state.phase, Confirming)
    assert device.kinds()[-1] != "confirmed"
    for index in (1, 2):
        assert isinstance(effect := device.look(), Change)
        assert (effect.act, effect.part) == ("commit", index)
        device.did("commit", index)
    assert isinstance(device.state.phase, Idle)
    assert device.kinds()[-1] == "confirmed"
    assert {name: one.release_counter for name, one in device.state.components.items()} == {
        "app": JOINT.release_counter,
        "mcu": JOINT.release_counter,
    }


def test_the_way_back_is_the_slot_first_and_then_the_components_the_last_one_first() -> None:
    device = Device(staged(joint())).live()
    device.fail()  # a check of a component, say
    assert isinstance(device.state.phase, Reverting)
    assert isinstance(device.look(), MarkBad)
    device.feed(Marked(now=1000, slot="B"))
    assert isinstance(device.look(), Reboot), "not from the system that failed"
    device.boot("A", mark="bad", boot_id="b3")
    for index in (2, 1):
        assert isinstance(effect := device.look(), Change)
        assert (effect.act, effect.part) == ("roll_back", index)
        assert device.kinds()[-1] != "reverted"
        device.did("roll_back", index)
    assert isinstance(device.state.phase, Idle)
    assert device.kinds()[-1] == "reverted"


def test_a_boot_loader_that_goes_back_by_itself_takes_the_components_with_it() -> None:
    device = Device(staged(joint())).live()
    device.boot("A", mark="bad", boot_id="b3")
    assert isinstance(device.look(), MarkBad)
    device.feed(Marked(now=1000, slot="B"))
    assert isinstance(effect := device.look(), Change)
    assert (effect.act, effect.part) == ("roll_back", 2)


def test_only_what_was_begun_is_taken_back() -> None:
    device = Device(staged(joint()))
    device.permit()
    device.look()
    device.fail()
    device.feed(Marked(now=1000, slot="B"))
    assert isinstance(effect := device.look(), Change)
    assert (effect.act, effect.part) == ("roll_back", 1)
    device.did("roll_back", 1)
    assert device.kinds()[-1] == "reverted"


def test_leave_is_given_back_only_while_nothing_was_begun() -> None:
    device = Device(staged(joint()))
    device.permit()
    device.mono = 10_000.0
    device.look()
    assert isinstance(device.state.phase, Staged)
    device = Device(staged(joint()))
    device.permit()
    device.look()
    device.mono = 10_000.0
    assert isinstance(device.look(), Change)


def test_a_component_that_cannot_be_taken_back_makes_the_update_fail() -> None:
    device = Device(staged(joint())).live()
    device.fail()
    device.feed(Marked(now=1000, slot="B"))
    device.boot("A", mark="bad", boot_id="b3")
    device.fail()
    device.did("roll_back", 1)
    assert isinstance(device.state.phase, Idle)
    last = device.state.outbox[-1]
    assert (last.kind, last.reason) == ("failed", "install.installer")
    assert "mcu could not be taken back" in last.detail
    assert device.state.components["mcu"].state == "bad"
    assert "app" not in device.state.components


def test_what_may_work_later_is_tried_again_a_few_times() -> None:
    device = Device(staged(alone()))
    device.permit()
    device.look()
    for _ in range(TRIES_MAX - 1):
        device.fail(retryable=True)
        assert isinstance(device.state.phase, Activating)
        assert isinstance(device.look(), Change)
    device.fail(retryable=True)
    assert isinstance(device.state.phase, Reverting)


def test_a_component_alone_is_tried_without_a_restart() -> None:
    device = Device(staged(alone()))
    device.permit()
    device.look()
    device.did("activate")
    assert device.look() is None
    assert isinstance(device.state.phase, OnTrial)
    device.healthy()
    assert isinstance(effect := device.look(), Change)
    assert effect.act == "commit"
    device.did("commit", final=True)
    assert device.kinds() == ["verifying", "confirmed"]
    assert device.state.outbox[-1].running_counter == ALONE.release_counter
    assert device.state.slots["A"].release_counter == 1


def test_a_component_that_wants_a_restart_gets_one_and_says_whether_it_came_up() -> None:
    device = Device(staged(alone()))
    device.permit()
    device.look()
    device.did("activate", restart=True)
    assert isinstance(device.look(), Reboot)
    device.boot("A", mark="good")
    assert isinstance(effect := device.look(), Change)
    assert effect.act == "verify"
    device.fail()
    assert isinstance(effect := device.look(), Change)
    assert effect.act == "roll_back"
    device.did("roll_back", restart=True)
    assert isinstance(device.look(), Reboot)
    device.boot("A", mark="good", boot_id="b3")
    assert isinstance(effect := device.look(), Change)
    assert effect.act == "verify_back"
    device.did("verify_back")
    assert device.kinds()[-1] == "reverted"


def test_boots_are_counted_where_no_boot_loader_does() -> None:
    device = Device(staged(alone()))
    device.permit()
    device.look()
    device.did("activate")
    device.look()
    for boot in range(2):
        device.boot("A", mark="good", boot_id=f"again-{boot}")
        assert isinstance(device.state.phase, OnTrial)
    device.boot("A", mark="good", boot_id="once too often")
    phase = device.state.phase
    assert isinstance(phase, Reverting)
    assert phase.reason == "boot.counter_exhausted"


def test_a_commit_that_fails_goes_back_unless_another_one_is_final() -> None:
    device = Device(staged(joint())).live()
    device.healthy()
    device.feed(Committed(now=1000))
    device.fail()
    assert isinstance(device.state.phase, Reverting)

    device = Device(staged(joint())).live()
    device.healthy()
    device.feed(Committed(now=1000))
    device.did("commit", 1, final=True)
    device.fail()
    assert isinstance(device.state.phase, Idle)
    assert device.kinds()[-2:] == ["security", "confirmed"]


@pytest.mark.parametrize("make", [joint, alone])
def test_what_came_to_an_end_is_cleaned_up_after(make: object) -> None:
    update: Update = make()  # type: ignore[operator]
    device = Device(staged(update))
    device.permit()
    device.feed(
        Failed(now=1000, mono=1.0, reason="activate.bootloader", detail="", retryable=False)
    )
    assert isinstance(device.state.phase, Idle)
    device.mono = 100.0
    assert isinstance(effect := device.look(), Change)
    assert (effect.act, effect.update) == ("discard", update)
    device.did("discard")
    assert device.look() is None


def test_a_part_that_is_there_already_is_not_touched() -> None:
    update = joint()
    kept = (update.places[0], Place(component="app", kind="kept"), update.places[2])
    device = Device(staged(msgspec.structs.replace(update, places=kept)))
    device.permit()
    assert isinstance(effect := device.look(), Change)
    assert (effect.act, effect.part) == ("activate", 2)
