"""`tidegate sim run` and `sim compare` on the batched simulator, which needs the extra `[sim]`."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate.cli.output import Output
from tidegate.core.errors import ConfigError
from tidegate.sim.fleet.reader import read_scenario
from tidegate.sim.fleet.spec import sized

if TYPE_CHECKING:
    from tidegate.sim.fleet.compare import Drawing
    from tidegate.sim.fleet.nulls import Null
    from tidegate.sim.fleet.outcome import Outcome
    from tidegate.sim.fleet.spec import Scenario
    from tidegate.sim.fleet.summary import Drawn, Mode, Paired

#: As in `cli.sim`: `--expect` and it did not come true.
UNMET = 10


def need_numpy() -> None:
    """Look whether the extra is there.

    Raises:
        ConfigError: `config.missing`.
    """
    try:
        import numpy as np  # noqa: F401 - looked for, not used
    except ImportError as error:
        raise ConfigError(
            "config.missing",
            "the batched simulator needs numpy, which is not installed",
            hint="pip install 'tidegate[sim]'",
        ) from error


def run(
    file: Path,
    out: Output,
    *,
    seed: int | None,
    policy: str | None,
    expect: bool,
    exact: bool,
    devices: int | None,
    days: int | None,
) -> int:
    """Play one scenario and print what came of it. Returns the exit code."""
    scenario = sized(read_scenario(file), devices=devices, days=days)
    need_numpy()
    from tidegate.sim.fleet.outcome import unmet

    name = policy or scenario.policy
    out.note(f"{scenario.name}   {scenario.fleet.devices} devices   {scenario.about}")
    play = _play_exactly if exact else _play
    found = play(scenario, name, scenario.seed if seed is None else seed)
    missed = unmet(scenario, found)
    kind = "affected devices" if found.bad else "devices"
    when = "" if found.stopped_h is None else f" after {found.stopped_h:g} h: {found.why}"
    lines = [
        f"{found.policy}, seed {found.seed}: {found.state}{when}",
        *(f"  isolated  {one}" for one in found.isolated),
        f"  exposed   {found.exposed_end} of {found.affected} {kind} ({found.exposed} at the stop)",
        f"  harmed    {found.harmed_end} if nobody recalls it ({found.harmed} at the stop)",
    ]
    if found.t95_h is not None:
        t99 = "not" if found.t99_h is None else f"{found.t99_h:g} h"
        lines.append(f"  95 % had an outcome after {found.t95_h:g} h, 99 % {t99}")
    lines += [f"NOT MET  {one}" for one in missed]
    if scenario.expectations and not missed:
        lines.append("Everything that was expected came true.")
    plain = {"outcome": found, "unmet": missed, "digest": found.digest()}
    out.data("sim-fleet-run/1", plain, "\n".join(lines))
    return UNMET if expect and missed else 0


def _play(scenario: "Scenario", policy: str, seed: int) -> "Outcome":
    from tidegate.sim.fleet.catalog import make_policy
    from tidegate.sim.fleet.play import Play

    return Play(scenario, make_policy(policy), policy, seed).run()


def _play_exactly(scenario: "Scenario", policy: str, seed: int) -> "Outcome":
    from tidegate.sim.exact.play import play_exactly

    with tempfile.TemporaryDirectory(prefix="tidegate-sim-") as folder:
        return play_exactly(scenario, policy, seed, Path(folder))


def agree(files: Sequence[Path], out: Output, *, policy: str | None, seeds: int, jobs: int) -> int:
    """Play scenarios in both modes and print where they differ. Returns the exit code."""
    scenarios = [read_scenario(file) for file in files]
    need_numpy()
    from tidegate.sim.exact import agree as both

    found = []
    for scenario in scenarios:
        name = policy or scenario.policy
        batched, exact = both.play_both(
            scenario, name, seeds, processes=jobs, tell=out.progress("runs")
        )
        found.append(both.compare(scenario, name, batched, exact))
    lines = [f"{'scenario':<14} {'figure':<20} {'batched':>14} {'exact':>14}  difference"]
    for one in found:
        lines.append(f"{one.scenario:<14} {'runs':<20} {one.batched:>14} {one.exact:>14}")
        lines += [
            f"{'':<14} {figure.name:<20} {figure.batched:>7.2f} ± {figure.batched_se:4.2f} "
            f"{figure.exact:>7.2f} ± {figure.exact_se:4.2f}  {figure.difference:+.2f} ± {figure.se:.2f}"
            f"{'' if figure.agrees else '  DIFFERS'}"
            for figure in one.figures
        ]
    agreed = all(one.agrees for one in found)
    lines.append("They agree." if agreed else "THEY DIFFER: one of the two is wrong.")
    out.data("sim-agree/1", {"agrees": agreed, "scenarios": found}, "\n".join(lines))
    return 0 if agreed else UNMET


def compare(
    files: Sequence[Path],
    out: Output,
    *,
    draw: int | None,
    which: "Drawing",
    seed: int,
    policies: str | None,
    seeds: int,
    jobs: int,
    cache: Path | None,
    page: Path | None,
) -> int:
    """Play scenarios x policies x seeds and print the comparison. Returns the exit code."""
    scenarios = [read_scenario(file) for file in files]
    need_numpy()
    from tidegate.sim.fleet import compare as comparison
    from tidegate.sim.fleet import summary
    from tidegate.sim.fleet.catalog import grid, make_policy, ours, usual
    from tidegate.sim.fleet.nulls import KINDS
    from tidegate.sim.fleet.nulls import nulls as count_stops
    from tidegate.sim.fleet.page import page as make_page

    asked = policies.split(",") if policies else usual(drawn=draw is not None)
    names = [name for one in asked for name in (grid() if one == "grid" else (one,))]
    for name in names:
        make_policy(name)
    if draw is not None:
        work = comparison.drawn_jobs(draw, seed, which, names)
        title = (
            f"{draw} bad and {draw} good releases drawn at random ({which}, seed {seed})"
            if which not in KINDS
            else f"{draw} releases that no gate may stop ({which}, seed {seed})"
        )
    else:
        work = comparison.jobs_of(scenarios, names, seeds)
        title = f"{len(scenarios)} scenarios, {seeds} seeds each"
    results = comparison.run_all(
        work,
        comparison.Cache(cache or _cache_folder()),
        processes=jobs,
        tell=out.progress("runs"),
    )
    modes = summary.modes(results) if draw is None else []
    drawn = summary.drawn(results) if draw is not None and which not in KINDS else []
    counted = count_stops(results) if draw is not None and which in KINDS else []
    pairs = [
        found
        for first in names
        if first in ours() and drawn
        for second in names
        if second not in ours()
        if (found := summary.paired(results, first, second)) is not None
    ]
    if page is not None:
        page.write_text(make_page(title, results, modes=modes, drawn=drawn, paired=pairs), "utf-8")
        out.note(f"report written to {page}")
    lines = [title, ""]
    lines += _mode_lines(modes) + _null_lines(counted)
    lines += _draw_lines(drawn, pairs) if drawn else []
    plain = {"title": title, "modes": modes, "drawn": drawn, "paired": pairs, "nulls": counted}
    out.data("sim-compare/1", plain, "\n".join(lines))
    return 0


def _cache_folder() -> Path:
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return usual / "tidegate" / "sim"


def _mode_lines(modes: Sequence["Mode"]) -> list[str]:
    lines = []
    for one in modes:
        hours = "never" if one.stopped_h is None else f"at {one.stopped_h:.0f} h"
        t95 = "" if one.t95_h is None else f"; T95 {one.t95_h:.0f} h"
        lines.append(
            f"{one.scenario:<14} {one.policy:<13} n={one.runs}  exposed {one.exposed:.0f}±{one.exposed_se:.0f} "
            f"({one.exposed_p95:.0f}) → {one.exposed_end:.0f}; harm {one.harmed:.0f}/{one.harmed_end:.0f}; "
            f"stopped {one.stopped:.2f} {hours}; isolations {one.isolations}{t95}"
        )
    return lines


def _null_lines(counted: Sequence["Null"]) -> list[str]:
    return [
        f"{one.kind:<6} {one.policy:<13} n={one.runs}  halts {one.halts}; isolations {one.isolations}; stopped at most "
        f"{one.at_most:.2%} (95 %)" + ("" if one.t95_h is None else f"; T95 {one.t95_h:.0f} h")
        for one in counted
    ]


def _draw_lines(drawn: Sequence["Drawn"], pairs: Sequence["Paired"]) -> list[str]:
    rows = [["", *(one.policy for one in drawn)]]
    rows.append(["stopped in time", *(f"{d.caught.share:.2f}±{d.caught.se:.2f}" for d in drawn)])
    rows += [
        [f"  {name} ({drawn[0].groups[name].of})", *(f"{d.groups[name].share:.2f}" for d in drawn)]
        for name in drawn[0].groups
    ]
    rows.append(
        ["exposed, median (p95)", *(f"{d.exposed:.0f} ({d.exposed_p95:.0f})" for d in drawn)]
    )
    rows.append(["harmed, median (p95)", *(f"{d.harmed:.0f} ({d.harmed_p95:.0f})" for d in drawn)])
    rows.append(
        [
            "good stopped without cause",
            *(f"{d.without_cause.hits}/{d.without_cause.of}" for d in drawn),
        ]
    )
    rows += [
        [f"  {name}", *(str(d.without_cause_groups[name]) for d in drawn)]
        for name in drawn[0].without_cause_groups
    ]
    rows.append(["good stopped with cause", *(str(d.with_cause) for d in drawn)])
    rows.append(
        ["T95 plain, h", *("-" if d.t95_plain_h is None else f"{d.t95_plain_h:.0f}" for d in drawn)]
    )
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    ]
    lines.append("")
    lines += [
        f"{one.first} against {one.second}: {one.difference:+.3f} ± {one.se:.3f}, at least {one.lower:+.3f} "
        f"(95 %); mean harm where both stop {one.harm_first:.1f} : {one.harm_second:.1f} ({one.both})"
        for one in pairs
    ]
    return lines
