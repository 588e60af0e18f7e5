"""The power goes away at every durable operation of an update: singly at each one, then in pairs, before it, in the middle of it, and just after.

Wherever it goes, the device ends on a whole, signed image, the outcome is told exactly once, and no counter ever goes back.
"""

from pathlib import Path
from random import Random

import pytest
from tests.crash.cuts import every_pair
from tests.crash.lab import Device
from tests.crash.stories import STORIES, Story, faults, run_story
from tests.crash.tally import TALLY
from tests.crash.test_security_state import from_a_stick
from tests.unit.agent.test_offline import away, brought

from tidegate.sim.faults import Cut, CutMode

# A loaded machine takes several times as long as a quiet one.
pytestmark = [pytest.mark.crash, pytest.mark.timeout(400)]

MODES: tuple[CutMode, ...] = ("before", "torn", "after")
#: Pairs of real cuts for each story, drawn: what holds the enumeration of all of them against the power itself.
PAIRS = 60


def _operations(story: Story) -> int:
    device = story.prepare(1)
    first = device.board.power.operations
    assert faults(device, story, run_story(device)) == []
    return device.board.power.operations - first


def _cut(story: Story, *cuts: Cut) -> list[str]:
    device = story.prepare(1)
    device.board.power.arm(*cuts)
    wrong = faults(device, story, run_story(device))
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
def test_every_pair_of_cuts_ends_well(name: str) -> None:
    story = STORIES[name]
    tried = every_pair(lambda: story.prepare(1), lambda it: faults(it, story, run_story(it)))
    TALLY.cut(name, tried)
    assert tried.wrong == []
    assert tried.pairs > 1000


def test_every_pair_of_cuts_of_an_update_from_a_stick_ends_well(tmp_path: Path) -> None:
    path = brought(away(), tmp_path)

    def run(device: Device) -> list[str]:
        ended = from_a_stick(device, path)
        well = ended == "confirmed" and device.runs == 2 and not device.board.history.torn_boots
        return [] if well else [f"{ended}, runs {device.runs}"]

    tried = every_pair(away, run)
    TALLY.cut("an update from a stick", tried)
    assert tried.wrong == []
    assert tried.pairs > 1000


def test_beginnings_that_are_taken_for_the_same_end_in_the_same_way() -> None:
    story = STORIES["an order back"]

    def prepare() -> Device:
        return story.prepare(1)

    def run(device: Device) -> list[str]:
        return faults(device, story, run_story(device))

    merged = every_pair(prepare, run)
    each = every_pair(prepare, run, merge=False)
    assert each.states > 8 * merged.states
    assert (each.singles, each.pairs, each.wrong) == (merged.singles, merged.pairs, [])
    assert [len(found) for found in each.endings.values() if len(found) > 1] == []
    assert set(merged.endings) == set(each.endings)


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
