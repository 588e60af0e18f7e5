"""Stakes held back for late trouble: together they are never more than what was there at the start, and trouble that begins late is seen soon."""

import math
import random
from decimal import ROUND_CEILING, Context, Decimal
from fractions import Fraction

from tidegate.rollout.evidence import stakes
from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.facts import Late, Permit, Rate, Watch
from tidegate.rollout.evidence.settings import (
    DAY_S,
    HOUR_S,
    LATER_S,
    LATER_STAKES,
    MILLION,
    Harm,
)
from tidegate.rollout.evidence.strata import FLEET, Profile, divide
from tidegate.rollout.evidence.wealth import of_row

HERE: Profile = ("v1", "eu", "always")
CRASH, CRASH_RATE = 2, 4
_UP = Context(prec=40, rounding=ROUND_CEILING)


def factor(micro_nats: int) -> Fraction:
    """What a stake multiplies the wealth by, rounded up a little."""
    exact = _UP.exp(_UP.divide(Decimal(micro_nats), Decimal(MILLION)))
    return Fraction(exact.next_plus(context=_UP))


def test_all_stakes_together_are_no_more_than_the_whole() -> None:
    begun = factor(stakes.begun())
    assert begun * (1 + LATER_STAKES * factor(stakes.afresh())) <= 1
    assert begun + LATER_STAKES * LATER_S // DAY_S * factor(stakes.daily()) <= 1


def _book(devices: int, updated: int) -> Book:
    book = Book(divide({HERE: devices}), Harm(), Baseline())
    book.fold(Permit(at=0, profile=HERE, count=updated))
    book.fold(Watch(at=0, profile=HERE, count=updated, kind="crash"))
    return book


def _event(book: Book, now: int, updated: int, control: int, *, won: bool, count: int = 1) -> None:
    risks = ((FLEET, updated, control),)
    book.fold(
        Late(
            at=now,
            profile=HERE,
            kind="crash",
            updated=won,
            count=count,
            risks=risks,
            paid=int(won),
        )
    )


def _told(book: Book, stream: int) -> float:
    book.settle()
    return of_row(book.rows[FLEET])[stream]


def _ever(seed: int, odds: float) -> bool:
    """Run a race at the tolerated ratio, an event an hour, and say whether its odds ever came so high."""
    rng, book = random.Random(seed), _book(1_000, 300)
    for hour in range(240):
        now = hour * HOUR_S
        book.fold(Rate(at=now, kind="crash", expected_ppb=1))
        _event(book, now, 300, 700, won=rng.random() < 450 / 1150)
        if _told(book, CRASH) >= math.log(odds):
            return True
    return False


def test_a_release_at_the_tolerated_ratio_gains_no_more_often_than_the_odds_say() -> None:
    assert sum(_ever(seed, 10) for seed in range(120)) <= 12


def _quiet(days: int) -> Book:
    """Let two thousand of a hundred thousand devices do as the others do: three in a thousand crash a day."""
    book = _book(100_000, 2_000)
    for hour in range(days * 24):
        now = hour * HOUR_S
        # The bound of the rate is half as much again as what happens.
        book.fold(Rate(at=now, kind="crash", expected_ppb=187_500))
        _event(book, now, 2_000, 90_000, won=False, count=11)
        if hour % 4 == 0:
            _event(book, now, 2_000, 90_000, won=True)
    return book


def test_a_race_that_ran_well_for_days_is_lost_by_a_dozen_late_crashes() -> None:
    """Without later stakes, what was lost in seven quiet days has to be won back first: 56 crashes are needed."""
    book, crashes = _quiet(7), 0
    while _told(book, CRASH) < math.log(1_000):
        _event(book, 7 * DAY_S, 2_000, 90_000, won=True)
        crashes += 1
    assert 4 <= crashes <= 16


def test_a_rate_that_was_kept_for_weeks_is_broken_within_a_day() -> None:
    """Without a bet of the day's own it takes two days and a half."""
    book, hours, start = _quiet(14), 0, 14 * 24
    while _told(book, CRASH_RATE) < math.log(1_000):
        now = (start + hours) * HOUR_S
        book.fold(Rate(at=now, kind="crash", expected_ppb=187_500))
        _event(book, now, 2_000, 90_000, won=True)
        _event(book, now, 2_000, 90_000, won=True)
        hours += 1
        assert hours <= 48
    assert hours <= 16


def test_stakes_come_to_an_end_and_keep_their_hours() -> None:
    book = _book(1_000, 300)
    for hour in range(24 * 80):
        book.fold(Rate(at=hour * HOUR_S, kind="crash", expected_ppb=1))
    assert book.laid[0] == LATER_STAKES
    again = Book.decode(book.encode())
    assert again.laid == book.laid
    assert again.digest() == book.digest()
