"""What the devices that failed have in common: each value of each attribute, and each pair of values, against all other devices.

For every value the chance is computed that so many of the failures would fall on it if failures did not care about it (Fisher's exact test, one-sided, from the
counts alone). The test holds the number of failures fixed, so a rollout that was stopped because of their number does not make it look better than it is.
Looking at many values finds something by luck, so every chance is multiplied by the number of values that could have shown anything at all; one that is so rare
that it never could is not counted (Tarone 1990, Biometrics 46:515). It points at a suspect; it decides nothing.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

#: Beyond this many to 1 the exact figure says nothing more.
_MOST_ODDS: Final = 1e9
#: A chance above this one, already multiplied, is noise and is not shown. It is also what a value must be able to reach to count as a look.
_NOISE: Final = 0.1
#: A pair is shown only where it says so many times more than each of its halves.
_PAIR_GAIN: Final = math.log(10)
#: An attribute with more values than this is a name of devices, not a property of them. For pairs there have to be fewer.
_VALUES_MAX: Final = 500
_PAIR_VALUES_MAX: Final = 50
_ATTRIBUTES_MAX: Final = 24
_PAIR_ATTRIBUTES_MAX: Final = 10
_VALUE_CHARS: Final = 80
ROWS_MAX: Final = 8

Term = tuple[str, str]


class Contrast(msgspec.Struct, frozen=True, kw_only=True):
    """One value, or a pair of them: failures among the devices that have it, and among the others.

    Attributes:
        terms: one or two (attribute, value).
        bad: of `count` devices that have it, so many failed; of the `other_count` others, `other_bad` did.
        odds: to 1 against luck, already corrected for the number of looks; at most a milliard.
        same: other values that exactly the same devices have.
    """

    terms: tuple[Term, ...]
    bad: int
    count: int
    other_bad: int
    other_count: int
    odds: float
    same: tuple[Term, ...] = ()

    @property
    def label(self) -> str:
        """Write the terms as a query would: `variant = r7 and region = north`."""
        return " and ".join(f"{name} = {value}" for name, value in self.terms)


class ContrastTable(msgspec.Struct, frozen=True, kw_only=True):
    """The most telling values, strongest first; a hardware variant before others that say as much.

    Attributes:
        devices: whose outcome was known and looked at; `bad` of them failed.
        looks: values and pairs that could have shown something, for which every row's odds are corrected.
        attributes: names that were looked at.
        left_out: names with too many values to be properties, or beyond the most that are looked at.
        partial: there were more devices than were looked at.
    """

    rows: tuple[Contrast, ...] = ()
    devices: int = 0
    bad: int = 0
    looks: int = 0
    attributes: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    partial: bool = False


class Counts:
    """Counts devices by what they are and how it ended for them. Order does not matter."""

    def __init__(self, first: Sequence[str] = ("variant",)) -> None:
        """Begin with none; `first` names attributes that are looked at before all others, in this order."""
        self._first = tuple(first)
        self._groups: dict[tuple[Term, ...], list[int]] = {}

    def add(self, attributes: Mapping[str, object], *, bad: bool, devices: int = 1) -> None:
        """Count devices with these attributes (untrusted; values are compared as text, cut to a length)."""
        key = tuple(
            (name[:_VALUE_CHARS], str(value)[:_VALUE_CHARS])
            for name, value in sorted(attributes.items())
            if value is not None and value != ""
        )
        found = self._groups.setdefault(key, [0, 0])
        found[0] += devices if bad else 0
        found[1] += devices

    def table(self, *, partial: bool = False) -> ContrastTable:
        """Compare, and return what is worth showing."""
        every_bad = sum(one[0] for one in self._groups.values())
        every = sum(one[1] for one in self._groups.values())
        names, left_out = self._names()
        cells = self._cells(names)
        useful = {key: cell for key, cell in cells.items() if cell[1] < every}
        looks = _looks(_least(count, every_bad, every) for _, count in useful.values())
        chances = {
            key: _log_tail(bad, count, every_bad, every) for key, (bad, count) in useful.items()
        }
        limit = math.log(_NOISE / looks)
        telling = [key for key, chance in chances.items() if chance <= limit]
        kept = [key for key in telling if len(key) == 1 or _adds(key, chances, useful)]
        kept.sort(key=lambda key: (round(chances[key], 9), len(key), self._rank(key), key))
        rows: list[Contrast] = []
        said: set[tuple[Term, ...]] = set()
        for key in kept:
            if key in said:
                continue
            same = _same(key, kept, useful)
            said.update(same)
            bad, count = useful[key]
            rows.append(
                Contrast(
                    terms=key,
                    bad=bad,
                    count=count,
                    other_bad=every_bad - bad,
                    other_count=every - count,
                    odds=_odds(chances[key] + math.log(looks)),
                    same=tuple(one[0] for one in same),
                )
            )
        return ContrastTable(
            rows=tuple(rows[:ROWS_MAX]),
            devices=every,
            bad=every_bad,
            looks=looks if useful else 0,
            attributes=names,
            left_out=left_out,
            partial=partial,
        )

    def _rank(self, key: tuple[Term, ...]) -> tuple[int, ...]:
        last = len(self._first)
        return tuple(self._first.index(name) if name in self._first else last for name, _ in key)

    def _names(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the attributes to look at, and those left out; chosen without regard to outcomes."""
        values: dict[str, set[str]] = {}
        for key in self._groups:
            for name, value in key:
                values.setdefault(name, set()).add(value)
        ordered = [name for name in self._first if name in values]
        ordered += sorted(set(values) - set(ordered))
        good = [name for name in ordered if len(values[name]) <= _VALUES_MAX][:_ATTRIBUTES_MAX]
        pairs = [name for name in good if 1 < len(values[name]) <= _PAIR_VALUES_MAX]
        self._paired = frozenset(pairs[:_PAIR_ATTRIBUTES_MAX])
        return tuple(good), tuple(name for name in ordered if name not in good)[:_ATTRIBUTES_MAX]

    def _cells(self, names: Sequence[str]) -> dict[tuple[Term, ...], tuple[int, int]]:
        """Return (bad, devices) of every value, and of every pair of values of different attributes."""
        wanted = frozenset(names)
        bads: Counter[tuple[Term, ...]] = Counter()
        counts: Counter[tuple[Term, ...]] = Counter()
        for key, (bad, count) in self._groups.items():
            single = [term for term in key if term[0] in wanted]
            paired = [term for term in single if term[0] in self._paired]
            cells: list[tuple[Term, ...]] = [(term,) for term in single]
            cells += [(a, b) for number, a in enumerate(paired) for b in paired[number + 1 :]]
            for cell in cells:
                counts[cell] += count
                if bad:
                    bads[cell] += bad
        return {cell: (bads[cell], count) for cell, count in counts.items()}


def _adds(
    key: tuple[Term, ...],
    chances: Mapping[tuple[Term, ...], float],
    cells: Mapping[tuple[Term, ...], tuple[int, int]],
) -> bool:
    """Say whether a pair says much more than each of its halves, which it is not just another name for."""
    halves = [(term,) for term in key]
    if any(half not in cells or cells[half][1] == cells[key][1] for half in halves):
        return False
    return all(chances[key] <= chances[half] - _PAIR_GAIN for half in halves)


def _same(
    key: tuple[Term, ...],
    kept: Iterable[tuple[Term, ...]],
    cells: Mapping[tuple[Term, ...], tuple[int, int]],
) -> list[tuple[Term, ...]]:
    """Return other single values that exactly the same devices have."""
    if len(key) > 1:
        return []
    found = []
    for other in kept:
        if len(other) > 1 or other == key or cells[other] != cells[key]:
            continue
        both = tuple(sorted((key[0], other[0])))
        if cells.get(both, (0, 0))[1] == cells[key][1]:
            found.append(other)
    return found


def _looks(least: Iterable[float]) -> int:
    """Return by how much to correct: the smallest k so that at most k values can reach `_NOISE` / k (Tarone). `least`: ln of each value's least chance."""
    ordered = sorted(least)
    for looks in range(1, len(ordered) + 1):
        limit = math.log(_NOISE / looks) + 1e-12
        if sum(one <= limit for one in ordered) <= looks:
            return looks
    return max(1, len(ordered))


def _least(count: int, every_bad: int, every: int) -> float:
    """Return ln of the least chance that a value of `count` devices could show: as many failures on it as there can be."""
    most = min(count, every_bad)
    return _log_point(most, count, every_bad, every)


def _log_tail(bad: int, count: int, every_bad: int, every: int) -> float:
    """Return ln P(at least `bad` of the failures fall among `count` devices), where failures do not care."""
    if bad <= max(0, count + every_bad - every):
        return 0.0
    # Beyond the expected number every term is smaller than the one before it, so the sum can end early; below it the tail is no evidence anyhow.
    if bad * every <= count * every_bad:
        return 0.0
    term = total = 1.0
    for hit in range(bad, min(count, every_bad)):
        room = every - count - every_bad + hit + 1
        term *= (count - hit) * (every_bad - hit) / ((hit + 1) * room)
        total += term
        if term < total * 1e-17:
            break
    return min(0.0, _log_point(bad, count, every_bad, every) + math.log(total))


def _log_point(bad: int, count: int, every_bad: int, every: int) -> float:
    whole = _log_choose(every, every_bad)
    return _log_choose(count, bad) + _log_choose(every - count, every_bad - bad) - whole


def _odds(log_chance: float) -> float:
    """Return how many to 1, to three digits: libraries of other platforms differ in the last ones."""
    return float(f"{min(_MOST_ODDS, math.exp(min(-log_chance, 30.0))):.3g}")


def _log_choose(trials: int, count: int) -> float:
    return math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
