"""Releases that no gate may stop: that they are exactly at the limits, how stops are counted, and the bare bet at its edge."""

import pytest

from tidegate.cli import run
from tidegate.sim.fleet import nulls
from tidegate.sim.fleet.outcome import Outcome
from tidegate.sim.fleet.population import populate
from tidegate.sim.fleet.spec import Scenario, sized


def _rate(scenario: Scenario, kind: str, **where: str) -> float:
    (found,) = (one for one in scenario.faults if one.kind == kind and one.where == where)
    return found.rate


def test_a_release_at_the_limit_is_one_point_over_what_is_usual_in_every_variant() -> None:
    for scenario in nulls.null_set(15, 3, "limit"):
        for name, usual in scenario.world.failures.items():
            whole = usual + (1 - usual) * _rate(scenario, "install_failure", variant=name)
            assert whole == pytest.approx(usual + 0.01, abs=1e-12)
        for name in scenario.fleet.classes:
            usual = scenario.world.silence.get(name, scenario.world.silence["*"])
            whole = usual + (1 - usual) * _rate(scenario, "brick", **{"class": name})
            assert whole == pytest.approx(usual + 0.0025, abs=1e-12)
        (crash,) = (one for one in scenario.faults if one.kind == "late_crash")
        assert 24 / crash.mean_h == pytest.approx(0.5 * scenario.world.crash_day)
        (dark,) = (one for one in scenario.faults if one.kind == "dark")
        assert 24 / dark.mean_h == pytest.approx(0.5 * scenario.world.dark_day)


def test_null_sets_count_as_good_begin_alike_and_use_every_base_and_mix() -> None:
    for kind in nulls.KINDS:
        many = nulls.null_set(15, 3, kind)
        assert nulls.null_set(4, 3, kind) == many[:4]
        assert not any(one.bad for one in many)
        assert all(one.world.drift == 0 for one in many)
        pairs = {(one.world.failures["v1"], *sorted(one.fleet.classes.items())) for one in many}
        assert len(pairs) == 15
    assert not any(one.faults for one in nulls.null_set(3, 3, "clean"))


def test_a_small_fleet_can_be_made_of_each() -> None:
    import numpy as np

    for scenario in nulls.null_set(15, 1, "limit"):
        fleet = populate(sized(scenario, devices=500), np.random.default_rng(1))
        assert all(fleet.where(one.where).any() for one in scenario.faults if "class" in one.where)


def _outcome(**more: object) -> Outcome:
    usual: dict[str, object] = {
        "scenario": "x", "policy": "normal", "group": "limit", "seed": 1, "devices": 500, "bad": False,
        "state": "completed", "why": "", "stopped_h": None, "isolated": (), "isolations": 0,
        "affected": 500, "exposed": 5, "exposed_end": 500, "harmed": 0, "harmed_end": 0, "failed_end": 0,
        "t95_h": 100.0, "t99_h": None, "true_cause": False, "caught": False, "run_s": 0.1,
    }  # fmt: skip
    return Outcome(**{**usual, **more})  # type: ignore[arg-type]


def test_every_stop_counts_even_where_chance_gave_it_a_cause() -> None:
    runs = [_outcome() for _ in range(18)]
    runs.append(_outcome(state="halted", stopped_h=9.0, true_cause=True, t95_h=None))
    runs.append(_outcome(state="isolated", stopped_h=9.0, isolations=2))
    runs.append(_outcome(group="clean"))
    limit, clean = nulls.nulls(runs)
    assert (limit.runs, limit.halts, limit.isolations, limit.t95_h) == (20, 1, 2, 100.0)
    # Two of twenty: 28.26 %, as any table of exact intervals has it.
    assert limit.at_most == pytest.approx(0.2826, abs=1e-4)
    assert (clean.runs, clean.halts, clean.isolations) == (1, 0, 0)


def test_exact_bounds_are_those_of_the_tables() -> None:
    assert nulls.share_at_most(0, 1000) == pytest.approx(1 - 0.05 ** (1 / 1000))
    assert nulls.share_at_most(1, 300) == pytest.approx(0.01572, abs=1e-5)
    assert nulls.share_at_most(3, 3) == 1.0


@pytest.mark.parametrize("growing", [False, True])
def test_the_bare_bet_at_its_edge_is_lost_once_in_a_thousand_ramps_at_most(growing: bool) -> None:
    found = nulls.at_the_edge(2_000, 1, rate=0.02, limit=0.02, growing=growing)
    # More than 6 of 2,000 at 1 in 1000: half a per cent of the time. What only answers count for is wrong in one of four or more.
    assert found.charged <= 0.003
    assert found.resolved > 0.15
    gross = nulls.at_the_edge(200, 1, rate=0.05, limit=0.02, growing=growing)
    assert gross.charged > 0.9


def test_null_sets_come_without_files(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["sim", "compare", "x.toml", "--null", "clean"]) == 2
    assert "--draw N" in capsys.readouterr().err


def test_the_command_counts_stops(
    tmp_path: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nulls, "DEVICES", 300)
    options = ["--draw", "2", "--policies", "bigbang,hawk80", "--cache", str(tmp_path)]
    assert run(["sim", "compare", "--null", "clean", *options]) == 0
    told = capsys.readouterr().out
    assert "2 releases that no gate may stop (clean, seed 1)" in told
    assert "clean  bigbang       n=2  halts 0; isolations 0; stopped at most 77.64% (95 %)" in told
