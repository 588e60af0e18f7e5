"""Signs of life of many devices at once say what those of one after the other say."""

import random

import pytest

from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.roster import Roster
from tidegate.rollout.evidence.settings import PRESETS
from tidegate.rollout.evidence.strata import divide
from tidegate.rollout.evidence.watch import Watch

HOUR = 3_600
#: Of one region more are always connected than are remembered in a tick.
SIZE = 3_600
CLASSES = ("always", "always", "daily")
CENSUS: dict[tuple[str, ...], int] = {
    (f"v{n % 2}", ("eu", "us")[n % 2], CLASSES[n % 3]): SIZE // 6 for n in range(6)
}


def _fresh() -> Roster:
    scheme = divide(CENSUS)
    roster = Roster(Watch(scheme, PRESETS["normal"], Baseline(failure_ppm={"other": 9_000}), 0))
    profiles = list(CENSUS)
    for one in range(SIZE):
        values = dict(zip(scheme.attributes, profiles[one % len(profiles)], strict=True))
        roster.meet(f"d{one}", values, 0, f"s{one // 9}" if one % 5 == 0 else "")
    return roster


def _one_by_one(roster: Roster, contacts: list[tuple[str, int]], others: list[str]) -> None:
    for device, at in contacts:
        roster.watch.desk.advance(at)
        number = roster.devices.get(device)
        if number is None or roster.crowd.state[number] == 5:  # it left
            others.append(device)
        else:
            roster.seen(device, at)


@pytest.mark.parametrize("seed", range(2))
def test_many_at_once_say_what_each_alone_says(seed: int) -> None:
    rnd = random.Random(seed)
    alone, together = _fresh(), _fresh()
    out: list[str] = []
    facts: dict[str, list[object]] = {"alone": [], "together": []}
    others: dict[str, list[str]] = {"alone": [], "together": []}
    now = 450  # so that what is heard between two steps is of two ticks
    for tick in range(110):
        now += HOUR if tick == 50 else 900
        # Every seventh is heard once in six hours: longer than it may be silent.
        heard = [
            f"d{one}"
            for one in range(SIZE + 10)
            if (one % 7 or tick % 24 == 0) and rnd.random() < 0.8
        ]
        contacts = sorted(
            ((one, now - rnd.randrange(800)) for one in heard), key=lambda one: one[1]
        )
        granted = [f"d{rnd.randrange(SIZE)}" for _ in range(12)]
        left = f"d{rnd.randrange(SIZE)}"
        _one_by_one(alone, contacts, others["alone"])
        together.hear(contacts, lambda device, _: others["together"].append(device))
        for roster in (alone, together):
            for device in granted:
                roster.permit(device, now)
            for device in out:
                roster.confirmed(device, now)
            roster.leave(left)
        out = [one for one in granted if rnd.random() < 0.9]
        alone.step(now, facts["alone"].append)
        together.step(now, facts["together"].append)
    assert facts["alone"] == facts["together"]
    assert {"Permit", "Ok", "Alive", "Late"} <= {type(one).__name__ for one in facts["alone"]}
    assert others["alone"] == others["together"]
    assert others["alone"]
    assert alone.dump() == together.dump()
