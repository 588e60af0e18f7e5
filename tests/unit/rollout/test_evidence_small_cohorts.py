"""A small fleet's soak cohort: it is of age when four fifths of it are, so that one device that is rarely there does not hold up the others."""

import pytest

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.decide import decide
from tidegate.rollout.evidence.settings import PRESETS
from tidegate.rollout.evidence.strata import Profile, divide


@pytest.mark.parametrize(("of_age", "opened"), [(32, False), (33, True), (40, True)])
def test_a_gate_opens_when_four_fifths_of_a_tenth_are_of_age(of_age: int, *, opened: bool) -> None:
    census: dict[Profile, int] = {("v1", "eu", "always"): 407}
    book = Book(divide(census), PRESETS["normal"], Baseline(failure_ppm={"other": 10_000}))
    for row in (book.rows[0], book.rows[book.scheme.variants["v1"]]):
        for where, count in ((at.EXPOSED, 41), (at.HEALTHY, 41), (at.ALIVE, of_age)):
            row[where] = count
    day, four_days = decide(book, 0).ages
    assert day.open is opened
    assert not four_days.open


@pytest.mark.parametrize(
    ("of_age", "dead", "opened"),
    [
        (33, 0, True),
        (32, 1, True),
        (30, 3, False),
        (25, 8, False),
        (57, 8, False),
        (58, 8, True),
    ],
)
def test_a_cohort_of_which_many_died_opens_nothing_until_another_is_of_age(
    of_age: int, dead: int, *, opened: bool
) -> None:
    census: dict[Profile, int] = {("v1", "eu", "always"): 407}
    book = Book(divide(census), PRESETS["normal"], Baseline(failure_ppm={"other": 10_000}))
    for row in (book.rows[0], book.rows[book.scheme.variants["v1"]]):
        row[at.EXPOSED] = row[at.HEALTHY] = of_age + dead
        row[at.ALIVE], row[at.DEAD] = of_age, dead
    assert decide(book, 0).ages[0].open is opened
