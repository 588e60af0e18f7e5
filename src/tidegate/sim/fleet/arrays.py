"""The wealth of every stratum at once, with numpy: what `rollout.evidence.wealth` says one stratum at a time.

A simulated month is some thousands of decisions on up to two hundred strata, and most of its time went into their logarithms. Nothing is decided
here, and the figures are those of `Wealth`: both round what is compared with a limit to micro-nats.
"""

from typing import Final

import numpy as np

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence import stakes
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.settings import (
    DELTAS_PPM,
    LAMBDAS_PCT,
    MILLION,
    RATES_PCT,
    THETAS_PCT,
)
from tidegate.rollout.evidence.wealth import Wealth
from tidegate.sim.fleet.population import Floats, Ints

_CHARGES: Final = np.array(stakes.charge(), np.int64)
_PAID: Final = np.array(stakes.burst(), np.int64)
_MORE: Final = np.array(RATES_PCT, np.int64) - 100
_BEGUN: Final = stakes.begun() / MILLION
_DAILY: Final = stakes.daily() / MILLION


class ArrayWealth(Wealth):
    """Drop-in for `Wealth` that works out all changed strata in one go."""

    def __init__(self, book: Book) -> None:
        super().__init__(book)
        self._versions = np.full(len(book.rows), -1)
        self._weights = np.array(book.layout.weights)
        self._logs = np.zeros((len(book.rows), self._weights.size))

    def refresh(self) -> None:
        """Look again at the strata that changed."""
        book = self.book
        book.settle()
        versions = np.array(book.versions)
        changed = np.flatnonzero(versions != self._versions)
        if not changed.size:
            return
        self._versions = versions
        numbers = changed.tolist()
        logs = self._logs[changed] = _streams(np.array([book.rows[one] for one in numbers]))
        top = logs.max(axis=1)
        whole = top + np.log((self._weights * np.exp(logs - top[:, None])).sum(axis=1))
        whole[~logs.any(axis=1)] = 0.0
        whole = np.round(whole * MILLION) / MILLION
        for one, log in zip(numbers, whole.tolist(), strict=True):
            self._whole[one] = log

    def streams(self, stratum: int) -> tuple[float, ...]:
        """Return the ln E of each stream of a stratum, unweighted, in the order of the layout."""
        return tuple(self._logs[stratum].tolist())


def _streams(rows: Ints) -> Floats:
    """Return the ln E of every stream, a row for each row."""
    failure = rows[:, at.FAILURE : at.SILENCE] + rows[:, at.CHARGED, None] * _CHARGES
    found = [_mean(failure), _mean(_part(rows, at.SILENCE, len(DELTAS_PPM)))]
    for kind in (0, 1):
        race = _part(rows, at.RACE + kind * len(THETAS_PCT), len(THETAS_PCT))
        found.append(np.where(race.any(axis=1), _mean(race) + _BEGUN, 0.0))
    for kind in (0, 1):
        whole = _BEGUN + _against(rows[:, at.SEEN + kind], rows[:, at.EXPECTED + kind])
        seen, expected = rows[:, at.SEEN_TODAY + kind], rows[:, at.EXPECTED_TODAY + kind]
        today = _DAILY + _against(seen, expected)
        top = np.maximum(whole, today)
        both = top + np.log(np.exp(whole - top) + np.exp(today - top))
        known = (rows[:, at.SEEN + kind] != 0) | (rows[:, at.EXPECTED + kind] != 0)
        found.append(np.where(known, both, 0.0))
    metrics = range(at.METRIC, rows.shape[1], len(LAMBDAS_PCT))
    found += [_mean(_part(rows, first, len(LAMBDAS_PCT))) for first in metrics]
    return np.stack(found, axis=1)


def _against(seen: Ints, expected: Ints) -> Floats:
    """Return the worth of late events against a bound."""
    return _mean(seen[:, None] * _PAID + (-_MORE * expected[:, None]) // 100_000)


def _part(rows: Ints, first: int, count: int) -> Ints:
    return rows[:, first : first + count]


def _mean(micro: Ints) -> Floats:
    """Return the logarithms of the means of wealths, given as micro-nats."""
    top = micro.max(axis=1)
    total = np.exp((micro - top[:, None]) / MILLION).sum(axis=1)
    found: Floats = top / MILLION + np.log(total / micro.shape[1])
    found[~micro.any(axis=1)] = 0.0
    return found
