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
    parts = [failure, rows[:, at.SILENCE : at.SILENCE + len(DELTAS_PPM)]]
    parts += [_part(rows, at.RACE + kind * len(THETAS_PCT), len(THETAS_PCT)) for kind in (0, 1)]
    for kind in (0, 1):
        seen, expected = rows[:, at.SEEN + kind, None], rows[:, at.EXPECTED + kind, None]
        parts.append(seen * _PAID + (-_MORE * expected) // 100_000)
    metrics = range(at.METRIC, rows.shape[1], len(LAMBDAS_PCT))
    parts += [_part(rows, first, len(LAMBDAS_PCT)) for first in metrics]
    return np.stack([_mean(part) for part in parts], axis=1)


def _part(rows: Ints, first: int, count: int) -> Ints:
    return rows[:, first : first + count]


def _mean(micro: Ints) -> Floats:
    """Return the logarithms of the means of wealths, given as micro-nats."""
    top = micro.max(axis=1)
    total = np.exp((micro - top[:, None]) / MILLION).sum(axis=1)
    found: Floats = top / MILLION + np.log(total / micro.shape[1])
    found[~micro.any(axis=1)] = 0.0
    return found
