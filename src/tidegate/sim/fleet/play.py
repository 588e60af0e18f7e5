"""Plays one release on one fleet under one policy, tick by tick.

Everything random about devices is drawn before the first tick, from the seed alone: two policies with one seed meet the same devices with the same fates.
A tick is: reports and contacts that are due → the policy decides → devices are assigned or activated → what will come of that goes into the calendar.
"""

import time
from collections import defaultdict
from typing import Final

import numpy as np

from tidegate.sim.fleet.course import Course, Ending, reckon
from tidegate.sim.fleet.errors import WINDOWS_H, Errors
from tidegate.sim.fleet.outcome import Outcome
from tidegate.sim.fleet.policy import News, Orders, Policy, View
from tidegate.sim.fleet.population import NEVER, Bools, Fleet, Ints, populate
from tidegate.sim.fleet.spec import PERSONAL_H, TICK_H, TICKS_H, Scenario
from tidegate.sim.fleet.truth import (
    BRICKED,
    INSTALL_FAILED,
    OK,
    REVERTED,
    SLOW,
    Truth,
    first_night,
    tell,
)

#: Ticks from activation to each report. Confirmation and silence are known the tick after the 1 h deadline.
INSTALL_REPORT: Final = 1
REVERT_REPORT: Final = 2
DEADLINE: Final = 5
AGES_H: Final = (24, 96, 168)
#: The people beside the peers: everything is stopped 12 h after 0.2 % of the fleet (at least 20) was bricked, crashed late or fell silent by the release.
HUMAN_SHARE: Final = 0.002
HUMAN_LEAST: Final = 20
HUMAN_H: Final = 12
_CURVE_EVERY: Final = 2 * TICKS_H


class Play:
    """One run. `fleet` and `truth` may be looked at afterwards."""

    def __init__(self, scenario: Scenario, policy: Policy, name: str, seed: int) -> None:
        """Draw fleet and truth of the seed and introduce the policy to them."""
        streams = [np.random.default_rng([seed, number]) for number in range(3)]
        self.scenario, self.policy, self.name, self.seed = scenario, policy, name, seed
        self.fleet: Fleet = populate(scenario, streams[0])
        self.truth: Truth = tell(scenario, self.fleet, streams[1])
        size = self.fleet.size
        self.activated = np.full(size, NEVER)
        self.outcome_at = np.full(size, NEVER)
        self.harm_at = np.full(size, NEVER)
        #: From here on a device says nothing any more.
        self.dead_at = self.truth.dark_at.copy()
        self._told = frozenset({"activate", *policy.hears})
        self._calendar: dict[int, list[tuple[str, Ints]]] = defaultdict(list)
        self._personal = np.array(
            [round(PERSONAL_H[one] * TICKS_H) for one in self.fleet.names["class"]], np.int64
        )[self.fleet.klass]
        everybody = np.arange(size)
        staged = self.fleet.next_online(everybody, 0) + self.fleet.download
        self._prepare(everybody)
        errors = Errors(scenario, self.fleet, self.truth, streams[2])
        policy.begin(View(self.fleet, scenario, self.truth.history, staged, self._heard, errors))
        self._down = down_ticks(scenario)

    def run(self) -> Outcome:
        """Play to the horizon, or to the stop."""
        begun = time.perf_counter()
        stop_tick, isolated_at, why, paused = NEVER, NEVER, "", False
        isolated: tuple[str, ...] = ()
        curve: list[tuple[float, int]] = []
        meters: list[tuple[float, dict[str, float]]] = []
        harm = _Human(self)
        for tick in range(self.scenario.ticks):
            if tick in self._down:
                continue
            orders = self.policy.step(tick, self._news(tick))
            if self.policy.human and not orders.stop:
                orders = harm.look(tick) or orders
            if orders.isolated:
                isolated = (*isolated, *orders.isolated)
                isolated_at, why = min(isolated_at, tick), why or orders.why
            if orders.stop:
                stop_tick, why, paused = tick, orders.why, orders.stop == "paused"
            if tick % _CURVE_EVERY == 0 or orders.stop:
                curve.append((tick * TICK_H, int((self.activated <= tick).sum())))
                meters.append((tick * TICK_H, dict(self.policy.meters())))
            if orders.stop:
                break
            if orders.assign.size:
                self._assign(orders.assign, tick)
            if orders.activate.size:
                self._activate(orders.activate, tick)
        if paused:
            self._finish_groups(stop_tick)
        ending = Ending(stop_tick, isolated, isolated_at, why, tuple(curve), tuple(meters))
        run_s = time.perf_counter() - begun
        course = Course(self.activated, self.outcome_at, self.harm_at)
        return reckon(self.scenario, self.truth, course, ending, self.name, self.seed, run_s)

    # --- what is due ------------------------------------------------------------------------------------------------------

    def _news(self, tick: int) -> News:
        found: dict[str, list[Ints]] = {}
        due = self._calendar.pop(tick, [])
        late = tick - 1
        while late in self._down:  # nobody listened: what came due meanwhile is heard now
            due = [*self._calendar.pop(late, ()), *due]
            late -= 1
        starting = [idx for kind, idx in due if kind == "activate"]
        if starting:
            self._activate(np.concatenate(starting), tick)
        for kind, devices in due:
            if kind == "activate":
                continue
            idx = devices
            # Who was heard of in time after all has not vanished; who is dead says nothing.
            known = self._silent(idx, tick) if kind == "vanished" else self.dead_at[idx] > tick
            idx = idx[known]
            if idx.size:
                found.setdefault(kind, []).append(idx)
        # Each device once: whoever would have died anyway was due already, and one contact may tell of two crashes.
        return {kind: _once(all_) for kind, all_ in found.items()}

    def _heard(self, idx: Ints, first: int, last: int) -> Bools:
        """Say which devices a server hears of from one tick to another, both inclusive."""
        if first == last:
            there = self.fleet.online(idx, first)
            return there & (self.dead_at[idx] > first)
        when = self.fleet.next_online(idx, first)
        found: Bools = (when <= last) & (self.dead_at[idx] > when)
        return found

    def _silent(self, idx: Ints, tick: int) -> Bools:
        """Say which were last heard of longer ago than their personal deadline."""
        last = self.fleet.last_online(idx, np.minimum(tick, self.dead_at[idx] - 1))
        found: Bools = tick - last >= self._personal[idx]
        return found

    def _schedule(self, kind: str, devices: Ints, due: Ints) -> None:
        """Put devices into the calendar, each at its own tick; what lies beyond the horizon, or nobody listens to, is dropped."""
        if kind not in self._told:
            return
        keep = due < self.scenario.ticks
        idx, when = devices[keep], due[keep]
        if not idx.size:
            return
        order = np.argsort(when, kind="stable")
        idx, when = idx[order], when[order]
        cuts = (np.flatnonzero(when[1:] != when[:-1]) + 1).tolist()
        begins = [0, *cuts]
        ends = [*cuts, idx.size]
        for begin, end, at in zip(begins, ends, when[begins].tolist(), strict=True):
            self._calendar[at].append((kind, idx[begin:end]))

    def _prepare(self, everybody: Ints) -> None:
        """Schedule what happens without any update: crashes, devices that fall silent, outages that are noticed as silence."""
        if "crashed" in self._told:
            mine = everybody[self.truth.crash_at < NEVER]
            due = self.fleet.next_online(mine, self.truth.crash_at[mine] + 1)
            self._schedule("crashed", mine, due)
        if "vanished" not in self._told:
            return
        self._vanishing(everybody[self.dead_at < NEVER])
        for outage in self.fleet.outages:
            if outage.devices.all():
                continue  # the server itself was away, and knows it
            idx = np.flatnonzero(outage.devices)
            last = self.fleet.last_online(idx, np.full(idx.size, outage.start - 1))
            back = self.fleet.next_online(idx, outage.start)
            missed = back - last > self._personal[idx]
            idx, last, back = idx[missed], last[missed], back[missed]
            self._schedule("vanished", idx, last + self._personal[idx])
            self._schedule("returned", idx, back)

    def _vanishing(self, idx: Ints) -> None:
        if "vanished" in self._told and idx.size:
            last = self.fleet.last_online(idx, self.dead_at[idx] - 1)
            self._schedule("vanished", idx, last + self._personal[idx])

    # --- what is ordered --------------------------------------------------------------------------------------------------

    def _assign(self, idx: Ints, tick: int) -> None:
        """Let devices download, and activate when they next may."""
        loaded = self.fleet.next_online(idx, tick) + self.fleet.download[idx]
        self._schedule("activate", idx, self.fleet.next_asking(idx, loaded))

    def _activate(self, devices: Ints, tick: int) -> None:
        """Set the boot flag on devices, and put what will come of it into the calendar."""
        idx = devices[(self.activated[devices] == NEVER) & (self.dead_at[devices] > tick)]
        truth, fleet = self.truth, self.fleet
        self.activated[idx] = tick
        fate, lies = truth.fate[idx], truth.lies[idx]
        crash = np.where(truth.night[idx], first_night(fleet, self.scenario, idx, tick), NEVER)
        crash = np.minimum(crash, truth.crash[idx])
        runs = (fate == OK) | (fate == SLOW)
        # A crash inside the warm-up is a failed attempt, which the device takes back.
        early = runs & (crash < DEADLINE)
        fate = np.where(early, REVERTED, fate)
        runs &= ~early

        self.dead_at[idx[fate == BRICKED]] = tick
        dies = runs & (truth.dark[idx] < NEVER)
        self.dead_at[idx[dies]] = np.minimum(self.dead_at[idx[dies]], tick + truth.dark[idx[dies]])
        self.harm_at[idx[fate == BRICKED]] = tick
        harm = np.where(runs, tick + np.minimum(crash, truth.dark[idx]), NEVER)
        self.harm_at[idx] = np.minimum(self.harm_at[idx], np.where(harm < NEVER, harm, NEVER))
        self._vanishing(idx[(fate == BRICKED) | dies])

        wait = np.full(idx.size, DEADLINE)
        bad = (fate == INSTALL_FAILED) | (fate == REVERTED)
        wait[(fate == INSTALL_FAILED) & ~lies] = INSTALL_REPORT
        wait[(fate == REVERTED) & ~lies] = REVERT_REPORT
        wait = wait + np.where(fate == SLOW, truth.back[idx], 0) + truth.delay[idx]
        due = fleet.next_online(idx, tick + wait)
        says = (fate != BRICKED) & (self.dead_at[idx] > due)
        self._schedule("failed", idx[bad & ~lies & says], due[bad & ~lies & says])
        fine = (~bad | lies) & says
        self._schedule("ok", idx[fine], due[fine])
        known = np.where(bad & says, due, np.minimum(due, tick + DEADLINE))
        self.outcome_at[idx] = np.where(fine, due, known)
        self._later(idx[runs], crash[runs], tick)
        believed = bad & lies
        self._later(idx[believed], np.full(int(believed.sum()), NEVER), tick)

    def _later(self, idx: Ints, crash: Ints, tick: int) -> None:
        """Schedule late crashes, and the contacts at each age and after each metric window, of devices that run the release."""
        hit = crash < NEVER
        if "crashed" in self._told and hit.any():
            due = self.fleet.next_online(idx[hit], tick + crash[hit] + 1)
            self._schedule("crashed", idx[hit], due)
        for kind, hours in (("age", AGES_H), ("metric", WINDOWS_H)):
            for age in hours:
                if f"{kind}{age}" in self._told and tick + age * TICKS_H < self.scenario.ticks:
                    due = self.fleet.next_online(idx, tick + age * TICKS_H)
                    self._schedule(f"{kind}{age}", idx, due)

    def _finish_groups(self, tick: int) -> None:
        """After a pause: what is assigned goes on, and nobody watches."""
        for at in sorted(one for one in self._calendar if one > tick):
            starting = [idx for kind, idx in self._calendar[at] if kind == "activate"]
            if starting:
                self._activate(np.concatenate(starting), at)


def _once(parts: list[Ints]) -> Ints:
    """Return the devices of all parts, each once, by number."""
    whole = np.sort(np.concatenate(parts) if len(parts) > 1 else parts[0])
    new = whole[1:] != whole[:-1]
    return whole if new.all() else whole[np.r_[True, new]]


def down_ticks(scenario: Scenario) -> frozenset[int]:
    """Return the ticks at which the server itself is down, and nobody decides."""
    return frozenset(
        tick
        for one in scenario.nuisances
        if one.kind == "server_outage"
        for tick in range(
            round(one.at_h * TICKS_H),
            round(one.at_h * TICKS_H) + max(1, round(one.lasts_h * TICKS_H)),
        )
    )


class _Human:
    """Sees the harm that is done, not what a report says, and acts 12 h late."""

    def __init__(self, play: Play) -> None:
        self._play = play
        self._line = max(HUMAN_LEAST, HUMAN_SHARE * play.fleet.size)
        self._saw_at = NEVER

    def look(self, tick: int) -> Orders | None:
        if self._saw_at == NEVER and tick % TICKS_H == 0:
            harmed = int((self._play.harm_at <= tick).sum())
            if harmed >= self._line:
                self._saw_at = tick
        if tick >= self._saw_at + HUMAN_H * TICKS_H:
            return Orders(stop="halted", why="people saw the harm, 12 h later")
        return None
