"""How fast devices are added after the soak: by half of those proved healthy beyond a tenth of the fleet, and by the day while the odds are against it."""

import math

import msgspec
import pytest

from tidegate.rollout.evidence import layout as at
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.decide import decide
from tidegate.rollout.evidence.settings import HOUR_S, MILLION, PRESETS, THETAS_PCT, Harm
from tidegate.rollout.evidence.strata import Profile, divide

CENSUS: dict[Profile, int] = {("v1", "eu", "always"): 20_000}


def _book(out: int, odds: float = 0.5, harm: Harm = PRESETS["normal"]) -> Book:
    """Return the book of a rollout whose devices out are all old and well, but for crashes that put the odds where they are."""
    book = Book(divide(CENSUS), harm, Baseline(failure_ppm={"other": 10_000}))
    for one in (0, book.scheme.variants["v1"]):
        row = book.rows[one]
        row[at.EXPOSED] = row[at.HEALTHY] = out
        for gate in range(len(harm.soaks)):
            row[at.ALIVE + gate] = out
    whole = sum(book.layout.weights)
    share = book.layout.weights[book.layout.streams.index("crash")] / whole
    won = round(math.log((odds - (1 - share)) / share) * MILLION) if odds > 1 else -MILLION
    book.rows[0][at.RACE : at.RACE + len(THETAS_PCT)] = [won] * len(THETAS_PCT)
    return book


def _day(book: Book) -> int:
    """Return how many get a permit in a day of decisions at which nobody answers."""
    given = 0
    for tick in range(96):
        decision = decide(book, tick * 900)
        given += decision.permits["v1"]
        book.fold_all(decision.carried)
    return given


@pytest.mark.parametrize(("out", "more"), [(2_000, 3_000), (2_001, 1_000)])
def test_once_a_tenth_is_updated_half_as_many_as_are_well_may_be_out(out: int, more: int) -> None:
    assert decide(_book(out), 0).permits["v1"] == more


@pytest.mark.parametrize("odds", [1.2, 2.0, 10.0])
@pytest.mark.parametrize("out", [600, 2_000, 8_000])
def test_while_the_odds_are_against_it_a_quarter_more_is_added_a_day(out: int, odds: float) -> None:
    assert _day(_book(out, odds)) == pytest.approx(out / 4, rel=0.01)
    decision = decide(_book(out, odds), 0)
    assert decision.amber > 0
    assert "25 % more devices a day" in decision.limits


def test_careful_adds_a_tenth_a_day() -> None:
    book = _book(8_000, 2.0, msgspec.structs.replace(PRESETS["careful"], soaks=()))
    assert _day(book) == pytest.approx(800, rel=0.01)


def test_where_amber_leaves_less_than_that_amber_says_how_many() -> None:
    assert _day(_book(2_000, 500.0)) == 24  # one an hour


def test_an_emergency_goes_on_until_amber() -> None:
    decision = decide(_book(600, 2.0, PRESETS["emergency"]), 0)
    assert decision.permits["v1"] > 600


def test_the_first_of_a_variant_do_not_wait_for_a_quarter_of_none() -> None:
    """One an hour at least, whatever is out."""
    book = _book(0, 1.5, msgspec.structs.replace(PRESETS["normal"], soaks=()))
    given = 0
    for _ in range(8):
        decision = decide(book, 0, since_s=HOUR_S // 2)
        given += decision.permits["v1"]
        book.fold_all(decision.carried)
    assert given == 4
