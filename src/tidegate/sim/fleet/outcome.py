"""What came of a run: figures, the checks of its expectations, and a digest to compare runs by."""

import hashlib
import math

import msgspec

from tidegate.sim.fleet.spec import Expectation, Scenario


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """A run's figures. Hours count from the start; None = never.

    Attributes:
        state: halted (a peer's pause included), isolated (part of the fleet is kept out), completed (95 % have an outcome), running.
        stopped_h: of the halt, or of the first isolation.
        affected: devices that the faults may strike.
        exposed, exposed_end: of the affected (of all, if the release is good) that had been activated at the stop, and in the end.
        harmed, harmed_end: devices bricked, crashed late or fallen silent for ever by the release, of those exposed, if nobody recalls it.
        true_cause: a stop has a cause: the release is bad, or a variant of ≥ 50 devices truly exceeds its history by more than 1 pp.
        caught: stopped before half of the affected were exposed, in the end.
        curve: (hour, exposed of all), thinned, for plots; meters: the policy's own figures at those hours.
    """

    scenario: str
    group: str
    policy: str
    seed: int
    devices: int
    bad: bool
    state: str
    why: str
    stopped_h: float | None
    isolated: tuple[str, ...]
    isolations: int
    affected: int
    exposed: int
    exposed_end: int
    harmed: int
    harmed_end: int
    failed_end: int
    t95_h: float | None
    t99_h: float | None
    true_cause: bool
    caught: bool
    run_s: float
    curve: tuple[tuple[float, int], ...] = ()
    meters: tuple[tuple[float, dict[str, float]], ...] = ()

    def digest(self) -> str:
        """Return a digest of everything but the time that the run took."""
        plain = msgspec.structs.replace(self, run_s=0.0)
        return hashlib.sha256(msgspec.json.encode(plain)).hexdigest()


def unmet(scenario: Scenario, outcome: Outcome) -> tuple[str, ...]:
    """Return which expectations did not come true, as sentences."""
    lines: list[str] = []
    for one in scenario.expectations:
        if one.policy in ("", outcome.policy):
            lines += _unmet(one, outcome)
    return tuple(lines)


def _unmet(expected: Expectation, outcome: Outcome) -> list[str]:
    lines = []
    if expected.state and expected.state != outcome.state:
        lines.append(f"the state is {outcome.state}, not {expected.state}")
    figures: dict[str, float | None] = {
        "exposed": outcome.exposed_end,
        "affected": outcome.affected,
        "harmed": outcome.harmed_end,
        "stopped_h": outcome.stopped_h,
        "t95_h": outcome.t95_h,
        "t99_h": outcome.t99_h,
        "isolations": outcome.isolations,
    }
    for name, bound in expected.bounds.items():
        figure, _, side = name.partition("_at_")
        found = figures[figure]
        value = math.inf if found is None else found
        if value > bound if side == "most" else value < bound:
            lines.append(f"{figure} is {value:g}, not at {side} {bound:g}")
    return lines
