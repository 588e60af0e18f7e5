"""Odds against a release: what a gambler has made of one who bets, fact by fact and at fair odds, that it is worse than allowed.

Each stream is such a wealth, and so is any mixture of them by weights that were fixed before: over alternatives (how bad it might be), over streams, over
strata. While the release is within its limits the mixture reaches 1000 with probability at most 1/1000, however often one looks.

Logarithms are natural ones. What is compared with a limit is rounded to micro-nats first, so that the last bits of a platform's `exp` decide nothing.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence import stakes
from tidegate.rollout.evidence.book import Book, Row
from tidegate.rollout.evidence.settings import (
    DELTAS_PPM,
    LAMBDAS_PCT,
    MILLION,
    RATES_PCT,
    THETAS_PCT,
)

_DELTAS: Final = len(DELTAS_PPM)
_THETAS: Final = len(THETAS_PCT)
_LAMBDAS: Final = len(LAMBDAS_PCT)


class Wealth:
    """The wealth of each stratum of a book, kept until the stratum changes."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self._streams: list[tuple[float, ...]] = [()] * len(book.rows)
        self._whole: list[float] = [0.0] * len(book.rows)
        self._seen: list[int] = [-1] * len(book.rows)
        self._rows: list[Row] = [[] for _ in book.rows]

    def refresh(self) -> None:
        """Look again at the strata that changed."""
        book = self.book
        book.settle()
        for stratum, version in enumerate(book.versions):
            if self._seen[stratum] == version:
                continue
            self._seen[stratum] = version
            row = book.rows[stratum]
            streams = of_row(row, self._rows[stratum], self._streams[stratum])
            self._rows[stratum] = row.copy()
            self._streams[stratum] = streams
            self._whole[stratum] = mixed(streams, book.layout.weights)

    def streams(self, stratum: int) -> tuple[float, ...]:
        """Return the ln E of each stream of a stratum, unweighted, in the order of the layout."""
        return self._streams[stratum]

    def of(self, stratum: int) -> float:
        """Return the ln E of a stratum, all streams together."""
        return self._whole[stratum]

    def all_weighted(self, strata: Iterable[int]) -> dict[int, float]:
        """Return ln(w · E) of strata, in their order; -inf of one that has no weight."""
        whole, weights = self._whole, self.book.scheme.log_weights
        return {one: whole[one] + weights[one] for one in strata}


def of_row(
    row: Sequence[int], before: Sequence[int] = (), known: Sequence[float] = ()
) -> tuple[float, ...]:
    """Return the ln E of every stream of a row.

    Args:
        row: of a book.
        before: the same row earlier, and `known` what this function said of it: streams that have not changed since are not worked out again.
        known: see `before`.
    """
    found = []
    for number, (first, last, beside) in enumerate(_segments(len(row))):
        seen = row[first:last]
        if before and before[first:last] == seen and before[beside] == row[beside]:
            found.append(known[number])
        elif number == 0:
            charged, lost = row[beside], stakes.charge()
            found.append(mean([one + charged * each for one, each in zip(seen, lost, strict=True)]))
        elif number in _RACES:
            found.append(mean(seen) + _BEGUN if any(seen) else 0.0)
        elif number in _BURSTS:
            found.append(_burst(row, number - _BURSTS.start))
        else:
            found.append(mean(seen))
    return tuple(found)


#: Races of late events; until something happened in one, all of it is still in the gambler's pocket.
_RACES: Final = range(2, 4)
_BEGUN: Final = stakes.begun() / MILLION
_DAILY: Final = stakes.daily() / MILLION
#: Streams that are weighed against the fleet's own rate.
_BURSTS: Final = range(4, 6)


@lru_cache(maxsize=64)
def _segments(width: int) -> tuple[tuple[int, int, int], ...]:
    """Return where the numbers of each stream stand in a row, in the order of the layout, and one more that the stream depends on."""
    races = [(one, one + _THETAS, one) for one in (at.RACE, at.RACE + _THETAS)]
    bursts = [(at.EXPECTED, at.FAILURE, at.EXPECTED)] * 2
    metrics = [(one, one + _LAMBDAS, one) for one in range(at.METRIC, width, _LAMBDAS)]
    failure = (at.FAILURE, at.SILENCE, at.CHARGED)
    return (failure, (at.SILENCE, at.RACE, at.SILENCE), *races, *bursts, *metrics)


def _burst(row: Sequence[int], kind: int) -> float:
    """Late events against the bound of the fleet's own hazard, since the start and since the day began; expected ones are rounded up."""
    expected, seen = row[at.EXPECTED + kind], row[at.SEEN + kind]
    if not expected and not seen:
        return 0.0
    whole = _BEGUN + _against(seen, expected)
    today = _DAILY + _against(row[at.SEEN_TODAY + kind], row[at.EXPECTED_TODAY + kind])
    top = max(whole, today)
    return top + math.log(math.exp(whole - top) + math.exp(today - top))


def _against(seen: int, expected: int) -> float:
    paid = stakes.burst()
    # 10⁻⁹ events x per cent / 100 in micro-nats: divided by 10⁵, rounded down as it is negative.
    return mean(
        [
            seen * paid[one] + (-(rate - 100) * expected) // 100_000
            for one, rate in enumerate(RATES_PCT)
        ]
    )


def mean(micro: Sequence[int]) -> float:
    """Return the logarithm of the mean of wealths, given as micro-nats."""
    top = max(micro)
    if top == 0 and not any(micro):
        return 0.0
    total = 0.0
    for one in micro:
        total += math.exp((one - top) / MILLION)
    return top / MILLION + math.log(total / len(micro))


def mixed(logs: Sequence[float], weights: Sequence[float]) -> float:
    """Return the logarithm of the weighted mean of wealths, rounded to micro-nats."""
    top = max(logs)
    if top == 0.0 and not any(logs):
        return 0.0
    total = 0.0
    for one, weight in zip(logs, weights, strict=True):
        total += weight * math.exp(one - top)
    return rounded(top + math.log(total))


def total(logs: Iterable[float]) -> float:
    """Return the logarithm of a sum of weighted wealths, rounded to micro-nats; -inf of nothing."""
    known = [one for one in logs if one > -math.inf]
    if not known:
        return -math.inf
    top = max(known)
    return rounded(top + math.log(math.fsum([math.exp(one - top) for one in known])))


def rounded(log: float) -> float:
    """Return a logarithm in whole micro-nats."""
    return round(log * MILLION) / MILLION if math.isfinite(log) else log


def without(book: Book, stratum: int) -> Row:
    """Return the fleet's sums less those of a stratum: what the rest looks like. It decides whether others are well, not whether there is harm."""
    return [all_ - part for all_, part in zip(book.rows[0], book.rows[stratum], strict=True)]
