"""Comparisons: draws, what is kept, figures worked by hand, and the page."""

import subprocess
import sys
from pathlib import Path

import pytest

from tidegate.cli import run
from tidegate.sim.fleet import summary
from tidegate.sim.fleet.catalog import NAMED
from tidegate.sim.fleet.compare import Cache, Job, jobs_of, run_all, sources
from tidegate.sim.fleet.draw import BAD, GOOD, draw
from tidegate.sim.fleet.outcome import Outcome
from tidegate.sim.fleet.page import page
from tidegate.sim.fleet.spec import Fault, FleetSpec, Scenario

TINY = Scenario(
    "tiny",
    days=3,
    fleet=FleetSpec(devices=400, classes={"always": 1.0}),
    faults=(Fault("boot_failure", 0.3),),
)


def _outcome(scenario: str, policy: str, *, bad: bool = True, **more: object) -> Outcome:
    usual: dict[str, object] = {
        "group": "boot", "seed": 1, "devices": 500, "state": "halted", "why": "",
        "stopped_h": 1.0, "isolated": (), "isolations": 0, "affected": 500, "exposed": 5,
        "exposed_end": 5, "harmed": 1, "harmed_end": 2, "failed_end": 0, "t95_h": None,
        "t99_h": None, "true_cause": bad, "caught": bad, "run_s": 0.1,
    }  # fmt: skip
    return Outcome(scenario=scenario, policy=policy, bad=bad, **{**usual, **more})  # type: ignore[arg-type]


def test_draws_are_the_same_again_begin_alike_and_share_nothing_between_the_halves() -> None:
    few, many = (draw(count, 3, "tune", bad=True) for count in (10, 40))
    assert many[:10] == few
    other = draw(40, 3, "report", bad=True)
    assert not {repr(one.fleet) for one in many} & {repr(one.fleet) for one in other}
    assert {one.group for one in many} == set(BAD)
    good = draw(28, 3, "tune", bad=False)
    assert {one.group for one in good} == set(GOOD)
    assert all(one.bad for one in many)
    assert not any(one.bad for one in good)
    assert all(200 <= one.fleet.devices <= 100_000 for one in (*many, *good))


def test_what_was_computed_is_read_back_and_a_line_cut_off_is_computed_again(
    tmp_path: Path,
) -> None:
    jobs = jobs_of([TINY], ["hawk80", "bigbang"], seeds=2)
    first = run_all(jobs, Cache(tmp_path))
    path = tmp_path / "results.jsonl"
    assert len(path.read_text().splitlines()) == 4
    path.write_bytes(path.read_bytes()[:-40])
    told: list[tuple[int, int]] = []
    again = run_all(jobs, Cache(tmp_path), tell=lambda done, whole: told.append((done, whole)))
    assert told == [(3, 4), (4, 4)]
    assert [one.digest() for one in again] == [one.digest() for one in first]


def test_a_result_belongs_to_its_scenario_policy_and_seed() -> None:
    other = Scenario("tiny", days=3, fleet=TINY.fleet, faults=(Fault("boot_failure", 0.31),))
    jobs = [Job(TINY, "hawk80", 1), Job(TINY, "hawk80", 2), Job(TINY, "hawk93", 1)]
    assert len({one.key for one in (*jobs, Job(other, "hawk80", 1))}) == 4


def test_a_result_belongs_to_the_code_that_it_comes_from(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys, tidegate.sim.fleet.gate, tidegate.sim.fleet.play\n"
    code += "print(*(one.__file__ for n, one in sys.modules.items() if n.startswith('tidegate.')))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    used = {Path(one) for one in said.stdout.split() if not one.endswith("__init__.py")}
    assert len(used) > 20
    assert used <= set(sources(gate=True))
    # What only the gate uses does not play its peers again.
    assert not {"gate.py", "decide.py", "book.py"} & {one.name for one in sources(gate=False)}
    before = Job(TINY, "hawk80", 1).key
    monkeypatch.setitem(NAMED, "hawk80", "hawkbit:1/100:error=5:success=80")
    assert Job(TINY, "hawk80", 1).key != before


def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    jobs = jobs_of([TINY], ["hawk80", "mender"], seeds=2)
    alone, together = (run_all(jobs, Cache(None), processes=count) for count in (1, 2))
    assert [one.digest() for one in alone] == [one.digest() for one in together]


def test_paired_differences_are_those_worked_by_hand() -> None:
    runs = [_outcome(f"s{n}", "ours", caught=n < 3, harmed_end=4) for n in range(4)]
    runs += [_outcome(f"s{n}", "theirs", caught=n < 2, harmed_end=20) for n in range(4)]
    runs += [_outcome("only", "ours"), _outcome("g", "ours", bad=False)]
    found = summary.paired(runs, "ours", "theirs")
    assert found is not None
    # Differences 0 0 1 0: mean 1/4, deviation 1/2, standard error 1/4.
    assert (found.runs, found.difference, found.se) == (4, 0.25, 0.25)
    assert found.lower == pytest.approx(0.25 - 1.645 * 0.25)
    assert (found.both, found.harm_first, found.harm_second, found.harm_ratio) == (2, 4, 20, 0.2)


def test_good_releases_stopped_count_by_whether_there_was_a_cause() -> None:
    runs = [
        _outcome("a", "ours", bad=False, group="plain", true_cause=False, stopped_h=9.0),
        _outcome("b", "ours", bad=False, group="drift", true_cause=True, stopped_h=9.0),
        _outcome("c", "ours", bad=False, group="plain", stopped_h=None, t95_h=120.0),
        _outcome("d", "ours", bad=False, group="plain", stopped_h=None, t95_h=140.0),
        _outcome("e", "ours", caught=False, devices=50_000),
        _outcome("f", "ours", devices=900),
    ]
    (found,) = summary.drawn(runs)
    assert (found.without_cause.hits, found.without_cause.of, found.with_cause) == (1, 4, 1)
    assert found.without_cause_groups == {"plain": 1, "drift": 0}
    assert (found.caught.hits, found.caught.of) == (1, 2)
    assert found.groups["N < 1000"].share == 1.0
    assert found.groups["N > 10 000"].share == 0.0
    assert found.t95_plain_h == 130.0


def test_the_page_holds_tables_and_plots_and_nothing_from_elsewhere() -> None:
    runs = run_all(jobs_of([TINY], ["normal", "hawk80"], seeds=2), Cache(None))
    whole = page("a <title>", runs, modes=summary.modes(runs))
    assert whole.count("<svg") == 3
    assert "a &lt;title&gt;" in whole
    assert "<script" not in whole
    assert "http" not in whole


def test_compare_wants_files_or_draws_and_writes_its_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["sim", "compare"]) == 2
    assert "--draw" in capsys.readouterr().err
    file = tmp_path / "x.scenario.toml"
    file.write_text('mode = "batched"\nlasts = "2d"\n[fleet]\ndevices = 300\n')
    target = tmp_path / "page.html"
    options = ["--seeds", "2", "--policies", "hawk80,aws10", "--cache", str(tmp_path / "cache")]
    assert run(["sim", "compare", str(file), *options, "--page", str(target)]) == 0
    found = capsys.readouterr()
    assert "aws10" in found.out
    assert target.read_text().startswith("<!doctype html>")
    assert run(["sim", "compare", str(file), "--policies", "hawk8"]) == 1
