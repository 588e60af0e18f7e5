"""The book and its wealth by arrays hold and say what those of one stratum at a time do."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest

from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.decide import Decision
from tidegate.rollout.evidence.facts import Fact
from tidegate.rollout.evidence.pairs import _rank
from tidegate.rollout.evidence.settings import CONTROLS, PRESETS
from tidegate.rollout.evidence.wealth import Wealth
from tidegate.sim.fleet.gate import Gate, _counted, _measured, _ranks
from tidegate.sim.fleet.play import Play
from tidegate.sim.fleet.policy import View
from tidegate.sim.fleet.spec import Fault, FleetSpec, Scenario, Sites


class _Both(Gate):
    """The gate, with the book of the product beside it, which is given the same facts, and its wealth worked out at every decision."""

    looked = 0

    def begin(self, view: View) -> None:
        super().begin(view)
        book = self.watch.book
        self.beside = Book(book.scheme, book.harm, book.baseline)
        self.plain = Wealth(self.beside)
        fold = book.fold

        def both(fact: Fact) -> None:
            self.beside.fold(fact)
            fold(fact)

        book.fold = both  # type: ignore[method-assign]

    def _decide(self, now: int) -> Decision:
        decision = super()._decide(now)
        self._wealth.refresh()
        self.plain.refresh()
        everywhere = range(len(self.watch.book.rows))
        assert self._wealth.all_weighted(everywhere) == self.plain.all_weighted(everywhere)
        for stratum in everywhere:
            assert self._wealth.of(stratum) == self.plain.of(stratum)
            assert self._wealth.streams(stratum) == pytest.approx(
                self.plain.streams(stratum), abs=1e-12
            )
        assert [list(row) for row in self.watch.book.rows] == self.beside.rows
        self.looked += 1
        return decision


@pytest.mark.parametrize(
    "where", [{"variant": "v3"}, {}], ids=["a part is isolated", "all is halted"]
)
def test_every_stratum_is_worth_the_same_at_every_decision(where: Mapping[str, str]) -> None:
    fleet = FleetSpec(devices=2_000, sites=Sites(0.3, 40))
    faults = (
        Fault("boot_failure", 0.3, where),
        Fault("late_crash", 0.02, mean_h=12),
        Fault("metric_shift", 0.1),
    )
    gate = _Both(PRESETS["normal"])
    outcome = Play(Scenario("x", days=6, fleet=fleet, faults=faults), gate, "normal", 3).run()
    assert outcome.stopped_h is not None
    assert gate.looked > 5


@pytest.mark.parametrize("others", [1, 2, 4, CONTROLS])
def test_ranks_are_those_of_the_product(others: int) -> None:
    rng = np.random.default_rng(4)
    after, before = rng.integers(0, 4, (2, 300, 1 + others))
    ranks = _ranks(_measured(after, before)).tolist()
    rows = np.stack([after, before], axis=2).astype(float).tolist()
    for mine, (first, *rest) in zip(ranks, rows, strict=True):
        said = _rank(tuple(first), [tuple(one) for one in rest])
        assert mine == (said if said is not None else CONTROLS)  # all alike: a server books nothing


def test_few_are_counted_like_many() -> None:
    rng = np.random.default_rng(4)
    for size in (0, 1, 30, 300):  # few are counted without numpy
        keys = rng.integers(0, 9, size)
        assert list(_counted(keys)) == sorted(Counter(keys.tolist()).items())
