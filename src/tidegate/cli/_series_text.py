"""How series are told: a row for each hour in which something changed, each counter as it stood then."""

from typing import Final

from tidegate.cli._people import when
from tidegate.client import structs

#: Counters of the table, in the order of an update's life; `bytes` is what came within the hour.
COLUMNS: Final = ("when", "offered", "exposed", "confirmed", "bad", "MB")
_BAD: Final = ("reverted", "failed_before", "failed_after", "lost")


def hours(found: structs.RolloutSeries) -> list[dict[str, object]]:
    """Return the rows of a rollout's series."""
    stand = dict(found.before)
    rows: list[dict[str, object]] = []
    for point in found.items:
        for name, by in point.counts.items():
            stand[name] = stand.get(name, 0) + by
        rows.append(
            {
                "when": when(point.at),
                **{name: stand.get(name, 0) for name in COLUMNS[1:4]},
                "bad": sum(stand.get(name, 0) for name in _BAD),
                "MB": point.counts.get("bytes", 0) // 1_000_000,
            }
        )
    return rows


def days(found: structs.FleetSeries) -> list[str]:
    """Return lines of the fleet's days."""
    lines = []
    for point in found.days:
        told = point.counts
        bad = sum(told.get(f"end:{name}", 0) for name in ("reverted", "failed", "lost"))
        lines.append(
            f"{when(point.at)[:10]}   {told.get('end:confirmed', 0):,} confirmed   {bad:,} bad   "
            f"{told.get('download.ok', 0):,} downloads, {told.get('download.bytes', 0) // 1_000_000:,} MB"
        )
    return lines
