"""What may be installed on what: one function for device, server and publisher, each rule with its own code."""

from typing import Any

import msgspec
import pytest
from tests.unit.core.repo import Repo, release
from tests.unit.core.test_accept import GOOD, accept, later

from tidegate.core.codec import without_empty
from tidegate.core.director import check_fallback
from tidegate.core.errors import PublisherError
from tidegate.core.hardware import Hardware, HardwareRange
from tidegate.core.metadata import SignedTarget
from tidegate.core.protocol import SlotState
from tidegate.core.release import (
    Component,
    FallbackTo,
    Install,
    Part,
    PayloadRef,
    ReleaseTarget,
    Requirement,
    Running,
    refusal,
)

IMAGE, OTHER = "ab" * 32, "cd" * 32


def target(**changes: Any) -> ReleaseTarget:
    return release(118, **changes).release


def ask(found: ReleaseTarget, **changes: Any) -> str | None:
    asked: dict[str, Any] = {
        "hardware": Hardware("gw1", 3),
        "channel": "stable",
        "running": Running(release_counter=117, sha256=OTHER),
        "floor": 6,
        "agent": "1.2.0",
        "components": {"mcu": Component(counter=40, sha256=IMAGE)},
    }
    return refusal(found, **(asked | changes))


def needs(counter: int, *digests: str) -> dict[str, object]:
    return {"requires": (Requirement(component="mcu", counter_min=counter, sha256=digests),)}


#: What a release says, what is different about the device, and what must come of it.
RULES: list[tuple[dict[str, object], dict[str, Any], str | None]] = [
    ({}, {}, None),
    ({}, {"hardware": Hardware("gw2", 3)}, "compat.hardware"),
    ({}, {"hardware": Hardware("gw1", 1)}, "compat.hardware"),
    ({}, {"hardware": Hardware("gw1", 8)}, "compat.hardware"),
    ({}, {"hardware": Hardware("gw1", 2)}, None),
    ({}, {"hardware": Hardware("gw1", 7)}, None),
    ({"hardware": (HardwareRange("gw1", 2, 7, (3,)),)}, {}, "compat.hardware"),
    ({"hardware": (HardwareRange("gw1", 2, 7, (3,)), HardwareRange("gw1", 3, 3))}, {}, None),
    ({}, {"channel": "pilot"}, "compat.channel"),
    ({"channels": ("pilot", "stable")}, {"channel": "pilot"}, None),
    ({}, {"floor": 7}, "compat.floor"),
    ({}, {"running": Running(release_counter=118, sha256=OTHER)}, "compat.counter"),
    ({}, {"running": Running(release_counter=119, sha256=OTHER)}, "compat.counter"),
    ({}, {"resume_min": 119}, "compat.counter"),
    ({"from_counters": ((90, 116),)}, {}, "compat.waypoint"),
    ({"from_counters": ((1, 9), (117, 117))}, {}, None),
    ({"min_agent": "1.10.0"}, {}, "compat.agent"),
    ({"min_agent": "1.2.0"}, {}, None),
    (needs(41), {}, "compat.requires"),
    (needs(40), {}, None),
    (needs(40), {"components": {}}, "compat.requires"),
    (needs(40, IMAGE), {}, None),
    (needs(40, OTHER), {}, "compat.requires"),
    (needs(40, OTHER, IMAGE), {}, None),
    (needs(40, IMAGE), {"components": {"mcu": Component(counter=50)}}, "compat.requires"),
    (needs(41, IMAGE), {}, "compat.requires"),
]


@pytest.mark.parametrize(("says", "device", "code"), RULES)
def test_each_rule_refuses_under_its_own_code(
    says: dict[str, Any], device: dict[str, Any], code: str | None
) -> None:
    assert ask(target(**says), **device) == code


def test_a_way_back_is_free_of_the_counter_and_of_nothing_else() -> None:
    older = {"running": Running(release_counter=200, sha256=OTHER), "fallback": True}
    assert ask(target(from_counters=((90, 117),)), **older, resume_min=300) is None
    for says, device, code in RULES:
        if code not in {None, "compat.counter", "compat.waypoint"}:
            assert ask(target(**says), **{**older, **device}) == code


def test_what_runs_may_be_repaired_wherever_it_came_from() -> None:
    found = target(from_counters=((90, 100),))
    same = Running(release_counter=118, sha256=found.install.sha256)
    assert ask(found, running=same, resume_min=300) is None


@pytest.mark.parametrize(
    "says",
    [
        {"hardware": (HardwareRange("gw1", 5, 4),)},
        {"hardware": (HardwareRange("gw1", 3, 4, (3, 4)),)},
        {"hardware": (HardwareRange("gw1", 2, 7), HardwareRange("gw2", 9, 9, (9,)))},
        {"from_counters": ((117, 90),)},
        {"from_counters": ((119, 200),)},
        {"requires": (Requirement(component="rootfs", counter_min=1),)},
        {"requires": (Requirement(component="mcu", counter_min=1),) * 2},
    ],
)
def test_what_no_device_could_ever_take_is_not_published(says: dict[str, Any]) -> None:
    with pytest.raises(PublisherError) as caught:
        accept(later(release(117), release(118), release(119, **says)), GOOD)
    assert caught.value.code == "release.malformed"


def test_what_was_published_before_this_rule_stays_published() -> None:
    odd = release(118, from_counters=((118, 200),))
    before: Repo = GOOD.but(releases=(release(117), odd))
    assert accept(later(release(117), odd, release(119)), before).kept


def test_an_older_reader_of_requirements_sees_the_counter_at_least() -> None:
    plain = msgspec.to_builtins(Requirement(component="mcu", counter_min=4, sha256=(IMAGE,)))
    assert plain["counter_min"] == 4
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**plain, "sha256": ["short"]}, type=Requirement)


# --- several components -------------------------------------------------------------------------------------------------


def part(name: str, digest: str = IMAGE, **changes: Any) -> Part:
    full = PayloadRef(kind="full", sha256=digest, length=100, index_sha256=digest)
    values = {"component": name, "format": "archive", "payloads": (full,)}
    return Part(**{**values, "install": Install(size=10, sha256=digest), **changes})


def joint(*parts: Part, **changes: Any) -> ReleaseTarget:
    return target(parts=parts, crit=("parts",), **changes)


def test_what_a_release_brings_itself_need_not_be_there_before() -> None:
    wants = needs(118, IMAGE)
    assert ask(target(**wants)) == "compat.requires"
    assert ask(joint(part("mcu"), **wants)) is None
    assert ask(joint(part("mcu", OTHER), **wants)) == "compat.requires"
    assert ask(joint(part("app"), **wants)) == "compat.requires"


def test_a_part_that_is_there_in_a_newer_release_refuses_the_whole() -> None:
    found = joint(part("mcu"))
    for counter, code in ((117, None), (118, None), (119, "compat.counter")):
        assert ask(found, components={"mcu": Component(counter=counter)}) == code
    assert ask(found, components={"mcu": Component(counter=119)}, fallback=True) is None


def test_a_component_beside_the_slots_is_compared_with_itself() -> None:
    found = target(component="mcu")
    for counter, code in ((0, None), (117, None), (118, "compat.counter")):
        there = {"mcu": Component(counter=counter, sha256=OTHER)}
        assert ask(found, components=there, running=Running(release_counter=500)) == code
    same = {"mcu": Component(counter=118, sha256=found.install.sha256)}
    assert ask(found, components=same) is None, "what is there may be repaired"


def test_the_digest_names_all_of_it_in_its_order() -> None:
    alone = target()
    assert alone.digest == alone.install.sha256
    digests = {
        joint(part("app")).digest,
        joint(part("mcu")).digest,
        joint(part("app", OTHER)).digest,
        joint(part("app"), part("mcu")).digest,
        joint(part("mcu"), part("app")).digest,
        alone.digest,
    }
    assert len(digests) == 6


@pytest.mark.parametrize(
    "says",
    [
        {"parts": (part("app"), part("app")), "crit": ("parts",)},
        {"parts": (part("rootfs"),), "crit": ("parts",)},
        {"parts": (part("app"),)},
        {"settings": {"keep": ["owners"]}},
        {"parts": (part("mcu"),), "crit": ("parts",), **needs(119, OTHER)},
        {"parts": (part("mcu"),), "crit": ("parts",), **needs(120)},
    ],
)
def test_parts_that_contradict_each_other_are_not_published(says: dict[str, Any]) -> None:
    with pytest.raises(PublisherError) as caught:
        accept(later(release(117), release(118), release(119, **says)), GOOD)
    assert caught.value.code == "release.malformed"


def test_a_part_without_one_full_payload_is_not_believed() -> None:
    delta = PayloadRef(kind="delta", sha256=IMAGE, length=1, index_sha256=IMAGE, base_sha256=OTHER)
    says: dict[str, Any] = {
        "parts": (part("app", payloads=(delta,)),),
        "crit": ("parts",),
    }
    with pytest.raises(PublisherError) as caught:
        accept(later(release(117), release(118), release(119, **says)), GOOD)
    assert caught.value.code == "sig.malformed"


def test_a_way_back_must_bring_back_every_component_that_changed() -> None:
    running = joint(part("app"), fallback_to=(FallbackTo(counter=117, expires=100),))

    def back(found: ReleaseTarget) -> None:
        other = SlotState(state="confirmed", sha256=found.install.sha256)
        signed = SignedTarget("gw1/2.4.0/rootfs", 1, IMAGE, found)
        check_fallback(signed, running=running, other=other, floor=0, now=1)

    earlier = msgspec.structs.replace(running, release_counter=117)
    back(msgspec.structs.replace(earlier, parts=(part("app", OTHER),)))
    with pytest.raises(PublisherError) as caught:
        back(msgspec.structs.replace(earlier, parts=()))
    assert caught.value.code == "compat.requires"


def test_a_release_of_one_component_keeps_its_bytes() -> None:
    plain = without_empty(msgspec.to_builtins(target()))
    assert not {"parts", "settings", "package", "crit"} & set(plain)
