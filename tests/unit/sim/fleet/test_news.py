"""What a policy hears: nothing from those who cannot speak, and silence only when it has lasted."""

from collections.abc import Mapping

import numpy as np

from tidegate.sim.fleet.errors import WINDOWS_H
from tidegate.sim.fleet.peers.mender import big_bang
from tidegate.sim.fleet.play import AGES_H, Play
from tidegate.sim.fleet.policy import News, Orders, View
from tidegate.sim.fleet.population import NEVER
from tidegate.sim.fleet.spec import (
    PERSONAL_H,
    TICKS_H,
    Fault,
    FleetSpec,
    Nuisance,
    Scenario,
    Sites,
    WorldSpec,
)


class _Listener:
    """Gives the release to everybody and notes what it hears."""

    human = False
    hears = frozenset(
        {
            *("ok", "failed", "crashed", "vanished", "returned"),
            *(
                f"{kind}{hours}"
                for kind, every in (("age", AGES_H), ("metric", WINDOWS_H))
                for hours in every
            ),
        }
    )

    def __init__(self) -> None:
        self.heard: list[tuple[int, str, np.ndarray[tuple[int], np.dtype[np.int64]]]] = []
        self._inner = big_bang()

    def begin(self, view: View) -> None:
        self._inner.begin(view)

    def step(self, tick: int, news: News) -> Orders:
        self.heard += [(tick, kind, idx) for kind, idx in news.items()]
        return self._inner.step(tick, news)

    def meters(self) -> Mapping[str, float]:
        return {}


def _heard() -> tuple[Play, _Listener]:
    scenario = Scenario(
        "x",
        days=12,
        fleet=FleetSpec(devices=3_000, sites=Sites(0.3, 60)),
        world=WorldSpec(crash_day=0.05, dark_day=0.02),
        faults=(
            Fault("brick", 0.05),
            Fault("dark", 0.2, after_h=10, mean_h=40),
            Fault("late_crash", 0.1, mean_h=20),
        ),
        nuisances=(
            Nuisance("isp_outage", 0.3, at_h=30, lasts_h=9),
            Nuisance("site_power_cut", count=5, at_h=60, lasts_h=20),
            Nuisance("server_outage", at_h=80, lasts_h=2),
            Nuisance("late_reports", 0.1, lasts_h=48),
            Nuisance("lying", 0.1),
        ),
    )
    listener = _Listener()
    play = Play(scenario, listener, "everybody", 2)
    play.run()
    return play, listener


def test_nobody_is_heard_who_is_dead_or_cut_off_and_nobody_at_all_while_the_server_is_down() -> (
    None
):
    play, listener = _heard()
    kinds = {kind for _, kind, _ in listener.heard}
    assert kinds >= {"failed", "ok", "crashed", "vanished", "returned", "age24", "metric168"}
    for tick, kind, idx in listener.heard:
        assert not 80 * TICKS_H <= tick < 82 * TICKS_H
        if kind != "vanished":
            assert (play.dead_at[idx] > tick).all(), kind
            assert play.fleet.online(idx, tick).all(), kind


def test_who_vanished_was_not_heard_for_its_personal_deadline() -> None:
    play, listener = _heard()
    found = [(tick, idx) for tick, kind, idx in listener.heard if kind == "vanished"]
    told = np.zeros(play.fleet.size, np.int64)
    for tick, idx in found:
        told[idx] += 1
        last = play.fleet.last_online(idx, np.minimum(tick, play.dead_at[idx] - 1))
        classes = [play.fleet.names["class"][code] for code in play.fleet.klass[idx].tolist()]
        deadline = np.array([PERSONAL_H[one] * TICKS_H for one in classes])
        assert (tick - last >= deadline).all()
    always = play.fleet.where({"class": "always"})
    early = always & (play.dead_at < 8 * 24 * TICKS_H)
    assert early.any()
    assert (told[early] >= 1).all()


def test_each_device_answers_once_and_a_lie_is_told_as_success() -> None:
    play, listener = _heard()
    answers: dict[str, list[int]] = {"ok": [], "failed": []}
    for _, kind, idx in listener.heard:
        if kind in answers:
            answers[kind] += idx.tolist()
    both = answers["ok"] + answers["failed"]
    assert len(both) == len(set(both))
    liars = np.flatnonzero(play.truth.lies & (play.truth.fate == 1) & (play.activated < NEVER))
    assert liars.size
    assert not set(liars.tolist()) & set(answers["failed"])


def test_one_contact_tells_of_a_device_once_though_two_things_befell_it() -> None:
    _, listener = _heard()
    for tick, kind, idx in listener.heard:
        assert np.unique(idx).size == idx.size, (tick, kind)
