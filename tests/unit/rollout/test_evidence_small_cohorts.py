"""A small fleet's soak cohort: it is of age when four fifths of it are, so that one device that is rarely there does not hold up the others."""

import pytest

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence import room
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.decide import decide
from tidegate.rollout.evidence.settings import FOUR_DAYS, PRESETS, Harm
from tidegate.rollout.evidence.strata import Profile, divide

HARM = Harm(soaks=(FOUR_DAYS,))


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


def gate(eligible: int, alive: int, dead: int, *, hazard_ppb: int = 0) -> room.Age:
    """Return what the four-day gate of a fleet says; it allows 2 %."""
    row = [0] * (at.DEAD + 3)
    row[at.EXPOSED], row[at.ALIVE], row[at.DEAD] = alive + dead, alive, dead
    return room.soak(HARM, row, eligible, hazard_ppb)[0]


@pytest.mark.parametrize(
    ("eligible", "alive", "dead", "opens"),
    [
        pytest.param(500, 39, 0, False, id="too few are of age"),
        pytest.param(500, 40, 0, True, id="four fifths are, all well"),
        pytest.param(3_500, 278, 5, True, id="no more are dead than it allows"),
        pytest.param(
            3_500, 281, 9, False, id="three in a hundred are, though by chance it might be two"
        ),
        pytest.param(3_500, 545, 30, True, id="as many again came of age: the odds decide"),
        pytest.param(300, 23, 1, True, id="one is no share"),
        pytest.param(300, 22, 2, False, id="two of so few are"),
        pytest.param(20, 1, 1, False, id="one of two"),
        pytest.param(10, 0, 1, False, id="the only one"),
    ],
)
def test_a_small_fleets_gate(eligible: int, alive: int, dead: int, *, opens: bool) -> None:
    assert gate(eligible, alive, dead).open is opens


def test_what_devices_not_updated_lose_as_well_is_no_harm() -> None:
    # Two in a hundred in four days are lost anyway.
    assert gate(3_500, 279, 11, hazard_ppb=210_000).open
    assert not gate(3_500, 270, 20, hazard_ppb=210_000).open
