"""What a dry run tells when it is played: on this fleet's numbers, or plainly that it was not."""

import sys

import pytest

from tidegate.cli import _foresee
from tidegate.client import structs
from tidegate.sim.fleet.spec import Fault


def reach(offered: int, weighed: str = "careful") -> structs.Reach:
    return structs.Reach(
        release="gw1-1.1.0",
        product="gw1",
        matched=offered,
        offered=offered,
        rings=(_ring("r1", offered - offered // 4), _ring("r2", offered // 4)),
        connectivity={"always": offered // 2, "intermittent": offered // 2},
        at_sites=offered // 5,
        weighed=weighed,
    )


def _ring(name: str, count: int) -> structs.RingReach:
    return structs.RingReach(
        name=name, shares_bp=(10_000,), matched=count, offered=count, variants={name: count}
    )


def test_the_scenario_is_this_fleet() -> None:
    made = _foresee.scenario_of(reach(800), (Fault("brick", 0.01),))
    assert (made.policy, made.fleet.devices, made.bad) == ("careful", 800, True)
    assert made.fleet.variants == {"r1": 600, "r2": 200}
    assert made.fleet.classes == {"always": 400, "daily": 400}
    assert made.fleet.sites.share == pytest.approx(0.2)
    assert _foresee.scenario_of(reach(1_000_000)).fleet.devices == _foresee.PLAYED_MAX


def test_without_numpy_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    assert "numpy is not installed" in _foresee.lines(reach(100))[0]


def test_nothing_is_played_for_nobody_or_without_evidence() -> None:
    assert _foresee.lines(reach(0)) == []
    assert "weighs no evidence" in _foresee.lines(reach(10, weighed=""))[0]


def test_a_good_release_comes_through_and_a_bricking_one_is_told_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("numpy", reason="tier: the simulator needs the extra [sim]")
    monkeypatch.setattr(_foresee, "SEEDS", 1)
    monkeypatch.setattr(_foresee, "RATE", 1.0)
    head, good, bad = _foresee.lines(reach(300))
    assert "300 devices, evidence weighed as in careful" in head
    assert "95 % have an outcome after" in good
    assert "one that bricks 100%: stopped after about" in bad
