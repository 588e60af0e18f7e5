"""The small interface between a simulated fleet and whoever decides about its rollout.

A policy sees what a server sees: attributes of the devices, history, reports and contacts, never the truth. Peers assign devices and have no say after
that; Tidegate stages everywhere and permits the activation of devices that ask.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import numpy as np

from tidegate.sim.fleet.errors import Errors
from tidegate.sim.fleet.population import Bools, Fleet, Ints
from tidegate.sim.fleet.spec import Scenario
from tidegate.sim.fleet.truth import History

#: What a server hears of devices in a tick, by kind. `failed`, `ok`: the report on a first attempt. `crashed`: late, or of a device not updated.
#: `vanished`: not heard of for longer than its personal deadline. `returned`: heard of again after that. `age24` …: the first contact at that age.
#: `metric12` …: a contact after that window is complete.
News = Mapping[str, Ints]

#: What peers listen to: reports on first attempts.
REPORTS: Final = frozenset({"ok", "failed"})
#: How a rollout stopped. `paused`: what is assigned goes on; `halted`: nothing starts any more.
Stop = Literal["", "paused", "halted"]


@dataclass(frozen=True)
class Orders:
    """What a policy decides in a tick.

    Attributes:
        assign: devices that get the release to download and to activate when they can.
        activate: devices that ask right now and get their permit.
        stop: whether the rollout ends here.
        isolated: strata isolated in this tick, for people.
        why: what stopped it, for people.
    """

    assign: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    activate: Ints = field(default_factory=lambda: np.empty(0, np.int64))
    stop: Stop = ""
    isolated: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class View:
    """What a policy knows when the rollout starts.

    Attributes:
        scenario: only what a server knows may be used of it: names, and the hour of the week.
        staged: tick from which on each device holds the release in its spare slot, where everything is staged at the start.
        heard: `heard(devices, first, last)`: which of them a server hears of from one tick to another, both inclusive.
        errors: error counts that devices report of themselves.
    """

    fleet: Fleet
    scenario: Scenario
    history: History
    staged: Ints
    heard: Callable[[Ints, int, int], Bools]
    errors: Errors


class Policy(Protocol):
    """Decides, tick by tick. `human` adds the charitable people of the studies, who stop what harms visibly.

    `hears`: kinds of news that it listens to; others are not worked out for it.
    """

    human: bool

    @property
    def hears(self) -> Collection[str]:
        """Return kinds of `News`."""

    def begin(self, view: View) -> None:
        """Get to know the fleet. Called once."""

    def step(self, tick: int, news: News) -> Orders:
        """Decide after the news of a tick."""

    def meters(self) -> Mapping[str, float]:
        """Return figures of the decision for plots, such as the evidence in nats."""
