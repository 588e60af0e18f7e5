"""Rings and steps: who is meant, and when it is whose turn."""

import math

import msgspec
import pytest
from tests.unit.rollout.stage import begun, policy

from tidegate.rollout import cohort
from tidegate.rollout.model import RingProgress, RingState

RELEASE = "ab" * 32
IDS = [f"gw1-{n:06}" for n in range(20_000)]


def test_a_device_belongs_to_the_first_ring_that_it_matches() -> None:
    chosen = policy()
    plain = cohort.attributes_of(model="gw1", revision=1, variant="gw1-r1")
    piloted = cohort.attributes_of(model="gw1", revision=1, variant="gw1-r1", groups=["pilot"])
    assert cohort.ring_of(chosen, plain) == 1
    assert cohort.ring_of(chosen, piloted) == 0
    assert cohort.ring_of(chosen, plain, ["pilot"]) == 0
    assert cohort.ring_of(chosen, piloted, []) == 1


def test_a_device_may_be_in_no_ring() -> None:
    chosen = policy(ring=[{"name": "pilot", "audience": "group:pilot"}])
    attrs = cohort.attributes_of(model="gw1", revision=1, variant="gw1-r1")
    assert cohort.ring_of(chosen, attrs) is None


@pytest.mark.parametrize(
    ("state", "step", "dynamic", "share"),
    [
        ("waiting", -1, True, 0),
        ("open", 0, True, 1_000),
        ("soaking", 1, True, 5_000),
        ("open", 2, True, 10_000),
        ("open", 9, True, 10_000),
        ("passed", 2, True, 10_000),
        ("passed", 2, False, 10_000),
        ("failed", 2, True, 0),
        ("skipped", -1, True, 10_000),
        ("skipped", -1, False, 0),
    ],
)
def test_a_ring_is_open_as_far_as_its_step_says(
    state: RingState, step: int, share: int, *, dynamic: bool
) -> None:
    rollout = begun(policy(dynamic=dynamic))
    rings = (RingProgress(state="passed", step=0), RingProgress(state=state, step=step))
    assert share == cohort.share_of(msgspec.structs.replace(rollout, rings=rings), 1)


def test_raising_a_share_only_adds_devices() -> None:
    taken: set[str] = set()
    for share in (0, 1, 100, 1_000, 5_000, 9_999, 10_000):
        now = {one for one in IDS[:3_000] if cohort.step_admits(share, RELEASE, one)}
        assert taken <= now
        taken = now
    assert len(taken) == 3_000


def test_nobody_is_in_a_share_of_nothing() -> None:
    assert not any(cohort.step_admits(0, RELEASE, one) for one in IDS)


@pytest.mark.parametrize("count", [200, 2_000, 20_000])
def test_every_variant_gets_its_own_share_of_a_step(count: int) -> None:
    share = 1_000
    for variant in range(5):
        ids = [f"v{variant}-{one}" for one in IDS[:count]]
        taken = sum(cohort.step_admits(share, RELEASE, one) for one in ids)
        assert abs(taken - count * 0.1) < 5 * math.sqrt(count * 0.1 * 0.9)


def test_another_release_begins_with_other_devices() -> None:
    first = {one for one in IDS if cohort.step_admits(500, RELEASE, one)}
    second = {one for one in IDS if cohort.step_admits(500, "cd" * 32, one)}
    assert len(first & second) < 0.2 * len(first)
