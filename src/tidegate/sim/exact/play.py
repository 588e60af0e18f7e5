"""Plays a batched scenario with real agents and the real control plane, on a clock that jumps. The same seed draws the same fleet and the same fates.

What is the server's own is not taken from the scenario: who gets a permit is decided by its gate from what devices report, within its own ticks.
What a real server knows at the start is less than the batched policy is given: it has no earlier releases, so both modes are compared without.
"""

import time
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Final

import numpy as np

from tidegate.core.errors import ConfigError
from tidegate.core.hardware import Hardware
from tidegate.rollout.evidence.settings import PRESETS
from tidegate.server import outcomes
from tidegate.server.store import admin_rollouts
from tidegate.sim.board import Image
from tidegate.sim.clock import EPOCH
from tidegate.sim.device import Factory
from tidegate.sim.exact.device import FatedDevice, Lot
from tidegate.sim.exact.fate import OwnTruth, blow
from tidegate.sim.exact.presence import TICK_S, Habit, second
from tidegate.sim.faults import LinkFaults
from tidegate.sim.fleet.course import Course, Ending, reckon
from tidegate.sim.fleet.outcome import Outcome
from tidegate.sim.fleet.play import down_ticks
from tidegate.sim.fleet.population import NEVER, NIGHT_FROM_H, NIGHT_H, Ints, populate
from tidegate.sim.fleet.spec import TICK_H, TICKS_H, Scenario
from tidegate.sim.fleet.truth import BRICKED, tell
from tidegate.sim.population import DevicePlan, PopulationSpec, Variant
from tidegate.sim.scheduler import Fleet as Crew
from tidegate.sim.workshop import contract
from tidegate.sim.world import CLAIM, SLOT, World, WorldSpec

#: Everybody enrols in the hour before the rollout starts.
LEAD_S: Final = 3600.0
#: Devices ask once a tick.
POLL_S: Final = 900
#: More real agents than this want more memory and patience than a rehearsal is worth.
MOST_DEVICES: Final = 5_000
PRODUCT: Final = "gw"
MODEL: Final = "sim"
#: With the half-hour that a server allows for a restart, the contract is over within the hour that the batched gate gives an answer.
WARM_UP_S: Final = 1_500
TIMEOUT_S: Final = 1_800
_DAY_H: Final = 24


def without_history(scenario: Scenario) -> Scenario:
    """Return a scenario without the earlier releases that a new server cannot know; what else is drawn stays drawn from the same seed."""
    return replace(scenario, world=replace(scenario.world, releases=0))


class ExactPlay(World):
    """One run. Takes the scenario's fleet and truth, as `fleet.play.Play` draws them from the same seed."""

    contract = contract(
        [{"type": "boot"}, {"type": "services", "units": ["gateway.service"]}],
        warmup_s=WARM_UP_S,
        timeout_s=TIMEOUT_S,
        interval_s=300,
    )
    #: As often as the batched gate decides.
    tick_s = TICK_S

    def __init__(self, scenario: Scenario, policy: str, seed: int, folder: Path) -> None:
        """Draw fleet and truth, set up the server in `folder`, and switch every device on.

        Raises:
            ConfigError: `config.invalid`: more devices than can be played, or a policy that is no preset of the gate.
        """
        if scenario.fleet.devices > MOST_DEVICES:
            raise ConfigError(
                "config.invalid",
                f"{scenario.name}: {scenario.fleet.devices:,} real agents; at most {MOST_DEVICES:,} are played",
                hint="say how many with --devices",
            )
        if policy not in PRESETS:
            known = ", ".join(PRESETS)
            raise ConfigError(
                "config.invalid", f'"{policy[:40]}" is not played exactly: only {known}'
            )
        streams = [np.random.default_rng([seed, number]) for number in range(2)]
        self.scenario, self.policy, self.seed = scenario, policy, seed
        self.drawn = populate(scenario, streams[0])
        self.fates = tell(scenario, self.drawn, streams[1])
        self._down = down_ticks(scenario)
        #: Counter of the release that is rolled out: the fleet's own versions come first.
        self.release = len(self.drawn.names["from_version"]) + 1
        spec = WorldSpec(
            population=PopulationSpec(
                size=self.drawn.size,
                variants=tuple(
                    Variant(MODEL, code + 1, 1.0) for code in range(len(scenario.fleet.variants))
                ),
                product=PRODUCT,
            ),
            seed=seed,
            poll_s=POLL_S,
        )
        super().__init__(spec, folder, start=EPOCH + scenario.starts_h * 3600 - LEAD_S)

    def play(self) -> Outcome:
        """Enrol everybody, roll the release out, and let time pass to the horizon or the halt."""
        begun = time.perf_counter()
        self.run(LEAD_S)
        version = f"{self.release}.0.0"
        name = self.publish(self.release, version, "queue.py")
        self.roll_out(self._request(name))
        horizon_s = self.scenario.ticks * TICK_S
        self.run(horizon_s, until=lambda: self.desk.rollout(name).state == "halted")
        return self._outcome(name, time.perf_counter() - begun)

    # --- setting up -------------------------------------------------------------------------------------------------

    def _request(self, name: str) -> dict[str, object]:
        guard = {"type": "evidence", "preset": self.policy}
        return {
            "name": name,
            "release": name,
            "preset": "normal",
            "guards": [guard],
            "flow": {"in_flight": "none", "first": 0},
            "ring": [{"name": "fleet", "audience": "rest"}],
        }

    def _make_fleet(self, factory: Image, content: bytes) -> Crew:
        """Switch on devices that run the versions of the scenario."""
        images = [(factory, content)]
        images += [
            self._publish(counter, f"{counter}.0.0", "sched.py", {})
            for counter in range(2, self.release)
        ]
        self.desk.make_claim(PRODUCT, self.drawn.size, CLAIM)
        made = [
            Factory(
                anchor=self.workshop.root,
                image=bytes_,
                installed=image,
                product=PRODUCT,
                claim=CLAIM,
                slot_size=SLOT,
            )
            for image, bytes_ in images
        ]
        return Crew(self.scheduler, [self._fated(made, n) for n in range(self.drawn.size)])

    def _fated(self, made: list[Factory], number: int) -> FatedDevice:
        fleet, fates, scenario = self.drawn, self.fates, self.scenario
        habit = Habit(
            LEAD_S, int(fleet.period[number]), int(fleet.opens[number]), int(fleet.length[number])
        )
        for outage in fleet.outages:
            if outage.devices[number]:
                habit.cut(second(LEAD_S, outage.start), second(LEAD_S, outage.end))
        truth = OwnTruth(
            self.release,
            scenario.world.errors_h * float(fleet.frailty[number]),
            float(fates.shift[number]),
            float(fates.slope[number]) * TICKS_H,
        )
        factory = made[int(fleet.from_version[number])]
        return FatedDevice(
            self._paper(number, habit, len(factory.image)),
            factory,
            timeline=self.timeline,
            wire=self.wire,
            catalogue=self.catalogue,
            lot=Lot(
                habit=habit,
                truth=truth,
                release=self.release,
                meet=lambda tick: blow(scenario, fleet, fates, number, tick),
                crash_at=second(LEAD_S, int(fates.crash_at[number])),
                dark_at=second(LEAD_S, int(fates.dark_at[number])),
                activate_windows=self._night(number),
            ),
        )

    def _paper(self, number: int, habit: Habit, size: int) -> DevicePlan:
        fleet = self.drawn
        region = fleet.names["region"][int(fleet.region[number])]
        klass = fleet.names["class"][int(fleet.klass[number])]
        site = int(fleet.site[number])
        always = int(fleet.period[number]) == 1
        download_s = int(fleet.download[number]) * TICK_S
        seed = Random(f"exact {self.seed} {number}")  # noqa: S311 - a story, not a secret
        return DevicePlan(
            device_id=f"sim-{number + 1:05d}",
            hardware=Hardware(
                model=MODEL, rev=int(fleet.variant[number]) + 1, serial=f"S{number + 1:07d}"
            ),
            attributes={
                "stage": "fleet",
                "class": klass,
                "site_kind": fleet.names["site_kind"][int(fleet.site_kind[number])],
            },
            region=region,
            site=f"site-{site + 1}" if site >= 0 else "",
            connectivity="always" if always else "intermittent",
            pattern=habit,
            link=LinkFaults(bytes_per_s=size / download_s),
            seed=seed.getrandbits(63),
        )

    def _night(self, number: int) -> tuple[str, ...]:
        """Return the hours in which a device of the class `night` installs, in UTC."""
        fleet = self.drawn
        if fleet.names["class"][int(fleet.klass[number])] != "night":
            return ()
        opens = round(NIGHT_FROM_H - int(fleet.utc[number]) / TICKS_H) % _DAY_H
        return (f"{opens:02d}:00-{round(opens + NIGHT_H) % _DAY_H:02d}:00",)

    # --- what came of it --------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Let the server decide, unless it is down."""
        if self._ticks(self.timeline.at()) not in self._down:
            super()._tick()

    def _ticks(self, at: float) -> int:
        return int((at - LEAD_S) // TICK_S)

    def _outcome(self, name: str, run_s: float) -> Outcome:
        view, row = self.desk.rollout(name), self._row(name)
        size = self.drawn.size
        activated = np.full(size, NEVER)
        for number, device in enumerate(self.fleet.devices):
            at = device.activated_at if isinstance(device, FatedDevice) else None
            if at is not None:
                activated[number] = self._ticks(at)
        stop = self._tick_of(row["halted_at"]) if view.state == "halted" else NEVER
        isolated = tuple(self._named(one) for one in view.isolated)
        first = self._isolated_at(name) if isolated else NEVER
        ending = Ending(
            stop_tick=stop,
            isolated=isolated,
            isolated_at=first,
            why=view.halt_reason if view.state == "halted" else "",
            curve=_curve(activated, min(stop, self.scenario.ticks)),
        )
        course = Course(activated, self._ended(name), self._harmed(activated))
        return reckon(self.scenario, self.fates, course, ending, self.policy, self.seed, run_s)

    def _row(self, name: str) -> dict[str, object]:
        row = self.app.store.read(lambda conn: admin_rollouts.rollout(conn, name))
        assert row is not None  # noqa: S101 - it was made by this run
        return row

    def _tick_of(self, at: object) -> int:
        zero = EPOCH + self.scenario.starts_h * 3600
        return max(0, int((int(str(at)) - zero) // TICK_S))

    def _named(self, isolated: str) -> str:
        """Return the scenario's name of what was isolated."""
        names = self.drawn.names["variant"]
        codes = {f"{MODEL}-r{code + 1}": name for code, name in enumerate(names)}
        return codes.get(isolated, isolated)

    def _isolated_at(self, name: str) -> int:
        """Return the tick of the first isolation, from the world's own story."""
        line = next(one for one in self.story if name in one and not one.endswith("isolated="))
        return self._ticks(float(line.split()[0]))

    def _ended(self, name: str) -> Ints:
        """Return the tick at which the server had an outcome of each device."""
        found = np.full(self.drawn.size, NEVER)
        rollout_id = int(str(self._row(name)["id"]))
        rows = self.app.store.read(
            lambda conn: admin_rollouts.updates_in(
                conn, rollout_id, outcomes.ENDED, limit=2 * self.drawn.size
            )
        )
        for one in rows:
            number = int(str(one["device"]).removeprefix("sim-")) - 1
            found[number] = min(found[number], self._tick_of(one["state_at"]))
        return found

    def _harmed(self, activated: Ints) -> Ints:
        """Return when the release harmed each device that has it, if nobody recalls it."""
        found = np.full(self.drawn.size, NEVER)
        for number in np.flatnonzero(activated < NEVER).tolist():
            tick = int(activated[number])
            met = blow(self.scenario, self.drawn, self.fates, number, tick)
            late = 0 if met.fate == BRICKED else min(met.crash, met.dark)
            found[number] = min(NEVER, tick + late)
        return found


def _curve(activated: Ints, last: int) -> tuple[tuple[float, int], ...]:
    ticks = range(0, last + 1, 2 * TICKS_H)
    return tuple((tick * TICK_H, int((activated <= tick).sum())) for tick in ticks)


def play_exactly(scenario: Scenario, policy: str, seed: int, folder: Path) -> Outcome:
    """Play a scenario with real agents, in files below `folder`; see `ExactPlay`."""
    with ExactPlay(without_history(scenario), policy, seed, folder) as play:
        return play.play()
