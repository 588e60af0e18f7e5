"""The report of a comparison as one self-contained HTML file: tables, and plots as SVG."""

import html
import math
from collections.abc import Iterable, Sequence
from typing import Final

from tidegate.sim.fleet.outcome import Outcome
from tidegate.sim.fleet.summary import Drawn, Mode, Paired

_WIDTH: Final = 640
_HEIGHT: Final = 260
_LEFT: Final = 56
_BOTTOM: Final = 30
_COLOURS: Final = (
    "#0b6e99", "#c2410c", "#15803d", "#7c3aed", "#b45309", "#475569", "#be185d", "#0f766e",
    "#4d7c0f", "#1d4ed8",
)  # fmt: skip
_STYLE: Final = """
body{font:15px/1.5 system-ui,sans-serif;max-width:75rem;margin:2rem auto;padding:0 1rem;color:#1e293b}
table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;border-bottom:1px solid #e2e8f0;text-align:right}th:first-child,td:first-child{text-align:left}
th{background:#f1f5f9}figure{display:inline-block;margin:0 1.5rem 1.5rem 0}figcaption{font-weight:600}
svg text{font:11px system-ui,sans-serif;fill:#475569}.key{display:inline-block;margin-right:1rem}
.key i{display:inline-block;width:.9em;height:.9em;border-radius:2px;margin-right:.3em;vertical-align:-1px}
"""


def page(
    title: str,
    outcomes: Sequence[Outcome],
    *,
    modes: Sequence[Mode] = (),
    drawn: Sequence[Drawn] = (),
    paired: Sequence[Paired] = (),
) -> str:
    """Return the page.

    Args:
        title: what was compared.
        outcomes: all runs.
        modes: summaries of scenario files.
        drawn: summaries of random draws.
        paired: differences between two policies.
    """
    policies = list(dict.fromkeys(one.policy for one in outcomes))
    parts = [f"<h1>{html.escape(title)}</h1>", _key(policies)]
    if modes:
        parts += ["<h2>Scenarios</h2>", _mode_table(modes)]
        for scenario in dict.fromkeys(one.scenario for one in modes):
            mine = [one for one in outcomes if one.scenario == scenario]
            parts += [f"<h3>{html.escape(scenario)}</h3>", _exposure(mine, policies)]
            parts += [_meter(mine), _spread(mine, policies)]
    if drawn:
        parts += ["<h2>Random draws</h2>", _drawn_table(drawn), _paired_table(paired)]
        parts.append(_spread([one for one in outcomes if one.bad], policies))
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"
    )


# --- tables ---------------------------------------------------------------------------------------------------------------


def _mode_table(modes: Iterable[Mode]) -> str:
    head = (
        "scenario", "policy", "runs", "exposed (p95)", "in the end", "harmed / in the end",
        "stopped", "median h", "isolations", "no true cause", "T95 h", "T99 h",
    )  # fmt: skip
    rows = [
        (
            one.scenario, one.policy, str(one.runs),
            f"{one.exposed:.0f} ± {one.exposed_se:.0f} ({one.exposed_p95:.0f})",
            f"{one.exposed_end:.0f}", f"{one.harmed:.0f} / {one.harmed_end:.0f}",
            f"{one.stopped:.2f}", _hours(one.stopped_h), str(one.isolations),
            str(one.without_cause), _hours(one.t95_h), _hours(one.t99_h),
        )
        for one in modes
    ]  # fmt: skip
    return _table(head, rows)


def _drawn_table(drawn: Sequence[Drawn]) -> str:
    head = ("", *(one.policy for one in drawn))
    rows = [
        (
            "stopped in time, of the bad",
            *(f"{d.caught.share:.2f} ± {d.caught.se:.2f}" for d in drawn),
        )
    ]
    rows += [
        (name, *(f"{d.groups[name].share:.2f} ({d.groups[name].of})" for d in drawn))
        for name in drawn[0].groups
    ]
    rows += [
        ("exposed, median (p95)", *(f"{d.exposed:.0f} ({d.exposed_p95:.0f})" for d in drawn)),
        ("harmed, median (p95)", *(f"{d.harmed:.0f} ({d.harmed_p95:.0f})" for d in drawn)),
        (
            "good stopped without true cause",
            *(f"{d.without_cause.hits} of {d.without_cause.of}" for d in drawn),
        ),
        ("T95 of plain good releases, h", *(_hours(d.t95_plain_h) for d in drawn)),
    ]
    return _table(head, rows)


def _paired_table(paired: Sequence[Paired]) -> str:
    head = (
        "on the same draws",
        "stopped in time: difference",
        "at least (95 %)",
        "mean harm where both stop",
    )
    rows = [
        (
            f"{one.first} against {one.second}",
            f"{one.difference:+.3f} ± {one.se:.3f}",
            f"{one.lower:+.3f}",
            f"{one.harm_first:.1f} : {one.harm_second:.1f} ({one.both})",
        )
        for one in paired
    ]
    return _table(head, rows) if rows else ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(one)}</{tag}>" for one in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _hours(hours: float | None) -> str:
    return "never" if hours is None else f"{hours:.0f}"


# --- plots ----------------------------------------------------------------------------------------------------------------


def _colour(policies: Sequence[str], policy: str) -> str:
    return _COLOURS[policies.index(policy) % len(_COLOURS)]


def _key(policies: Sequence[str]) -> str:
    return (
        "<p>"
        + "".join(
            f'<span class="key"><i style="background:{_colour(policies, one)}"></i>{html.escape(one)}</span>'
            for one in policies
        )
        + "</p>"
    )


def _exposure(runs: Sequence[Outcome], policies: Sequence[str]) -> str:
    """Exposure over time, logarithmic, one line a run."""
    hours = max((one.curve[-1][0] for one in runs if one.curve), default=1.0) or 1.0
    most = max((one.devices for one in runs), default=1)
    lines = [
        _line([(h / hours, _log(n, most)) for h, n in one.curve], _colour(policies, one.policy))
        for one in runs[: 12 * len(policies)]
        if one.curve
    ]
    ticks = [
        (_log(10**power, most), f"{10**power:,}") for power in range(1 + int(math.log10(most)))
    ]
    return _figure("Devices exposed over time", "".join(lines), ticks, _hour_ticks(hours))


def _meter(runs: Sequence[Outcome]) -> str:
    """The evidence of the gate's own runs, as odds against the release; they halt at the upper line."""
    mine = [one for one in runs if any("ln_e" in figures for _, figures in one.meters)]
    if not mine:
        return ""
    hours = max(one.meters[-1][0] for one in mine) or 1.0
    top = math.log(1000)

    def height(ln_e: float) -> float:
        return min(1.0, max(0.0, (ln_e + top) / (2 * top)))

    lines = [
        _line(
            [(h / hours, height(figures.get("ln_e", 0.0))) for h, figures in one.meters],
            _COLOURS[0],
        )
        for one in mine[:12]
    ]
    ticks = [
        (height(math.log(odds)), text)
        for odds, text in ((0.001, "1 : 1000"), (1, "1 : 1"), (1000, "1000 : 1"))
    ]
    return _figure("Odds against the release", "".join(lines), ticks, _hour_ticks(hours))


def _spread(runs: Sequence[Outcome], policies: Sequence[str]) -> str:
    """Distribution of the exposure in the end over runs: cumulative share, logarithmic."""
    most = max((one.devices for one in runs), default=1)
    lines = []
    for policy in policies:
        values = sorted(one.exposed_end for one in runs if one.policy == policy)
        steps = [(_log(value, most), (n + 1) / len(values)) for n, value in enumerate(values)]
        lines.append(_line([(0.0, 0.0), *steps], _colour(policies, policy)))
    across = [
        (_log(10**power, most), f"{10**power:,}") for power in range(1 + int(math.log10(most)))
    ]
    up = [(share, f"{share:.0%}") for share in (0.0, 0.25, 0.5, 0.75, 1.0)]
    return _figure("Exposed in the end: share of runs at or below", "".join(lines), up, across)


def _log(value: float, most: float) -> float:
    return math.log(max(1.0, value)) / math.log(max(2.0, most))


def _hour_ticks(hours: float) -> list[tuple[float, str]]:
    return [(n / 4, f"{n * hours / 4:.0f} h") for n in range(5)]


def _line(points: Iterable[tuple[float, float]], colour: str) -> str:
    path = " ".join(
        f"{_LEFT + x * (_WIDTH - _LEFT - 10):.1f},{_HEIGHT - _BOTTOM - y * (_HEIGHT - _BOTTOM - 10):.1f}"
        for x, y in points
    )
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-opacity=".6" stroke-width="1.5"/>'


def _figure(
    title: str,
    content: str,
    up: Iterable[tuple[float, str]],
    across: Iterable[tuple[float, str]],
) -> str:
    bottom = _HEIGHT - _BOTTOM
    marks = [
        f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{bottom - y * (bottom - 10):.1f}" y2="{bottom - y * (bottom - 10):.1f}" stroke="#e2e8f0"/>'
        f'<text x="{_LEFT - 6}" y="{bottom - y * (bottom - 10) + 4:.1f}" text-anchor="end">{text}</text>'
        for y, text in up
    ]
    marks += [
        f'<text x="{_LEFT + x * (_WIDTH - _LEFT - 10):.1f}" y="{bottom + 18}" text-anchor="middle">{text}</text>'
        for x, text in across
    ]
    return (
        f"<figure><figcaption>{html.escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="{html.escape(title)}">'
        f"{''.join(marks)}{content}</svg></figure>"
    )
