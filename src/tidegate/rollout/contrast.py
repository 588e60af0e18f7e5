"""What the devices that failed have in common: each attribute's each value against all other devices.

For every value the chance is computed that so many of the failures would fall on it if failures did not care (Fisher's exact test, one-sided). Looking at many
values finds something by luck, so the odds shown are divided by how many were looked at. It points at a suspect; it decides nothing.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

#: Beyond this many to 1 the exact figure says nothing more.
_MOST_ODDS: Final = 1e9


class Contrast(msgspec.Struct, frozen=True, kw_only=True):
    """One value of one attribute: failures among the devices that have it, and among the others. `odds` to 1, already discounted."""

    attribute: str
    value: str
    bad: int
    count: int
    other_bad: int
    other_count: int
    odds: float


def contrasts(
    devices: Sequence[tuple[Mapping[str, object], bool]], attributes: Iterable[str]
) -> tuple[Contrast, ...]:
    """Return every value seen, the most telling first.

    Args:
        devices: attributes of each device that acted on the release, and whether it ended badly.
        attributes: names to look at; values are compared as text. A value that all or none have says nothing and is left out.
    """
    every_bad = sum(bad for _, bad in devices)
    found: list[tuple[str, str, int, int]] = []
    for name in attributes:
        counts: dict[str, list[int]] = {}
        for attrs, bad in devices:
            if (value := attrs.get(name)) is not None:
                pair = counts.setdefault(str(value), [0, 0])
                pair[0] += bad
                pair[1] += 1
        found += [(name, value, bad, count) for value, (bad, count) in sorted(counts.items())]
    useful = [one for one in found if 0 < one[3] < len(devices)]
    made = [
        Contrast(
            attribute=name,
            value=value,
            bad=bad,
            count=count,
            other_bad=every_bad - bad,
            other_count=len(devices) - count,
            odds=_odds(bad, count, every_bad, len(devices), len(useful)),
        )
        for name, value, bad, count in useful
    ]
    return tuple(sorted(made, key=lambda one: (-one.odds, one.attribute, one.value)))


def _odds(bad: int, count: int, every_bad: int, every: int, looked_at: int) -> float:
    """Return 1 : P(at least `bad` of the failures fall among `count` devices), over the number of looks."""
    whole = _log_choose(every, every_bad)
    terms = [
        _log_choose(count, hit) + _log_choose(every - count, every_bad - hit) - whole
        for hit in range(bad, min(count, every_bad) + 1)
        if every_bad - hit <= every - count
    ]
    chance = math.fsum(math.exp(term) for term in terms)
    return round(min(_MOST_ODDS, 1 / chance / looked_at), 1) if chance > 0 else _MOST_ODDS


def _log_choose(trials: int, count: int) -> float:
    return math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
