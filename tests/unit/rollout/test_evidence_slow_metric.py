"""A battery that drains a little faster under a release: no half-day shows it, the week does, by its name."""

import random

import msgspec

from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.evidence.roster import Roster
from tidegate.rollout.evidence.settings import DAY_S, HOUR_S, PRESETS, Harm
from tidegate.rollout.evidence.strata import divide
from tidegate.rollout.evidence.watch import Watch

HARM = msgspec.structs.replace(
    PRESETS["normal"], metrics=("errors", "-battery"), tick_s=HOUR_S, soaks=()
)
VALUES = {"variant": "v1", "region": "eu", "class": "always"}
UPDATED = 40
EVERY_H = 6


class Batteries:
    """Devices that tell of their charge four times a day. Each has its own level, ages with the season, and swings with the sun."""

    def __init__(self, drain_day: float, harm: Harm = HARM, size: int = 380) -> None:
        self.rnd = random.Random(7)
        scheme = divide({("v1", "eu", "always"): size})
        self.roster = Roster(Watch(scheme, harm, Baseline(failure_ppm={"other": 10_000}), 0))
        self.names = [f"d{one}" for one in range(size)]
        self.level = {name: self.rnd.uniform(60, 90) for name in self.names}
        self.drain_day = drain_day
        self.now = 0
        self.updated_at: int | None = None
        self.decision: Decision | None = None
        for name in self.names:
            self.roster.meet(name, VALUES, 0)

    def charge(self, name: str) -> float:
        sun = 4.0 if 8 <= self.now % DAY_S // HOUR_S < 18 else -4.0
        season = 0.5 * self.now / DAY_S
        drained = 0.0
        if self.updated_at is not None and name in self.names[:UPDATED]:
            drained = self.drain_day * (self.now - self.updated_at) / DAY_S
        return self.level[name] + sun - season - drained + self.rnd.gauss(0, 2)

    def live(self, days: float) -> None:
        for hour in range(round(days * 24)):
            self.now += HOUR_S
            if hour % EVERY_H == 0:
                for name in self.names:
                    seconds = EVERY_H * HOUR_S
                    self.roster.measured(
                        name, self.now, "battery", self.charge(name) * seconds, seconds
                    )
            self.decision = self.roster.step(self.now)
            if self.decision.verdict != "go":
                return

    def update(self) -> None:
        self.updated_at = self.now
        for name in self.names[:UPDATED]:
            assert self.roster.permit(name, self.now)
        for name in self.names[:UPDATED]:
            self.roster.confirmed(name, self.now)


def played(drain_day: float) -> Batteries:
    made = Batteries(drain_day)
    made.live(8)
    made.update()
    made.live(10)
    return made


def test_a_slow_drain_halts_after_a_week_and_the_needle_names_it() -> None:
    made = played(drain_day=0.25)
    assert made.decision is not None
    assert made.updated_at is not None
    assert made.decision.verdict == "halt"
    assert made.decision.needles[0].stream == "metric -battery 168 h"
    assert 7 * DAY_S < made.now - made.updated_at < 9 * DAY_S


def test_the_same_season_without_a_drain_is_no_harm() -> None:
    made = played(drain_day=0.0)
    assert made.decision is not None
    assert made.decision.verdict == "go"
    assert made.decision.odds < 20
