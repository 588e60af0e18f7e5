"""The book: the same log gives the same digest, permits and failures in any order, and nothing of what left stays in the sums."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.rollout.evidence.baseline import Baseline
from tidegate.rollout.evidence.book import Book
from tidegate.rollout.evidence.decide import decide
from tidegate.rollout.evidence.facts import (
    Alive,
    Control,
    Credits,
    Dead,
    Fact,
    Fail,
    Isolated,
    Late,
    Ok,
    Permit,
    Rate,
    Refund,
    Score,
    Silent,
    Watch,
)
from tidegate.rollout.evidence.settings import PRESETS, Harm
from tidegate.rollout.evidence.strata import Profile, Scheme, divide
from tidegate.rollout.evidence.wealth import Wealth

PROFILES: list[Profile] = [
    (variant, region, kind, before)
    for variant in ("v1", "v2", "v3")
    for region in ("eu", "us")
    for kind in ("always", "daily")
    for before in ("1.0", "2.0")
]
SCHEME: Scheme = divide(
    {one: 90 if one[0] == "v1" else 30 for one in PROFILES},
    ("variant", "region", "class", "from"),
)
BASE = Baseline(failure_ppm={"v1": 8_000, "other": 15_000}, silence_ppm={"other": 4_000})


def empty(harm: Harm | None = None) -> Book:
    return Book(SCHEME, harm or PRESETS["normal"], BASE)


_PROFILE = st.sampled_from([*PROFILES, ("v9", "eu", "always", "0.1")])
_COUNT = st.integers(0, 40)


def fact_of(which: int, at: int, age: int, profile: Profile, count: int) -> Fact:
    """Any fact, whether it makes sense or not."""
    granted = max(0, at - age)
    risks = tuple((one, count, 7 * count) for one in SCHEME.strata_of(profile))
    made: tuple[Fact, ...] = (
        Permit(at=at, profile=profile, count=count),
        Refund(at=at, profile=profile, count=count, granted_at=granted),
        Fail(at=at, profile=profile, count=count, granted_at=granted),
        Ok(at=at, profile=profile, count=count, granted_at=granted, silence_ppm=9_000),
        Silent(at=at, profile=profile, count=count, granted_at=granted),
        Alive(at=at, profile=profile, count=count, gate=0),
        Dead(at=at, profile=profile, count=count, gate=1),
        Watch(at=at, profile=profile, count=count, kind="dark"),
        Late(at=at, profile=profile, kind="crash", updated=True, risks=risks, paid=1),
        Late(at=at, profile=profile, kind="dark", updated=False, risks=risks),
        Rate(at=at, kind="dark", expected_ppb=count),
        Score(at=at, profile=profile, count=count, window=2, sixteenths=min(16, count)),
        Control(at=at, events=count, hours=9 * count),
        Credits(at=at, parts_ppm={1: 1 + count, 2: 500_000}),
        Isolated(at=at, stratum=1 + at % (len(SCHEME.strata) - 1)),
    )
    return made[which]


def facts() -> st.SearchStrategy[Fact]:
    at = st.integers(0, 10**6)
    return st.builds(fact_of, st.integers(0, 14), at, st.integers(0, 10**6), _PROFILE, _COUNT)


@given(log=st.lists(facts(), max_size=40))
@settings(max_examples=30, deadline=None)
def test_the_same_log_gives_the_same_digest_however_often_somebody_looks(log: list[Fact]) -> None:
    once, looked = empty(), empty()
    once.fold_all(log)
    known = Wealth(looked)
    for fact in log:
        looked.fold(fact)
        decide(looked, 0, known=known)
    assert once.digest() == looked.digest()
    assert decide(once, 7) == decide(looked, 7, known=known)
    again = Book.decode(once.encode())
    assert again.digest() == once.digest()
    more = Permit(at=10**7, profile=PROFILES[0], count=3)
    again.fold(more)
    once.fold(more)
    assert again.digest() == once.digest()


@given(log=st.lists(facts(), max_size=40), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_permits_and_their_outcomes_may_come_in_any_order(log: list[Fact], seed: int) -> None:
    counted = [one for one in log if isinstance(one, Permit | Fail | Refund | Ok | Silent | Alive)]
    shuffled = list(counted)
    random.Random(seed).shuffle(shuffled)
    straight, mixed = empty(), empty()
    straight.fold_all(counted)
    mixed.fold_all(shuffled)
    assert straight.digest() == mixed.digest()


@given(log=st.lists(facts(), max_size=40), stratum=st.integers(1, len(SCHEME.strata) - 1))
@settings(max_examples=30, deadline=None)
def test_nothing_of_what_was_isolated_stays_in_the_sums(log: list[Fact], stratum: int) -> None:
    before = [one for one in log if not isinstance(one, Isolated)]
    book, rest = empty(), empty()
    book.fold_all(before)
    rest.fold_all(
        one
        for one in before
        if not SCHEME.holds(stratum, getattr(one, "profile", PROFILES[0]))
        or not hasattr(one, "profile")
    )
    book.fold(Isolated(at=10**6, stratum=stratum))
    book.settle()
    rest.settle()
    assert book.rows[0][:11] == rest.rows[0][:11]
    assert book.rows[0][12:14] == rest.rows[0][12:14]
    assert not any(book.rows[0][14:])
    assert stratum not in set(book.in_play())
    late = Fail(at=10**6 + 1, profile=PROFILES[-1], count=9, granted_at=5)
    book.fold(late)
    assert Wealth(book).of(0) == 0.0


def test_a_stratum_is_a_hundred_integers_at_most() -> None:
    for harm in PRESETS.values():
        assert all(len(row) <= 100 for row in empty(harm).rows)


def test_a_fact_of_a_stratum_that_is_not_there_changes_nothing() -> None:
    book = empty()
    before = book.rows[0][:]
    book.fold(Isolated(at=1, stratum=9_999))
    book.fold(Late(at=1, profile=PROFILES[0], kind="dark", updated=True, risks=((9_999, 3, 90),)))
    book.fold(Score(at=1, profile=PROFILES[0], metric=7, window=3, sixteenths=16))
    book.settle()
    assert book.rows[0] == before


def test_a_book_of_another_version_is_refused() -> None:
    book = empty()
    with pytest.raises(ValueError, match="not an evidence book"):
        Book.decode(book.encode().replace(b'"schema":2', b'"schema":3'))
