"""What a rollout and the fleet did over time: sums that are kept with what they count, by hour, by day, and by sample.

The hours of a rollout hold what each of its counters changed by; added up from the beginning they are the counter at that moment, and in the end `tally`. So
an hour may be negative: a device that confirmed and then went back takes its `confirmed` away again.
"""

from typing import Final

import msgspec

from tidegate.core.errors import RequestError
from tidegate.server.outcomes import DAY_S, HOUR_S
from tidegate.server.store import Connection, admin_devices, hot, web_queries

#: Most hours, or days, in one answer.
POINTS_MAX: Final = 2_000


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """What changed within a span that begins at `at`, by counter; what did not change is left out."""

    at: int
    counts: dict[str, int]


class RolloutSeries(msgspec.Struct, frozen=True, kw_only=True):
    """What a rollout's counters changed by, hour by hour (older ones by day), and how they stood before the first of these."""

    rollout: str
    before: dict[str, int]
    items: list[Point]


class FleetSeries(msgspec.Struct, frozen=True, kw_only=True):
    """What happened in the fleet day by day (UTC): ends, reasons, permits, downloads, bytes, restarts; and how many devices ran which release when."""

    days: list[Point]
    versions: list[Point]


def of_rollout(
    conn: Connection, rollout_id: int, name: str, since: int = 0, until: int = 0
) -> RolloutSeries:
    """Return the series of a rollout from the hour of `since` to that of `until`, unix seconds; 0 = from its beginning, up to now.

    Raises:
        RequestError: `request.invalid`: more than `POINTS_MAX` hours have something to tell.
    """
    first, last = since // HOUR_S, until // HOUR_S if until else _FAR
    points: dict[int, dict[str, int]] = {}
    before: dict[str, int] = {}
    for hour, counter, value in hot.hours(conn, rollout_id, 0, last):
        if hour < first:
            before[counter] = before.get(counter, 0) + value
        else:
            points.setdefault(hour, {})[counter] = value
    _require_few(points)
    items = [Point(at=hour * HOUR_S, counts=counts) for hour, counts in sorted(points.items())]
    return RolloutSeries(rollout=name, before=before, items=items)


def of_fleet(conn: Connection, since: int) -> FleetSeries:
    """Return the series of the fleet since then, unix seconds.

    Raises:
        RequestError: `request.invalid`: that is more than `POINTS_MAX` days, or samples.
    """
    days: dict[int, dict[str, int]] = {}
    for row in admin_devices.daily(conn, since // DAY_S):
        counts = days.setdefault(int(row["day"]), {})
        counts[row["name"]] = counts.get(row["name"], 0) + int(row["value"])
    _require_few(days)
    samples: dict[int, dict[str, int]] = {}
    for row in web_queries.samples(conn, web_queries.sample_times(conn, since)):
        name = f"{row['product']} {row['version'] or row['counter']}"
        counts = samples.setdefault(int(row["at"]), {})
        counts[name] = counts.get(name, 0) + int(row["devices"])
    _require_few(samples)
    return FleetSeries(
        days=[Point(at=day * DAY_S, counts=one) for day, one in sorted(days.items())],
        versions=[Point(at=at, counts=one) for at, one in sorted(samples.items())],
    )


_FAR: Final = 1 << 40


def _require_few(points: dict[int, dict[str, int]]) -> None:
    if len(points) > POINTS_MAX:
        raise RequestError(
            "request.invalid", f"more than {POINTS_MAX} points: give a later `since`"
        )
