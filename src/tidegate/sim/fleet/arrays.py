"""The book and its wealth with numpy, all strata at once: what `rollout.evidence.book` and `wealth` say one stratum at a time.

A simulated month is some thousands of decisions on up to two hundred strata, and most of its time went into them. Nothing is decided here. The book holds
the same integers. The figures are those of `Wealth`: both round what is compared with a limit to micro-nats.
"""

from typing import Final, cast

import numpy as np

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence import stakes
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import PAID, Book, Home, Row
from tidegate.rollout.evidence.settings import (
    DELTAS_PPM,
    LAMBDAS_PCT,
    MILLION,
    RATES_PCT,
    THETAS_PCT,
    Harm,
)
from tidegate.rollout.evidence.strata import Scheme
from tidegate.rollout.evidence.wealth import Wealth
from tidegate.sim.fleet.population import Floats, Ints

_CHARGES: Final = np.array(stakes.charge(), np.int64)
_PAID: Final = np.array(stakes.burst(), np.int64)
_MORE: Final = np.array(RATES_PCT, np.int64) - 100
_BEGUN: Final = stakes.begun() / MILLION
_DAILY: Final = stakes.daily() / MILLION
_DELTAS, _THETAS, _LAMBDAS = len(DELTAS_PPM), len(THETAS_PCT), len(LAMBDAS_PCT)
_KINDS: Final = len(at.KINDS)
_RACES: Final = slice(at.RACE, at.METRIC)
_TODAY: Final = slice(at.EXPECTED_TODAY, at.FAILURE)
#: Expected and seen late events, of both kinds: since the start, then since the day began.
_EXPECTED: Final = np.array(
    [at.EXPECTED, at.EXPECTED + 1, at.EXPECTED_TODAY, at.EXPECTED_TODAY + 1]
)
_SEEN: Final = np.array([at.SEEN, at.SEEN + 1, at.SEEN_TODAY, at.SEEN_TODAY + 1])
#: Place of the first stream of late events against the fleet's rate among all streams: bets on failures, silence and races come before it, metrics after.
_BURSTS: Final = 4


class ArrayBook(Book):
    """Drop-in for `Book`. `matrix` holds its rows: every row is a view of a line of it, so that single numbers are booked as in a list."""

    def __init__(self, scheme: Scheme, harm: Harm, baseline: Baseline) -> None:
        super().__init__(scheme, harm, baseline)
        count, width = len(self.rows), self.layout.width
        self.matrix = np.zeros((count, width), np.int64)
        self.marks = np.zeros(count, np.int64)
        flat = self.matrix.reshape(-1).data
        lines = [flat[one * width : (one + 1) * width] for one in range(count)]
        self.rows = cast("list[Row]", lines)
        self.versions = cast("list[int]", self.marks.data)

    def _give_all(self) -> None:
        moved = [self._homes[profile] for profile in self._moved]
        self._moved.clear()
        lines: list[int] = []
        columns: list[int] = []
        amounts: list[int] = []
        strata: list[int] = []
        owners: list[int] = []
        for number, home in enumerate(moved):
            for where, amount in _pending(home):
                lines.append(number)
                columns.append(where)
                amounts.append(amount)
            strata += home.strata
            owners += [number] * len(home.strata)
        used = sorted(set(columns))
        place = {where: number for number, where in enumerate(used)}
        # Whole numbers below 2⁵³: the product is exact.
        added = np.zeros((len(moved), len(used)))
        added[lines, [place[where] for where in columns]] = amounts
        member = np.zeros((len(self.rows), len(moved)))
        member[strata, owners] = 1.0
        self.matrix[:, used] += (member @ added).astype(np.int64)
        self.marks[list(set(strata))] += 1

    def _grow(self, kind: int, ppb: int) -> None:
        watched = self.matrix[:, at.WATCHED + kind]
        more = np.maximum(watched, 0) * ppb
        self.matrix[:, at.EXPECTED + kind] += more
        self.matrix[:, at.EXPECTED_TODAY + kind] += more
        self.marks += watched > 0

    def _stake(self, floor: int, *, new_day: bool) -> None:
        race = self.matrix[:, _RACES]
        self.marks += race.min(axis=1) < floor
        np.maximum(race, floor, out=race)
        if new_day:
            today = self.matrix[:, _TODAY]
            self.marks += today.any(axis=1)
            today[:] = 0


def _pending(home: Home) -> list[tuple[int, int]]:
    """Return what was added to a profile, column by column, and take it to its own counters."""
    pending, home.pending = home.pending, {}
    found = []
    for where, amount in pending.items():
        if where == PAID:
            found += [(at.FAILURE + one, amount * worth) for one, worth in enumerate(home.credit)]
            continue
        if where < at.TRACKED:
            home.total[where] += amount
        found.append((where, amount))
    return found


class ArrayWealth(Wealth):
    """Drop-in for `Wealth` that works out all changed strata in one go."""

    def __init__(self, book: ArrayBook) -> None:
        super().__init__(book)
        self._of = book
        count, metrics = book.matrix.shape[0], (book.layout.width - at.METRIC) // _LAMBDAS
        sizes = [_DELTAS, _DELTAS, _THETAS, _THETAS, *[_LAMBDAS] * metrics]
        self._sizes = np.array(sizes)
        self._starts = np.cumsum([0, *sizes[:-1]])
        self._weights = np.array(book.layout.weights)
        self._marks = np.full(count, -1)
        self._bets = np.zeros((count, sum(sizes)), np.int64)
        self._logs = np.zeros((count, self._weights.size))

    def refresh(self) -> None:
        """Look again at the strata that changed."""
        book = self._of
        book.settle()
        changed = np.flatnonzero(book.marks != self._marks)
        if not changed.size:
            return
        self._marks[:] = book.marks
        rows = book.matrix[changed]
        bets = rows[:, at.FAILURE :]
        bets[:, :_DELTAS] += rows[:, at.CHARGED, None] * _CHARGES
        self._bet(changed, bets)
        self._logs[changed, _BURSTS : _BURSTS + _KINDS] = _bursts(rows)
        logs = self._logs[changed]
        top = logs.max(axis=1)
        whole = top + np.log((self._weights * np.exp(logs - top[:, None])).sum(axis=1))
        whole[~logs.any(axis=1)] = 0.0
        whole = np.round(whole * MILLION) / MILLION
        for one, log in zip(changed.tolist(), whole.tolist(), strict=True):
            self._whole[one] = log

    def _bet(self, changed: Ints, bets: Ints) -> None:
        """Work out the streams that are bets with several alternatives, of those strata where one has moved."""
        moved = (bets != self._bets[changed]).any(axis=1)
        if not moved.any():
            return
        numbers, bets = changed[moved], bets[moved]
        self._bets[numbers] = bets
        top = np.maximum.reduceat(bets, self._starts, axis=1)
        spread = np.exp((bets - np.repeat(top, self._sizes, axis=1)) / MILLION)
        means = np.add.reduceat(spread, self._starts, axis=1) / self._sizes
        found = top / MILLION + np.log(means)
        known = np.logical_or.reduceat(bets != 0, self._starts, axis=1)
        # Until something happened in a race, all of it is still in the gambler's pocket.
        found[:, 2 : 2 + _KINDS] += _BEGUN
        found[~known] = 0.0
        self._logs[numbers, :_BURSTS] = found[:, :_BURSTS]
        self._logs[numbers, _BURSTS + _KINDS :] = found[:, _BURSTS:]

    def streams(self, stratum: int) -> tuple[float, ...]:
        """Return the ln E of each stream of a stratum, unweighted, in the order of the layout."""
        return tuple(self._logs[stratum].tolist())


def _bursts(rows: Ints) -> Floats:
    """Return the worth of late events against a bound, by row and kind."""
    expected, seen = rows[:, _EXPECTED], rows[:, _SEEN]
    micro = seen[:, :, None] * _PAID + (-_MORE * expected[:, :, None]) // 100_000
    top = micro.max(axis=2)
    means = np.exp((micro - top[:, :, None]) / MILLION).sum(axis=2) / _PAID.size
    found = top / MILLION + np.log(means)
    found[~micro.any(axis=2)] = 0.0
    whole, today = _BEGUN + found[:, :_KINDS], _DAILY + found[:, _KINDS:]
    high = np.maximum(whole, today)
    both: Floats = high + np.log(np.exp(whole - high) + np.exp(today - high))
    begun = (seen[:, :_KINDS] != 0) | (expected[:, :_KINDS] != 0)
    return np.where(begun, both, 0.0)
