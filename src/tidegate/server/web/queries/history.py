"""Time series for the web, from the sums that are kept by hour of a rollout and by day of the fleet (`server.series`): outcomes, downloads, reasons, versions.

A figure and its plot are one list of numbers, so they cannot disagree. There are at most `SPANS_MAX` spans, whatever the time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from tidegate.core.reasons import family
from tidegate.server.actors import SEES_ALL, Sight
from tidegate.server.outcomes import DAY_S, HOUR_S
from tidegate.server.store import Connection, hot
from tidegate.server.store import web_queries as rows
from tidegate.server.web import words
from tidegate.server.web.charts import Kind
from tidegate.server.web.queries.fleet import label
from tidegate.server.web.views import HistoryPage, Plot, PlotGroup

Row = dict[str, Any]
#: Columns of a plot: fewer than there are pixels on a telephone.
SPANS_MAX: Final = 96
PERIODS: Final = (7, 30, 90)
#: Spans of a rollout, in hours. What is older than some weeks is kept by day only, and a rollout of that age has spans of days.
_SPANS_H: Final = (1, 3, 6, 24, 48, 168, 672, 8_736, 87_360)
_REASONS: Final = 12
_VERSIONS: Final = 8
_RAMP: Final[tuple[Kind, ...]] = ("v0", "v1", "v2", "v3", "v4")
#: Counter, state, words, colour.
_OF_ROLLOUT: Final[tuple[tuple[str, str, str, Kind], ...]] = (
    ("confirmed", "confirmed", "Confirmed", "ok"),
    ("failed_before", "not_activated", "Failed before activation", "text3"),
    ("failed_after", "not_activated", "Failed after its permit", "bad"),
    ("reverted", "reverted", "Went back by itself", "bad"),
    ("lost", "lost", "Lost, silent past the deadline", "lost"),
    ("unstarted", "lost", "Silent before its permit", "text3"),
    ("declined", "declined", "Declined on site", "text3"),
)
_OF_FLEET: Final[tuple[tuple[str, str, str, Kind], ...]] = (
    ("end:confirmed", "confirmed", "Confirmed", "ok"),
    ("end:failed", "not_activated", "Failed", "bad"),
    ("end:reverted", "reverted", "Went back by itself", "bad"),
    ("end:lost", "lost", "Lost, silent past the deadline", "lost"),
    ("end:declined", "declined", "Declined on site", "text3"),
)
#: Per span, what each counter changed by.
Spans = Sequence[Mapping[str, int]]


def of_rollout(conn: Connection, name: str, now: int) -> HistoryPage | None:
    """Return the history of a rollout by its name (untrusted), or None."""
    row = rows.rollout(conn, name)
    if row is None:
        return None
    told = hot.hours(conn, int(row["id"]), 0, now // HOUR_S + 1)
    if not told:
        return HistoryPage(now, (), HOUR_S, (), rollout=name)
    step, first, count = _spans(told[0][0], max(told[-1][0], _until(row, now)))
    spans: list[dict[str, int]] = [{} for _ in range(count)]
    for hour, counter, value in told:
        span = spans[min((hour - first) // step, count - 1)]
        span[counter] = span.get(counter, 0) + value
    confirmed = _values(spans, "confirmed")
    runs = [sum(confirmed[: n + 1]) for n in range(count)]
    version = f"Run {words.plain(str(row['release_version']), 60)}"
    exposed = Plot("Given leave to activate", _values(spans, "exposed"), "go")
    groups = (
        PlotGroup(
            "ends", "Outcomes", "updates, by when the device said so",
            (exposed, *_plots(spans, _OF_ROLLOUT)), "No update has begun.",
        ),
        PlotGroup(
            "run", "Version over time", "devices of this rollout",
            (Plot(version, tuple(runs), "v0", level=True),), "No device confirmed it yet.",
        ),
        _downloads(spans, (Plot("Bytes fetched", _values(spans, "bytes"), "go2", unit="bytes"),)),
        _reasons(spans),
    )  # fmt: skip
    at = tuple((first + n * step) * HOUR_S for n in range(count))
    return HistoryPage(now, at, step * HOUR_S, groups, rollout=name)


def of_fleet(conn: Connection, days: int, now: int, sight: Sight = SEES_ALL) -> HistoryPage:
    """Return the history of what is seen of the fleet, day by day (UTC). It is counted by product: of groups there is nothing to show."""
    today = now // DAY_S
    days = days if days in PERIODS else PERIODS[1]
    first = today - days + 1
    of = None if sight.whole else sight.products
    spans: list[dict[str, int]] = [{} for _ in range(days)]
    for row in rows.daily(conn, first, of):
        span = spans[min(int(row["day"]) - first, days - 1)]
        span[str(row["name"])] = span.get(str(row["name"]), 0) + int(row["value"])
    restarts = {name for one in spans for name in one if name.startswith("restart:")}
    groups: tuple[PlotGroup, ...] = (
        PlotGroup(
            "ends", "Outcomes", "updates that ended",
            (Plot("Given leave to activate", _values(spans, "permit"), "go"), *_plots(spans, _OF_FLEET)),
            "No update ended in this time.",
        ),
        PlotGroup(
            "run", "Versions over time", "devices, as they report it; at the end of each day",
            _versions(conn, first, days, of), "No device has said yet what it runs.",
        ),
        _downloads(
            spans,
            (
                Plot("Downloads that arrived", _values(spans, "download.ok"), "go2", "staged"),
                Plot("Bytes fetched", _values(spans, "download.bytes"), "go2", unit="bytes"),
            ),
        ),
        _reasons(spans),
        PlotGroup(
            "restarts", "Restarts that nobody asked for", "of devices, by cause",
            tuple(
                Plot(words.RESTARTS.get(name[8:], name[8:]), _values(spans, name), "warn", code=name[8:])
                for name in sorted(restarts)
            ),
            "None in this time.",
        ),
    )  # fmt: skip
    return HistoryPage(
        now,
        tuple((first + n) * DAY_S for n in range(days)),
        DAY_S,
        groups if of != frozenset() else (),  # nothing known is not the same as nothing happened
        days=days,
        periods=PERIODS,
        products=() if sight.whole else tuple(sorted(sight.products)),
        uncounted=() if sight.whole else tuple(sorted(sight.groups)),
    )


def _spans(first: int, last: int) -> tuple[int, int, int]:
    """Return how many hours a span has, the hour of the first, and how many there are."""
    step = next(one for one in _SPANS_H if (last - first // one * one) // one < SPANS_MAX)
    begin = first // step * step
    return step, begin, (last - begin) // step + 1


def _until(row: Row, now: int) -> int:
    """Return the hour up to which a rollout is shown: of one that moves that is now."""
    return now // HOUR_S if row["state"] in {"active", "paused", "falling_back"} else 0


def _values(spans: Spans, name: str) -> tuple[int, ...]:
    return tuple(one.get(name, 0) for one in spans)


def _plots(spans: Spans, wanted: Iterable[tuple[str, str, str, Kind]]) -> tuple[Plot, ...]:
    return tuple(
        Plot(text, _values(spans, name), kind, state) for name, state, text, kind in wanted
    )


def _downloads(spans: Spans, first: tuple[Plot, ...]) -> PlotGroup:
    failed = _by_reason(spans, lambda code: family(code) == "download")
    return PlotGroup(
        "downloads", "Downloads", "what arrived, and what failed by reason",
        (*first, *failed), "Nothing was fetched.",
    )  # fmt: skip


def _reasons(spans: Spans) -> PlotGroup:
    others = _by_reason(spans, lambda code: family(code) != "download")
    return PlotGroup(
        "reasons", "Other reasons", "why updates failed, went back or were lost, most first",
        others, "Nothing failed, went back or was lost.",
    )  # fmt: skip


def _by_reason(spans: Spans, wanted: Callable[[str], bool]) -> tuple[Plot, ...]:
    codes = {name[7:] for one in spans for name in one if name.startswith("reason:")}
    found = [
        Plot(words.reason(code), _values(spans, f"reason:{code}"), "bad", code=code)
        for code in sorted(codes)
        if wanted(code)
    ]
    return tuple(sorted(found, key=lambda one: -one.figure)[:_REASONS])


def _versions(conn: Connection, first: int, days: int, of: rows.Products) -> tuple[Plot, ...]:
    """Return how many devices ran what at the end of each day: by the last sample of the day, and of the present day by the newest."""
    last: dict[int, int] = {}
    for at in rows.sample_times(conn, first * DAY_S):
        last[at // DAY_S] = at
    found = rows.samples(conn, list(last.values()), of) if last else []
    several = len({row["product"] for row in found}) > 1
    runs: dict[tuple[int, str], list[int]] = {}
    for row in found:
        key = (int(row["counter"]), label(row, several))
        values = runs.setdefault(key, [0] * days)
        values[min(int(row["at"]) // DAY_S - first, days - 1)] += int(row["devices"])
    newest = sorted(runs, reverse=True)
    plots = [
        Plot(words.plain(key[1], 80), tuple(runs[key]), _RAMP[min(n, len(_RAMP) - 1)], level=True)
        for n, key in enumerate(newest[:_VERSIONS])
    ]
    if older := newest[_VERSIONS:]:
        sums = tuple(sum(runs[key][n] for key in older) for n in range(days))
        plots.append(Plot("Older ones", sums, "v4", level=True))
    return tuple(plots)
