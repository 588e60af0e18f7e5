"""What all steps of the demo's story need: watching a rollout, waiting for the last reports, and writing down both sides."""

import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from tidegate.sim import cast
from tidegate.sim.control import RolloutView
from tidegate.sim.report import DeviceTruth, Outcomes, outcomes
from tidegate.sim.stage import Stage
from tidegate.sim.teller import Row, Teller

#: How long nothing may move before the demo says that it went wrong, in seconds.
PATIENCE_S: Final = 60.0
#: How long the last reports of a step may take, in seconds.
SETTLE_S: Final = 60.0
_LOOK_S: Final = 0.3


class StoryError(Exception):
    """The story did not come true; the text says where it stood."""


@dataclass(frozen=True)
class Both:
    """Both sides of a rollout at one moment: what the server counted, and what the boards know."""

    view: RolloutView
    truths: list[DeviceTruth]
    believed: dict[str, int]

    def found(self, counter: int, *, variant: str = "") -> Outcomes:
        """Return the truth about a release, of one variant or of all."""
        return outcomes((one for one in self.truths if variant in {"", one.variant}), counter)

    @property
    def running(self) -> dict[str, int]:
        """Return device id → release that really runs."""
        return {one.device_id: one.counter for one in self.truths}

    def agrees(self, counter: int) -> bool:
        """Say whether every count is the same on both sides."""
        found, view = self.found(counter), self.view
        true = (found.tried, found.confirmed, found.reverted)
        counted = (view.count("exposed"), view.count("confirmed"), view.count("reverted"))
        return counted == true and self._of_known() == self.believed

    def _of_known(self) -> dict[str, int]:
        """Leave out devices that the server has never met."""
        return {name: one for name, one in self.running.items() if name in self.believed}


class Play:
    """A story on a stage, and the figures that it leaves."""

    def __init__(self, stage: Stage, teller: Teller) -> None:
        """Play on `stage`."""
        self.stage = stage
        self.control = stage.control
        self.teller = teller
        self.rows: list[Row] = []
        self.incidents: list[str] = []

    def roll_out(self, release: cast.ReleasePlan, soak: str = "1s") -> str:
        """Start the laboratory's rollout of a release."""
        return self.control.roll_out(cast.policy(release, release.name, soak=soak))

    def watch(self, name: str, done: Callable[[RolloutView], bool]) -> RolloutView:
        """Look at a rollout until it is done.

        Raises:
            StoryError: nothing moved for `PATIENCE_S`.
        """
        moved, last = time.monotonic(), ""
        while True:
            view = self.control.rollout(name)
            self.teller.progress(f"{name} {view.headline}")
            if done(view):
                return view
            if view.headline != last:
                moved, last = time.monotonic(), view.headline
            if time.monotonic() > moved + PATIENCE_S:
                because = "; ".join(view.because[:2])
                raise StoryError(f"{name} got no further: {view.headline}; {because}")
            time.sleep(_LOOK_S)

    def settle(self, name: str, agrees: Callable[[Both], bool]) -> Both:
        """Wait for what is still on its way: a device may have confirmed and have no network to say so.

        Returns:
            Both sides as they agree, or as they still stand after `SETTLE_S`.
        """
        until = time.monotonic() + SETTLE_S
        while True:
            both = self._look(name)
            if agrees(both) or time.monotonic() > until:
                return both
            self.teller.progress(f"{name} waits for the last reports: {both.view.headline}")
            time.sleep(_LOOK_S)

    def fall_back(
        self, name: str, release: cast.ReleasePlan, to: cast.ReleasePlan, why: str
    ) -> Both:
        """Order the cohort of a halted rollout back and wait until all of it is back."""
        wanted = outcomes(self.stage.truths(), release.counter).confirmed
        child = self.control.fall_back(name, to.name, why)
        self.watch(child, lambda view: view.count("confirmed") >= wanted and not view.pending)

        def agrees(both: Both) -> bool:
            back = both.found(release.counter).fallen_back
            return both.view.count("confirmed") == back and both.believed == both.running

        return self.settle(child, agrees)

    def incident(self, rollout: str) -> str:
        """Return the name of a rollout's incident.

        Raises:
            StoryError: it has none.
        """
        name = self.control.incident_of(rollout)
        if name is None:
            raise StoryError(f"{rollout} has no incident")
        self.incidents.append(name)
        return name

    def row(self, step: str, figure: str, server: object, truth: object) -> None:
        """Write down one figure of both sides."""
        self.rows.append(Row(step, figure, str(server), str(truth)))

    def distribution(self, step: str, both: Both) -> None:
        """Write down what every device runs, by the server and by its board."""
        true = {name: one for name, one in both.running.items() if name in both.believed}
        self.row(
            step, "devices by release", _spread(both.believed.values()), _spread(true.values())
        )
        wrong = sum(both.believed[name] != counter for name, counter in true.items())
        self.row(step, "devices believed to run another", wrong, 0)

    def _look(self, name: str) -> Both:
        believed = self.control.running()
        truths = self.stage.truths()
        return Both(self.control.rollout(name), truths, believed)


def _spread(counters: Iterable[int]) -> str:
    names = {release.counter: release.version for release in cast.RELEASES}
    return "  ".join(
        f"{names.get(one, '?')} {count}" for one, count in sorted(Counter(counters).items())
    )
